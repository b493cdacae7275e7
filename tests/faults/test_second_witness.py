"""Teleport's record is the second witness: what Redis loses, and what the Go plugin began, is not told twice."""

from collections.abc import Iterable

from services.watcher.teleport.pb import types_pb2
from shared import keys
from simulators.received import ReceivedMail, about
from tests.faults.pipeline import PEOPLE, SERVICES, Pipeline, Service
from tests.faults.test_flush import remembers
from tests.waiting import wait_until

OPEN = 500
GO_IDS = {person: f"2H1A8Q9XYZ.{number}@go-plugin" for number, person in enumerate(PEOPLE)}


def witnessed(pipeline: Pipeline, request_id: str) -> bool:
    """Does the record name everybody?"""
    return all(person in pipeline.auth.plugin_entry(request_id).get("email_threads", "") for person in PEOPLE)


def mails_of(pipeline: Pipeline, request_id: str, person: str) -> list[ReceivedMail]:
    return about(pipeline.mailbox.mails, request_id, person)


async def all_remembered(pipeline: Pipeline, requests: Iterable[str]) -> None:
    await wait_until(lambda: all(remembers(pipeline.redis, one) for one in requests), "all are known again", 30)


def unannounced(router: Service) -> int:
    """Requests that the router has met settled, and nobody had heard of."""
    return router.says("settled_unannounced")


async def test_after_a_loss_of_redis_nothing_is_announced_twice_and_threads_go_on(pipeline: Pipeline) -> None:
    await pipeline.start(*SERVICES)
    requests = [pipeline.auth.create_request(approvals=2) for _ in range(OPEN)]
    await pipeline.all_told(requests, ["requested"], timeout=60)
    await wait_until(lambda: all(witnessed(pipeline, one) for one in requests), "all is witnessed", 30)

    approved, denied, gone, reviewed = requests[:4]
    pipeline.redis.flushall()
    pipeline.auth.approve(approved, "in the gap")
    pipeline.auth.delete(gone)
    await all_remembered(pipeline, requests)
    new = pipeline.auth.create_request()
    pipeline.auth.deny(denied, "after it")
    pipeline.auth.review(reviewed, "carol", types_pb2.APPROVED)
    await pipeline.all_told([approved], ["requested", "approved"])
    await pipeline.all_told([denied], ["requested", "denied"])
    await pipeline.all_told([gone], ["requested", "expired"])
    await pipeline.all_told([reviewed], ["requested", "reviewed-1"])
    await pipeline.all_told([new], ["requested"])
    await pipeline.at_rest()

    await pipeline.all_told(requests[4:], ["requested"])
    assert pipeline.mailbox.duplicates() == {}
    for request_id in (approved, denied, gone, reviewed):
        for person in PEOPLE:
            first, later = mails_of(pipeline, request_id, person)
            assert first.message_id in later.message["References"].split()
            assert first.message_id in later.message["In-Reply-To"].split()
            assert later.message["Subject"].removeprefix("Re: ") == first.message["Subject"]
    assert not pipeline.dead()


async def test_a_second_loss_finds_reviews_and_decisions_told_as_well(pipeline: Pipeline) -> None:
    await pipeline.start(*SERVICES)
    requests = [pipeline.auth.create_request(approvals=3) for _ in range(20)]
    await pipeline.all_told(requests, ["requested"])
    for request_id in requests:
        pipeline.auth.review(request_id, "carol", types_pb2.APPROVED)
    decided = requests[:10]
    for request_id in decided:
        pipeline.auth.approve(request_id)
    await pipeline.all_told(decided, ["requested", "reviewed-1", "approved"])
    await pipeline.all_told(requests[10:], ["requested", "reviewed-1"])
    await wait_until(lambda: pipeline.redis.xlen(keys.RECEIPTS) == 0, "all is witnessed", 20)

    pipeline.redis.flushall()
    await all_remembered(pipeline, requests)
    await pipeline.at_rest()
    for request_id in decided:
        pipeline.auth.deny(request_id, "overturned")
    await pipeline.all_told(decided, ["requested", "reviewed-1", "approved", "denied"])
    await pipeline.all_told(requests[10:], ["requested", "reviewed-1"])
    assert pipeline.mailbox.duplicates() == {}


async def test_without_the_witness_only_what_is_pending_is_told_again(pipeline: Pipeline) -> None:
    pipeline.auth.faults.denied |= {"GetPluginData", "UpdatePluginData"}
    watcher, router, _ = await pipeline.start(*SERVICES)
    requests = [pipeline.auth.create_request() for _ in range(30)]
    await pipeline.all_told(requests, ["requested"])
    settled, pending = requests[:10], requests[10:]

    pipeline.redis.flushall()
    for request_id in settled:
        pipeline.auth.approve(request_id)
    await all_remembered(pipeline, requests)
    await pipeline.all_told(pending, ["requested", "requested"])
    await pipeline.at_rest()
    await pipeline.all_told(settled, ["requested"])
    assert unannounced(router) == len(settled)
    _, metrics = await router.probe("/metrics")
    assert f'access_mail_router_events_total{{outcome="settled_unannounced"}} {len(settled)}.0' in metrics
    await wait_until(lambda: watcher.says("cannot be witnessed"), "it says what is missing")
    assert watcher.says("cannot be witnessed") == watcher.says("looking up record") == 1


async def test_what_the_go_plugin_has_announced_is_answered_in_its_threads(pipeline: Pipeline) -> None:
    def announced_by_the_go_plugin() -> str:
        request_id = pipeline.auth.create_request(approvals=2, reason="because")
        threads = ",".join(f"{person}/2026-11-24 09:15:01 +0000 UTC m=+12.5/{GO_IDS[person]}" for person in PEOPLE)
        entry = {"user": "alice", "roles": "editor", "request_reason": "because", "email_threads": threads}
        pipeline.auth.update_plugin_data(
            types_pb2.PluginDataUpdateParams(Kind="access_request", Resource=request_id, Plugin="email", Set=entry)
        )
        return request_id

    requests = [announced_by_the_go_plugin() for _ in range(10)]
    settled = announced_by_the_go_plugin()
    pipeline.auth.deny(settled)
    await pipeline.start(*SERVICES)
    await pipeline.all_told([settled], ["denied"])
    for request_id in requests:
        pipeline.auth.review(request_id, "carol", types_pb2.APPROVED)
        pipeline.auth.approve(request_id)
    await pipeline.all_told(requests, ["reviewed-1", "approved"])
    await pipeline.at_rest()
    for mail in pipeline.mailbox.mails:
        for field in ("In-Reply-To", "References"):
            assert f"<{GO_IDS[mail.recipient]}>" in mail.message[field].split()
    await wait_until(lambda: pipeline.redis.xlen(keys.RECEIPTS) == 0, "all is witnessed")
    for request_id in requests:
        entry = pipeline.auth.plugin_entry(request_id)
        assert (entry["reviews_count"], entry["resolution"]) == ("1", "APPROVED")
        assert entry["email_threads"].count(",") == len(PEOPLE) - 1


async def test_whom_the_go_plugin_did_not_reach_is_told_by_us(pipeline: Pipeline) -> None:
    request_id = pipeline.auth.create_request()
    entry = {"user": "alice", "email_threads": f"{PEOPLE[0]}/2026/{GO_IDS[PEOPLE[0]]}"}
    pipeline.auth.update_plugin_data(
        types_pb2.PluginDataUpdateParams(Kind="access_request", Resource=request_id, Plugin="email", Set=entry)
    )
    await pipeline.start(*SERVICES)
    await wait_until(lambda: len(pipeline.mailbox.mails) == len(PEOPLE) - 1, "the others are told")
    pipeline.auth.approve(request_id)
    await wait_until(
        lambda: all(pipeline.told(request_id, one)[-1:] == ["approved"] for one in PEOPLE), "all hear the end"
    )
    assert pipeline.told(request_id, PEOPLE[0]) == ["approved"]
    assert pipeline.told(request_id, PEOPLE[1]) == ["requested", "approved"]
    await pipeline.at_rest()
