"""A socket whose other end is carried on over a connection that is none by itself, such as a TLS stream."""

import asyncio
import socket
from asyncio import StreamReader, StreamWriter

from shared.tasks import end

CHUNK_BYTES = 64 * 1024


class Carrier:
    """Carries what is written to `socket` to the connection, and back, byte for byte."""

    def __init__(self, reader: StreamReader, writer: StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._carrying: asyncio.Task[None] | None = None
        self.socket, self._inner = socket.socketpair()
        """For whoever speaks through the connection. It ends with it."""

    def begin(self) -> None:
        """Carry from now on, until either side ends or `close`."""
        self._carrying = asyncio.create_task(self._carry())

    @property
    def failure(self) -> Exception | None:
        """Why the connection ended; None: it stands, or was closed without a word."""
        return self._reader.exception()

    async def close(self) -> None:
        """End the connection, however far it has come."""
        self._writer.transport.abort()
        if self._carrying is not None:
            await end([self._carrying])
        self._inner.close()
        self.socket.close()

    async def _carry(self) -> None:
        """Carry both ways until either side ends; then end both."""
        reader, writer = await asyncio.open_connection(sock=self._inner, limit=CHUNK_BYTES)
        ways = [asyncio.create_task(self._carry_out(reader)), asyncio.create_task(self._carry_in(writer))]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            # At once: whoever closes us while the ways end cuts this short.
            writer.transport.abort()
            self._writer.transport.abort()
            await end(ways)  # how each ended says less than `failure`

    async def _carry_out(self, inner: StreamReader) -> None:
        await copy(inner, self._writer)

    async def _carry_in(self, inner: StreamWriter) -> None:
        await copy(self._reader, inner)


async def copy(reader: StreamReader, writer: StreamWriter) -> None:
    """Copy until the end. What the receiving side cannot take yet is not read from the other."""
    while chunk := await reader.read(CHUNK_BYTES):
        writer.write(chunk)
        await writer.drain()
