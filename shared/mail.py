"""The words of the mail side: what is told, to whom, in which mail, and what became of it."""

import hashlib
import re
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from typing import Literal

from pydantic import Field

from shared.events import Message, RequestId

ADDRESSES_KEPT = 1000


class NoticeKind(StrEnum):
    """What a mail tells about its request."""

    REQUESTED = "requested"
    REVIEWED = "reviewed"
    APPROVED = "approved"
    DENIED = "denied"
    PROMOTED = "promoted"
    EXPIRED = "expired"


class Notice(Message):
    """One thing to tell about a request; written `requested`, `reviewed-2`, `approved`."""

    kind: NoticeKind
    review: int | None = Field(default=None, ge=1)
    """Position of the review that a `reviewed` notice tells of."""

    def __str__(self) -> str:
        return self.kind.value if self.review is None else f"{self.kind.value}-{self.review}"

    @classmethod
    def parse(cls, text: str) -> "Notice":
        """The inverse of `str`. Raises `ValueError`."""
        kind, _, review = text.partition("-")
        return cls(kind=NoticeKind(kind), review=int(review) if review else None)


class Why(StrEnum):
    """Why a person is told."""

    ROLE = "role"
    DEFAULT = "default"
    SUGGESTED_REVIEWER = "suggested-reviewer"
    RULE = "rule"
    ANNOUNCED = "announced"
    """Teleport's record says that the person heard of the request before; by which rule it does not say."""


class Recipient(Message):
    """A person to tell, and why."""

    address: str
    """A bare address (RFC 5321 Mailbox), its domain in lower case."""
    why: Why
    role: str = ""
    """The requested role whose mapping names the address."""
    rule: str = ""
    """The Access Monitoring Rule that names the address."""
    announced_in: str | None = None
    """Message-ID of the mail that told this person of the request before Redis knew it, as Teleport's record has it;
    empty where the record has none. None: our own first mail is the one."""

    @property
    def hash(self) -> str:
        """Stands for the address in keys and ids, where no address may stand."""
        return _hash_of(self.address)


@lru_cache(maxsize=ADDRESSES_KEPT)
def _hash_of(address: str) -> str:
    return hashlib.sha256(address.encode()).hexdigest()[:12]


class Mail(Message):
    """One mail to one person: facts to look up, no text. It is the argument of the RQ job of the same id."""

    v: Literal[1] = 1
    request_id: RequestId
    notice: Notice
    recipient: Recipient

    @property
    def id(self) -> str:
        """RQ job id, ledger key and stem of the Message-ID."""
        return mail_id(self.request_id, self.notice, self.recipient)

    @property
    def thread(self) -> str:
        """All mails about one request to one person."""
        return thread_id(self.request_id, self.recipient)


def mail_id(request_id: str, notice: Notice, recipient: Recipient) -> str:
    """`{request}-{notice}-{hash}`: letters, digits, `_` and `-` only (RQ's rule for job ids)."""
    return f"{request_id}-{notice}-{recipient.hash}"


_MAIL_ID = re.compile(r"([A-Za-z0-9_-]+)-([a-z]+(?:-[0-9]+)?)-([0-9a-f]{12})")


def parse_mail_id(text: str) -> tuple[str, Notice, str]:
    """Request id, notice and `Recipient.hash`: the inverse of `mail_id`. Raises `ValueError`."""
    found = _MAIL_ID.fullmatch(text)
    if found is None:
        raise ValueError(f"no id of a mail: {text[:200]!r}")
    return found[1], Notice.parse(found[2]), found[3]


def thread_id(request_id: str, recipient: Recipient) -> str:
    """`{request}-{hash}`: the thread's name in Redis and its virtual root in Message-IDs."""
    return f"{request_id}-{recipient.hash}"


# -- what becomes of a mail: the answers of `Mailroom.deliver`, and what a settled job leaves


class Met(StrEnum):
    """How the relay has met a mail: what the breaker that all mailers share goes by."""

    NOT = ""
    """It was not asked, or its answer tells nothing."""
    LET_IN = "in"
    """It has let us in, whatever it said to the mail itself."""
    BUSY = "busy"
    """It has let us in, and takes nothing from anybody now: no attempt of this mail."""
    REFUSED_US = "us"
    """It has refused our sender's address, or wants another login after it: perhaps for this mail alone."""
    TURNED_AWAY = "away"
    """It turns everybody away."""


@dataclass(frozen=True)
class Delivered:
    """The relay has taken the mail; `answer` is its reply."""

    answer: str


@dataclass(frozen=True)
class Later:
    """Try again after `pause` seconds. `perhaps`: the relay may have taken the mail, its answer was lost.

    It counts as an attempt if the relay was met, and had time.
    """

    pause: float
    reason: str
    detail: str = ""
    perhaps: bool = False
    met: Met = field(default=Met.LET_IN, compare=False)


@dataclass(frozen=True)
class Held:
    """No mail is at fault: this one waits with all others, untouched, until the relay lets one of them in again.

    `pause`: seconds that the relay asks for, if it does.
    """

    reason: str
    detail: str = ""
    pause: float = 0.0


@dataclass(frozen=True)
class Dropped:
    """The mail is not worth sending any more."""

    reason: str


@dataclass(frozen=True)
class Dead:
    """Nobody will send it unless an operator asks: a dead letter. `detail` is the relay's answer.

    `perhaps`: the relay may have taken it.
    """

    reason: str
    detail: str = ""
    perhaps: bool = False
    """The relay may have taken it."""
    met: Met = field(default=Met.NOT, compare=False)


Verdict = Delivered | Later | Held | Dropped | Dead


class Outcome(StrEnum):
    """The final states of a mail, as its receipt names them."""

    DELIVERED = "delivered"
    DROPPED = "dropped"
    DEAD = "dead"


@dataclass(frozen=True)
class Receipt:
    """What the ledger keeps of a settled mail."""

    outcome: Outcome


_NOT_PRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]+")


def one_line(text: str, limit: int) -> str:
    """Untrusted text for a log line or a receipt: what is no text becomes a space, cut to `limit` characters."""
    return _NOT_PRINTABLE.sub(" ", text)[:limit].strip()
