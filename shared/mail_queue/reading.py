"""What Redis tells of jobs, read: whatever another program has written there, it concerns its own job alone."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

from pydantic import ValidationError
from redis.exceptions import RedisError

from shared.claimed import Claimed, Malformed
from shared.mail import Outcome, Receipt
from shared.mail_queue.layout import MalformedJobError, mail_of
from shared.memory import RequestFacts

FACTS_KEPT = 16


def readable(answer: Any) -> Any:
    """The answer, also where it is the error that a key is of another type. Raises all others: they are Redis's own."""
    if isinstance(answer, RedisError) and not str(answer).startswith("WRONGTYPE"):
        raise answer
    return answer


def claimed_jobs(
    rows: Sequence[Sequence[bytes]], requests: Sequence[tuple[bytes, bytes]], now: float
) -> list[Claimed | Malformed]:
    """The jobs and requests that `claim.lua` gives."""
    facts = {key: _facts(text) for key, text in requests}
    return [_claimed(row, now, facts) for row in rows]


def looked_at(job: Claimed, outcome: Any, facts: Any, now: float) -> Claimed | None:
    """The mail with what is known of it now; None: one of the two is an error, or an outcome that we do not know."""
    if isinstance(outcome, RedisError) or isinstance(facts, RedisError):
        return None
    try:
        receipt = _receipt(outcome)
    except ValueError:
        return None
    news = _facts(facts)
    return replace(job, now=now, receipt=receipt, facts=job.facts if isinstance(news, ValidationError) else news)


def _claimed(
    row: Sequence[bytes], now: float, facts: Mapping[bytes, RequestFacts | ValidationError | None]
) -> Claimed | Malformed:
    id_, execution, data, attempts, first_tried, revived, perhaps, own, announced, suspect, request = row
    known = facts.get(request)
    if isinstance(known, ValidationError):
        fault = "what is remembered of its request cannot be read by this version"
        return Malformed(id=id_.decode(), execution=execution.decode(), now=now, error=fault)
    try:
        return Claimed(
            mail=mail_of(data, id_.decode()),
            execution=execution.decode(),
            now=now,
            attempts=_count(attempts),
            first_tried=float(first_tried) if first_tried else None,
            revived=revived == b"1",
            perhaps=perhaps == b"1",
            receipt=_receipt(own),
            announced=announced == b"1",
            is_suspect=suspect == b"1",
            facts=known,
        )
    except MalformedJobError as error:
        fault = str(error)
    except ValueError:
        fault = "its bookkeeping cannot be read"
    return Malformed(id=id_.decode(), execution=execution.decode(), now=now, error=fault)


def _count(text: bytes) -> int:
    """Raises `ValueError`."""
    if not text.isdigit():
        raise ValueError(f"no count: {text[:20]!r}")
    return int(text)


def _receipt(outcome: bytes | None) -> Receipt | None:
    return Receipt(Outcome(outcome.decode())) if outcome else None


@lru_cache(maxsize=FACTS_KEPT)
def _facts(text: bytes | None) -> RequestFacts | ValidationError | None:
    """What is remembered of a request; the error if a later version wrote it, for its own mails to meet.

    The same text gives the same object, although the mails of a request may be claimed one after another.
    """
    if not text:
        return None
    try:
        return RequestFacts.model_validate_json(text)
    except ValidationError as error:
        return error
