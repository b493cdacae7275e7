"""The watcher tells the stream of everything that Teleport holds and of everything that happens to it."""

import time
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from grpc import StatusCode
from prometheus_client import CollectorRegistry, generate_latest
from redis import Redis

from services.watcher import following
from services.watcher.teleport.pb import types_pb2
from shared import keys
from shared.events import RequestState
from simulators.proxy import Proxy
from simulators.teleport import AuthService
from tests.integration.watching import AUTHORITY, changed, events, gone, settings, until_ready, watching
from tests.waiting import wait_until


@pytest.fixture
async def auth() -> AsyncIterator[AuthService]:
    async with AuthService(AUTHORITY) as service:
        yield service


def remember(redis: Redis, request_id: str, state: RequestState, reviews: int = 0, *, is_gone: bool = False) -> None:
    """Note a request as the router does."""
    known = [("revision", 1), ("state", state.value), ("reviews", reviews), ("gone", int(is_gone))]
    redis.hset(keys.request(request_id), items=[part for pair in known for part in pair])
    redis.expire(keys.request(request_id), 60)


def hold_for_pending(redis: Redis, request_id: str, routed_seconds_ago: float) -> None:
    """Put a request into the router's open set, and into its memory."""
    remember(redis, request_id, RequestState.PENDING)
    redis.zadd(keys.OPEN, {request_id: time.time() - routed_seconds_ago})


async def test_what_waits_when_the_watcher_starts_is_told(
    auth: AuthService, redis: Redis, redis_url: str, tmp_path: Path
) -> None:
    ids = {auth.create_request(user="alice", reason=f"reason {number}") for number in range(250)}
    async with watching(redis_url, settings(auth.address, tmp_path)) as watcher:
        await until_ready(watcher)
    assert {request.id for request in changed(redis)} == ids
    assert events(redis)[0].model_dump()["cluster"]["name"] == "teleport.example.com"


async def test_what_happens_is_told_in_order(auth: AuthService, redis: Redis, redis_url: str, tmp_path: Path) -> None:
    async with watching(redis_url, settings(auth.address, tmp_path)) as watcher:
        await until_ready(watcher)
        request_id = auth.create_request(approvals=2)
        auth.review(request_id, "carol", types_pb2.APPROVED, "looks right")
        auth.review(request_id, "dave", types_pb2.APPROVED)
        auth.delete(request_id)
        await wait_until(lambda: gone(redis) == [request_id], "the end is told")
    assert [(request.state.value, request.review_count) for request in changed(redis)] == [
        ("pending", 0),
        ("pending", 1),
        ("approved", 2),
    ]


@pytest.mark.parametrize("code", [StatusCode.OK, StatusCode.UNAVAILABLE, StatusCode.UNKNOWN])
async def test_after_the_watch_has_ended_it_goes_on(
    auth: AuthService, redis: Redis, redis_url: str, tmp_path: Path, code: StatusCode
) -> None:
    async with watching(redis_url, settings(auth.address, tmp_path)) as watcher:
        await until_ready(watcher)
        auth.faults.end_streams(code)
        request_id = auth.create_request()
        await wait_until(lambda: [request.id for request in changed(redis)][-1:] == [request_id], "it is told")
        await until_ready(watcher)


async def test_what_happened_while_teleport_was_away_is_found(
    auth: AuthService, redis: Redis, redis_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    registry = CollectorRegistry()

    def tries() -> float:
        return registry.get_sample_value("access_mail_watcher_reconnects_total", {"reason": "unavailable"}) or 0

    async with watching(redis_url, settings(auth.address, tmp_path), registry) as watcher:
        await until_ready(watcher)
        await auth.stop()
        await wait_until(lambda: "Connection refused" in (watcher.ready() or ""), "the loss is noticed")
        request_id = auth.create_request()
        await wait_until(lambda: tries() > 3, "it tries again and again")
        await auth.start()
        await wait_until(lambda: [request.id for request in changed(redis)] == [request_id], "it is told")
        await until_ready(watcher)
    assert len([record for record in caplog.records if "Connection refused" in record.getMessage()]) == 1


async def test_an_event_that_never_came_is_found_by_the_next_snapshot(
    auth: AuthService, redis: Redis, redis_url: str, tmp_path: Path
) -> None:
    often = settings(auth.address, tmp_path, snapshot_interval=timedelta(milliseconds=200))
    async with watching(redis_url, often) as watcher:
        await until_ready(watcher)
        auth.faults.lose_events = True
        request_id = auth.create_request()
        await wait_until(lambda: request_id in {request.id for request in changed(redis)}, "it is told")


async def test_a_snapshot_tells_only_what_the_router_does_not_know(
    auth: AuthService, redis: Redis, redis_url: str, tmp_path: Path
) -> None:
    known, reviewed, approved, over, ahead = (auth.create_request(approvals=2) for _ in range(5))
    for request_id in (reviewed, over):
        auth.review(request_id, "carol", types_pb2.APPROVED)
    auth.approve(approved)
    for request_id in (known, reviewed, approved):
        remember(redis, request_id, RequestState.PENDING)
    remember(redis, over, RequestState.PENDING, is_gone=True)
    remember(redis, ahead, RequestState.DENIED, 1)
    async with watching(redis_url, settings(auth.address, tmp_path)) as watcher:
        await until_ready(watcher)
    assert {request.id for request in changed(redis)} == {reviewed, approved}


async def test_a_request_that_vanished_while_nobody_watched_is_told_as_gone(
    auth: AuthService, redis: Redis, redis_url: str, tmp_path: Path
) -> None:
    hold_for_pending(redis, "vanished", 61)
    hold_for_pending(redis, "routed-just-now", 5)
    still_there = auth.create_request()
    hold_for_pending(redis, still_there, 3600)
    async with watching(redis_url, settings(auth.address, tmp_path)) as watcher:
        await until_ready(watcher)
    assert gone(redis) == ["vanished"]
    assert changed(redis) == []


async def test_what_cannot_be_decoded_stops_nothing_and_is_counted(
    auth: AuthService, redis: Redis, redis_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    strange = auth.get(auth.create_request())
    strange.Spec.State = 9  # type: ignore[assignment]  # no state that any version knows
    auth.put(strange)
    registry = CollectorRegistry()
    async with watching(redis_url, settings(auth.address, tmp_path), registry) as watcher:
        await until_ready(watcher)
        auth.faults.send_unknown_event()
        strange.Metadata.Name = "no\nid"
        auth.put(strange)
        request_id = auth.create_request()
        await wait_until(lambda: [request.id for request in changed(redis)] == [request_id], "the next one is told")
    counted = generate_latest(registry).decode()
    assert 'access_mail_watcher_undecodable_total{fault="state"} 1.0' in counted
    assert 'access_mail_watcher_undecodable_total{fault="id"} 1.0' in counted
    assert 'access_mail_watcher_events_received_total{type="other"} 1.0' in counted
    assert "access_request 'no id' is passed over: its id is no legal one" in caplog.text


async def test_what_cannot_be_decoded_is_counted_and_said_once_however_often_it_is_listed(
    auth: AuthService, redis_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        strange = auth.get(auth.create_request())
        strange.Spec.State = 9  # type: ignore[assignment]  # no state that any version knows
        auth.put(strange)
    registry = CollectorRegistry()

    def counted(metric: str, **labels: str) -> float:
        return registry.get_sample_value(f"access_mail_watcher_{metric}_total", labels) or 0

    often = settings(auth.address, tmp_path, snapshot_interval=timedelta(milliseconds=50))
    async with watching(redis_url, often, registry) as watcher:
        await until_ready(watcher)
        await wait_until(lambda: counted("snapshots", outcome="complete") > 2, "all is listed again and again")
        auth.faults.end_streams()
        await wait_until(lambda: counted("reconnects", reason="unavailable"), "the connection is another one")
        before = counted("snapshots", outcome="complete")
        await wait_until(lambda: counted("snapshots", outcome="complete") > before + 1, "all is listed over that one")
    assert counted("undecodable", fault="state") == 2
    assert caplog.text.count("is passed over") == 2


async def test_while_no_router_reads_snapshots_repeat_nothing(
    auth: AuthService, redis: Redis, redis_url: str, tmp_path: Path
) -> None:
    registry = CollectorRegistry()

    def snapshots() -> float:
        return registry.get_sample_value("access_mail_watcher_snapshots_total", {"outcome": "complete"}) or 0

    ended = auth.create_request()
    ids = {auth.create_request() for _ in range(20)}
    hold_for_pending(redis, "vanished", 120)
    often = settings(auth.address, tmp_path, snapshot_interval=timedelta(milliseconds=50))
    async with watching(redis_url, often, registry) as watcher:
        await until_ready(watcher)
        auth.delete(ended)
        await wait_until(lambda: ended in gone(redis), "the end is told")
        before = snapshots()
        await wait_until(lambda: snapshots() > before + 3, "all is listed again and again")
        assert sorted(gone(redis)) == sorted([ended, "vanished"])
        assert sorted(request.id for request in changed(redis)) == sorted({*ids, ended})
        auth.faults.lose_events = True
        approved = min(ids)
        auth.approve(approved)
        await wait_until(lambda: [request.id for request in changed(redis)][-1] == approved, "what is new is told")


async def test_a_connection_that_falls_silent_is_noticed(
    auth: AuthService, redis: Redis, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert following.HEARTBEAT_SECONDS + following.ANSWER_SECONDS < 20
    monkeypatch.setattr(following, "HEARTBEAT_SECONDS", 0.1)
    monkeypatch.setattr(following, "ANSWER_SECONDS", 0.3)
    async with (
        Proxy(AUTHORITY, auth.address) as proxy,
        watching(redis_url, settings(proxy.address, tmp_path)) as watcher,
    ):
        await until_ready(watcher)
        proxy.silence()
        request_id = auth.create_request()
        await wait_until(lambda: [request.id for request in changed(redis)] == [request_id], "it is told")


async def test_a_proxy_that_cuts_the_connection_is_connected_to_again(
    auth: AuthService, redis: Redis, redis_url: str, tmp_path: Path
) -> None:
    async with (
        Proxy(AUTHORITY, auth.address) as proxy,
        watching(redis_url, settings(proxy.address, tmp_path)) as watcher,
    ):
        await until_ready(watcher)
        proxy.cut()
        request_id = auth.create_request()
        await wait_until(lambda: [request.id for request in changed(redis)][-1:] == [request_id], "it is told")


async def test_a_role_without_permission_is_said_once_and_granting_it_is_enough(
    auth: AuthService, redis_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    auth.faults.denied_kinds.add("access_request")
    async with watching(redis_url, settings(auth.address, tmp_path)) as watcher:
        await wait_until(lambda: "no access to Teleport" in (watcher.ready() or ""), "the refusal is noticed")
        auth.faults.denied_kinds.clear()
        await until_ready(watcher)
    assert caplog.text.count("no access to Teleport") == 1


async def test_a_role_that_may_watch_but_not_list_still_watches(
    auth: AuthService, redis: Redis, redis_url: str, tmp_path: Path
) -> None:
    auth.faults.fail("ListAccessRequests", StatusCode.PERMISSION_DENIED, text="no list")
    async with watching(redis_url, settings(auth.address, tmp_path)) as watcher:
        await wait_until(lambda: "no list" in (watcher.ready() or ""), "the refusal is noticed")
        request_id = auth.create_request()
        await wait_until(lambda: [request.id for request in changed(redis)][:1] == [request_id], "it is told")
        await until_ready(watcher)
