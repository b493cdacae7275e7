"""Reads the first message of a TLS client without answering it, to learn which protocols it offers (RFC 8446, 7301)."""

from collections.abc import Iterator

HANDSHAKE_RECORD = 22
CLIENT_HELLO = 1
ALPN_EXTENSION = 16
VERSION_AND_RANDOM = 2 + 32


class NotClientHelloError(Exception):
    """What arrived is not the beginning of a TLS connection."""


class TruncatedError(Exception):
    """A field says that it is longer than what is there."""


class Cursor:
    """A position in bytes that are made of numbers and of fields with a length before them."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._position = 0

    def __bool__(self) -> bool:
        return self._position < len(self._content)

    def take(self, length: int) -> bytes:
        """Return the next bytes. Raises `TruncatedError`."""
        end = self._position + length
        if end > len(self._content):
            raise TruncatedError
        taken = self._content[self._position : end]
        self._position = end
        return taken

    def number(self, size: int) -> int:
        """Return a big-endian number of `size` bytes. Raises `TruncatedError`."""
        return int.from_bytes(self.take(size), "big")

    def field(self, length_size: int) -> bytes:
        """Return a field whose length stands before it in `length_size` bytes. Raises `TruncatedError`."""
        return self.take(self.number(length_size))


def offered_protocols(received: bytes) -> list[bytes] | None:
    """Return the client's ALPN list, empty if it sent none, or None while its hello is not complete.

    Raises `NotClientHelloError`.
    """
    try:
        handshake = Cursor(_handshake(received))
        kind = handshake.number(1)
        if kind != CLIENT_HELLO:
            raise NotClientHelloError(f"handshake message {kind}")
        hello = handshake.field(3)
    except TruncatedError:
        return None
    try:
        return list(_protocols(hello))
    except TruncatedError:
        raise NotClientHelloError("a field is longer than the hello") from None


def _handshake(received: bytes) -> bytes:
    """Join the complete records: a hello may span several (RFC 8446, 5.1)."""
    records = Cursor(received)
    joined = b""
    try:
        while records:
            kind = records.number(1)
            if kind != HANDSHAKE_RECORD:
                raise NotClientHelloError(f"record of type {kind}")
            records.take(2)
            joined += records.field(2)
    except TruncatedError:
        return joined
    return joined


def _protocols(hello: bytes) -> Iterator[bytes]:
    body = Cursor(hello)
    body.take(VERSION_AND_RANDOM)
    body.field(1)  # session id
    body.field(2)  # cipher suites
    body.field(1)  # compression methods
    extensions = Cursor(body.field(2) if body else b"")
    while extensions:
        kind = extensions.number(2)
        content = extensions.field(2)
        if kind == ALPN_EXTENSION:
            names = Cursor(Cursor(content).field(2))
            while names:
                yield names.field(1)
