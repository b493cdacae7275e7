"""Two of each service share the work; when one of each dies, the others do it all, in order and once."""

from functools import partial

from services.watcher.teleport.pb import types_pb2
from simulators.teleport import AuthService
from tests.faults.pipeline import SERVICES, Pipeline
from tests.waiting import wait_until

REQUESTS = 100
COURSE = ["requested", "reviewed-1", "reviewed-2", "approved"]


def create(auth: AuthService, number: int) -> list[str]:
    """Requests that two approvals settle."""
    return [auth.create_request(approvals=2) for _ in range(number)]


def review(auth: AuthService, requests: list[str], author: str) -> None:
    for request in requests:
        auth.review(request, author, types_pb2.APPROVED, "fine with me")


async def test_nobody_is_told_twice_and_everybody_in_order(pipeline: Pipeline) -> None:
    watchers = await pipeline.start("watcher", "watcher")
    await pipeline.start("router", "router", "mailer", "mailer")
    requests = create(pipeline.auth, REQUESTS)
    await pipeline.all_told(requests, COURSE[:1])
    review(pipeline.auth, requests, "carol")
    review(pipeline.auth, requests, "dave")
    await pipeline.all_told(requests, COURSE, timeout=90)
    await pipeline.at_rest()
    assert not pipeline.mailbox.duplicates()
    assert not pipeline.dead()
    assert all(service.says("WARNING") == 0 for service in pipeline.services), pipeline.logs()
    for watcher in watchers:
        assert await watcher.is_ready()


async def test_one_of_each_dies_in_the_middle(pipeline: Pipeline) -> None:
    doomed = await pipeline.start(*SERVICES)
    await pipeline.start(*SERVICES)
    requests = create(pipeline.auth, REQUESTS)
    await pipeline.all_told(requests, COURSE[:1])

    review(pipeline.auth, requests, "carol")
    mails = len(pipeline.mailbox.mails)
    await wait_until(lambda: len(pipeline.mailbox.mails) > mails + REQUESTS, "the first reviews are being told")
    for service in doomed:
        await service.kill()
    review(pipeline.auth, requests, "dave")
    in_flight = pipeline.end_claims(doomed[-1])

    await wait_until(lambda: pipeline.all_have_read(requests, COURSE[-1]), "everybody has read the end", timeout=120)
    await pipeline.at_rest()
    threads = pipeline.notices().values()
    assert {tuple(dict.fromkeys(thread)) for thread in threads} == {tuple(COURSE)}
    assert sum(len(thread) - len(COURSE) for thread in threads) <= in_flight
    assert not pipeline.dead()


async def test_watchers_die_while_requests_come(pipeline: Pipeline) -> None:
    """Three follow the cluster; two of them are killed, one after the other, in the middle of what happens."""
    *doomed, last = await pipeline.start("watcher", "watcher", "watcher")
    await pipeline.start("router", "mailer")
    requests: list[str] = []
    for watcher in doomed:
        told = len(pipeline.mailbox.mails)
        requests += create(pipeline.auth, 30)
        await wait_until(partial(lambda told: len(pipeline.mailbox.mails) > told, told), "they are being told")
        await watcher.kill()
        requests += create(pipeline.auth, 30)
    review(pipeline.auth, requests, "carol")
    await pipeline.all_told(requests, COURSE[:2], timeout=40)
    await pipeline.at_rest()
    assert not pipeline.mailbox.duplicates()
    assert not pipeline.dead()
    assert await last.is_ready()
