"""A proxy that the environment names leads to Teleport, whatever it speaks; its refusals are told, no password is."""

import asyncio
import logging

import pytest

from services.watcher.teleport.connect import Connection, connect
from services.watcher.teleport.errors import TeleportRefused, TeleportUnavailable
from services.watcher.teleport.identity import Identity
from shared.events import AccessRequest
from simulators.forward_proxy import NOT_ALLOWED, ForwardProxy, HttpProxy, SocksProxy
from simulators.load_balancer import LoadBalancer
from simulators.proxy import Proxy
from simulators.proxy_web import tls_context
from simulators.teleport import AuthService
from tests.integration.watching import AUTHORITY

UPGRADE = "through a proxy (connection upgrade)"
ROUTING = "through a proxy (TLS routing)"

NAME = "teleport.example.com:443"
"""An address that only the forward proxy can find."""

PASSWORD = "pass word/@:1"
ENCODED = "pass%20word%2F%40%3A1"

SCHEMES = ["http", "https", "socks5", "socks5h"]


def forward_proxy(scheme: str, addresses: dict[str, str], users: dict[str, str] | None = None) -> ForwardProxy:
    """A proxy that is spoken to as the scheme says."""
    if scheme.startswith("socks"):
        return SocksProxy(addresses, users)
    return HttpProxy(addresses, users, tls_context(AUTHORITY.web_certificate(), []) if scheme == "https" else None)


async def has_all_of_many_events(auth: AuthService, connection: Connection) -> bool:
    """Do events that fill every buffer on the way arrive?"""
    async with connection.client as client, client.watch() as events:
        ids = [auth.create_request(reason="x" * 100_000) for _ in range(20)]
        told = [await anext(events) for _ in ids]
    return [event.id for event in told if isinstance(event, AccessRequest)] == ids


@pytest.mark.usefixtures("trusted_web")
@pytest.mark.parametrize("scheme", SCHEMES)
async def test_a_proxy_of_each_kind_leads_to_teleport(
    auth: AuthService, proxy: Proxy, identity: Identity, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    async with forward_proxy(scheme, {NAME: proxy.address}) as forward:
        place = f"{scheme}://localhost:{forward.port}"
        monkeypatch.setenv("HTTPS_PROXY", place)
        connection = await connect(NAME, identity)
        assert str(connection.route) == f"{ROUTING} to {NAME} by way of the proxy {place} (HTTPS_PROXY)"
        assert await has_all_of_many_events(auth, connection)
        assert forward.asked == [NAME, NAME], "discovery, then the route"


@pytest.mark.usefixtures("trusted_web")
@pytest.mark.parametrize("scheme", SCHEMES)
async def test_a_proxy_of_each_kind_and_a_load_balancer_together(
    auth: AuthService, balancer: LoadBalancer, identity: Identity, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    async with forward_proxy(scheme, {NAME: balancer.address}) as forward:
        monkeypatch.setenv("HTTPS_PROXY", f"{scheme}://localhost:{forward.port}")
        connection = await connect(NAME, identity)
        assert connection.route.name == UPGRADE
        assert await has_all_of_many_events(auth, connection)


@pytest.mark.usefixtures("trusted_web")
@pytest.mark.parametrize("scheme", SCHEMES)
async def test_an_auth_service_behind_a_proxy_that_wants_a_password_is_reached_directly(
    auth: AuthService, identity: Identity, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    addresses = {"auth.example.com:3025": auth.address}
    async with forward_proxy(scheme, addresses, {"access": PASSWORD}) as forward:
        monkeypatch.setenv("HTTPS_PROXY", f"{scheme}://access:{ENCODED}@localhost:{forward.port}")
        connection = await connect("auth.example.com:3025", identity)
        async with connection.client:
            assert connection.route.name == "direct"


@pytest.mark.usefixtures("trusted_web")
@pytest.mark.parametrize("scheme", SCHEMES)
async def test_the_end_of_a_connection_through_a_proxy_is_noticed(
    auth: AuthService, identity: Identity, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    async with forward_proxy(scheme, {NAME: auth.address}) as forward:
        monkeypatch.setenv("HTTPS_PROXY", f"{scheme}://localhost:{forward.port}")
        connection = await connect(NAME, identity)
        async with connection.client as client, client.watch() as events:
            forward.cut()
            async with asyncio.timeout(10):
                with pytest.raises(TeleportUnavailable):
                    await anext(events)


@pytest.mark.parametrize("variable", ["https_proxy", "HTTP_PROXY"])
async def test_each_variable_of_the_environment_names_a_proxy(
    auth: AuthService, identity: Identity, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    async with HttpProxy({NAME: auth.address}) as forward:
        monkeypatch.setenv(variable, f"http://127.0.0.1:{forward.port}")
        connection = await connect(NAME, identity)
        async with connection.client:
            assert str(connection.route.by) == f"http://127.0.0.1:{forward.port} ({variable.upper()})"


async def test_no_proxy_goes_past_the_proxy(
    auth: AuthService, identity: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    connection = await connect(auth.address, identity)  # loopback
    async with connection.client:
        assert connection.route.by is None


WANTS = {
    "http": "407 Proxy Authentication Required",
    "https": "407 Proxy Authentication Required",
    "socks5": "authentication",
}


@pytest.mark.usefixtures("trusted_web")
@pytest.mark.parametrize("scheme", WANTS)
@pytest.mark.parametrize("credentials", ["", "access:wrong@"])
async def test_a_proxy_that_wants_a_password_says_so_and_none_is_told(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    identity: Identity,
    scheme: str,
    credentials: str,
) -> None:
    caplog.set_level(logging.DEBUG)
    async with forward_proxy(scheme, {}, {"access": PASSWORD}) as forward:
        place = f"{scheme}://localhost:{forward.port}"
        monkeypatch.setenv("HTTPS_PROXY", place.replace("://", f"://{credentials}"))
        with pytest.raises(TeleportRefused, match=WANTS[scheme]) as caught:
            await connect(NAME, identity)
    told = str(caught.value)
    assert told.startswith(f"the proxy {place} (HTTPS_PROXY) does not lead on to {NAME}: ")
    which = "other" if credentials else "its"
    assert told.endswith(f"; write {which} credentials into HTTPS_PROXY: {scheme}://USER:PASSWORD@HOST")
    assert "wrong" not in told + caplog.text


async def test_a_socks_proxy_whose_rules_forbid_it_refuses(identity: Identity, monkeypatch: pytest.MonkeyPatch) -> None:
    async with SocksProxy({}) as forward:
        forward.refusal = NOT_ALLOWED
        monkeypatch.setenv("HTTPS_PROXY", f"socks5://127.0.0.1:{forward.port}")
        with pytest.raises(TeleportRefused, match="not allowed by ruleset; it must allow connections to there"):
            await connect(NAME, identity)


@pytest.mark.usefixtures("trusted_web")
@pytest.mark.parametrize(
    ("scheme", "reason"), [("http", "502 Bad Gateway"), ("https", "502 Bad Gateway"), ("socks5", "Host unreachable")]
)
async def test_what_a_proxy_cannot_reach_may_be_back_in_a_moment(
    identity: Identity, monkeypatch: pytest.MonkeyPatch, scheme: str, reason: str
) -> None:
    async with forward_proxy(scheme, {}) as forward:
        monkeypatch.setenv("HTTPS_PROXY", f"{scheme}://localhost:{forward.port}")
        with pytest.raises(TeleportUnavailable, match=rf"\(HTTPS_PROXY\) does not lead on to {NAME}: {reason}"):
            await connect(NAME, identity)


@pytest.mark.parametrize("scheme", SCHEMES)
async def test_a_proxy_that_is_away_is_not_mistaken_for_teleport(
    identity: Identity, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    async with forward_proxy(scheme, {}) as forward:
        place = f"{scheme}://127.0.0.1:{forward.port}"
    monkeypatch.setenv("HTTPS_PROXY", place)
    with pytest.raises(TeleportUnavailable) as caught:
        await connect(NAME, identity)
    assert str(caught.value) == (
        f"no route leads to {NAME} by way of the proxy {place} (HTTPS_PROXY): direct, {ROUTING}, {UPGRADE}:"
        f" the proxy {place} (HTTPS_PROXY) cannot be reached: Connection refused"
    )


async def test_a_proxys_certificate_is_verified(identity: Identity, monkeypatch: pytest.MonkeyPatch) -> None:
    async with forward_proxy("https", {}) as forward:
        place = f"https://localhost:{forward.port}"
        monkeypatch.setenv("HTTPS_PROXY", place)
        with pytest.raises(TeleportRefused) as caught:
            await connect(NAME, identity)
        assert forward.asked == []
    assert str(caught.value) == (
        f"this host does not trust the certificate of the proxy {place} (HTTPS_PROXY): unable to get local issuer"
        " certificate; name a file with its CA in SSL_CERT_FILE"
    )


@pytest.mark.usefixtures("trusted_web")
async def test_a_proxys_certificate_must_be_for_its_host(identity: Identity, monkeypatch: pytest.MonkeyPatch) -> None:
    async with forward_proxy("https", {}) as forward:
        monkeypatch.setenv("HTTPS_PROXY", f"https://127.1:{forward.port}")  # the same address by another name
        with pytest.raises(TeleportRefused, match=r"does not trust .*: Hostname mismatch"):
            await connect(NAME, identity)
        assert forward.asked == []


@pytest.mark.usefixtures("trusted_web")
@pytest.mark.parametrize(
    ("named", "real", "told"),
    [
        ("https", "http", r"\(HTTPS_PROXY\) cannot be reached: the connection was closed"),
        ("http", "https", r"\(HTTPS_PROXY\) cannot be reached: the connection was closed"),
        ("socks5", "http", r"\(HTTPS_PROXY\) closed the connection; is it one for SOCKS"),
    ],
)
async def test_a_proxy_that_speaks_something_else_is_named(
    identity: Identity, monkeypatch: pytest.MonkeyPatch, named: str, real: str, told: str
) -> None:
    async with forward_proxy(real, {}) as forward:
        monkeypatch.setenv("HTTPS_PROXY", f"{named}://localhost:{forward.port}")
        with pytest.raises((TeleportRefused, TeleportUnavailable), match=told):
            await connect(NAME, identity)
