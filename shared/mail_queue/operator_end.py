"""The operator's end of the mail queue: looks at the mails that are dead letters, replays and forgets them."""

import re
import time
from collections.abc import Iterator, Sequence
from typing import Any, cast

from redis import Redis
from redis.exceptions import RedisError

from shared import keys
from shared.dead_letters import DeadLetter
from shared.mail_queue.layout import (
    Argument,
    MalformedJobError,
    as_rq_time,
    common_arguments,
    common_keys,
    mail_of,
    rq_queue,
    script_source,
)
from shared.mail_queue.reading import readable

PAGE = 500
"""Letters looked at, or moved, at once: Redis does nothing else meanwhile."""

UNKNOWN = "unknown"
"""The reason of a mail that another RQ worker failed, until a mailer takes it back (within half a minute)."""


RECEIPT = ("outcome", "reason", "detail", "attempts", "perhaps", "at")
NO_RECEIPT = (None,) * len(RECEIPT)

_NUMBER = re.compile(rb"[0-9]{1,12}(\.[0-9]+)?")


class OperatorEnd:
    """Works on a synchronous connection. Every method raises `redis.exceptions.RedisError`."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._keys = common_keys(redis)
        self._arguments = common_arguments(redis)
        self._failed = rq_queue(redis).failed_job_registry.key
        self._job_prefix = str(self._arguments[0])
        self._scripts = {name: redis.register_script(script_source(name)) for name in ("replay", "forget")}

    def letters(self) -> Iterator[DeadLetter]:
        """All mails that are dead letters, the oldest first; those that come or go meanwhile may be missed."""
        ids = cast("list[bytes]", self._redis.zrange(self._failed, 0, -1))
        for start in range(0, len(ids), PAGE):
            yield from self._page([id_.decode() for id_ in ids[start : start + PAGE]])

    def replay(self, ids: Sequence[str]) -> int:
        """Queue these again, with a fresh budget of attempts; gives how many of them were dead letters."""
        return self._moved("replay", ids, [as_rq_time(time.time())])

    def forget(self, ids: Sequence[str]) -> int:
        """Remove these; gives how many of them were dead letters."""
        return self._moved("forget", ids, [])

    def _moved(self, script: str, ids: Sequence[str], header: Sequence[Argument]) -> int:
        pages = (ids[start : start + PAGE] for start in range(0, len(ids), PAGE))
        return sum(
            int(self._scripts[script](keys=self._keys, args=[*self._arguments, *header, *page])) for page in pages
        )

    def _page(self, ids: Sequence[str]) -> Iterator[DeadLetter]:
        with self._redis.pipeline(transaction=False) as pipeline:
            for id_ in ids:
                pipeline.hmget(self._job_prefix + id_, ["status", "request", "data"])
                pipeline.hmget(keys.receipt(id_), RECEIPT)
            rows = [readable(row) for row in pipeline.execute(raise_on_error=False)]
        for id_, job, receipt in zip(ids, rows[::2], rows[1::2], strict=True):
            if not isinstance(job, RedisError) and job[0] == b"failed":
                yield _letter(id_, job, NO_RECEIPT if isinstance(receipt, RedisError) else receipt)


def _letter(id_: str, job: Sequence[Any], receipt: Sequence[Any]) -> DeadLetter:
    _, request_id, data = (value or b"" for value in job)
    outcome, reason, detail, attempts, perhaps, at = receipt
    if outcome != b"dead":
        reason, detail, attempts, perhaps, at = UNKNOWN.encode(), None, None, None, None
    try:
        mail = mail_of(data, id_)
    except MalformedJobError:
        mail = None
    return DeadLetter(
        id=id_,
        request_id=mail.request_id if mail else request_id.decode(errors="replace"),
        what=str(mail.notice) if mail else "job",
        recipient=mail.recipient.address if mail else "",
        reason=(reason or b"").decode(errors="replace"),
        detail=(detail or b"").decode(errors="replace"),
        attempts=int(_number(attempts) or 0),
        perhaps=perhaps == b"1",
        died_at=_number(at),
    )


def _number(text: bytes | None) -> float | None:
    """None: there is none, or another program has written something else."""
    return float(text) if text and _NUMBER.fullmatch(text) else None
