"""The seam to the outside world: a transport hands one message to one relay and tells what came of it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

StillHeld = Callable[[], bool]
"""Is the mail surely still ours to send? Asked at the last moment at which a mail can be kept back."""


@dataclass(frozen=True)
class Envelope:
    """A message with the addresses that the relay acts upon (RFC 5321 §2.3.1), domains in A-labels."""

    sender: str
    recipient: str
    content: bytes
    """Header and body, lines ended by CRLF, none longer than 998 octets; or how they begin, up to the end of a line."""
    shared: bytes = b""
    """How the content goes on: one object for all mails that share it, so that it need not be looked at for each."""

    @property
    def needs_smtputf8(self) -> bool:
        """Does a local part go beyond ASCII, so that the relay must offer RFC 6531?"""
        return not (self.sender.isascii() and self.recipient.isascii())


class Transport(Protocol):
    """A way to a relay. Each translates its library's errors into ours, in one place."""

    at_once: int
    """Mails that it can take in hand at the same time; more would only wait."""

    async def send(self, envelope: Envelope, still_held: StillHeld) -> str:
        """Hand the message over; the relay's answer.

        Raises `Unavailable`, `Held`, `Refused`, and `ClaimLost` if the mail was not ours to send at the end.
        """

    async def check(self) -> str:
        """Go as far as one can without a mail, credentials included; the relay's answer.

        Raises `Held`, or `Unavailable`.
        """

    def reload(self) -> None:
        """Read what stands in files again. Raises `SettingsError` and goes on with what it had."""

    async def close(self) -> None:
        """Leave the relay."""
