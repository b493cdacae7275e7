"""The proxy's half of Teleport's connection upgrade: WebSocket frames in, a byte stream out, and back."""

import asyncio
import socket
from asyncio import StreamReader, StreamWriter
from collections.abc import Callable
from dataclasses import dataclass, field

from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from simulators.tunnel import CHUNK_BYTES, End

SUBPROTOCOL = Subprotocol("alpn")


@dataclass
class Heartbeat:
    """The proxy's pings, over all connections."""

    pings: int = 0
    unanswered: set[bytes] = field(default_factory=set)
    """By what they carried, which a pong must carry back (RFC 6455, 5.5.3)."""

    def ping(self, protocol: ServerProtocol) -> None:
        """Send one."""
        self.pings += 1
        content = str(self.pings).encode()
        self.unanswered.add(content)
        protocol.send_ping(content)


async def carry_frames(
    protocol: ServerProtocol, outer: End, visit: Callable[[StreamReader, StreamWriter], None], heartbeat: Heartbeat
) -> None:
    """Show `visit` a connection that consists of what the frames carry, until either side ends."""
    ours, theirs = socket.socketpair()
    inner = End(*await asyncio.open_connection(sock=ours))
    visit(*await asyncio.open_connection(sock=theirs))
    ways = {
        asyncio.create_task(_unpack(protocol, outer, inner.writer, heartbeat)),
        asyncio.create_task(_pack(protocol, outer, inner.reader, heartbeat)),
    }
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)  # a side that broke: both are closed now
        inner.writer.close()


async def _unpack(protocol: ServerProtocol, outer: End, inner: StreamWriter, heartbeat: Heartbeat) -> None:
    while protocol.state is State.OPEN and (chunk := await outer.reader.read(CHUNK_BYTES)):
        protocol.receive_data(chunk)
        for event in protocol.events_received():
            # As Teleport: frames that continue another one are dropped without a word.
            if isinstance(event, Frame) and event.opcode is Opcode.BINARY:
                inner.write(event.data)
            elif isinstance(event, Frame) and event.opcode is Opcode.PONG:
                heartbeat.unanswered.discard(event.data)
        outer.writer.write(b"".join(protocol.data_to_send()))
        await inner.drain()


async def _pack(protocol: ServerProtocol, outer: End, inner: StreamReader, heartbeat: Heartbeat) -> None:
    while chunk := await inner.read(CHUNK_BYTES):
        protocol.send_binary(chunk)
        heartbeat.ping(protocol)  # any time, and must be answered
        outer.writer.write(b"".join(protocol.data_to_send()))
        await outer.writer.drain()
