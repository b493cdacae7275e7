"""Proxies as companies have them between their hosts and everything else: HTTP, with and without TLS, and SOCKS 5."""

import asyncio
import base64
import ssl
from abc import ABC, abstractmethod
from asyncio import StreamReader, StreamWriter
from collections.abc import Mapping
from contextlib import closing
from types import TracebackType
from typing import Self

import h11

from simulators.tunnel import CHUNK_BYTES, End, Tunnel


class ForwardProxy(ABC):
    """Listens on 127.0.0.1 and knows the addresses that it is given: names need not exist outside of it."""

    def __init__(
        self,
        addresses: Mapping[str, str],
        users: Mapping[str, str] | None = None,
        context: ssl.SSLContext | None = None,
    ) -> None:
        """Prepare one for `host:port` → `host:port`; with users (and passwords) it asks who is there."""
        self.asked: list[str] = []
        """The targets that clients have named, in order."""
        self._addresses = addresses
        self._users = users or {}
        self._context = context
        self._server: asyncio.Server | None = None
        self._visits: set[asyncio.Task[None]] = set()

    @property
    def port(self) -> int:
        """Where it listens."""
        assert self._server is not None, "the proxy was not started"
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._visit, "127.0.0.1", 0, ssl=self._context)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None, "the proxy was not started"
        self._server.close()
        self.cut()
        await asyncio.gather(*self._visits, return_exceptions=True)
        await self._server.wait_closed()

    def cut(self) -> None:
        """Drop all present connections. New ones work."""
        for visit in self._visits:
            visit.cancel()

    @abstractmethod
    async def _upstream(self, client: End) -> str | None:
        """Hear what the client wants and answer; where it is to be led, None: nowhere."""

    def _visit(self, reader: StreamReader, writer: StreamWriter) -> None:
        visit = asyncio.create_task(self._serve(End(reader, writer)))
        self._visits.add(visit)
        visit.add_done_callback(self._visits.discard)

    async def _serve(self, client: End) -> None:
        with closing(client.writer):
            upstream = await self._upstream(client)
            if upstream is None:
                return
            host, _, port = upstream.rpartition(":")
            server = End(*await asyncio.open_connection(host, int(port)))
            with closing(server.writer):
                try:
                    await Tunnel(client, server).carry()
                except* OSError:
                    pass  # a side that broke ends the other too: both are closed now


class HttpProxy(ForwardProxy):
    """Leads on by CONNECT alone."""

    async def _upstream(self, client: End) -> str | None:
        http = h11.Connection(h11.SERVER)
        try:
            request = await _request(http, client.reader)
        except h11.RemoteProtocolError:
            return None  # the client finds the connection closed
        target = request.target.decode()
        self.asked.append(target)
        refusal = self._refusal(request)
        answer = http.send(refusal or h11.Response(status_code=200, headers=[("Via", "proxy")])) or b""
        # A head may arrive in pieces, as a slow network and some proxies have it.
        for piece in (answer[:10], answer[10:20], answer[20:]):
            client.writer.write(piece)
            await client.writer.drain()
            await asyncio.sleep(0)
        return None if refusal else self._addresses[target]

    def _refusal(self, request: h11.Request) -> h11.Response | None:
        given = dict(request.headers).get(b"proxy-authorization", b"")
        known = {base64.b64encode(f"{user}:{word}".encode()) for user, word in self._users.items()}
        if known and given.removeprefix(b"Basic ") not in known:
            challenge = [("Proxy-Authenticate", 'Basic realm="proxy"'), ("Content-Length", "0")]
            return h11.Response(status_code=407, headers=challenge, reason=b"Proxy Authentication Required")
        if request.method != b"CONNECT":
            return h11.Response(status_code=405, headers=[("Content-Length", "0")], reason=b"Method Not Allowed")
        if request.target.decode() not in self._addresses:
            return h11.Response(status_code=502, headers=[("Content-Length", "0")], reason=b"Bad Gateway")
        return None


async def _request(http: h11.Connection, reader: StreamReader) -> h11.Request:
    """Read one request. Raises `h11.RemoteProtocolError`."""
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            http.receive_data(await reader.read(CHUNK_BYTES))
        elif isinstance(event, h11.Request):
            return event
        else:
            raise h11.RemoteProtocolError("no request")


ANYBODY, PASSWORD, NOBODY = 0, 2, 255
"""SOCKS 5: methods of authentication."""

GRANTED, NOT_ALLOWED, UNREACHABLE = 0, 2, 4
"""SOCKS 5: replies."""

NAME = 3
"""SOCKS 5: the kind of address that the proxy resolves itself."""


class SocksProxy(ForwardProxy):
    """Speaks SOCKS 5 (RFC 1928) with passwords (RFC 1929), to clients that leave it to the proxy to resolve names."""

    refusal = UNREACHABLE
    """What it replies for an address that it does not know."""

    async def _upstream(self, client: End) -> str | None:
        try:
            if not await self._admits(client):
                return None
            _, _, _, kind, length = await client.reader.readexactly(5)
            host = (await client.reader.readexactly(length)).decode()
            port = int.from_bytes(await client.reader.readexactly(2), "big")
        except asyncio.IncompleteReadError:
            return None
        self.asked.append(f"{host}:{port}")
        upstream = self._addresses.get(self.asked[-1]) if kind == NAME else None
        client.writer.write(bytes([5, GRANTED if upstream else self.refusal, 0, 1, 0, 0, 0, 0, 0, 0]))
        await client.writer.drain()
        return upstream

    async def _admits(self, client: End) -> bool:
        _, count = await client.reader.readexactly(2)
        offered = await client.reader.readexactly(count)
        method = PASSWORD if self._users else ANYBODY
        client.writer.write(bytes([5, method if method in offered else NOBODY]))
        if method == ANYBODY or method not in offered:
            return method in offered
        await client.reader.readexactly(1)
        user, password = [await self._counted(client) for _ in range(2)]
        is_known = self._users.get(user) == password
        client.writer.write(bytes([1, 0 if is_known else 1]))
        return is_known

    async def _counted(self, client: End) -> str:
        length = (await client.reader.readexactly(1))[0]
        return (await client.reader.readexactly(length)).decode()
