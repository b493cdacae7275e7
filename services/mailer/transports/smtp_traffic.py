"""What the connections to one relay share: the mails that wait, and what they tell each other of the relay."""

import asyncio
import ssl
from collections import deque
from dataclasses import dataclass
from typing import Protocol

from services.mailer.transports import Envelope, StillHeld


@dataclass(eq=False)
class Sending:
    """A mail on its way to the relay."""

    envelope: Envelope
    still_held: StillHeld
    answer: asyncio.Future[str]

    @property
    def is_over(self) -> bool:
        """Is it answered, or does nobody wait for the answer any more?"""
        return self.answer.done()

    def succeed(self, answer: str) -> None:
        """Tell whoever waits that the relay has the mail."""
        if not self.answer.done():
            self.answer.set_result(answer)

    def fail(self, error: Exception) -> None:
        """Tell whoever waits that it has not, or that nobody knows."""
        if not self.answer.done():
            self.answer.set_exception(error)


class Carrier(Protocol):
    """A connection, as all of them together see it."""

    tls: ssl.SSLContext

    def wake(self) -> None:
        """End its rest: it looks for a mail, or leaves."""

    def cut(self) -> None:
        """Close it now."""


class Traffic(Protocol):
    """All connections to the relay together, as one of them sees it."""

    waiting: deque[Sending]
    """Mails that no connection has begun with; the first one is the next."""
    resting: list[Carrier]
    """Connections that wait for a mail, the last one for the shortest time."""

    @property
    def is_full(self) -> bool:
        """May no connection be added? Then a mail gains by following another one closely; else it goes by itself."""

    def wants(self, carrier: Carrier) -> bool:
        """Shall it take another mail?"""

    def relay_is_busy(self, began: float) -> None:
        """The relay turned a mail, which `began` at this monotonic time, away because there are too many."""

    def pipelining_fails(self) -> None:
        """The relay offers it, and has not answered a group of commands."""
