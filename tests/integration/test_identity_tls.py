"""Every kind of key proves who we are, and any of the identity's CAs may vouch for the Auth Service."""

import asyncio
import socket
import ssl
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from services.watcher.teleport.connect import connect
from services.watcher.teleport.dial import Route
from services.watcher.teleport.errors import TeleportRefused
from services.watcher.teleport.identity import Identity
from services.watcher.teleport.tunnel import Tunnel
from shared.settings import TeleportSettings
from simulators.certificates import ClusterAuthority, PrivateKey
from simulators.teleport import AuthService

AUTHORITY = ClusterAuthority.create("teleport.example.com")
ROTATED = ClusterAuthority.create("teleport.example.com")

KEYS: dict[str, PrivateKey] = {
    "rsa": rsa.generate_private_key(65537, 2048),
    "ecdsa": ec.generate_private_key(ec.SECP256R1()),
    "ed25519": ed25519.Ed25519PrivateKey.generate(),
}


def meet_one(listener: socket.socket, context: ssl.SSLContext) -> str:
    """Shake hands with one client; its name."""
    connection, _ = listener.accept()
    with connection, context.wrap_socket(connection, server_side=True) as tls:
        tls.recv(1)  # with TLS 1.3 the client's certificate comes after our side is done
        subject = tls.getpeercert()["subject"]  # type: ignore[index]  # it is there: it was required
    return str(dict(pair for names in subject for pair in names)["commonName"])  # type: ignore[misc]  # as ssl has it


@pytest.mark.parametrize("kind", KEYS)
async def test_a_key_of_any_kind_proves_who_we_are(tmp_path: Path, kind: str) -> None:
    path = AUTHORITY.identity("access-mail", key=KEYS[kind]).write_file(tmp_path / "identity")
    host = AUTHORITY.host_certificate()
    (tmp_path / "host.pem").write_bytes(host.key + host.certificate)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "host.pem")
    context.load_verify_locations(cadata=AUTHORITY.user_ca.pem.decode())
    context.verify_mode = ssl.CERT_REQUIRED
    context.set_alpn_protocols(["h2"])
    with socket.create_server(("127.0.0.1", 0)) as listener:
        route = Route("direct", "127.0.0.1", listener.getsockname()[1], ("h2",))
        meeting = asyncio.create_task(asyncio.to_thread(meet_one, listener, context))
        tunnel = await Tunnel.open(route, Identity.load(TeleportSettings(identity=path)))
        _, near = await asyncio.open_unix_connection(tunnel.socket)
        near.write(b"x")
        assert await meeting == "access-mail"
        near.close()
        await tunnel.close()


async def test_one_of_several_cas_is_enough(tmp_path: Path) -> None:
    """As after a rotation of the host CA, when the identity names the old and the new one."""
    both = replace(
        AUTHORITY.identity("access-mail"), host_authority=ROTATED.host_ca.pem + AUTHORITY.host_ca.pem
    ).write_file(tmp_path / "both")
    only_new = replace(AUTHORITY.identity("access-mail"), host_authority=ROTATED.host_ca.pem)
    async with AuthService(AUTHORITY) as auth:
        connection = await connect(auth.address, Identity.load(TeleportSettings(identity=both)))
        await connection.client.close()
        with pytest.raises(TeleportRefused, match="not of the identity's cluster"):
            await connect(auth.address, Identity.load(TeleportSettings(identity=only_new.write_file(tmp_path / "new"))))
