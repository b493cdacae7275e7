"""One HTTP/1.1 exchange on a connection that is there already, and may go on as something else afterwards."""

import errno
from asyncio import StreamReader, StreamWriter

import h11

from services.watcher.teleport.forward_proxy import authority

CHUNK_BYTES = 4096

LONGEST_BODY = 1024 * 1024


class HttpExchange:
    """A request and its answer."""

    def __init__(self, reader: StreamReader, writer: StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._http = h11.Connection(h11.CLIENT)

    async def ask(
        self, method: str, target: str, host: str, port: int, headers: list[tuple[str, str]]
    ) -> tuple[int, str]:
        """Send a request without a body; the status and its reason.

        Raises `h11.RemoteProtocolError` if the answer is no HTTP, `ConnectionError`.
        """
        request = h11.Request(method=method, target=target, headers=[("Host", authority(host, port)), *headers])
        self._writer.write((self._http.send(request) or b"") + (self._http.send(h11.EndOfMessage()) or b""))
        await self._writer.drain()
        while isinstance(event := await self._next(), h11.InformationalResponse):
            pass
        if not isinstance(event, h11.Response):
            raise h11.RemoteProtocolError("no answer")
        return event.status_code, bytes(event.reason).decode("latin-1")

    async def body(self) -> bytes:
        """What follows the status. Raises as `ask`, also if it is longer than 1 MiB."""
        body = b""
        while isinstance(event := await self._next(), h11.Data):
            body += event.data
            if len(body) > LONGEST_BODY:
                raise h11.RemoteProtocolError("the answer is too long")
        return body

    async def _next(self) -> object:
        while True:
            event = self._http.next_event()
            if event is not h11.NEED_DATA:
                return event
            chunk = await self._reader.read(CHUNK_BYTES)
            if not chunk and self._http.their_state is h11.SEND_RESPONSE:
                raise ConnectionError(errno.ECONNRESET, "the connection was closed in place of an answer")
            self._http.receive_data(chunk)
