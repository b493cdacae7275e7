"""An HTTP proxy that leads on by CONNECT alone, as companies have one between their hosts and everything else."""

import asyncio
import base64
from asyncio import StreamReader, StreamWriter
from collections.abc import Mapping
from contextlib import closing
from types import TracebackType
from typing import Self

import h11

from simulators.tunnel import CHUNK_BYTES, End, Tunnel


class HttpProxy:
    """Listens on 127.0.0.1 and knows the addresses that it is given: names need not exist outside of it."""

    def __init__(self, addresses: Mapping[str, str], users: Mapping[str, str] | None = None) -> None:
        """Prepare a proxy for `host:port` → `host:port`; with users (and passwords) it asks who is there."""
        self.asked: list[str] = []
        """The targets that clients have named, in order."""
        self._addresses = addresses
        self._credentials = {base64.b64encode(f"{user}:{word}".encode()) for user, word in (users or {}).items()}
        self._server: asyncio.Server | None = None
        self._visits: set[asyncio.Task[None]] = set()

    @property
    def port(self) -> int:
        """Where it listens."""
        assert self._server is not None, "the proxy was not started"
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._visit, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None, "the proxy was not started"
        self._server.close()
        for visit in self._visits:
            visit.cancel()
        await asyncio.gather(*self._visits, return_exceptions=True)
        await self._server.wait_closed()

    def _visit(self, reader: StreamReader, writer: StreamWriter) -> None:
        visit = asyncio.create_task(self._serve(End(reader, writer)))
        self._visits.add(visit)
        visit.add_done_callback(self._visits.discard)

    async def _serve(self, client: End) -> None:
        with closing(client.writer):
            http = h11.Connection(h11.SERVER)
            try:
                request = await _request(http, client.reader)
            except h11.RemoteProtocolError:
                return  # the client finds the connection closed
            target = request.target.decode()
            self.asked.append(target)
            refusal = self._refusal(request)
            if refusal is not None:
                client.writer.write(http.send(refusal) or b"")
                return
            host, _, port = self._addresses[target].rpartition(":")
            server = End(*await asyncio.open_connection(host, int(port)))
            with closing(server.writer):
                client.writer.write(http.send(h11.Response(status_code=200, headers=[])) or b"")
                try:
                    await Tunnel(client, server).carry()
                except* OSError:
                    pass  # a side that broke ends the other too: both are closed now

    def _refusal(self, request: h11.Request) -> h11.Response | None:
        given = dict(request.headers).get(b"proxy-authorization", b"")
        if self._credentials and given.removeprefix(b"Basic ") not in self._credentials:
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
