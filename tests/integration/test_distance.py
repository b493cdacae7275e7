"""The proxy that puts a server far away: nothing is lost or rearranged, and all comes later."""

import asyncio
import time
from contextlib import suppress

from simulators.distance import Distance

ONE_WAY = 0.02


async def test_bytes_come_later_and_in_their_order() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionResetError):
            while data := await reader.read(1000):
                writer.write(data)
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    text = bytes(range(256)) * 1000
    async with server, Distance("127.0.0.1", server.sockets[0].getsockname()[1], ONE_WAY) as far:
        reader, writer = await asyncio.open_connection("127.0.0.1", far.port)
        before = time.monotonic()
        writer.write(text)
        assert await reader.readexactly(len(text)) == text
        assert time.monotonic() - before >= 2 * ONE_WAY
        writer.close()
        await writer.wait_closed()


async def test_a_server_that_is_not_there_ends_the_connection() -> None:
    async with Distance("127.0.0.1", 1, ONE_WAY) as far:
        reader, writer = await asyncio.open_connection("127.0.0.1", far.port)
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
