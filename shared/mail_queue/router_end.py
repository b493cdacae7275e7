"""The router's end of the mail queue: reads what is remembered, and commits what follows from an event."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from pydantic import TypeAdapter, ValidationError
from redis import Redis

from shared import keys
from shared.events import RuleChanged, RuleDeleted, RulesEvent, RulesListed, RulesUnavailable
from shared.mail import Mail, Notice
from shared.mail_queue.layout import (
    DESCRIPTION,
    TIMEOUT_SECONDS,
    Argument,
    as_rq_time,
    common_arguments,
    common_keys,
    flat,
    job_data,
    script_source,
)
from shared.memory import TOLD, RequestFacts, RequestMemory
from shared.rules import REVISION, UNAVAILABLE, KnownRules, known_rules, rule_field

MEMORY_SECONDS = 30 * 24 * 3600
AFTER_THE_END_SECONDS = 7 * 24 * 3600

_notices: TypeAdapter[tuple[Notice, ...]] = TypeAdapter(tuple[Notice, ...])


@dataclass(frozen=True)
class Remembered:
    """A request's memory as it was read, with the revision that a commit must still find."""

    memory: RequestMemory | None
    revision: str


@dataclass(frozen=True)
class Commit:
    """What one event leads to."""

    entry: str
    """The event's entry on the stream: it is acknowledged, and its part of the memory's revision."""
    request_id: str
    revision: str
    after: RequestMemory | None
    """None: the event taught nothing new."""
    mails: Sequence[Mail]


@dataclass(frozen=True)
class Committed:
    """How many jobs the commit made, and how many were there or had a receipt already."""

    created: int
    existed: int


class RouterEnd:
    """Works on a synchronous connection. Every method raises `redis.exceptions.RedisError`."""

    def __init__(self, redis: Redis, group: str, consumer: str) -> None:
        self._redis = redis
        self._group = group
        self._consumer = consumer
        self._put = redis.register_script(script_source("put"))
        self._put_rules = redis.register_script(script_source("rules"))
        self._keys = common_keys(redis)
        self._arguments = common_arguments(redis)

    def recall(self, request_ids: Sequence[str]) -> dict[str, Remembered | ValidationError]:
        """What is remembered of these requests, in one round trip; the error where a later version wrote it."""
        with self._redis.pipeline(transaction=False) as pipeline:
            for request_id in request_ids:
                pipeline.hmget(keys.request(request_id), ["revision", "facts", "told", "notices"])
            return {
                request_id: _remembered(row) for request_id, row in zip(request_ids, pipeline.execute(), strict=True)
            }

    def revision(self, entry: str) -> str:
        """What our commit of this event makes: no other commit, and no other router's of the same event, can."""
        return f"{entry}:{self._consumer}"

    def commit(self, commits: Sequence[Commit]) -> list[Committed | None]:
        """Run the commits in order, in one round trip. None: the memory has changed since; read and route again."""
        with self._redis.pipeline(transaction=False) as pipeline:
            now = as_rq_time(time.time())
            for commit in commits:
                self._put(
                    keys=[*self._keys, keys.request(commit.request_id), keys.OPEN, keys.EVENTS],
                    args=[*self._arguments, *self._arguments_of(commit, now)],
                    client=pipeline,
                )
            return [Committed(*row[1:]) if row[0] else None for row in pipeline.execute()]

    def rules_revision(self) -> str:
        """What changed the rules last; empty: nothing was ever told of them."""
        revision = cast("bytes | None", self._redis.hget(keys.RULES, REVISION.decode()))
        return revision.decode() if revision else ""

    def rules(self) -> KnownRules | None:
        """The rules as they stand; None: not known. Raises `ValidationError` where a later version wrote them."""
        return known_rules(cast("dict[bytes, bytes]", self._redis.hgetall(keys.RULES)))

    def commit_rules(self, entry: str, event: RulesEvent) -> bool:
        """Take what the event tells of the rules, and acknowledge it. False: it changes nothing."""
        changed = self._put_rules(
            keys=[*self._keys, keys.RULES, keys.EVENTS],
            args=[*self._arguments, self._group, entry, *_rules_arguments(event)],
        )
        return bool(changed)

    def _arguments_of(self, commit: Commit, now: str) -> list[Argument]:
        fields = _fields(commit.after) if commit.after else []
        mails = [(mail.id, mail.thread, job_data(mail)) for mail in commit.mails]
        header: list[Argument] = [
            self._group,
            commit.entry,
            commit.revision,
            self.revision(commit.entry),
            _lifetime(commit.after),
            _opening(commit.after),
        ]
        return [*header, now, DESCRIPTION, TIMEOUT_SECONDS, len(fields), *flat(fields), *flat(mails)]


def _rules_arguments(event: RulesEvent) -> list[Argument]:
    match event:
        case RulesListed():
            return ["replace", *flat([(rule_field(rule.name), rule.model_dump_json()) for rule in event.rules])]
        case RulesUnavailable():
            return ["withhold", UNAVAILABLE, event.reason]
        case RuleChanged():
            return ["put", rule_field(event.rule.name), event.rule.model_dump_json()]
        case RuleDeleted():
            return ["delete", rule_field(event.name)]


def _remembered(row: Sequence[Any]) -> Remembered | ValidationError:
    revision, facts, told, notices = row
    if revision is None:
        return Remembered(None, "")
    try:
        memory = RequestMemory(
            facts=RequestFacts.model_validate_json(facts),
            told=TOLD.validate_json(told),
            notices=_notices.validate_json(notices),
        )
    except ValidationError as error:
        return error
    return Remembered(memory, revision.decode())


def _fields(memory: RequestMemory) -> list[tuple[str, str | bytes | int]]:
    request = memory.facts.request
    return [
        # A request's memory stays for a month: what readers assume by themselves is left out.
        ("facts", memory.facts.model_dump_json(exclude_defaults=True)),
        ("told", TOLD.dump_json(memory.told, exclude_defaults=True)),
        ("notices", _notices.dump_json(memory.notices, exclude_defaults=True)),
        # For the watcher's comparison with a listing, without reading the rest.
        ("state", request.state.value if request else ""),
        ("reviews", request.review_count if request else 0),
        *([("gone", 1)] if memory.facts.gone else []),  # and stays so
    ]


def _opening(memory: RequestMemory | None) -> str:
    if memory is None:
        return ""
    return "add" if memory.facts.is_pending else "remove"


def _lifetime(memory: RequestMemory | None) -> int:
    request = memory.facts.request if memory else None
    ends = [end.timestamp() for end in (request.request_expires, request.access_expires) if end] if request else []
    until_end = max(ends, default=0.0) - time.time() + AFTER_THE_END_SECONDS
    return int(max(MEMORY_SECONDS, until_end))
