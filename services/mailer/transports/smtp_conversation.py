"""What is said on a connection that is ready for mails: groups of commands go out, replies come back in their order.

RFC 2920 lets a client send several commands at once; each reply is known by its turn alone. So a reply that nobody
waits for, or that cannot be read, ends the connection: none after it could be trusted.
"""

import asyncio
import ssl
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from services.mailer.errors import Trouble
from services.mailer.transports.smtp_answers import BrokenOffError, Reply

LONGEST_LINE = 8192
LONGEST_REPLY = 4 * LONGEST_LINE
"""Octets. RFC 5321 §4.5.3.1.5 allows 512 a line; nothing that a relay has to say is as long as this."""

CODE_DIGITS = 3

GOODBYE_SECONDS = 1.0
"""No relay is worth more once we are done with it."""


class _Expected(NamedTuple):
    """A reply that is to come."""

    future: asyncio.Future[Reply]
    patience: float
    """Seconds, from when it is the next one."""


class Conversation(asyncio.Protocol):
    """Takes a connection over from whoever has made it ready."""

    def __init__(self, transport: asyncio.Transport, ended: Callable[[], None]) -> None:
        """`ended` is called once, when nothing more can be said."""
        self.end: BrokenOffError | None = None
        """Why nothing more can be said."""
        self._transport = transport
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._expected: deque[_Expected] = deque()
        self._unread = b""
        self._lines: list[bytes] = []
        self._lost = asyncio.Event()
        self._deadline = 0.0
        self._timer: asyncio.TimerHandle | None = None
        transport.set_protocol(self)

    @property
    def is_open(self) -> bool:
        """Can anything be said?"""
        return self.end is None

    def write(self, data: bytes) -> None:
        """Send commands or content; what they are answered with, `expect` gives."""
        if self.is_open:
            self._transport.write(data)

    def expect(self, patience: float) -> asyncio.Future[Reply]:
        """The reply after all those that are expected already; `patience`: seconds, counted from when it is the next.

        It raises `BrokenOffError` if it does not come.
        """
        future: asyncio.Future[Reply] = self._loop.create_future()
        if self.end is not None:
            _fail(future, self.end)
            return future
        self._expected.append(_Expected(future, patience))
        if len(self._expected) == 1:
            self._wait_for_next()
        return future

    async def leave(self) -> None:
        """Say QUIT, and wait a little for the relay to close the connection (RFC 5321 §4.1.1.10)."""
        self.write(b"QUIT\r\n")
        self._break_off(BrokenOffError(Trouble.CONNECTION_LOST, "we have left"))
        with suppress(TimeoutError):
            async with asyncio.timeout(GOODBYE_SECONDS):
                await self._lost.wait()
        self._transport.abort()

    def cut(self, error: BrokenOffError) -> None:
        """Close the connection now; what is expected fails with the error."""
        self._transport.abort()
        self._break_off(error)

    # -- called by the loop

    def data_received(self, data: bytes) -> None:
        """Read replies, however they are cut into segments."""
        *lines, self._unread = (self._unread + data).split(b"\n")
        for line in lines:
            if self.is_open:
                self._read(line.removesuffix(b"\r"))
        if len(self._unread) > LONGEST_LINE:
            self._give_up("a reply without end")

    def connection_lost(self, error: Exception | None) -> None:
        """Nothing more will come."""
        self._lost.set()
        trouble = Trouble.TLS if isinstance(error, ssl.SSLError) else Trouble.CONNECTION_LOST
        self._break_off(BrokenOffError(trouble, f"the connection is lost: {error or 'the relay has closed it'}"))

    # -- replies

    def _read(self, line: bytes) -> None:
        """One line of a reply (RFC 5321 §4.2.1)."""
        code, mark = line[:CODE_DIGITS], line[CODE_DIGITS : CODE_DIGITS + 1]
        if len(code) < CODE_DIGITS or not code.isdigit() or mark not in (b"", b" ", b"-", b"\t"):
            self._give_up("a reply that is none")
            return
        self._lines.append(line[CODE_DIGITS + 1 :].strip())
        if sum(map(len, self._lines)) > LONGEST_REPLY:
            self._give_up("a reply without end")
        elif mark != b"-":
            text = b"\n".join(self._lines).decode("utf-8", "replace")
            self._lines.clear()
            self._answer(Reply(int(code), text))

    def _answer(self, reply: Reply) -> None:
        if not self._expected:
            self._give_up(f"a reply to nothing: {reply}")
            return
        expected = self._expected.popleft()
        if self._expected:
            self._wait_for_next()
        if not expected.future.done():
            expected.future.set_result(reply)

    def _give_up(self, why: str) -> None:
        self.cut(BrokenOffError(Trouble.PROTOCOL, why))

    def _break_off(self, error: BrokenOffError) -> None:
        if self.end is not None:
            return
        self.end = error
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for expected in self._expected:
            _fail(expected.future, error)
        self._expected.clear()
        self._ended()

    # -- patience: one timer, which is moved rarely, for it costs more than the look at the clock

    def _wait_for_next(self) -> None:
        self._deadline = self._loop.time() + self._expected[0].patience
        if self._timer is None or self._timer.when() > self._deadline:
            self._set_timer()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(self._deadline, self._look_at_the_clock)

    def _look_at_the_clock(self) -> None:
        self._timer = None
        if not self._expected:
            return
        if self._loop.time() < self._deadline:
            self._set_timer()
        else:
            patience = self._expected[0].patience
            self.cut(BrokenOffError(Trouble.TIMEOUT, f"no answer within {patience:g} s"))


def _fail(future: asyncio.Future[Reply], error: BrokenOffError) -> None:
    if not future.done():
        future.set_exception(error)
        future.exception()  # nobody may be there to look at it
