"""The proxy's half of Teleport's connection upgrade: WebSocket frames in, a byte stream out, and back."""

import asyncio
import socket
from asyncio import StreamReader, StreamWriter
from collections.abc import Callable

from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from simulators.tunnel import CHUNK_BYTES, End

SUBPROTOCOL = Subprotocol("alpn")


async def carry_frames(
    protocol: ServerProtocol, outer: End, visit: Callable[[StreamReader, StreamWriter], None]
) -> None:
    """Show `visit` a connection that consists of what the frames carry, until either side ends."""
    ours, theirs = socket.socketpair()
    inner = End(*await asyncio.open_connection(sock=ours))
    visit(*await asyncio.open_connection(sock=theirs))
    ways = {
        asyncio.create_task(_unpack(protocol, outer, inner.writer)),
        asyncio.create_task(_pack(protocol, outer, inner.reader)),
    }
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)  # a side that broke: both are closed now
        inner.writer.close()


async def _unpack(protocol: ServerProtocol, outer: End, inner: StreamWriter) -> None:
    while protocol.state is State.OPEN and (chunk := await outer.reader.read(CHUNK_BYTES)):
        protocol.receive_data(chunk)
        for event in protocol.events_received():
            # As Teleport: frames that continue another one are dropped without a word.
            if isinstance(event, Frame) and event.opcode is Opcode.BINARY:
                inner.write(event.data)
        outer.writer.write(b"".join(protocol.data_to_send()))
        await inner.drain()


async def _pack(protocol: ServerProtocol, outer: End, inner: StreamReader) -> None:
    while chunk := await inner.read(CHUNK_BYTES):
        protocol.send_ping(b"")  # any time, and must be answered
        protocol.send_binary(chunk)
        outer.writer.write(b"".join(protocol.data_to_send()))
        await outer.writer.drain()
