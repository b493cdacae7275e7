"""From the address in the configuration to a connection that works: which route leads to the Auth Service?"""

import asyncio
import ssl
from dataclasses import dataclass
from urllib.parse import urlsplit
from urllib.request import getproxies_environment

import httpx

from services.watcher.teleport.client import TeleportClient, TeleportError, TeleportRefused, TeleportUnavailable
from services.watcher.teleport.decode import AuthServer
from services.watcher.teleport.dial import SERVER_NAME, Route
from services.watcher.teleport.http_proxy import HttpProxy, Refusal, http_proxy
from services.watcher.teleport.identity import Identity

DISCOVERY_SECONDS = 5
PING_SECONDS = 15

HTTP2 = "h2"


@dataclass(frozen=True)
class Connection:
    """A client whose certificate the Auth Service has accepted, and how it got there."""

    client: TeleportClient
    server: AuthServer
    route: Route


async def connect(addr: str, identity: Identity) -> Connection:
    """Connect to the cluster at `addr`, which is an Auth Service's or a proxy's web port.

    HTTPS_PROXY, HTTP_PROXY and NO_PROXY are heeded. Raises `TeleportUnavailable` or `TeleportRefused`, which names
    each route that was tried and what came of it. The caller closes the client.
    """
    failures: list[str] = []
    unavailable = False
    for route in await _routes(addr, identity):
        try:
            return await _try(route, identity)
        except TeleportError as error:
            failures.append(f"{route}: {error}")
            unavailable |= isinstance(error, TeleportUnavailable)
    # What one route refuses is settled only if no other may work in a moment.
    raise (TeleportUnavailable if unavailable else TeleportRefused)("; ".join(failures))


async def _try(route: Route, identity: Identity) -> Connection:
    client = await TeleportClient.open(route, identity)
    try:
        return Connection(client, await client.ping(PING_SECONDS), route)
    except BaseException:
        await client.close()
        raise


async def _routes(addr: str, identity: Identity) -> list[Route]:
    """Give the routes to try, in order."""
    host, port = parse_address(addr)
    try:
        by = http_proxy(host, port, getproxies_environment())
    except Refusal as error:
        raise TeleportRefused(str(error.strerror)) from error
    try:
        found = await _ask_proxy(addr, by)
    except _NoProxyError:
        # An Auth Service, or a proxy whose web certificate this host does not know. With TLS routing it need not: TLS
        # ends at the Auth Service, which is verified against the identity, and the web certificate vouches for nothing.
        return [Route("direct", host, port, (HTTP2,), by), *_through_proxy(host, port, identity.cluster, by)]
    if not found.tls_routing:
        raise TeleportRefused(
            f"{addr} is a proxy without TLS routing (proxy_listener_mode: separate); set teleport.addr to the Auth"
            " Service, or proxy_listener_mode to multiplex"
        )
    return _through_proxy(host, port, found.cluster_name, by)


def _through_proxy(host: str, port: int, cluster_name: str, by: HttpProxy | None) -> list[Route]:
    """TLS routing: by this ALPN a proxy passes the TLS stream, unopened, to the Auth Service of the cluster named.

    A load balancer that ends TLS itself takes the ALPN away: then the same stream goes through a connection upgrade.
    """
    alpn = (f"teleport-auth@{cluster_name.encode().hex()}.{SERVER_NAME}", HTTP2)
    return [
        Route("through a proxy (TLS routing)", host, port, alpn, by),
        Route("through a proxy (connection upgrade)", host, port, alpn, by, is_upgraded=True),
    ]


class _NoProxyError(Exception):
    """The address did not answer as a proxy that this host can verify."""


@dataclass(frozen=True)
class _Proxy:
    cluster_name: str
    tls_routing: bool


async def _ask_proxy(addr: str, by: HttpProxy | None) -> _Proxy:
    """Ask as Teleport's own clients do. The answer decides which route is tried, never whom we trust."""
    try:
        async with (
            asyncio.timeout(DISCOVERY_SECONDS),
            # The system's roots: httpx brings its own. The environment is ours to read, the same for every route.
            httpx.AsyncClient(verify=ssl.create_default_context(), proxy=_for_httpx(by), trust_env=False) as http,
        ):
            answer = await http.get(f"https://{addr}/webapi/find")
        found = answer.raise_for_status().json()
        return _Proxy(str(found["cluster_name"]), bool(found["proxy"].get("tls_routing_enabled")))
    except (
        TimeoutError,
        httpx.HTTPError,
        httpx.InvalidURL,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
    ) as error:
        raise _NoProxyError from error


def _for_httpx(by: HttpProxy | None) -> httpx.Proxy | None:
    return httpx.Proxy(by.url, auth=(by.user, by.password) if by.user else None) if by else None


def parse_address(addr: str) -> tuple[str, int]:
    """Take `host:port` apart. Raises `ValueError`."""
    fault = "must be host:port"
    try:
        parts = urlsplit(f"//{addr}")
        host, port = parts.hostname or "", parts.port
        host.encode("idna")  # as the resolver does, too late to say it well
    except ValueError:
        raise ValueError(fault) from None
    if not host or port is None or parts.netloc != addr or "@" in addr:
        raise ValueError(fault)
    return host, port
