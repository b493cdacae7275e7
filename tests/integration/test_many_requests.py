"""Thousands of requests cost what they must: what is known is listed, what is not is looked up, a few at a time."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from redis import Redis

from services.watcher.look_ups import AT_ONCE
from services.watcher.teleport.listing import PAGE
from shared import keys
from shared.events import RequestState
from simulators.teleport import AuthService
from tests.integration.test_enrichment import LOOK_UPS
from tests.integration.test_watcher import remember
from tests.integration.watching import AUTHORITY, changed, events, settings, watching
from tests.waiting import wait_until

KNOWN = 10_000
UNKNOWN = 3_000
"""Thirty pages show what a hundred would: nothing grows with them."""
PEOPLE = 50
"""Who have asked for them."""
TASKS_OF_A_PAGE = 3 * PAGE
"""Nobody may begin to look up more than one page at a time."""


@pytest.fixture
async def auth() -> AsyncIterator[AuthService]:
    async with AuthService(AUTHORITY) as service:
        yield service


def created(auth: AuthService, number: int) -> list[str]:
    return [auth.create_request(f"user{n % PEOPLE}", reason="INC-1") for n in range(number)]


def snapshots(registry: CollectorRegistry) -> float:
    return registry.get_sample_value("access_mail_watcher_snapshots_total", {"outcome": "complete"}) or 0


async def test_periodic_snapshots_of_what_is_known_look_up_nothing_and_tell_only_what_changed(
    auth: AuthService, redis: Redis, redis_url: str, tmp_path: Path
) -> None:
    ids = created(auth, KNOWN)
    with redis.pipeline(transaction=False) as pipeline:
        for request_id in ids:
            remember(pipeline, request_id, RequestState.PENDING)
        pipeline.execute()
    registry = CollectorRegistry()
    often = settings(auth.address, tmp_path, snapshot_interval=timedelta(milliseconds=100))
    async with watching(redis_url, often, registry) as watcher:
        await wait_until(lambda: watcher.ready() is None, "all are listed", timeout=180)
        auth.faults.lose_events = True
        auth.approve(ids[KNOWN // 2])
        before = snapshots(registry)
        await wait_until(lambda: snapshots(registry) > before + 2, "all are listed again and again", timeout=180)
        told = [(request.id, request.state) for request in changed(redis)]
    assert told == [(ids[KNOWN // 2], RequestState.APPROVED)]
    assert len(events(redis)) == 1
    assert registry.get_sample_value("access_mail_watcher_listed_requests") == KNOWN
    assert auth.faults.calls["ListAccessRequests"] >= KNOWN / PAGE * snapshots(registry)
    assert {method for method in auth.faults.calls if method in LOOK_UPS} == set()


async def test_a_first_snapshot_of_what_is_not_known_goes_page_by_page_and_asks_a_few_at_a_time(
    auth: AuthService, redis: Redis, redis_url: str, tmp_path: Path
) -> None:
    ids = created(auth, UNKNOWN)
    auth.faults.delays["GetPluginData"] = 0.02  # so that questions meet
    most_tasks = 0

    async with watching(redis_url, settings(auth.address, tmp_path)) as watcher:

        def is_complete() -> bool:
            nonlocal most_tasks
            most_tasks = max(most_tasks, len(asyncio.all_tasks()))
            pages = auth.faults.calls["ListAccessRequests"]
            # Whoever lists on before a page is on the stream holds all that Teleport has in memory.
            assert redis.xlen(keys.EVENTS) >= (pages - 2) * PAGE
            return watcher.ready() is None

        await wait_until(is_complete, "all are told", timeout=120)
        told = [request.id for request in changed(redis)]
    assert len(told) == UNKNOWN
    assert set(told) == set(ids)
    assert auth.faults.calls["GetPluginData"] == UNKNOWN
    assert 1 < auth.faults.most_at_once["GetPluginData"] <= AT_ONCE
    assert max(auth.faults.most_at_once[method] for method in LOOK_UPS) <= AT_ONCE
    assert most_tasks < TASKS_OF_A_PAGE
