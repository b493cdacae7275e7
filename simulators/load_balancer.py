"""A load balancer of layer 7 before a Teleport proxy: it ends TLS itself, and the client's ALPN with it."""

import asyncio
import ssl
from asyncio import StreamReader, StreamWriter
from collections.abc import Sequence
from contextlib import closing
from types import TracebackType
from typing import Self

from simulators.certificates import ClusterAuthority
from simulators.proxy_web import tls_context
from simulators.tunnel import End, Tunnel

NOBODY_BEHIND = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class LoadBalancer:
    """Shows the web certificate, and speaks HTTP/1.1 over a TLS connection of its own to the proxy behind it."""

    def __init__(self, authority: ClusterAuthority, proxy_port: int, protocols: Sequence[str] = ()) -> None:
        """Prepare one for the proxy at this port of localhost, which chooses from these of a client's ALPN."""
        self._protocols = protocols
        self._authority = authority
        self._proxy_port = proxy_port
        self._server: asyncio.Server | None = None
        self._visits: set[asyncio.Task[None]] = set()

    @property
    def address(self) -> str:
        """Where it listens, as `host:port`; the web certificate is for this host."""
        assert self._server is not None, "the load balancer was not started"
        return f"localhost:{self._server.sockets[0].getsockname()[1]}"

    async def __aenter__(self) -> Self:
        context = tls_context(self._authority.web_certificate(), self._protocols)
        self._server = await asyncio.start_server(self._visit, "127.0.0.1", 0, ssl=context)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None, "the load balancer was not started"
        self._server.close()
        self.cut()
        await asyncio.gather(*self._visits, return_exceptions=True)
        await self._server.wait_closed()

    def cut(self) -> None:
        """Drop all present connections. New ones work."""
        for visit in self._visits:
            visit.cancel()

    def _visit(self, reader: StreamReader, writer: StreamWriter) -> None:
        visit = asyncio.create_task(self._carry(End(reader, writer)))
        self._visits.add(visit)
        visit.add_done_callback(self._visits.discard)

    async def _carry(self, client: End) -> None:
        context = ssl.create_default_context(cadata=self._authority.web_ca.pem.decode())
        context.set_alpn_protocols(["http/1.1"])
        with closing(client.writer):
            if client.writer.get_extra_info("ssl_object").selected_alpn_protocol() == "h2":
                return  # it would speak HTTP/2 now, and whoever speaks HTTP/1.1 is cut off
            try:
                server = End(*await asyncio.open_connection("localhost", self._proxy_port, ssl=context))
            except OSError:
                client.writer.write(NOBODY_BEHIND)
                return
            with closing(server.writer):
                try:
                    await Tunnel(client, server).carry()
                except* OSError:
                    pass  # a side that broke ends the other too: both are closed now
