"""Two TCP connections joined into one, which can be silenced like a peer that died without a word."""

import asyncio
from asyncio import StreamReader, StreamWriter
from dataclasses import dataclass, field

CHUNK_BYTES = 65536


@dataclass(frozen=True, eq=False)
class End:
    """One of the two connections."""

    reader: StreamReader
    writer: StreamWriter


@dataclass(frozen=True, eq=False)
class Tunnel:
    """Carries bytes between a client and a server until both have finished, or one breaks."""

    client: End
    server: End
    flowing: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.flowing.set()

    async def carry(self) -> None:
        """Forward in both directions until each has ended. Raises what a broken connection raises, in a group."""
        async with asyncio.TaskGroup() as directions:
            directions.create_task(self._forward(self.client.reader, self.server.writer))
            directions.create_task(self._forward(self.server.reader, self.client.writer))

    def silence(self) -> None:
        """Forward nothing more, and close nothing."""
        self.flowing.clear()

    async def _forward(self, reader: StreamReader, writer: StreamWriter) -> None:
        while chunk := await reader.read(CHUNK_BYTES):
            await self.flowing.wait()
            writer.write(chunk)
            await writer.drain()
        await self.flowing.wait()
        if writer.can_write_eof():
            writer.write_eof()
        else:
            writer.close()  # TLS knows no half of an end
