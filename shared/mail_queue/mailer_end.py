"""The mailers' end of the mail queue: claims jobs, prolongs the claims, settles them, and frees what is stuck."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from redis import Redis
from redis.asyncio import Redis as AsyncRedis
from rq.suspension import WORKERS_SUSPENDED

from shared import keys
from shared.claimed import Claimed, Malformed
from shared.mail import Dead, Delivered, Dropped, Held, Later, Met, Verdict
from shared.mail_queue.layout import (
    Argument,
    as_exc_string,
    as_rq_time,
    common_arguments,
    common_keys,
    flat,
    rq_queue,
    script_source,
)
from shared.mail_queue.reading import claimed_jobs, looked_at, readable
from shared.relay import RelayState, RelayTerms

CLAIM_SECONDS = 30.0
GAP_SECONDS = CLAIM_SECONDS / 2
"""Claims are renewed far more often: whoever lives has renewed them before and does so again after such a gap."""
DEATHS_SURVIVED = 3
BATCH = 500
"""Most jobs that one run of a script moves: Redis does nothing else meanwhile."""

POISON = as_exc_string("poison: its workers died four times in a row")


@dataclass(frozen=True)
class Claims:
    """What a worker has taken in hand, and what it found dead."""

    jobs: Sequence[Claimed | Malformed]
    poison: Sequence[str]
    """Ids of jobs whose workers have died too often in a row: dead letters now."""
    canceled: int
    """Mails that were dropped, for an operator had canceled them."""
    faults: list[str]
    """Jobs that Redis could not handle, each with its reason: they wait behind all others."""
    pause: float
    """Seconds until it is worth while to ask again although there are jobs; 0: there are none."""
    is_probe: bool
    """The relay is held, and the one job shall find out whether it still turns everybody away."""
    relay: RelayState
    """As it was before this claim."""


@dataclass(frozen=True)
class Settlement:
    """What became of a claimed job."""

    id: str
    execution: str
    claimed_at: float
    verdict: Verdict


@dataclass(frozen=True)
class Settled:
    """What was met while a batch was settled."""

    lost: int
    """Jobs whose claim was lost."""
    canceled: int
    """Mails dropped as canceled that would have been tried again."""
    faults: list[str]
    """Jobs that Redis could not handle, each with its reason: they come back as if this worker had died over them."""


@dataclass(frozen=True)
class Swept:
    """What was found stuck."""

    freed: int = 0
    """Threads."""
    adopted: int = 0
    """Mails that another RQ worker had failed: they are queued again."""
    canceled: int = 0
    """Mails dropped as canceled."""
    faults: tuple[str, ...] = ()
    """Jobs that Redis could not handle, each with its reason: they stay where they are."""


class MailerEnd:
    """Works on an asyncio connection. Every method raises `redis.exceptions.RedisError`."""

    def __init__(
        self, redis: AsyncRedis, layout: Redis, relay: RelayTerms, *, worker: str, worker_key: str, executions_key: str
    ) -> None:
        """`layout` is RQ's own synchronous connection, from which RQ's key names are taken."""
        self._redis = redis
        self._relay = relay
        self._relay_key = keys.relay(relay.name)
        self._worker = worker
        self._worker_keys = [worker_key, executions_key]
        self._keys = common_keys(layout)
        self._arguments = common_arguments(layout)
        self._queue_key = rq_queue(layout).key
        names = ("claim", "renew", "settle", "release", "recover", "due", "sweep")
        self._scripts = {name: redis.register_script(script_source(name)) for name in names}
        self._started_cursor = 0
        _, self._failed_key, _, self._deferred_key, self._canceled_key = self._keys[2:7]
        self._sweep_cursors = dict.fromkeys((self._deferred_key, self._canceled_key, self._failed_key), 0)

    async def close(self) -> None:
        """Give the connections back."""
        await self._redis.aclose()

    async def _run(self, name: str, own_keys: Sequence[str], own_arguments: Sequence[Argument]) -> Any:
        return await self._scripts[name](keys=[*self._keys, *own_keys], args=[*self._arguments, *own_arguments])

    async def claim(self, executions: Sequence[str]) -> Claims:
        """Take at most one job for each of these fresh execution ids."""
        worker: list[Argument] = [self._worker, as_rq_time(time.time()), int(CLAIM_SECONDS), DEATHS_SURVIVED, POISON]
        relay: list[Argument] = [self._relay.mails_per_second or 0, self._relay.connections or 0]
        now, jobs, requests, buried, canceled, faults, pause, is_probe, *state = await self._run(
            "claim",
            [*self._worker_keys, self._relay_key, WORKERS_SUSPENDED],
            [*worker, *relay, json.dumps(list(executions))],
        )
        held, changed, turns_us_away, detail = (text.decode() for text in state)
        return Claims(
            jobs=claimed_jobs(jobs, requests, float(now)),
            poison=_texts(buried),
            canceled=int(canceled),
            faults=_texts(faults),
            pause=float(pause),
            is_probe=bool(is_probe),
            relay=RelayState(held or None, turns_us_away or None, detail, float(changed or 0)),
        )

    async def wait_for_work(self, seconds: int) -> None:
        """Return when the queue has a job, or after this time.

        A blocking peek: the head moves onto itself, so that there is no moment at which a job is nowhere.
        """
        await self._redis.blmove(self._queue_key, self._queue_key, seconds, "LEFT", "LEFT")

    async def is_suspended(self) -> bool:
        """Has an operator run `rq suspend`?"""
        return bool(await self._redis.exists(WORKERS_SUSPENDED))

    async def renew(self, held: Sequence[tuple[str, str]]) -> set[str]:
        """Prolong these claims (job id, execution); gives the executions whose claim is lost."""
        lost = await self._run("renew", [], [int(CLAIM_SECONDS), *flat(held)])
        return {execution.decode() for execution in lost}

    async def look_again(self, claimed: Sequence[Claimed]) -> list[Claimed]:
        """The same mails with what is known of them now.

        Left out are those of which nobody can tell: a key is of another type, or names an outcome that we do not know.
        """
        if not claimed:
            return []
        async with self._redis.pipeline(transaction=False) as pipeline:
            pipeline.time()
            for job in claimed:
                pipeline.hget(keys.RECEIPT_PREFIX + job.mail.id, "outcome")
            requests = list({job.mail.request_id: None for job in claimed})
            for request in requests:
                pipeline.hget(keys.request(request), "facts")
            (now, microseconds), *answers = map(readable, await pipeline.execute(raise_on_error=False))
        facts = dict(zip(requests, answers[len(claimed) :], strict=True))
        outcomes = answers[: len(claimed)]
        seen = (
            looked_at(job, outcome, facts[job.mail.request_id], now + microseconds / 1e6)
            for job, outcome in zip(claimed, outcomes, strict=True)
        )
        return [job for job in seen if job is not None]

    async def held(self) -> list[tuple[str, str]]:
        """Job id and execution of all that Redis has given to this worker and not got back."""
        entries = cast("set[bytes]", await self._redis.smembers(self._worker_keys[1]))
        return [(id_, execution) for id_, _, execution in (entry.decode().rpartition(":") for entry in sorted(entries))]

    async def settle(self, settlements: Sequence[Settlement]) -> Settled:
        """Write what became of these jobs."""
        rows = [_settlement_row(settlement) for settlement in settlements]
        worker: list[Argument] = [self._worker, as_rq_time(time.time())]
        relay: list[Argument] = [self._relay.first_probe, self._relay.longest_probe]
        arguments = [*worker, *relay, json.dumps(rows, ensure_ascii=False)]
        lost, canceled, faults = await self._run("settle", [*self._worker_keys, self._relay_key], arguments)
        return Settled(int(lost), int(canceled), _texts(faults))

    async def release(self, held: Sequence[tuple[str, str, bool]]) -> tuple[int, int]:
        """Put these jobs (job id, execution, may the relay have it?) back to the head of the queue.

        Gives (jobs that were put back, mails dropped as canceled).
        """
        rows = [(job_id, execution, "1" if perhaps else "0") for job_id, execution, perhaps in held]
        arguments = [as_rq_time(time.time()), *flat(rows)]
        released, canceled = await self._run("release", [self._worker_keys[1]], arguments)
        return int(released), int(canceled)

    async def recover(self) -> int:
        """Put back what dead workers held; gives the number of jobs.

        Call it more often than `GAP_SECONDS`: a longer silence of all mailers counts as an outage, after which nothing
        is put back for one claim's life.
        """
        arguments: list[Argument] = [BATCH, int(CLAIM_SECONDS), GAP_SECONDS, self._started_cursor]
        recovered, cursor = await self._run("recover", [keys.RECOVERY], arguments)
        self._started_cursor = int(cursor)
        return int(recovered)

    async def queue_due(self) -> int:
        """Queue the jobs whose pause is over; gives their number."""
        return int(await self._run("due", [], [BATCH, as_rq_time(time.time())]))

    async def sweep(self) -> Swept:
        """Look at the next few mails that wait, were canceled or failed."""
        deferred = await self._next_of(self._deferred_key)
        canceled = await self._next_of(self._canceled_key)
        failed = await self._next_of(self._failed_key)
        if not deferred and not canceled and not failed:
            return Swept()
        header: list[Argument] = [as_rq_time(time.time()), len(deferred), len(canceled)]
        freed, adopted, dropped, faults = await self._run("sweep", [], [*header, *deferred, *canceled, *failed])
        return Swept(int(freed), int(adopted), int(dropped), tuple(_texts(faults)))

    async def _next_of(self, registry: str) -> list[bytes]:
        """The next few ids of this registry, by score."""
        cursor, found = await self._redis.zscan(registry, self._sweep_cursors[registry], count=BATCH)
        self._sweep_cursors[registry] = cursor
        return [cast("bytes", id_) for id_, _ in sorted(found, key=lambda entry: entry[1])]


def _texts(values: Sequence[bytes]) -> list[str]:
    return [value.decode(errors="replace") for value in values]


def _settlement_row(settlement: Settlement) -> list[str]:
    verdict = settlement.verdict
    outcome, reason, detail, pause, perhaps, exc_string, met = "", "", "", 0.0, False, "", Met.NOT
    match verdict:
        case Delivered(answer):
            outcome, detail, met = "delivered", answer, Met.LET_IN
        case Later(pause=pause, reason=reason, detail=detail, perhaps=perhaps, met=met):
            outcome = "later"
        case Held(reason, detail, pause):
            outcome, met = "held", Met.TURNED_AWAY
        case Dropped(reason):
            outcome = "dropped"
        case Dead(reason=reason, detail=detail, perhaps=perhaps, met=met):
            outcome, exc_string = "dead", as_exc_string(f"{reason}: {detail}" if detail else str(reason))
    row = [settlement.id, settlement.execution, outcome, str(reason), detail, str(pause)]
    return [*row, "1" if perhaps else "0", exc_string, met.value, str(settlement.claimed_at)]
