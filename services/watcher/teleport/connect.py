"""From the address in the configuration to a connection that works: which route leads to the Auth Service?"""

from dataclasses import dataclass
from urllib.parse import urlsplit
from urllib.request import getproxies_environment

from services.watcher.teleport.client import TeleportClient
from services.watcher.teleport.decode import AuthServer
from services.watcher.teleport.dial import SERVER_NAME, Route
from services.watcher.teleport.discovery import discover
from services.watcher.teleport.errors import TeleportError, TeleportRefused, TeleportUnavailable
from services.watcher.teleport.forward_proxy import ForwardProxy, Refusal, forward_proxy
from services.watcher.teleport.identity import Identity

PING_SECONDS = 15

HTTP2 = "h2"

LONGEST_HOST = 253
"""RFC 1035, 2.3.4, less what its wire form adds."""


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
    failures: dict[str, list[Route]] = {}
    unavailable = False
    for route in await _routes(addr, identity):
        try:
            return await _try(route, identity)
        except TeleportError as error:
            failures.setdefault(str(error), []).append(route)
            unavailable |= isinstance(error, TeleportUnavailable)
    # What one route refuses is settled only if no other may work in a moment.
    raise (TeleportUnavailable if unavailable else TeleportRefused)(_each(failures))


def _each(failures: dict[str, list[Route]]) -> str:
    """Name each route and its reason; all lead to the same place, and often fail alike."""
    place = next(route.place for routes in failures.values() for route in routes)
    told = (f"{', '.join(route.name for route in routes)}: {reason}" for reason, routes in failures.items())
    return f"no route leads to {place}: {'; '.join(told)}"


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
        by = forward_proxy(host, port, getproxies_environment())
        found = await discover(host, port, by)
    except Refusal as error:
        raise TeleportRefused(str(error.strerror)) from error
    if found is None:
        # An Auth Service, or a proxy whose web certificate this host does not know. With TLS routing it need not: TLS
        # ends at the Auth Service, which is verified against the identity, and the web certificate vouches for nothing.
        return [Route("direct", host, port, (HTTP2,), by), *_through_proxy(host, port, identity.cluster, by)]
    if not found.tls_routing:
        raise TeleportRefused(
            f"{addr} is a proxy without TLS routing (proxy_listener_mode: separate); set teleport.addr to the Auth"
            " Service, or proxy_listener_mode to multiplex"
        )
    return _through_proxy(host, port, found.cluster_name, by)


def _through_proxy(host: str, port: int, cluster_name: str, by: ForwardProxy | None) -> list[Route]:
    """TLS routing: by this ALPN a proxy passes the TLS stream, unopened, to the Auth Service of the cluster named.

    A load balancer that ends TLS itself takes the ALPN away: then the same stream goes through a connection upgrade.
    """
    alpn = (f"teleport-auth@{cluster_name.encode().hex()}.{SERVER_NAME}", HTTP2)
    return [
        Route("through a proxy (TLS routing)", host, port, alpn, by),
        Route("through a proxy (connection upgrade)", host, port, alpn, by, is_upgraded=True),
    ]


def parse_address(addr: str) -> tuple[str, int]:
    """Take `host:port` apart, the host in ASCII as protocols want it. Raises `ValueError`."""
    fault = "must be host:port"
    try:
        parts = urlsplit(f"//{addr}")
        host, port = parts.hostname or "", parts.port
        host = host.encode("idna").decode()  # as the resolver does, too late to say it well
    except ValueError:
        raise ValueError(fault) from None
    if not 0 < len(host) <= LONGEST_HOST or port is None or parts.netloc != addr or "@" in addr:
        raise ValueError(fault)
    return host, port
