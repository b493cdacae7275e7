"""A server that ends the connection may say why, as Teleport does to who pings too often: then so do we."""

import struct
from asyncio import StreamReader, StreamWriter, start_server
from collections.abc import Callable
from socket import SO_LINGER, SOL_SOCKET

import pytest

from services.watcher.teleport.client import TeleportClient
from services.watcher.teleport.dial import Route
from services.watcher.teleport.errors import TeleportUnavailable
from services.watcher.teleport.identity import Identity
from simulators.proxy_web import tls_context
from tests.integration.watching import AUTHORITY

PREFACE_BYTES = 24
"""Of HTTP/2 (RFC 9113, 3.4)."""

HEADERS, SETTINGS, GOAWAY = 1, 4, 7
ENHANCE_YOUR_CALM = 11


def frame(kind: int, payload: bytes = b"", *, flags: int = 0) -> bytes:
    """One frame of stream 0 (RFC 9113, 4.1)."""
    return len(payload).to_bytes(3) + struct.pack(">BBI", kind, flags, 0) + payload


def goaway(code: int, text: bytes) -> bytes:
    """The first stream, which is the only one, was seen."""
    return frame(GOAWAY, struct.pack(">II", 1, code) + text)


def hang_up(writer: StreamWriter) -> None:
    writer.close()


def reset(writer: StreamWriter) -> None:
    """As the system does for a server that closes before it has read all."""
    writer.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def failure(identity: Identity, last: bytes, end: Callable[[StreamWriter], None] = hang_up) -> str:
    """What is said of a server that answers the first call with `last`, and ends the connection so."""

    async def meet(reader: StreamReader, writer: StreamWriter) -> None:
        await reader.readexactly(PREFACE_BYTES)
        writer.write(frame(SETTINGS))
        kind = None
        while kind != HEADERS:
            head = await reader.readexactly(9)
            await reader.readexactly(int.from_bytes(head[:3]))
            kind = head[3]
            if (kind, head[4]) == (SETTINGS, 0):
                writer.write(frame(SETTINGS, flags=1))
        writer.write(last)
        end(writer)

    tls = tls_context(AUTHORITY.host_certificate(), ["h2"])
    async with await start_server(meet, "127.0.0.1", 0, ssl=tls) as server:
        route = Route("direct", "127.0.0.1", server.sockets[0].getsockname()[1], ("h2",))
        async with await TeleportClient.open(route, identity) as client:
            with pytest.raises(TeleportUnavailable) as caught:
                await client.ping()
    return str(caught.value)


@pytest.mark.parametrize("end", [hang_up, reset])
async def test_the_reason_that_a_server_gives_is_told(identity: Identity, end: Callable[[StreamWriter], None]) -> None:
    told = await failure(identity, goaway(ENHANCE_YOUR_CALM, b"too_many_pings"), end)
    assert told == ("Teleport closed the connection (GOAWAY received; Error code: 11; Debug Text: too_many_pings)")


async def test_a_long_reason_is_a_line_at_most(identity: Identity) -> None:
    told = await failure(identity, goaway(ENHANCE_YOUR_CALM, b"x" * 9000))
    assert len(told) < 300
    assert "Debug Text: xxx" in told


async def test_of_a_server_that_gives_none_nothing_is_made_up(identity: Identity) -> None:
    assert await failure(identity, b"") == "Teleport closed the connection"
