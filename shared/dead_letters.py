"""What nobody will do unless an operator asks: mails that were given up, and events that could not be routed.

The mails are RQ's failed jobs (`shared.mail_queue.operator_end`); the events stand in a stream of their own.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

from pydantic import ValidationError
from redis import Redis

from shared import keys
from shared.event_log import DATA
from shared.events import RequestEvent, parse_event, request_id_of

EVENT = "event"
"""What a dead event is; a mail is named by its notice."""

UNROUTABLE = "unroutable"
"""The reason of every dead event; its detail is the error."""

PAGE = 500


@dataclass(frozen=True)
class DeadLetter:
    """One mail or event that was given up."""

    id: str
    """Of a mail, its RQ job; of an event, its entry in the stream of dead events."""
    request_id: str
    """Empty where nobody can read what it is about, or where it is about rules."""
    what: str
    """The mail's notice, like `requested`; `job` for what is no mail; `EVENT` for an event."""
    recipient: str
    """The mail's address; for the operator's eyes, not for logs."""
    reason: str
    detail: str
    """The relay's answer, or the error."""
    attempts: int
    perhaps: bool
    """The relay may have taken the mail, for its answer was lost: a replay may come twice."""
    died_at: float | None
    """Seconds since the epoch, by Redis's clock; None: not known."""


class DeadEvents:
    """Works on a synchronous connection. Every method raises `redis.exceptions.RedisError`."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    def letters(self) -> Iterator[DeadLetter]:
        """All of them, oldest first."""
        start = "-"
        while entries := cast("list[Any]", self._redis.xrange(keys.DEAD, start, "+", count=PAGE)):
            for entry, fields in entries:
                yield _letter(entry.decode(), fields)
            start = f"({entries[-1][0].decode()}"

    def replay(self, ids: Sequence[str]) -> int:
        """Put these events back at the end of the stream that routers read; gives how many there were."""
        return sum(self._replay(id_) for id_ in ids)

    def forget(self, ids: Sequence[str]) -> int:
        """Remove these events; gives how many there were."""
        return int(self._redis.xdel(keys.DEAD, *ids)) if ids else 0

    def _replay(self, id_: str) -> int:
        entries = cast("list[Any]", self._redis.xrange(keys.DEAD, id_, id_))
        if not entries:
            return 0
        with self._redis.pipeline(transaction=True) as pipeline:
            # Twice, if two operators are that quick: to the router a known event is nothing new.
            pipeline.xadd(keys.EVENTS, {DATA: entries[0][1][DATA]})
            pipeline.xdel(keys.DEAD, id_)
            pipeline.execute()
        return 1


def _letter(entry: str, fields: dict[bytes, bytes]) -> DeadLetter:
    try:
        event = parse_event(fields.get(DATA, b""))
    except ValidationError:
        request_id = ""
    else:
        request_id = request_id_of(event) if isinstance(event, RequestEvent) else ""
    return DeadLetter(
        id=entry,
        request_id=request_id,
        what=EVENT,
        recipient="",
        reason=UNROUTABLE,
        detail=fields.get(b"error", b"").decode(errors="replace"),
        attempts=0,
        perhaps=False,
        died_at=int(entry.partition("-")[0]) / 1000,
    )
