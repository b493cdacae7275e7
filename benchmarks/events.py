"""Events routed a second by one router: three recipients each, no rules."""

import json
from pathlib import Path
from typing import Any

from redis import Redis

from benchmarks.machine import memory, module, running, url_of, used, valkey, wait
from benchmarks.sample import RECIPIENTS as SAMPLE_RECIPIENTS
from benchmarks.sample import SENDER, facts, request_ids
from shared import keys
from shared.event_log import DATA
from shared.events import RequestChanged, RulesListed

EVENTS = 10_000
WARM_UP = 2_000
PATIENCE_SECONDS = 120.0

ROLES = {
    "*": ["ann@example.com"],
    "prod-ssh": ["bob@example.com"],
    "prod-db-admin": ["carol@example.com", "dan@example.com"],
}
RECIPIENTS = 3
"""Of each request: both of its roles have their own."""


def measure(folder: Path, rounds: int) -> list[dict[str, Any]]:
    """One row a round."""
    return [_run(_made(folder / f"events-{number}")) for number in range(rounds)]


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _run(folder: Path) -> dict[str, Any]:
    with valkey(folder) as redis:
        _fill(redis)
        with running([module("services.router")], _environ(url_of(redis))) as pids:
            wait(lambda: _jobs(redis) >= WARM_UP * RECIPIENTS, "the router is warm", PATIENCE_SECONDS)
            before, jobs_before, began = used(pids, redis), _jobs(redis), redis.time()
            wait(lambda: _jobs(redis) >= EVENTS * RECIPIENTS, "all events are routed", PATIENCE_SECONDS)
            spent, ended, size = used(pids, redis) - before, redis.time(), memory(pids)
    events = EVENTS - jobs_before / RECIPIENTS
    seconds = (ended[0] - began[0]) + (ended[1] - began[1]) / 1e6
    return {
        "events_per_second": events / seconds,
        "cpu_microseconds": 1e6 * spent.cpu / events,
        "memory_megabytes": size / 1e6,
    }


def _environ(redis_url: str) -> dict[str, str]:
    return {
        "ACCESS_MAIL__REDIS__URL": redis_url,
        "ACCESS_MAIL__DELIVERY__SENDER": SENDER,
        "ACCESS_MAIL__ROLE_TO_RECIPIENTS": json.dumps(ROLES),
        "ACCESS_MAIL__ROUTER__PORT": "0",
        "ACCESS_MAIL__LOG__SEVERITY": "warn",
    }


def _fill(redis: Redis) -> None:
    with redis.pipeline(transaction=False) as pipeline:
        pipeline.xadd(keys.EVENTS, {DATA: RulesListed().model_dump_json().encode()})
        for one in request_ids(EVENTS * SAMPLE_RECIPIENTS):
            known = facts(one)
            assert known.request is not None
            assert known.cluster is not None
            event = RequestChanged(request=known.request, cluster=known.cluster)
            pipeline.xadd(keys.EVENTS, {DATA: event.model_dump_json().encode()})
        pipeline.execute()


def _jobs(redis: Redis) -> int:
    return int(redis.llen("rq:queue:mail"))
