"""Teleport's plugin data as the Go plugin `teleport-plugin-email` writes and reads them. Pure.

A record is seven texts under fixed keys. Its list of threads is `address/time/Message-ID`, joined by commas, so that
a text with a comma or a slash cannot stand in it: it is left out rather than made to say something else.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final

from shared.events import Announced, AnnouncedThread

KEYS: Final = (
    "user",
    "roles",
    "request_reason",
    "reviews_count",
    "resolution",
    "resolve_reason",
    "email_threads",
)
THREADS: Final = 1_000
"""That are read of a record, whoever wrote it."""
TEXT: Final = 2_000

_BREAKS_A_LIST = re.compile("[,/\ud800-\udfff]")
_MESSAGE_ID = re.compile(r"[!-;=?-~]{1,250}")
"""What can stand between the angle brackets of a References field, and end there."""
_NUMBER = re.compile(r"[0-9]{1,9}")


class Resolution(StrEnum):
    """How a request ended, as the record says it, from what may be overruled to what is final."""

    APPROVED = "APPROVED"
    PROMOTED = "PROMOTED"
    """Ours: the Go plugin tells nobody of promotions, and takes any text here for "has been resolved"."""
    DENIED = "DENIED"
    EXPIRED = "EXPIRED"


@dataclass(frozen=True)
class Thread:
    """A person who was told of the request, when, and the Message-ID of the mail that did it."""

    address: str
    told: str
    message_id: str

    @property
    def encoded(self) -> str | None:
        """Its place in the list; None if it cannot stand there."""
        parts = (self.address, self.told, self.message_id)
        return "/".join(parts) if self.address and not any(map(_BREAKS_A_LIST.search, parts)) else None


@dataclass(frozen=True)
class News:
    """What the record is to say besides what it says already."""

    user: str = ""
    roles: tuple[str, ...] = ()
    request_reason: str = ""
    threads: tuple[Thread, ...] = ()
    review_count: int = 0
    resolution: Resolution | None = None
    resolve_reason: str = ""

    @property
    def says_something(self) -> bool:
        """Has anybody been told anything?"""
        return bool(self.threads or self.review_count or self.resolution)


def as_go_writes(seconds: float) -> str:
    """Seconds since the epoch as Go's default text of a time, which nobody parses."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S.%f} +0000 UTC"


def threads_of(entry: Mapping[str, str]) -> list[Thread]:
    """The threads that the entry names, each address once. The oldest form has one in keys of its own, without id."""
    parts = (text.split("/") for text in entry.get("email_threads", "").split(","))
    threads = [Thread(*three) for three in parts if len(three) == 3]  # noqa: PLR2004 a triple
    threads.append(Thread(entry.get("email", ""), entry.get("timestamp", ""), ""))
    found: dict[str, Thread] = {}
    for thread in threads:
        if thread.address:
            found.setdefault(thread.address, thread)
    return list(found.values())


def announced(entry: Mapping[str, str]) -> Announced | None:
    """Who was told what; None where the entry names nobody: the Go plugin writes it before it sends."""
    threads = threads_of(entry)[:THREADS]
    if not threads:
        return None
    return Announced(
        threads=tuple(_announced_thread(thread) for thread in threads),
        review_count=_number(entry.get("reviews_count", "")),
        resolution=entry.get("resolution", "").lower()[:TEXT],
        user=entry.get("user", "")[:TEXT],
        roles=tuple(role[:TEXT] for role in entry.get("roles", "").split(",", THREADS)[:THREADS] if role),
        request_reason=entry.get("request_reason", "")[:TEXT],
    )


def _announced_thread(thread: Thread) -> AnnouncedThread:
    message_id = thread.message_id if _MESSAGE_ID.fullmatch(thread.message_id) else ""
    return AnnouncedThread(address=thread.address[:TEXT], message_id=message_id)


def merged(entry: Mapping[str, str], news: News) -> dict[str, str]:
    """The seven texts after the news. Nothing that the entry says is taken back, understood or not."""
    resolution, resolve_reason = _resolved(entry, news)
    return {
        "user": entry.get("user") or news.user,
        "roles": entry.get("roles") or ",".join(role for role in news.roles if not _BREAKS_A_LIST.search(role)),
        "request_reason": entry.get("request_reason") or news.request_reason,
        "reviews_count": _more_reviews(entry.get("reviews_count", ""), news.review_count),
        "resolution": resolution,
        "resolve_reason": resolve_reason,
        "email_threads": _joined(entry, news.threads),
    }


def _joined(entry: Mapping[str, str], threads: Iterable[Thread]) -> str:
    known = {thread.address for thread in threads_of(entry)}
    added = {thread.address: thread.encoded for thread in threads if thread.encoded and thread.address not in known}
    return ",".join(text for text in (entry.get("email_threads"), *added.values()) if text)


def _more_reviews(before: str, count: int) -> str:
    return str(count) if count > _number(before) else before


def _resolved(entry: Mapping[str, str], news: News) -> tuple[str, str]:
    before = entry.get("resolution", ""), entry.get("resolve_reason", "")
    if news.resolution is None or (before[0] and _finality(before[0]) >= _finality(news.resolution)):
        return before
    return news.resolution.value, news.resolve_reason


def _finality(resolution: str) -> int:
    names = [one.value for one in Resolution]
    return names.index(resolution) if resolution in names else len(names)


def _number(text: str) -> int:
    return int(text) if _NUMBER.fullmatch(text) else 0
