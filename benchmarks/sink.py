"""A relay that takes every mail and counts: STARTTLS, AUTH and PIPELINING, and replies that come late on purpose.

It runs as a process of its own. What it has taken stands in a file that it maps, so that nobody needs to ask it.
"""

import asyncio
import mmap
import ssl
import struct
import sys
import time
from pathlib import Path
from typing import cast

import click
import uvloop

TALLY = struct.Struct("<Qdd")
"""Mails taken, time of the mail that ends the warm-up, time of the last one: seconds of CLOCK_MONOTONIC."""

END_OF_CONTENT = b"\r\n.\r\n"


class Tally:
    """The file that the sink writes and the benchmark reads."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            path.write_bytes(bytes(TALLY.size))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), TALLY.size)
        self._warm_at = 0.0

    def read(self) -> tuple[int, float, float]:
        """Mails, end of the warm-up, last mail."""
        return cast("tuple[int, float, float]", TALLY.unpack_from(self._map))

    def count(self, mails: int, warm_up: int) -> None:
        """Write that so many mails have come by now."""
        now = time.monotonic()
        if mails == warm_up:
            self._warm_at = now
        TALLY.pack_into(self._map, 0, mails, self._warm_at, now)


class Sink:
    """Counts the mails of all connections."""

    def __init__(self, tally: Tally, warm_up: int, delay: float, tls: ssl.SSLContext | None) -> None:
        self.tls = tls
        self.delay = delay
        self._tally = tally
        self._warm_up = warm_up
        self._mails = 0

    def accept(self) -> None:
        """One more mail."""
        self._mails += 1
        self._tally.count(self._mails, self._warm_up)


class Conversation(asyncio.Protocol):
    """One connection."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._in_content = False
        self._starting: asyncio.Task[None] | None = None
        self._encrypted = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet, but not again after STARTTLS."""
        self._transport = cast("asyncio.Transport", transport)
        if not self._encrypted:
            self._reply(b"220 sink ESMTP\r\n")

    def data_received(self, data: bytes) -> None:
        """Answer what is complete, in one piece as a server does that is pipelined to."""
        self._buffer += data
        replies = bytearray()
        while self._starting is None:
            end = self._buffer.find(END_OF_CONTENT if self._in_content else b"\r\n")
            if end < 0:
                break
            if self._in_content:
                del self._buffer[: end + len(END_OF_CONTENT)]
                self._in_content = False
                self._sink.accept()
                replies += b"250 2.0.0 taken\r\n"
            else:
                line = bytes(self._buffer[:end])
                del self._buffer[: end + 2]
                replies += self._answer(line)
        if replies:
            self._reply(bytes(replies))

    def _answer(self, line: bytes) -> bytes:
        verb = line[:4].upper()
        if verb == b"DATA":
            self._in_content = True
            self._buffer[:0] = b"\r\n"  # so that an empty content ends as any other
            return b"354 go on\r\n"
        if verb == b"EHLO":
            offers = [b"sink", b"PIPELINING", b"8BITMIME", b"SIZE 10000000", b"ENHANCEDSTATUSCODES"]
            offers += [b"STARTTLS"] if self._sink.tls and not self._encrypted else [b"AUTH PLAIN"]
            return b"".join(b"250-" + offer + b"\r\n" for offer in offers[:-1]) + b"250 " + offers[-1] + b"\r\n"
        if verb == b"STAR":
            self._starting = asyncio.ensure_future(self._start_tls())
            return b""
        return {b"AUTH": b"235 2.7.0 welcome\r\n", b"QUIT": b"221 2.0.0 bye\r\n"}.get(verb, b"250 2.1.0 ok\r\n")

    async def _start_tls(self) -> None:
        assert self._transport is not None
        assert self._sink.tls is not None
        self._transport.write(b"220 2.0.0 go ahead\r\n")
        self._encrypted = True
        loop = asyncio.get_running_loop()
        self._transport = await loop.start_tls(self._transport, self, self._sink.tls, server_side=True)
        self._starting = None

    def _reply(self, data: bytes) -> None:
        if self._sink.delay:
            asyncio.get_running_loop().call_later(self._sink.delay, self._send, data)
        else:
            self._send(data)

    def _send(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)


async def serve(sink: Sink) -> None:
    """Print the port and serve until the process is ended."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Conversation(sink), "127.0.0.1", 0, backlog=1000)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


@click.command(help=__doc__)
@click.option("--tally", type=click.Path(path_type=Path), required=True)
@click.option("--warm-up", type=int, required=True, help="Mails that are not measured.")
@click.option("--delay", type=float, default=0.0, help="Seconds by which each reply is late.")
@click.option("--certificate", type=click.Path(path_type=Path), help="PEM key and certificate: offer STARTTLS.")
def main(tally: Path, warm_up: int, delay: float, certificate: Path | None) -> None:
    """Run until the process is ended."""
    tls = None
    if certificate is not None:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(certificate)
    uvloop.run(serve(Sink(Tally(tally), warm_up, delay, tls)))


if __name__ == "__main__":
    main()
