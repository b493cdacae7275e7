"""What a relay's answers and its silence mean for a mail: the one table of RFC 5321's and RFC 3463's codes.

A mail is tried *later*, is *dead*, or is *held* with all others because the relay turns everybody away. The rows are
read from the top; the first one that fits holds. A 5yz reply counts by its reply code even where its enhanced code
begins with 4, and the other way round: relays disagree about the latter far more often.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from services.mailer.errors import DeliveryError, Held, Refusal, Refused, Trouble, Unavailable
from services.mailer.retries import hint_in
from shared.mail import one_line

DETAIL_LENGTH = 500
"""Characters of a relay's answer that are worth keeping: a stranger's text of any length."""


class Stage(StrEnum):
    """How far we are with the relay."""

    CONNECT = "connect"
    GREETING = "greeting"
    TLS = "tls"
    EHLO = "ehlo"
    AUTH = "auth"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"
    CONTENT = "content"
    """The content is leaving, or has left: only the relay knows whether it has the mail."""


PREPARATION = (Stage.CONNECT, Stage.GREETING, Stage.TLS, Stage.EHLO, Stage.AUTH)
"""What fails here says nothing about a mail."""

TRANSACTION = (Stage.MAIL, Stage.RCPT, Stage.DATA, Stage.CONTENT)


class Fate(StrEnum):
    """What becomes of the mail."""

    LATER = "later"
    DEAD = "dead"
    HELD = "held"


@dataclass(frozen=True)
class Meaning:
    """What an answer means."""

    fate: Fate
    reason: Trouble | Refusal


@dataclass(frozen=True)
class _Row:
    stages: Collection[Stage]
    code: str
    """A pattern of reply codes."""
    enhanced: str
    """A pattern of enhanced codes; the answer may have none, which only `ANY` fits."""
    meaning: Meaning


ANY = ""


def _later(reason: Trouble) -> Meaning:
    return Meaning(Fate.LATER, reason)


def _dead(reason: Refusal) -> Meaning:
    return Meaning(Fate.DEAD, reason)


def _held(reason: Trouble) -> Meaning:
    return Meaning(Fate.HELD, reason)


_OVERLOADED = r"4\.3\.2|4\.4\.5"
"""The host takes no mail now; the mail system is congested (RFC 3463 §3.4, §3.5)."""

_TABLE = (
    # -- before MAIL nobody's mail is at fault
    _Row(PREPARATION, "421", ANY, _held(Trouble.BUSY)),
    _Row(PREPARATION, "4..", _OVERLOADED, _held(Trouble.BUSY)),  # Exchange Online: 432 4.3.2 at too many connections
    _Row([Stage.AUTH], "454", ANY, _held(Trouble.TEMPORARY)),  # RFC 4954 §6: the relay cannot ask its user base now
    _Row([Stage.AUTH], ANY, ANY, _held(Trouble.CREDENTIALS)),
    _Row([Stage.TLS], ANY, ANY, _held(Trouble.TLS)),
    _Row(PREPARATION, ANY, ANY, _held(Trouble.CONNECT)),
    # -- the relay takes nothing from anybody, or wants another login (RFC 4954 §6)
    _Row(TRANSACTION, "421", ANY, _later(Trouble.BUSY)),
    _Row([Stage.MAIL], "53[0458]", ANY, _held(Trouble.CREDENTIALS)),
    _Row([Stage.MAIL], "5..", r"5\.7\.(0|8|9|11|13|14)", _held(Trouble.CREDENTIALS)),
    # the same after it has taken our sender: it may mean one recipient alone, so the breaker counts before it opens
    _Row([Stage.RCPT, Stage.DATA, Stage.CONTENT], "53[0458]", ANY, _later(Trouble.CREDENTIALS)),
    # -- we and the relay disagree about where we are: another connection will do
    _Row([Stage.MAIL, Stage.RCPT, Stage.DATA], "503", ANY, _later(Trouble.PROTOCOL)),
    # -- never
    _Row(TRANSACTION, "5..", r"5\.6\.7", _dead(Refusal.NO_SMTPUTF8)),  # RFC 6531 §3.5
    _Row([Stage.MAIL], "552", ANY, _dead(Refusal.MESSAGE_REFUSED)),  # RFC 1870 §6.1: it is too large
    _Row([Stage.MAIL], "5..", r"5\.3\.4|5\.2\.3", _dead(Refusal.MESSAGE_REFUSED)),
    _Row([Stage.MAIL], "5..", ANY, _dead(Refusal.SENDER_REFUSED)),
    _Row([Stage.RCPT], "5..", ANY, _dead(Refusal.RECIPIENT_REFUSED)),
    # some know only after DATA that a mailbox is none, or full; 5.1.7 and 5.1.8 concern the sender
    _Row([Stage.DATA, Stage.CONTENT], "5..", r"5\.1\.([0-69]|10)|5\.2\.[0-9]+", _dead(Refusal.RECIPIENT_REFUSED)),
    _Row([Stage.DATA, Stage.CONTENT], "5..", ANY, _dead(Refusal.MESSAGE_REFUSED)),
    # -- not now: the relay's limits first, then all that is this mail's own
    _Row(TRANSACTION, "432", ANY, _later(Trouble.BUSY)),
    _Row(TRANSACTION, "4..", _OVERLOADED, _later(Trouble.BUSY)),
    _Row([Stage.MAIL], "4..", r"4\.7\.[0-9]+", _later(Trouble.BUSY)),  # Postfix: 450 4.7.1 at too many mails a minute
    _Row(TRANSACTION, "4..", ANY, _later(Trouble.TEMPORARY)),
    # -- what the protocol does not allow here
    _Row(TRANSACTION, ANY, ANY, _later(Trouble.PROTOCOL)),
)

_ENHANCED = re.compile(r"[245]\.[0-9]{1,3}\.[0-9]{1,3}(?![0-9.])")


class Reply(NamedTuple):
    """A reply (RFC 5321 §4.2), its lines joined by line feeds."""

    code: int
    text: str

    @property
    def enhanced(self) -> str:
        """The enhanced code (RFC 3463) that it begins with, or nothing."""
        found = _ENHANCED.match(self.text)
        return found[0] if found else ""

    def __str__(self) -> str:
        return one_line(f"{self.code} {self.text}", DETAIL_LENGTH)


class BrokenOffError(Exception):
    """There will be no answer: the connection is lost, or nobody can make sense of what it brings."""

    def __init__(self, trouble: Trouble, detail: str) -> None:
        super().__init__(detail)
        self.trouble = trouble


def meaning(stage: Stage, code: int, enhanced: str) -> Meaning:
    """What a reply means that is not the hoped-for one. `enhanced`: its RFC 3463 code, or nothing."""
    return next(
        row.meaning
        for row in _TABLE
        if stage in row.stages
        and (row.code == ANY or re.fullmatch(row.code, str(code)))
        and (row.enhanced == ANY or re.fullmatch(row.enhanced, enhanced))
    )


def judged(stage: Stage, reply: Reply) -> DeliveryError:
    """A reply that is not the hoped-for one, as the error that it means."""
    found, detail, hint = meaning(stage, reply.code, reply.enhanced), str(reply), hint_in(reply.text)
    if isinstance(found.reason, Refusal):
        return Refused(found.reason, detail, code=reply.code)
    if found.fate is Fate.HELD:
        return Held(found.reason, detail, code=reply.code, retry_after=hint)
    perhaps = stage is Stage.CONTENT and found.reason is Trouble.PROTOCOL
    return Unavailable(found.reason, detail, code=reply.code, retry_after=hint, perhaps=perhaps)


_UNREACHED = {
    Stage.CONNECT: Trouble.CONNECT,
    Stage.GREETING: Trouble.CONNECT,
    Stage.EHLO: Trouble.CONNECT,
    Stage.TLS: Trouble.TLS,
}


def unanswered(stage: Stage, error: BrokenOffError) -> DeliveryError:
    """No answer at this stage, as the error that it means."""
    detail = one_line(str(error), DETAIL_LENGTH)
    if stage not in PREPARATION:
        return Unavailable(error.trouble, detail, perhaps=stage is Stage.CONTENT)
    reason = error.trouble if error.trouble is Trouble.TLS else _UNREACHED.get(stage, error.trouble)
    return Held(reason, detail)
