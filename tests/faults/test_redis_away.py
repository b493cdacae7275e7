"""Redis away, or full: every service says so once, is not ready but alive, loses nothing, and goes on by itself."""

import re
from collections.abc import Callable

import pytest

from simulators.rules import Rule
from tests.faults.pipeline import SERVICES, STARTING, Pipeline, Service
from tests.faults.valkey import Valkey
from tests.waiting import wait_until

TROUBLE = "Redis does not do its part"
WELL_AGAIN = re.compile(r"INFO \w+: (connected to Redis|Redis does its part again)")
NO_ROOM = 1
"""`maxmemory` in bytes: whatever could need memory is refused."""


async def is_troubled(service: Service) -> bool:
    """Alive, not ready, and it tells why."""
    live, _ = await service.probe("/healthz")
    ready, why = await service.probe("/readyz")
    return live == 200 and ready == 503 and "Redis" in why


async def all_are_troubled(services: list[Service]) -> None:
    for service in services:
        await wait_until(lambda service=service: is_troubled(service), "it is alive but not ready")


async def all_are_well(services: list[Service]) -> None:
    for service in services:
        await wait_until(service.is_ready, "it is ready")
        assert [service.says(TROUBLE), len(WELL_AGAIN.findall(service.log))] in ([1, 1], [1, 2]), service.log


@pytest.mark.parametrize("end", [Valkey.stop, Valkey.kill])
async def test_redis_ends_while_requests_and_mails_are_under_way(
    pipeline: Pipeline, end: Callable[[Valkey], None]
) -> None:
    services = await pipeline.start(*SERVICES)
    changing = [pipeline.auth.create_request() for _ in range(20)]
    await pipeline.all_told(changing, ["requested"])
    slow = Rule("data", delay=1)
    pipeline.mailbox.rules.append(slow)
    under_way = [pipeline.auth.create_request() for _ in range(20)]
    await wait_until(lambda: slow.obeyed >= 20, "mails are in the relay's hands")

    end(pipeline.valkey)
    for request in changing:
        pipeline.auth.approve(request)
    new = [pipeline.auth.create_request() for _ in range(20)]
    await all_are_troubled(services)
    pipeline.mailbox.rules.clear()
    await wait_until(lambda: len(pipeline.mailbox.mails) >= 80, "the relay has taken what it was given")
    pipeline.valkey.start()

    await pipeline.all_told([*under_way, *new], ["requested"])
    await pipeline.all_told(changing, ["requested", "approved"])
    await pipeline.at_rest()
    await all_are_well(services)
    assert not pipeline.mailbox.duplicates()
    assert not pipeline.dead()


async def test_redis_hangs_and_then_does_all_that_was_asked_meanwhile(pipeline: Pipeline) -> None:
    """What it does without an answer has happened all the same: events come twice, claims have no holder."""
    services = await pipeline.start(*SERVICES)
    changing = [pipeline.auth.create_request() for _ in range(20)]
    await pipeline.all_told(changing, ["requested"])
    slow = Rule("data", delay=1)
    pipeline.mailbox.rules.append(slow)
    under_way = [pipeline.auth.create_request() for _ in range(20)]
    await wait_until(lambda: slow.obeyed >= 20, "mails are in the relay's hands")

    with pipeline.valkey.hanging():
        for request in changing:
            pipeline.auth.approve(request)
        new = [pipeline.auth.create_request() for _ in range(20)]
        await all_are_troubled(services)
        pipeline.mailbox.rules.clear()

    await pipeline.all_told([*under_way, *new], ["requested"], timeout=50)
    await pipeline.all_told(changing, ["requested", "approved"], timeout=50)
    await pipeline.at_rest(timeout=50)
    await all_are_well(services)
    assert not pipeline.mailbox.duplicates()
    assert not pipeline.dead()


async def test_services_that_start_before_redis_wait_for_it(pipeline: Pipeline) -> None:
    pipeline.valkey.stop()
    services = [pipeline.launch(name) for name in SERVICES]
    for service in services:
        await service.said(STARTING)
    request = pipeline.auth.create_request()
    await all_are_troubled(services)
    pipeline.valkey.start()
    await pipeline.all_told([request], ["requested"])
    await all_are_well(services)


async def test_services_end_when_they_are_told_to_although_redis_is_away(pipeline: Pipeline) -> None:
    services = await pipeline.start(*SERVICES)
    pipeline.valkey.stop()
    await all_are_troubled(services)
    for service in services:
        await service.stop()
    pipeline.valkey.start()


async def test_redis_is_full_while_requests_and_mails_are_under_way(pipeline: Pipeline) -> None:
    """What was queued still goes out, for that alone makes room; what is new waits."""
    watcher, router, mailer = await pipeline.start(*SERVICES)
    changing = [pipeline.auth.create_request() for _ in range(20)]
    await pipeline.all_told(changing, ["requested"])
    slow = Rule("data", delay=1)
    pipeline.mailbox.rules.append(slow)
    under_way = [pipeline.auth.create_request() for _ in range(20)]
    await wait_until(lambda: slow.obeyed >= 20, "mails are in the relay's hands")
    await router.stop()
    pipeline.auth.approve(changing[0])
    await wait_until(lambda: pipeline.pending()["unread"], "the router will have something to do")

    pipeline.redis.config_set("maxmemory", NO_ROOM)
    pipeline.mailbox.rules.clear()
    for request in changing[1:]:
        pipeline.auth.approve(request)
    new = [pipeline.auth.create_request() for _ in range(20)]
    services = [watcher, pipeline.launch("router"), mailer]
    await pipeline.all_told(under_way, ["requested"])
    await all_are_troubled(services)
    pipeline.redis.config_set("maxmemory", 0)

    await pipeline.all_told(new, ["requested"])
    await pipeline.all_told(changing, ["requested", "approved"])
    await pipeline.at_rest()
    await all_are_well(services)
    assert not pipeline.mailbox.duplicates()
    assert not pipeline.dead()
