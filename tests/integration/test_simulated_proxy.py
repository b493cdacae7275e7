"""The simulated proxy shows Auth to those who ask for it by ALPN and a web server to everybody else, over real TLS."""

import asyncio
import json
import ssl
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc import StatusCode, aio

from services.watcher.teleport.pb.auth_pb2_grpc import AuthServiceStub
from simulators.certificates import ClusterAuthority
from simulators.proxy import Proxy
from simulators.teleport import AuthService
from tests.integration.teleport_client import PING, client, refusal
from tests.waiting import wait_until

AUTHORITY = ClusterAuthority.create("teleport.example.com")

AUTH_PROTOCOL = f"teleport-auth@{b'teleport.example.com'.hex()}.teleport.cluster.local"

HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
"""What an HTTP/2 client says first (RFC 9113, 3.4): the preface and empty SETTINGS."""

SETTINGS_FRAME = 4


@pytest.fixture
async def auth() -> AsyncIterator[AuthService]:
    async with AuthService(AUTHORITY) as service:
        yield service


@pytest.fixture
async def proxy(auth: AuthService) -> AsyncIterator[Proxy]:
    async with Proxy(AUTHORITY, auth.address) as proxy:
        yield proxy


def auth_tls(folder: Path, protocols: Sequence[str]) -> ssl.SSLContext:
    """TLS as a bot of the cluster speaks it to Auth, offering these protocols."""
    trio = AUTHORITY.identity("access-mail").write_trio(folder)
    context = ssl.create_default_context(cafile=trio.root_cas)
    context.load_cert_chain(trio.client_crt, trio.client_key)
    context.set_alpn_protocols(protocols)
    return context


async def connect_to_auth(
    proxy: Proxy, folder: Path, protocols: Sequence[str] = (AUTH_PROTOCOL, "h2")
) -> tuple[StreamReader, StreamWriter]:
    """Open a TLS connection through the proxy that only the Auth Service can answer."""
    context = auth_tls(folder, protocols)
    return await asyncio.open_connection("127.0.0.1", proxy.port, ssl=context, server_hostname="teleport.cluster.local")


async def frame_type(reader: StreamReader) -> int:
    """Type of the next HTTP/2 frame, which is read to its end."""
    header = await reader.readexactly(9)
    await reader.readexactly(int.from_bytes(header[:3], "big"))
    return header[3]


async def get(proxy: Proxy, path: str) -> tuple[int, Any]:
    """Status and JSON of a page of the proxy's web server."""
    context = ssl.create_default_context(cadata=AUTHORITY.web_ca.pem.decode())
    reader, writer = await asyncio.open_connection("localhost", proxy.port, ssl=context)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: {proxy.address}\r\n\r\n".encode())
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    await writer.wait_closed()
    return int(head.split()[1]), json.loads(body)


async def test_who_asks_for_auth_by_alpn_speaks_mutual_tls_with_auth(proxy: Proxy, tmp_path: Path) -> None:
    reader, writer = await connect_to_auth(proxy, tmp_path)
    tls = writer.get_extra_info("ssl_object")
    assert tls.selected_alpn_protocol() == "h2"
    assert ("DNS", "*.teleport.cluster.local") in tls.getpeercert()["subjectAltName"]
    writer.write(HTTP2_PREFACE)
    assert await frame_type(reader) == SETTINGS_FRAME
    writer.transport.abort()


async def test_a_grpc_client_that_offers_h2_alone_does_not_reach_auth(proxy: Proxy) -> None:
    async with client(AUTHORITY.identity("access-mail"), f"127.0.0.1:{proxy.port}") as stub:
        assert await refusal(stub.Ping(PING)) is StatusCode.UNAVAILABLE
    credentials = grpc.ssl_channel_credentials(AUTHORITY.web_ca.pem)
    async with aio.secure_channel(proxy.address, credentials) as channel:
        assert await refusal(AuthServiceStub(channel).Ping(PING)) is StatusCode.UNAVAILABLE


async def test_a_wrong_cluster_name_is_a_closed_connection(proxy: Proxy, tmp_path: Path) -> None:
    wrong = f"teleport-auth@{b'other.example.com'.hex()}.teleport.cluster.local"
    with pytest.raises((ConnectionError, ssl.SSLError)):
        await connect_to_auth(proxy, tmp_path, [wrong, "h2"])


async def test_who_offers_only_strange_protocols_is_refused(proxy: Proxy) -> None:
    context = ssl.create_default_context(cadata=AUTHORITY.web_ca.pem.decode())
    context.set_alpn_protocols(["teleport-strange"])
    with pytest.raises(ssl.SSLError, match="alert no application protocol"):
        await asyncio.open_connection("localhost", proxy.port, ssl=context)


@pytest.mark.parametrize("greeting", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01"])
async def test_what_is_not_tls_is_a_closed_connection(proxy: Proxy, greeting: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    writer.write(greeting)
    writer.write_eof()
    assert await reader.read() == b""
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize("path", ["/webapi/find", "/webapi/ping", "/webapi/ping?x=1"])
async def test_discovery_tells_the_cluster_and_how_to_reach_it(proxy: Proxy, path: str) -> None:
    status, answer = await get(proxy, path)
    assert status == 200
    assert answer["cluster_name"] == "teleport.example.com"
    assert answer["proxy"]["tls_routing_enabled"] is True
    assert answer["proxy"]["ssh"]["public_addr"] == proxy.address


async def test_discovery_can_be_changed(proxy: Proxy) -> None:
    proxy.find["proxy"]["tls_routing_enabled"] = False
    assert (await get(proxy, "/webapi/find"))[1]["proxy"]["tls_routing_enabled"] is False


async def test_every_other_page_is_not_found(proxy: Proxy) -> None:
    status, answer = await get(proxy, "/webapi/connectionupgrade")
    assert status == 404
    assert "not found" in answer["error"]["message"]


async def test_a_silent_tunnel_carries_nothing_and_stays_open_while_new_ones_work(proxy: Proxy, tmp_path: Path) -> None:
    reader, writer = await connect_to_auth(proxy, tmp_path)
    proxy.silence()
    writer.write(HTTP2_PREFACE)
    assert (await get(proxy, "/webapi/find"))[0] == 200
    other_reader, other_writer = await connect_to_auth(proxy, tmp_path)
    other_writer.write(HTTP2_PREFACE)
    assert await frame_type(other_reader) == SETTINGS_FRAME
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.read(1), 0.2)
    assert not reader.at_eof()
    for each in (writer, other_writer):
        each.transport.abort()


async def test_a_cut_tunnel_is_closed_and_new_ones_work(proxy: Proxy, tmp_path: Path) -> None:
    reader, writer = await connect_to_auth(proxy, tmp_path)
    writer.write(HTTP2_PREFACE)
    await frame_type(reader)
    assert proxy.tunnels == 1
    proxy.cut()
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await reader.readexactly(1_000_000)
    await wait_until(lambda: proxy.tunnels == 0, "the tunnel is gone")
    assert (await get(proxy, "/webapi/find"))[0] == 200


async def test_a_client_that_leaves_ends_its_tunnel(proxy: Proxy, tmp_path: Path) -> None:
    _, writer = await connect_to_auth(proxy, tmp_path)
    assert proxy.tunnels == 1
    writer.transport.abort()
    await wait_until(lambda: proxy.tunnels == 0, "the tunnel is gone")


async def test_auth_out_of_order_is_a_closed_connection(auth: AuthService, proxy: Proxy, tmp_path: Path) -> None:
    await auth.stop()
    with pytest.raises((ConnectionError, ssl.SSLError)):
        await connect_to_auth(proxy, tmp_path)
    assert (await get(proxy, "/webapi/find"))[0] == 200
    await auth.start()
