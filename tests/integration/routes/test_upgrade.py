"""Where a load balancer ends TLS and strips ALPN, Teleport's connection upgrade leads past it."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path

import pytest

from services.watcher.teleport.connect import connect
from services.watcher.teleport.errors import TeleportRefused, TeleportUnavailable
from services.watcher.teleport.identity import Identity
from shared.events import AccessRequest
from shared.settings import TeleportSettings
from simulators.certificates import ClusterAuthority
from simulators.load_balancer import LoadBalancer
from simulators.proxy import NO_APPLICATION_PROTOCOL, Proxy, read_hello
from simulators.proxy_web import tls_context
from simulators.teleport import AuthService
from simulators.tunnel import End, Tunnel
from tests.integration.watching import AUTHORITY
from tests.waiting import wait_until

STRANGER = ClusterAuthority.create("teleport.example.com")

UPGRADE = "through a proxy (connection upgrade)"
ROUTING = "through a proxy (TLS routing)"


@pytest.mark.usefixtures("trusted_web")
async def test_where_a_load_balancer_strips_alpn_the_connection_is_upgraded(
    auth: AuthService, proxy: Proxy, balancer: LoadBalancer, identity: Identity
) -> None:
    connection = await connect(balancer.address, identity)
    async with connection.client as client, client.watch() as events:
        assert connection.route.name == UPGRADE
        assert proxy.upgrades == 1
        # More than one frame, more than one buffer.
        for _ in range(20):
            auth.create_request(reason="x" * 100_000)
        told = [await anext(events) for _ in range(20)]
        assert all(isinstance(event, AccessRequest) for event in told)


@pytest.mark.usefixtures("trusted_web")
async def test_a_proxy_that_routes_on_alpn_is_not_asked_for_an_upgrade(proxy: Proxy, identity: Identity) -> None:
    connection = await connect(proxy.address, identity)
    async with connection.client:
        assert connection.route.name == ROUTING
        assert proxy.upgrades == 0


@pytest.mark.usefixtures("trusted_web")
async def test_where_there_is_neither_each_route_is_named_with_its_reason(
    proxy: Proxy, balancer: LoadBalancer, identity: Identity
) -> None:
    proxy.withdraw_upgrade()
    with pytest.raises(TeleportRefused) as caught:
        await connect(balancer.address, identity)
    assert str(caught.value) == (
        f"no route leads to {balancer.address}: {ROUTING}: the server's certificate is not of the identity's cluster"
        f" (unable to get local issuer certificate); {UPGRADE}: the server offers no connection upgrade (HTTP 404)"
    )


@pytest.mark.usefixtures("trusted_web")
async def test_a_load_balancer_with_nobody_behind_may_have_somebody_in_a_moment(
    balancer: LoadBalancer, proxy: Proxy, identity: Identity
) -> None:
    await proxy.stop()
    with pytest.raises(TeleportUnavailable, match=rf"{re.escape(UPGRADE)}: the server is not able to \(HTTP 503\)"):
        await connect(balancer.address, identity)
    await proxy.start()
    connection = await connect(balancer.address, identity)
    await connection.client.close()


async def test_who_knows_no_http_is_told_from_who_offers_no_upgrade(identity: Identity) -> None:
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"220 mail.example.com ESMTP\r\n")
        writer.close()

    context = tls_context(AUTHORITY.web_certificate(), [])
    server = await asyncio.start_server(speak, "127.0.0.1", 0, ssl=context)
    async with server:
        host, port = server.sockets[0].getsockname()
        trusted = replace(identity, authorities=identity.authorities + AUTHORITY.web_ca.pem)
        with pytest.raises(TeleportRefused, match="does not answer the connection upgrade as it should"):
            await connect(f"{host}:{port}", trusted)


async def test_a_web_certificate_that_this_host_does_not_know_is_named_as_such(
    balancer: LoadBalancer, identity: Identity
) -> None:
    with pytest.raises(TeleportRefused) as caught:
        await connect(balancer.address, identity)
    assert f"{UPGRADE}: this host does not trust the web certificate" in str(caught.value)
    assert "SSL_CERT_FILE" in str(caught.value)


@pytest.mark.usefixtures("trusted_web")
async def test_an_upgraded_connection_still_insists_on_the_identitys_cluster(
    balancer: LoadBalancer, tmp_path: Path
) -> None:
    path = STRANGER.identity("access-mail").write_file(tmp_path / "strange")
    with pytest.raises(TeleportRefused, match=r"upgrade.*not of the identity's cluster"):
        await connect(balancer.address, Identity.load(TeleportSettings(identity=path)))


@pytest.mark.usefixtures("trusted_web")
async def test_the_end_of_an_upgraded_connection_is_noticed(balancer: LoadBalancer, identity: Identity) -> None:
    connection = await connect(balancer.address, identity)
    async with connection.client as client, client.watch() as events:
        balancer.cut()
        with pytest.raises(TeleportUnavailable):
            await anext(events)


@pytest.mark.usefixtures("trusted_web")
async def test_every_ping_of_the_proxy_is_answered(
    auth: AuthService, proxy: Proxy, balancer: LoadBalancer, identity: Identity
) -> None:
    connection = await connect(balancer.address, identity)
    async with connection.client as client, client.watch() as events:
        auth.create_request(reason="x" * 100_000)
        assert isinstance(await anext(events), AccessRequest)
        await wait_until(lambda: not proxy.heartbeat.unanswered, "the last one is answered, though nothing is asked")
        assert proxy.heartbeat.pings > 0


@pytest.mark.usefixtures("trusted_web")
async def test_a_load_balancer_that_chooses_http2_itself_is_passed_by_an_upgrade(
    proxy: Proxy, identity: Identity
) -> None:
    async with LoadBalancer(AUTHORITY, proxy.port, ["h2", "http/1.1"]) as balancer:
        connection = await connect(balancer.address, identity)
        await connection.client.close()
    assert connection.route.name == UPGRADE
    assert proxy.upgrades == 1


@asynccontextmanager
async def strict(balancer: LoadBalancer) -> AsyncIterator[str]:
    """Where the load balancer is reached by those who offer HTTP/1.1, or no protocol by name; others get an alert."""

    async def visit(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer):
            hello, protocols = await read_hello(reader)
            if protocols and b"http/1.1" not in protocols:
                refused.append(protocols)
                writer.write(NO_APPLICATION_PROTOCOL)
                return
            behind = End(*await asyncio.open_connection(*balancer.address.split(":")))
            with closing(behind.writer):
                behind.writer.write(hello)
                await Tunnel(End(reader, writer), behind).carry()

    refused: list[list[bytes]] = []
    server = await asyncio.start_server(visit, "127.0.0.1", 0)
    async with server:
        yield f"localhost:{server.sockets[0].getsockname()[1]}"
    assert refused, "its alert was met"


@pytest.mark.usefixtures("trusted_web")
async def test_a_load_balancer_that_knows_no_such_protocol_is_passed_by_an_upgrade(
    proxy: Proxy, balancer: LoadBalancer, identity: Identity
) -> None:
    async with strict(balancer) as address:
        connection = await connect(address, identity)
        await connection.client.close()
    assert connection.route.name == UPGRADE
    assert proxy.upgrades == 1
