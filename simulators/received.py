"""What a simulated post office has taken: mails as they arrived, and questions about many of them."""

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from email import message_from_bytes
from email.headerregistry import HeaderRegistry
from email.message import EmailMessage, Message
from email.parser import BytesHeaderParser
from email.policy import EmailPolicy, default
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Protocol, cast

AS_TEXT = EmailPolicy(header_factory=HeaderRegistry(use_default_map=False))
"""Decodes headers and understands none: the standard parser fails at some malformed addresses and Message-IDs."""


@dataclass(frozen=True, eq=False)
class ReceivedMail:
    """One mail to one recipient, exactly as it came in: no two are the same. Parsed when somebody looks at it."""

    sender: str
    """The envelope sender (RFC 5321 reverse-path)."""
    recipient: str
    """The envelope recipient (RFC 5321 forward-path)."""
    raw: bytes
    """The content without dot-stuffing, lines end as they came."""
    arrived: datetime
    connection: int
    """Number of the connection that brought it, from 1."""
    tls: bool
    """Was the connection encrypted?"""
    user: str = ""
    """Who had logged in."""

    @cached_property
    def name(self) -> str:
        """What it is called in links: the same for a mail that came twice, whose copies are the same to a reader."""
        return hashlib.sha256(self.recipient.encode(errors="surrogateescape") + b"\0" + self.raw).hexdigest()[:16]

    @cached_property
    def message(self) -> EmailMessage:
        """The mail as the standard parser reads it, which raises errors of many kinds at some malformed headers."""
        return message_from_bytes(self.raw, policy=default)

    @cached_property
    def _headers(self) -> Message:
        """The headers alone, unstructured: many times faster than the message."""
        return BytesHeaderParser().parsebytes(self.raw)

    @property
    def headers(self) -> list[tuple[str, str]]:
        """Names and decoded values in their order, however malformed they are."""
        return [(name, str(value)) for name, value in BytesHeaderParser(policy=AS_TEXT).parsebytes(self.raw).items()]

    @property
    def message_id(self) -> str:
        """The Message-ID with its angle brackets; empty if there is none."""
        return str(self._headers.get("message-id", "")).strip()

    @property
    def references(self) -> tuple[str, ...]:
        """The Message-IDs of References, oldest first; of In-Reply-To where there are none (RFC 5322 §3.6.4)."""
        return tuple(str(self._headers.get("references") or self._headers.get("in-reply-to", "")).split())

    @property
    def subject(self) -> str:
        """The Subject, decoded."""
        return str(self.message.get("subject", ""))

    @property
    def text(self) -> str:
        """The text part, decoded, with LF; empty if there is none. What its charset does not explain becomes U+FFFD."""
        return self._part("plain")

    @property
    def html(self) -> str:
        """The HTML part, likewise. It is as trustworthy as whoever sent it."""
        return self._part("html")

    def _part(self, subtype: str) -> str:
        part = self.message.get_body((subtype,))
        if part is None:
            return ""
        content = cast(bytes, part.get_payload(decode=True))
        try:
            text = content.decode(part.get_content_charset("ascii"), "replace")
        except (LookupError, ValueError):  # nobody knows this charset
            text = content.decode("ascii", "replace")
        return text.replace("\r\n", "\n")


class PostOffice(Protocol):
    """Whatever has taken mails: `Mailbox`, `Mailgun`."""

    @property
    def mails(self) -> list[ReceivedMail]:
        """All mails in the order of their arrival."""


def duplicates(mails: Iterable[ReceivedMail]) -> dict[tuple[str, str], int]:
    """How often (Message-ID, recipient) was taken, for those that were taken more than once."""
    counted = Counter((mail.message_id, mail.recipient) for mail in mails)
    return {key: times for key, times in counted.items() if times > 1}


def about(mails: Iterable[ReceivedMail], request_id: str, recipient: str = "*") -> list[ReceivedMail]:
    """Mails about one Access Request in the order of arrival; `recipient` may be a pattern.

    The request is known by the identifiers of the thread, which also survive a relay that replaces Message-IDs.
    """
    stem = f"<{request_id}-"
    return [
        mail
        for mail in mails
        if any(identifier.startswith(stem) for identifier in (mail.message_id, *mail.references))
        and fnmatchcase(mail.recipient, recipient)
    ]


def threads(mails: Iterable[ReceivedMail]) -> list[list[ReceivedMail]]:
    """Conversations of each recipient, in the order of their first mails, each in the order a mail client shows."""
    found: dict[tuple[str, str], list[ReceivedMail]] = {}
    for mail in mails:
        root = mail.references[0] if mail.references else mail.message_id
        found.setdefault((mail.recipient, root), []).append(mail)
    return [_answers_after_questions(thread) for thread in found.values()]


def _answers_after_questions(thread: list[ReceivedMail]) -> list[ReceivedMail]:
    """A mail stands after the mails of the thread that it refers to, otherwise the order of arrival holds."""
    waiting, ordered = list(thread), list[ReceivedMail]()
    while waiting:
        unread = {mail.message_id for mail in waiting}
        following = (mail for mail in waiting if not unread.intersection(mail.references) - {mail.message_id})
        mail = next(following, waiting[0])  # mails that refer to each other in a circle have no first one
        waiting.remove(mail)
        ordered.append(mail)
    return ordered
