"""What happens while a part is down is told once it is back: Teleport, the stream and the queue wait for it."""

import pytest

from shared import keys
from shared.settings import ServiceName
from tests.faults.pipeline import SERVICES, Pipeline, Service

MORE_THAN_A_MINUTE = 61


async def up(pipeline: Pipeline) -> dict[ServiceName, Service]:
    return dict(zip(SERVICES, await pipeline.start(*SERVICES), strict=True))


def routed_long_ago(pipeline: Pipeline, request_id: str) -> None:
    """Only what was routed more than a minute ago is asked for when a listing lacks it."""
    assert pipeline.redis.zscore(keys.OPEN, request_id)
    pipeline.redis.zincrby(keys.OPEN, -MORE_THAN_A_MINUTE, request_id)


@pytest.mark.parametrize("down", [("watcher",), ("router",), ("mailer",), SERVICES])
async def test_what_happened_while_a_service_was_down_is_told_once_when_it_is_back(
    pipeline: Pipeline, down: tuple[ServiceName, ...]
) -> None:
    services = await up(pipeline)
    pending, approved, deleted = (pipeline.auth.create_request() for _ in range(3))
    await pipeline.all_told([pending, approved, deleted], ["requested"])
    routed_long_ago(pipeline, deleted)

    for name in down:
        await services[name].stop()
    pipeline.auth.approve(approved)
    pipeline.auth.delete(deleted)
    new = pipeline.auth.create_request()
    gone_unseen = pipeline.auth.create_request()
    pipeline.auth.delete(gone_unseen)
    await pipeline.start(*down)

    await pipeline.all_told([new], ["requested"])
    await pipeline.all_told([approved], ["requested", "approved"])
    await pipeline.all_told([deleted], ["requested", "expired"])
    await pipeline.at_rest()
    await pipeline.all_told([pending], ["requested"])
    assert pipeline.told(gone_unseen) in ([], ["requested", "expired"])
    assert not pipeline.mailbox.duplicates()


async def test_who_was_not_asked_in_time_is_told_nothing_of_the_decision(pipeline: Pipeline) -> None:
    watcher, router, mailer = await pipeline.start(*SERVICES)
    await mailer.stop()
    decided = pipeline.auth.create_request()
    pipeline.auth.approve(decided)
    pending = pipeline.auth.create_request()
    await pipeline.start("mailer")
    await pipeline.all_told([pending], ["requested"])
    await pipeline.at_rest()
    assert pipeline.told(decided) == []
    assert not pipeline.dead()
    assert watcher.says("WARNING") == router.says("WARNING") == 0


async def test_teleport_may_be_down_too(pipeline: Pipeline) -> None:
    (watcher, *_) = await pipeline.start(*SERVICES)
    before = pipeline.auth.create_request()
    await pipeline.all_told([before], ["requested"])
    await pipeline.auth.stop()
    approved = pipeline.auth.create_request()
    pipeline.auth.approve(before)
    assert (await watcher.probe("/healthz"))[0] == 200
    await pipeline.auth.start()
    await pipeline.all_told([approved], ["requested"])
    await pipeline.all_told([before], ["requested", "approved"])
    await pipeline.at_rest()
    assert not pipeline.mailbox.duplicates()
