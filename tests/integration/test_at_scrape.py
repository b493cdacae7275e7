"""What Prometheus is told of the stream and the queue is what Redis holds at the scrape."""

import time
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime

import pytest
from prometheus_client import CollectorRegistry
from pydantic import SecretStr
from redis import Redis
from redis.asyncio import Redis as AsyncRedis
from rq.suspension import WORKERS_SUSPENDED

from shared import keys
from shared.claimed import Claimed
from shared.mail import Dead, Later, Verdict
from shared.mail_queue.depth import queue_depth
from shared.mail_queue.layout import rq_queue
from shared.mail_queue.mailer_end import MailerEnd, Settlement
from shared.settings import RedisSettings
from shared.stream_backlog import stream_backlog
from tests.mails import BOB, mail, put
from tests.queueing import known_relay, mailer_end

STATES = ("queued", "started", "scheduled", "deferred", "failed")


@pytest.fixture
def registry(redis_url: str) -> CollectorRegistry:
    settings = RedisSettings(url=SecretStr(redis_url))
    registry = CollectorRegistry()
    registry.register(queue_depth(settings, "test"))
    registry.register(stream_backlog(settings, "test"))
    return registry


def jobs(registry: CollectorRegistry) -> Mapping[str, float | None]:
    return {state: registry.get_sample_value("access_mail_queue_jobs", {"state": state}) for state in STATES}


def value(registry: CollectorRegistry, name: str) -> float:
    found = registry.get_sample_value(f"access_mail_{name}")
    assert found is not None, f"no access_mail_{name}"
    return found


async def settle(end: MailerEnd, verdict: Verdict) -> None:
    """Let this become of the job at the queue's head."""
    (job,) = (await end.claim([uuid.uuid4().hex])).jobs
    assert isinstance(job, Claimed)
    await end.settle([Settlement(job.mail.id, job.execution, job.now, verdict)])


async def test_jobs_are_counted_by_state(registry: CollectorRegistry, redis: Redis, redis_url: str) -> None:
    assert jobs(registry) == dict.fromkeys(STATES, 0)
    for number in range(10):
        put(redis, [mail("requested", request_id=f"r{number}")])
    put(redis, [mail(notice, request_id="last") for notice in ("requested", *(f"reviewed-{n}" for n in range(1, 5)))])
    async with AsyncRedis.from_url(redis_url) as connection:
        known_relay(redis)
        end = mailer_end(connection, redis, "w1")
        await settle(end, Dead("recipient_refused", "550 no"))
        for _ in range(2):
            await settle(end, Later(60, "temporary", "451 later"))
        await end.claim([uuid.uuid4().hex for _ in range(3)])
    assert jobs(registry) == {"failed": 1, "scheduled": 2, "started": 3, "deferred": 4, "queued": 5}
    assert value(registry, "queue_readable") == 1


def test_the_oldest_job_is_the_head_of_the_queue_and_an_empty_queue_is_as_young_as_can_be(
    registry: CollectorRegistry, redis: Redis
) -> None:
    before = time.time()
    assert before <= value(registry, "oldest_job_timestamp_seconds") <= time.time()
    put(redis, [mail("requested"), mail("requested", BOB)])
    redis.hset(f"rq:job:{mail('requested').id}", "enqueued_at", "2026-01-02T03:04:05.500000Z")
    expected = datetime(2026, 1, 2, 3, 4, 5, 500_000, tzinfo=UTC).timestamp()
    assert value(registry, "oldest_job_timestamp_seconds") == expected


def test_a_head_that_is_no_job_of_ours_does_not_spoil_the_scrape(registry: CollectorRegistry, redis: Redis) -> None:
    redis.lpush(rq_queue(redis).key, "foreign")
    assert jobs(registry)["queued"] == 1
    redis.hset("rq:job:foreign", "enqueued_at", "yesterday")
    assert value(registry, "oldest_job_timestamp_seconds") == pytest.approx(time.time(), abs=60)
    redis.delete("rq:job:foreign")


def test_a_queue_that_an_operator_holds_says_so(registry: CollectorRegistry, redis: Redis) -> None:
    assert value(registry, "queue_suspended") == 0
    redis.set(WORKERS_SUSPENDED, 1)
    assert value(registry, "queue_suspended") == 1


def test_the_stream_tells_its_length_its_dead_and_the_age_of_its_oldest_event_by_its_own_clock(
    registry: CollectorRegistry, redis: Redis
) -> None:
    before = time.time()
    assert before <= value(registry, "oldest_event_timestamp_seconds") <= time.time()
    seconds, _ = redis.time()
    redis.xadd(keys.EVENTS, {"data": "{}"}, id=f"{seconds - 3600}000-0")
    redis.xadd(keys.EVENTS, {"data": "{}"})
    redis.xadd(keys.DEAD, {"data": "{}"})
    assert value(registry, "stream_events") == 2
    assert value(registry, "dead_events") == 1
    assert value(registry, "oldest_event_timestamp_seconds") == pytest.approx(time.time() - 3600, abs=60)
    assert value(registry, "stream_readable") == 1
