"""A Teleport proxy with TLS routing: one port that is a web server, or a way to the Auth Service, by the client's ALPN.

A hello that offers `teleport-auth@<cluster>` is handed on to the Auth Service byte for byte, so TLS is end to end
and the proxy's web certificate plays no part. Browsers and the like meet the web server; other protocols are refused.
"""

import asyncio
from asyncio import StreamReader, StreamWriter
from contextlib import closing
from types import TracebackType
from typing import Any, Self

from simulators.certificates import ClusterAuthority
from simulators.client_hello import NotClientHelloError, offered_protocols
from simulators.proxy_web import ProxyWeb
from simulators.tunnel import CHUNK_BYTES, End, Tunnel
from simulators.upgrade import Heartbeat

AUTH_PREFIX = b"teleport-auth@"
"""ALPN protocol that asks for the Auth Service (Teleport: `alpncommon.ProtocolAuth`)."""

WEB_PROTOCOLS = frozenset({b"h2", b"http/1.1"})

NO_APPLICATION_PROTOCOL = bytes([21, 3, 3, 0, 2, 2, 120])
"""The fatal TLS alert for a client all of whose protocols are strange (RFC 7301, 3.2)."""

LONGEST_HELLO_BYTES = 65536


class UnknownClusterError(Exception):
    """The client asks for the Auth Service of a cluster that is not here."""


class UnknownProtocolError(Exception):
    """The client offers only protocols that this proxy does not know."""


class Proxy:
    """A proxy of the cluster, in front of the Auth Service at `auth_address` (`host:port`)."""

    def __init__(
        self, authority: ClusterAuthority, auth_address: str, *, host: str = "127.0.0.1", port: int = 0
    ) -> None:
        """Prepare a proxy at this address and port; with 0 the first start chooses one, later ones keep it."""
        self.host = host
        self.port = port
        self._auth_address = auth_address
        self._route = AUTH_PREFIX + f"{authority.cluster_name.encode().hex()}.teleport.cluster.local".encode()
        self._web = ProxyWeb(authority, self._visit)
        self._leads_to_auth = True
        self._server: asyncio.Server | None = None
        self._tunnels: set[Tunnel] = set()
        self._visits: set[asyncio.Task[None]] = set()

    @property
    def address(self) -> str:
        """Where this machine finds it, as `host:port`; the web certificate is for this host."""
        return f"localhost:{self.port}"

    @property
    def find(self) -> dict[str, Any]:
        """What discovery answers, to be changed at will after the start."""
        return self._web.answer

    @property
    def upgrades(self) -> int:
        """How many connections came through a connection upgrade."""
        return self._web.upgrades

    @property
    def heartbeat(self) -> Heartbeat:
        """The pings in upgraded connections."""
        return self._web.heartbeat

    def withdraw_upgrade(self) -> None:
        """Know nothing of connection upgrades any more, as a proxy before Teleport 8."""
        self._web.offers_upgrade = False

    def separate(self) -> None:
        """Be nothing but a web server on this port, as with `proxy_listener_mode: separate`."""
        self.find["proxy"]["tls_routing_enabled"] = False
        self._leads_to_auth = False

    @property
    def tunnels(self) -> int:
        """How many connections it carries, to Auth or to its own web server."""
        return len(self._tunnels)

    async def start(self) -> None:
        """Begin to accept on the running loop. Raises `OSError` if the port is taken."""
        self._server = await asyncio.start_server(self._visit, self.host, self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        await self._web.start(self.address)

    async def stop(self) -> None:
        """Stop accepting and drop every connection."""
        assert self._server is not None, "the proxy was not started"
        self._server.close()
        self._drop()
        await asyncio.gather(*self._visits, return_exceptions=True)
        await self._server.wait_closed()
        await self._web.stop()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def silence(self) -> None:
        """Let all present tunnels go silent like a peer that died: nothing is forwarded, nothing closed. New ones work.

        May be called from any thread, as may `cut`.
        """
        for tunnel in list(self._tunnels):
            tunnel.silence()

    def cut(self) -> None:
        """Drop all present tunnels. New ones work."""
        assert self._server is not None, "the proxy was not started"
        self._server.get_loop().call_soon_threadsafe(self._drop)

    def _drop(self) -> None:
        for visit in self._visits:
            visit.cancel()

    def _visit(self, reader: StreamReader, writer: StreamWriter) -> None:
        # A task of our own: asyncio complains about one of its own that is cancelled.
        visit = asyncio.create_task(self._carry(End(reader, writer)))
        self._visits.add(visit)
        visit.add_done_callback(self._visits.discard)

    async def _carry(self, client: End) -> None:
        with closing(client.writer):
            try:
                hello, protocols = await read_hello(client.reader)
                host, _, port = self._upstream(protocols).rpartition(":")
                server = End(*await asyncio.open_connection(host, int(port)))
            except UnknownProtocolError:
                client.writer.write(NO_APPLICATION_PROTOCOL)
                return
            except (NotClientHelloError, UnknownClusterError, OSError):
                return  # as a proxy does: the client finds the connection closed
            with closing(server.writer):
                server.writer.write(hello)
                await self._join(Tunnel(client, server))

    async def _join(self, tunnel: Tunnel) -> None:
        self._tunnels.add(tunnel)
        try:
            await tunnel.carry()
        except* OSError:
            pass  # a side that broke ends the other too: both are closed now
        finally:
            self._tunnels.discard(tunnel)

    def _upstream(self, protocols: list[bytes]) -> str:
        asked = [protocol for protocol in protocols if protocol.startswith(AUTH_PREFIX) and self._leads_to_auth]
        if not asked and protocols and WEB_PROTOCOLS.isdisjoint(protocols):
            raise UnknownProtocolError
        if not asked:
            return f"127.0.0.1:{self._web.port}"
        if asked[0] != self._route:
            raise UnknownClusterError
        return self._auth_address


async def read_hello(reader: StreamReader) -> tuple[bytes, list[bytes]]:
    """Return what has arrived and the protocols that it offers. Raises `NotClientHelloError`."""
    received = b""
    protocols = None
    while protocols is None:
        chunk = await reader.read(CHUNK_BYTES)
        if not chunk or len(received) > LONGEST_HELLO_BYTES:
            raise NotClientHelloError("it ends early or has no end")
        received += chunk
        protocols = offered_protocols(received)
    return received, protocols
