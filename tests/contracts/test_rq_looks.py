"""What dashboards and `rq info` see, by the calls of RQ that they make: an ordinary worker, queue and jobs."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from rq import Queue, Worker
from rq.serializers import JSONSerializer

from shared.mail import Dead, Later
from shared.mail_queue.layout import DESCRIPTION, FUNCTION, rq_queue
from shared.mail_queue.mailer_end import MailerEnd
from tests.integration.conftest import end
from tests.mails import ANN, BOB, mail, put
from tests.queueing import claim_one, settle
from tests.waiting import wait_for
from tests.working import Gate, Running, working

__all__ = ["end"]

RQ = Path(sys.executable).with_name("rq")
MINUTE = 60


def info(url: str) -> str:
    command = [str(RQ), "info", "--serializer", "json", "--url", url]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=dict(os.environ)).stdout


@pytest.fixture
async def busy(redis: Redis, end: MailerEnd) -> list[str]:
    """A queue with a mail in each state; gives the ids of a failed, a scheduled, two queued and a deferred one."""
    failed, scheduled = mail("requested", request_id="failed"), mail("requested", request_id="scheduled")
    put(redis, [failed])
    await settle(end, await claim_one(end, failed), Dead("recipient_refused", "550 5.1.1 no such user"))
    put(redis, [scheduled])
    await settle(end, await claim_one(end, scheduled), Later(1000, "temporary"))
    queued = [mail("requested", ANN), mail("requested", BOB)]
    deferred = mail("approved", ANN)
    put(redis, [*queued, deferred])
    return [one.id for one in (failed, scheduled, *queued, deferred)]


async def test_jobs_are_where_a_dashboard_lists_them(redis: Redis, redis_url: str, busy: list[str]) -> None:
    failed, scheduled, started, queued, deferred = busy
    with working(redis_url, gate := Gate(), capacity=1):
        wait_for(lambda: gate.in_hand == [started], "a mail is in hand")
        (queue,) = Queue.all(connection=redis, serializer=JSONSerializer)
        assert (queue.name, queue.count, queue.get_job_ids()) == ("mail", 1, [queued])
        registries = {
            "started": queue.started_job_registry,
            "failed": queue.failed_job_registry,
            "scheduled": queue.scheduled_job_registry,
            "deferred": queue.deferred_job_registry,
            "finished": queue.finished_job_registry,
            "canceled": queue.canceled_job_registry,
        }
        assert {name: registry.get_job_ids() for name, registry in registries.items()} == {
            "started": [started],
            "failed": [failed],
            "scheduled": [scheduled],
            "deferred": [deferred],
            "finished": [],
            "canceled": [],
        }
        assert all(registry.count == len(registry.get_job_ids()) for registry in registries.values())
        assert [job.id for job in queue.get_jobs()] == [queued]
        for id_ in busy:
            job = queue.fetch_job(id_)
            assert job is not None
            assert (job.func_name, job.description, job.origin) == (FUNCTION, DESCRIPTION, "mail")
            assert job.args[0]["request_id"] in id_
            assert job.created_at is not None
            assert job.to_dict()["status"] == job.get_status(refresh=True)
        letter = queue.fetch_job(failed)
        assert letter is not None
        result = letter.latest_result()
        assert result is not None
        assert result.exc_string == "recipient_refused: 550 5.1.1 no such user"
        assert letter.ended_at is not None


async def test_a_worker_is_listed_with_all_that_a_dashboard_shows(
    redis: Redis, redis_url: str, busy: list[str]
) -> None:
    with working(redis_url, gate := Gate(), capacity=2) as running:
        wait_for(lambda: len(gate.in_hand) == 2, "two mails are in hand")
        (worker,) = Worker.all(connection=redis, serializer=JSONSerializer)
        assert (worker.name, worker.get_state(), worker.queue_names()) == (running.worker.name, "busy", ["mail"])
        assert (worker.pid, worker.hostname) == (os.getpid(), running.worker.hostname)
        assert worker.birth_date is not None
        assert worker.last_heartbeat is not None
        assert worker.python_version.startswith("3.")
        assert {execution.job_id for execution in worker.get_current_executions()} == set(gate.in_hand)
        current: Any = worker.get_current_job()
        assert current is None or current.id in gate.in_hand
        assert f"{running.worker.name} " in info(redis_url)
        gate.open()
        wait_for(lambda: redis.hget(worker.key, "successful_job_count") == b"3", "all are delivered and counted")
        (worker,) = Worker.all(connection=redis, serializer=JSONSerializer)
        assert (worker.successful_job_count, worker.failed_job_count) == (3, 0)
        assert worker.total_working_time > 0
    assert busy[0] in rq_queue(redis).failed_job_registry.get_job_ids()


def test_a_killed_workers_name_is_gone_within_a_minute(
    redis: Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It beats every ten seconds; what it leaves behind has a lifetime, and others strike it off RQ's lists."""
    monkeypatch.setattr("services.mailer.upkeep.SWEEP_SECONDS", 0.1)
    dead = Running(redis_url, Gate(), capacity=1).worker
    dead.register()
    assert redis.ttl(dead.key) > 0
    dead.beat()
    assert 0 < redis.ttl(dead.key) <= MINUTE
    assert dead.name in info(redis_url)
    redis.delete(dead.key)  # as its lifetime does
    assert dead.name not in info(redis_url)
    with working(redis_url, Gate()) as running:
        wait_for(lambda: listed(redis) == {running.worker.key}, "the dead one is struck off")
    dead.unsubscribe()
    dead.connection.close()


def listed(redis: Any) -> set[str]:
    """The keys of all workers that RQ has on a list."""
    return {key.decode() for key in redis.smembers("rq:workers") | redis.smembers("rq:workers:mail")}
