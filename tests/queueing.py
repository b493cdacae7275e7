"""The mail queue in a test's hands: claims, settlements, and what they leave in Redis."""

import uuid
from typing import Any

from redis import Redis
from redis.asyncio import Redis as AsyncRedis

from shared import keys
from shared.claimed import Claimed
from shared.mail import Mail, Verdict
from shared.mail_queue.mailer_end import MailerEnd, Settlement
from shared.relay import RelayTerms

RELAY = RelayTerms("relay.example.com:587", first_probe=0.1, longest_probe=0.4)


def known_relay(redis: Redis) -> None:
    """Let the relay be one that has taken mails for long: otherwise one mail goes first."""
    redis.hset(keys.relay(RELAY.name), mapping={"state": "closed", "changed": 0})
    redis.expire(keys.relay(RELAY.name), 3600)


def mailer_end(connection: AsyncRedis, redis: Redis, worker: str, relay: RelayTerms = RELAY) -> MailerEnd:
    """Of a worker that is known by name only."""
    key = f"rq:worker:{worker}"
    return MailerEnd(connection, redis, relay, worker=worker, worker_key=key, executions_key=f"{key}:executions")


async def claim(end: MailerEnd, most: int = 10) -> list[Claimed]:
    claims = await end.claim([uuid.uuid4().hex for _ in range(most)])
    assert all(isinstance(job, Claimed) for job in claims.jobs)
    return [job for job in claims.jobs if isinstance(job, Claimed)]


async def claim_one(end: MailerEnd, expected: Mail) -> Claimed:
    (job,) = await claim(end)
    assert job.mail == expected
    return job


async def settle(end: MailerEnd, job: Claimed, verdict: Verdict) -> tuple[int, int]:
    settled = await end.settle([Settlement(job.mail.id, job.execution, job.now, verdict)])
    assert not settled.faults
    return settled.lost, settled.canceled


async def end_claims(redis: Any) -> None:
    """Let all mailers be dead for one claim's life, in sight of others that have reached this Redis all the time."""
    for executions in redis.scan_iter("rq:worker:*:executions"):
        redis.delete(executions)
    for entry in redis.zrange(keys.CLAIMS, 0, -1):
        redis.zadd(keys.CLAIMS, {entry: 1.0})
    reached(redis, since=0)


def reached(redis: Any, since: float, last: float | None = None) -> None:
    """Mailers have reached this Redis since this time, and last at that one, which is now."""
    redis.hset(keys.RECOVERY, mapping={"since": since, "last": redis.time()[0] if last is None else last})
    redis.expire(keys.RECOVERY, 60)


def receipt(redis: Redis, of: Mail) -> dict[str, str]:
    """With what readers take fields for that are not there. Empty: there is none."""
    fields: Any = redis.hgetall(keys.receipt(of.id))
    assumed = {"perhaps": "0", "reason": "", "detail": ""} if fields else {}
    return assumed | {key.decode(): value.decode() for key, value in fields.items()}


def is_perhaps_sent(redis: Redis, of: Mail) -> bool:
    return redis.hget(f"rq:job:{of.id}", "perhaps") == b"1"


def status(redis: Redis, of: Mail) -> str | None:
    value: Any = redis.hget(f"rq:job:{of.id}", "status")
    return value.decode() if value else None
