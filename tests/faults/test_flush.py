"""FLUSHALL, or a Redis that came back empty: Teleport knows what is pending, and nobody waits for a mail in vain."""

from redis import Redis
from rq import Worker

from shared import keys
from shared.mail_queue.layout import rq_queue
from tests.faults.pipeline import PEOPLE, SERVICES, Pipeline
from tests.waiting import wait_until

SECONDS = 10
"""The watcher looks every five, when nothing else tells it."""


def remembers(redis: Redis, request_id: str) -> bool:
    """Does the router know the request?"""
    return bool(redis.exists(keys.request(request_id)))


async def test_every_pending_request_is_told_although_redis_lost_all_in_the_middle(pipeline: Pipeline) -> None:
    await pipeline.start(*SERVICES)
    told = [pipeline.auth.create_request() for _ in range(30)]
    await pipeline.all_told(told, ["requested"])
    requests = [pipeline.auth.create_request() for _ in range(200)]
    await wait_until(lambda: len(pipeline.mailbox.mails) > 150, "mails are under way")

    pipeline.redis.flushall()
    pipeline.auth.deny(told[0])
    requests += [pipeline.auth.create_request() for _ in range(50)]

    def silent() -> set[tuple[str, str]]:
        return {(request, person) for request in requests for person in PEOPLE} - set(pipeline.notices())

    await wait_until(lambda: not silent(), "all who are to review have been asked", timeout=30)
    pending = [*told[1:], *requests]
    await wait_until(lambda: all(remembers(pipeline.redis, one) for one in pending), "all are known again")
    await pipeline.at_rest()
    assert all(set(pipeline.told(one, person)) == {"requested"} for one in pending for person in PEOPLE)
    assert set(pipeline.mailbox.duplicates().values()) <= {2}
    assert not pipeline.dead()


async def test_a_loss_is_noticed_although_nothing_happens(pipeline: Pipeline) -> None:
    services = await pipeline.start(*SERVICES)
    request = pipeline.auth.create_request()
    await pipeline.all_told([request], ["requested"])
    await pipeline.at_rest()

    pipeline.redis.flushall()
    await wait_until(lambda: remembers(pipeline.redis, request), "the request is known again", SECONDS)
    await wait_until(lambda: len(Worker.all(queue=rq_queue(pipeline.redis))) == 1, "RQ knows the mailer again", 15)
    for service in services:
        await wait_until(service.is_ready, "it is ready")

    pipeline.auth.approve(request)
    await wait_until(lambda: pipeline.told(request)[-1] == "approved", "the decision is told")
    await pipeline.at_rest()
