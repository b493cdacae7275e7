"""A job in a mailer's hands: a mail with all facts that its delivery needs, brought by one round trip, or no mail."""

from dataclasses import dataclass

from shared.mail import Mail, Receipt
from shared.memory import RequestFacts


@dataclass(frozen=True)
class Claimed:
    """A mail that this worker alone may send until its claim ends. Times are Redis's, in seconds since the epoch."""

    mail: Mail
    execution: str
    """Names this claim, in RQ's words."""
    now: float
    """When it was claimed."""
    attempts: int
    """Settled attempts before this one."""
    first_tried: float | None
    """When the first of them began."""
    revived: bool
    """An operator brought it back from the dead letters: attempts and first try are those since then."""
    perhaps: bool
    """The relay may have taken it in an earlier attempt, and no operator has brought it back since."""
    receipt: Receipt | None
    """What the ledger knows of this very mail."""
    announced: bool
    """The thread's first mail was taken by the relay, certainly or perhaps."""
    is_suspect: bool
    """Its workers have died several times in a row: it is handled alone, lest others die of it."""
    facts: RequestFacts | None
    """What is known of the request now; None: nothing any more."""


@dataclass(frozen=True)
class Malformed:
    """A claimed job that is no mail, or whose bookkeeping nobody can read."""

    id: str
    execution: str
    now: float
    error: str
