"""A worker with nothing to do costs Redis next to nothing, and takes up what stock workers left when they died."""

import time
from typing import Any

import pytest
from redis import Redis
from rq import SimpleWorker
from rq.serializers import JSONSerializer

from shared import keys
from shared.mail_queue.layout import rq_queue
from tests.mails import mail
from tests.queueing import RELAY, status
from tests.waiting import wait_for
from tests.working import Gate, delivered, put_many, working

LOOKING_SECONDS = 3
COMMANDS_A_SECOND = 20


def commands(redis: Redis) -> float:
    """How many commands a second Redis carries out, those within scripts included, while nobody else uses it."""
    redis.config_resetstat()
    began = time.monotonic()
    wait_for(lambda: time.monotonic() - began >= LOOKING_SECONDS, "it was looked at for long enough")
    statistics: Any = redis.info("commandstats")
    took = time.monotonic() - began
    return float(sum(one["calls"] for one in statistics.values()) / took)


def test_an_idle_worker_hardly_asks(redis: Redis, redis_url: str) -> None:
    with working(redis_url, Gate()) as running:
        wait_for(lambda: redis.hget(running.worker.key, "state") == b"idle", "it is idle")
        assert 0 < commands(redis) <= COMMANDS_A_SECOND


def test_a_worker_hardly_asks_while_the_relay_is_held(redis: Redis, redis_url: str) -> None:
    put_many(redis, 5)
    hour = redis.time()[0] + 3600
    redis.hset(keys.relay(RELAY.name), mapping={"state": "open", "reason": "connect", "wait": 60, "probe_at": hour})
    with working(redis_url, gate := Gate()) as running:
        wait_for(lambda: "connect" in running.metrics.relay, "it knows that the relay is held")
        assert 0 < commands(redis) <= COMMANDS_A_SECOND
        assert gate.in_hand == []


def test_a_worker_hardly_asks_while_an_operator_suspends_it(redis: Redis, redis_url: str) -> None:
    put_many(redis, 5)
    redis.set("rq:suspended", 1)
    with working(redis_url, gate := Gate()) as running:
        wait_for(lambda: redis.hget(running.worker.key, "state") == b"idle", "it waits")
        assert 0 < commands(redis) <= COMMANDS_A_SECOND
        assert gate.in_hand == []
    redis.delete("rq:suspended")


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers look ten times a second for what others left."""
    monkeypatch.setattr("services.mailer.upkeep.SWEEP_SECONDS", 0.1)


@pytest.mark.usefixtures("often")
def test_what_a_stock_worker_had_taken_and_not_begun_when_it_died_is_sent(redis: Redis, redis_url: str) -> None:
    put_many(redis, 1)
    queue = rq_queue(redis)
    (id_,) = queue.get_job_ids()
    redis.lmove(queue.key, queue.intermediate_queue_key, "LEFT", "RIGHT")
    gate = Gate()
    gate.open()
    with working(redis_url, gate) as running:
        # RQ takes what it sees there a second time, a minute later, for lost.
        seen = queue.intermediate_queue.get_first_seen_key(id_)
        wait_for(lambda: redis.exists(seen), "it was seen there")
        redis.set(seen, time.time() - 61, ex=3600)
        wait_for(lambda: delivered(redis) == 1, "it is sent")
        # The mail may be sent before the answer of the script that queued it is counted.
        wait_for(lambda: running.metrics.left_by_the_dead == 1, "it is counted")
    assert redis.llen(queue.intermediate_queue_key) == 0
    assert queue.failed_job_registry.get_job_ids() == []


@pytest.mark.usefixtures("often")
def test_what_a_stock_worker_had_begun_when_it_died_is_sent(redis: Redis, redis_url: str) -> None:
    put_many(redis, 1)
    queue = rq_queue(redis)
    stock = SimpleWorker([queue], connection=redis, serializer=JSONSerializer)
    (job,) = queue.get_jobs()
    redis.lpop(queue.key)
    execution = stock.prepare_execution(job)
    stock.prepare_job_execution(job)
    assert redis.hget(job.key, "status") == b"started"
    redis.zadd(queue.started_job_registry.key, {execution.composite_key: 1}, xx=True)  # its time is over
    redis.delete(stock.key)
    gate = Gate()
    gate.open()
    with working(redis_url, gate) as running:
        wait_for(lambda: delivered(redis) == 1, "it is sent")
        # The mail may be sent before the answer of the script that queued it is counted.
        wait_for(lambda: running.metrics.left_by_the_dead == 1, "it is counted")
    assert queue.started_job_registry.get_job_ids(cleanup=False) == []
    assert queue.failed_job_registry.get_job_ids() == []
    assert status(redis, mail("requested")) is None
