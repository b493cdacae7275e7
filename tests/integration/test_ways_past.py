"""What stands between this host and Teleport is got past: load balancers that strip ALPN, and HTTP proxies."""

import asyncio
import logging
import os
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from services.watcher.teleport.client import TeleportRefused, TeleportUnavailable
from services.watcher.teleport.connect import connect
from services.watcher.teleport.identity import Identity
from shared.events import AccessRequest
from shared.settings import TeleportSettings
from simulators.certificates import ClusterAuthority
from simulators.http_proxy import HttpProxy
from simulators.load_balancer import LoadBalancer
from simulators.proxy import Proxy
from simulators.proxy_web import tls_context
from simulators.teleport import AuthService

AUTHORITY = ClusterAuthority.create("teleport.example.com")
STRANGER = ClusterAuthority.create("teleport.example.com")

UPGRADE = "through a proxy (connection upgrade)"
ROUTING = "through a proxy (TLS routing)"

NAME = "teleport.example.com:443"
"""An address that only the HTTP proxy can find."""

PASSWORD = "pass word/@:1"
ENCODED = "pass%20word%2F%40%3A1"


@pytest.fixture
async def auth() -> AsyncIterator[AuthService]:
    async with AuthService(AUTHORITY) as service:
        yield service


@pytest.fixture
async def proxy(auth: AuthService) -> AsyncIterator[Proxy]:
    async with Proxy(AUTHORITY, auth.address) as service:
        yield service


@pytest.fixture
async def balancer(proxy: Proxy) -> AsyncIterator[LoadBalancer]:
    async with LoadBalancer(AUTHORITY, proxy.port) as service:
        yield service


@pytest.fixture
def identity(tmp_path: Path) -> Identity:
    return Identity.load(TeleportSettings(identity=AUTHORITY.identity("access-mail").write_file(tmp_path / "identity")))


@pytest.fixture
def trusted_web(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This host knows the CA of web certificates."""
    path = tmp_path / "web-ca.pem"
    path.write_bytes(AUTHORITY.web_ca.pem)
    monkeypatch.setenv("SSL_CERT_FILE", str(path))


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever this machine itself needs."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


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
        f"{ROUTING} to {balancer.address}: the server's certificate is not of the identity's cluster"
        " (unable to get local issuer certificate); "
        f"{UPGRADE} to {balancer.address}: the server offers no connection upgrade (HTTP 404)"
    )


@pytest.mark.usefixtures("trusted_web")
async def test_a_load_balancer_with_nobody_behind_may_have_somebody_in_a_moment(
    balancer: LoadBalancer, proxy: Proxy, identity: Identity
) -> None:
    await proxy.stop()
    with pytest.raises(
        TeleportUnavailable, match=rf"{re.escape(UPGRADE)} to \S+: the server is not able to \(HTTP 503\)"
    ):
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
    assert f"{UPGRADE} to {balancer.address}: this host does not trust the web certificate" in str(caught.value)
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
@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY"])
async def test_an_http_proxy_of_the_environment_leads_to_teleport(
    proxy: Proxy, identity: Identity, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    async with HttpProxy({NAME: proxy.address}) as http:
        monkeypatch.setenv(variable, f"http://127.0.0.1:{http.port}")
        connection = await connect(NAME, identity)
        async with connection.client:
            assert str(connection.route) == f"{ROUTING} to {NAME} by way of the HTTP proxy 127.0.0.1:{http.port}"
        assert http.asked == [NAME, NAME], "discovery, then the route"


async def test_an_auth_service_behind_an_http_proxy_is_reached_directly(
    auth: AuthService, identity: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with HttpProxy({"auth.example.com:3025": auth.address}, users={"access": PASSWORD}) as http:
        monkeypatch.setenv("HTTPS_PROXY", f"http://access:{ENCODED}@127.0.0.1:{http.port}")
        connection = await connect("auth.example.com:3025", identity)
        async with connection.client:
            assert connection.route.name == "direct"


@pytest.mark.usefixtures("trusted_web")
async def test_an_http_proxy_and_a_load_balancer_together(
    balancer: LoadBalancer, identity: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with HttpProxy({NAME: balancer.address}) as http:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{http.port}")
        connection = await connect(NAME, identity)
        async with connection.client as client:
            assert connection.route.name == UPGRADE
            assert (await client.ping()).cluster.name == "teleport.example.com"


@pytest.mark.parametrize("credentials", ["", "access:wrong@"])
async def test_an_http_proxy_that_refuses_us_says_so_and_no_password_is_told(
    auth: AuthService,
    identity: Identity,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    credentials: str,
) -> None:
    caplog.set_level(logging.DEBUG)
    async with HttpProxy({NAME: auth.address}, users={"access": PASSWORD}) as http:
        monkeypatch.setenv("HTTPS_PROXY", f"http://{credentials}127.0.0.1:{http.port}")
        with pytest.raises(TeleportRefused) as caught:
            await connect(NAME, identity)
        refusal = f"127.0.0.1:{http.port} does not lead on: 407 Proxy Authentication Required"
        assert str(caught.value).count(refusal) == 3
    assert "wrong" not in str(caught.value) + caplog.text


async def test_what_an_http_proxy_cannot_reach_may_be_back_in_a_moment(
    identity: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with HttpProxy({}) as http:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{http.port}")
        with pytest.raises(TeleportUnavailable, match="does not lead on: 502 Bad Gateway"):
            await connect(NAME, identity)


async def test_no_proxy_goes_past_the_proxy(
    auth: AuthService, identity: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    connection = await connect(auth.address, identity)  # loopback
    async with connection.client:
        assert connection.route.http_proxy is None


async def test_a_proxy_url_that_cannot_be_used_is_said_without_its_password(
    identity: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "socks5://access:secret@127.0.0.1:1080")
    with pytest.raises(TeleportRefused, match="HTTPS_PROXY") as caught:
        await connect(NAME, identity)
    assert "secret" not in str(caught.value)
