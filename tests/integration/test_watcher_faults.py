"""Whatever Teleport does to a watcher, it goes on, says what is wrong, and asks no faster than is decent."""

import asyncio
import logging
import re
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from grpc import StatusCode
from prometheus_client import CollectorRegistry
from redis import Redis

from services.watcher import look_ups
from services.watcher.following import FOUND_AT_ONCE
from services.watcher.service import WAITING
from services.watcher.teleport import client
from services.watcher.teleport.pb import auth_pb2, types_pb2
from shared import keys
from simulators.teleport import AuthService
from tests.integration.test_watcher import hold_for_pending
from tests.integration.watching import AUTHORITY, Valkey, changed, gone, settings, until_ready, watching
from tests.waiting import wait_until

GO_ZERO = Timestamp(seconds=-62135596800)
"""`time.Time{}` of Go on the wire: 0001-01-01."""

FIRST_PAUSE_AT_MOST = 0.06
"""Seconds: three times the shortest one."""


@pytest.fixture
async def auth() -> AsyncIterator[AuthService]:
    async with AuthService(AUTHORITY) as service:
        yield service


async def test_a_permission_lost_in_the_middle_is_said_and_regained(
    auth: AuthService, redis: Redis, redis_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with watching(redis_url, settings(auth.address, tmp_path)) as watcher:
        await until_ready(watcher)
        auth.faults.end_streams(StatusCode.PERMISSION_DENIED, "the role was changed")
        await wait_until(lambda: "the role was changed" in (watcher.ready() or ""), "it is said")
        request_id = auth.create_request()
        await wait_until(lambda: [request.id for request in changed(redis)] == [request_id], "it is found")
        await until_ready(watcher)
    assert caplog.text.count("no access to Teleport") == 1


async def test_an_init_that_is_late_is_waited_for_once_more(
    auth: AuthService, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "INIT_SECONDS", 0.2)
    auth.faults.delays["WatchEvents"] = 5
    async with watching(redis_url, settings(auth.address, tmp_path)) as watcher:
        await wait_until(lambda: "did not begin within 0.2 s" in (watcher.ready() or ""), "it is said")
        auth.faults.delays.clear()
        await until_ready(watcher)


async def test_a_slow_listing_does_not_hold_up_what_happens(
    auth: AuthService, redis: Redis, redis_url: str, tmp_path: Path
) -> None:
    auth.faults.delays["ListAccessRequests"] = 60
    async with watching(redis_url, settings(auth.address, tmp_path)) as watcher:
        await wait_until(lambda: len(auth.watches) == 1, "it watches")
        request_id = auth.create_request()
        await wait_until(lambda: [request.id for request in changed(redis)] == [request_id], "it is told")
        assert watcher.ready() == "the first listing of all requests is not complete yet"


async def test_a_server_that_never_answers_does_not_hold_up_the_end(
    auth: AuthService, redis_url: str, tmp_path: Path
) -> None:
    auth.faults.delays["Ping"] = 60
    async with watching(redis_url, settings(auth.address, tmp_path)) as watcher:
        await wait_until(lambda: watcher.ready() == "not connected to Teleport yet", "it waits for an answer")


async def test_times_that_were_never_set_are_none(
    auth: AuthService, redis: Redis, redis_url: str, tmp_path: Path
) -> None:
    async with watching(redis_url, settings(auth.address, tmp_path)) as watcher:
        await until_ready(watcher)
        request = auth.get(auth.create_request())
        for field in (
            request.Spec.Created,
            request.Spec.Expires,
            request.Spec.ResourceExpiry,
            request.Metadata.Expires,
        ):
            field.CopyFrom(GO_ZERO)
        request.Metadata.Name = "timeless"
        request.Spec.Reviews.add(Author="carol", ProposedState=types_pb2.APPROVED).Created.CopyFrom(GO_ZERO)
        auth.faults.send(auth_pb2.Event(Type=auth_pb2.PUT, AccessRequest=request))
        await wait_until(lambda: [told.id for told in changed(redis)][1:] == ["timeless"], "it is told")
    told = changed(redis)[-1]
    assert (told.created, told.access_expires, told.request_expires, told.reviews[0].created) == (None,) * 4


async def test_an_event_of_more_than_four_mebibytes_is_told(
    auth: AuthService, redis: Redis, redis_url: str, tmp_path: Path
) -> None:
    async with watching(redis_url, settings(auth.address, tmp_path)) as watcher:
        await until_ready(watcher)
        request_id = auth.create_request(reason="x" * 5_000_000)
        await wait_until(lambda: [request.id for request in changed(redis)] == [request_id], "it is told")
    assert len(changed(redis)[0].request_reason) == 4096


async def test_an_event_beyond_every_measure_costs_a_reconnect_and_no_other_event(
    auth: AuthService, redis: Redis, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {**dict(client.OPTIONS), "grpc.max_receive_message_length": 100_000}
    monkeypatch.setattr(client, "OPTIONS", tuple(options.items()))
    registry = CollectorRegistry()

    def reconnects() -> float:
        return registry.get_sample_value("access_mail_watcher_reconnects_total", {"reason": "unavailable"}) or 0

    async with watching(redis_url, settings(auth.address, tmp_path), registry) as watcher:
        await until_ready(watcher)
        monster = types_pb2.AccessRequestV3(Spec=types_pb2.AccessRequestSpecV3(RequestReason="x" * 200_000))
        auth.faults.send(auth_pb2.Event(Type=auth_pb2.PUT, AccessRequest=monster))
        request_id = auth.create_request()
        await wait_until(lambda: [request.id for request in changed(redis)] == [request_id], "the next one is told")
        await until_ready(watcher)
    assert reconnects() >= 1


async def test_what_an_old_server_cannot_list_is_not_taken_for_gone(
    auth: AuthService,
    redis: Redis,
    redis_url: str,
    tmp_path: Path,
    *,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    options = {**dict(client.OPTIONS), "grpc.max_receive_message_length": 100_000}
    monkeypatch.setattr(client, "OPTIONS", tuple(options.items()))
    auth.faults.unimplemented.add("ListAccessRequests")
    first, monster, hidden = (
        auth.create_request(request_id=request_id, reason="x" * size)
        for request_id, size in (("first", 10), ("monster", 200_000), ("hidden", 10))
    )
    for request_id in (monster, hidden, "vanished"):
        hold_for_pending(redis, request_id, 3600)
    registry = CollectorRegistry()

    def counted(metric: str, **labels: str) -> float:
        return registry.get_sample_value(f"access_mail_watcher_{metric}", labels) or 0

    often = settings(auth.address, tmp_path, snapshot_interval=timedelta(milliseconds=50))
    async with watching(redis_url, often, registry) as watcher:
        await until_ready(watcher)
        await wait_until(lambda: counted("snapshots_total", outcome="partial") > 2, "all is listed again and again")
        auth.approve(hidden)
        await wait_until(lambda: hidden in {request.id for request in changed(redis)}, "what happens to it is told")
    assert gone(redis) == ["vanished"]
    assert {request.id for request in changed(redis)} == {first, hidden}
    assert counted("snapshots_total", outcome="complete") == counted("last_snapshot_timestamp_seconds") == 0
    assert counted("undecodable_total", fault="size") == 2
    assert caplog.text.count("hides others in Teleport's listing") == 1
    assert caplog.text.count("access_request 'monster' is passed over: it is larger than can be read") == 1


@pytest.mark.parametrize("live", [False, True])
async def test_a_request_whose_look_up_hangs_holds_up_no_other(
    auth: AuthService, redis: Redis, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, live: bool
) -> None:
    monkeypatch.setattr(look_ups, "DEADLINE_SECONDS", 3600)
    auth.faults.delays["ListResources"] = 3600

    def create() -> list[str]:
        auth.create_request(request_id="r0", resources=["/teleport.example.com/node/n-1"], approvals=2)
        auth.review("r0", "carol", types_pb2.APPROVED)
        return [auth.create_request(request_id=f"r{number}") for number in range(1, 2 * FOUND_AT_ONCE)]

    ids = [] if live else create()
    async with watching(redis_url, settings(auth.address, tmp_path)) as watcher:
        if live:
            await until_ready(watcher)
            ids = create()
        await wait_until(lambda: set(ids) <= {request.id for request in changed(redis)}, "all others are told", 30)
        for request_id in ids:
            auth.delete(request_id)
        await wait_until(lambda: set(ids) == set(gone(redis)), "and what happens to them", 30)
        assert "r0" not in {request.id for request in changed(redis)}


async def test_a_server_that_ends_each_watch_at_once_is_asked_ever_more_slowly(
    auth: AuthService, redis_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "services.watcher")

    def listings() -> int:
        return caplog.text.count("listed 0 requests")

    async def end_each() -> None:
        while True:
            seen = listings()
            auth.faults.end_streams()
            await wait_until(lambda seen=seen: listings() > seen, "it has seen everything again")

    def pauses() -> list[float]:
        return [float(seconds) for seconds in re.findall(r"the next try is in (\S+) s", caplog.text)]

    async with watching(redis_url, settings(auth.address, tmp_path)):
        ending = asyncio.create_task(end_each())
        # Did each connection that had seen everything begin anew with short pauses, none could be so long.
        await wait_until(lambda: max(pauses(), default=0) > 5 * FIRST_PAUSE_AT_MOST, "pauses grow", timeout=30)
        ending.cancel()
    assert listings() > 1, "it had seen everything more than once"


async def test_every_call_says_what_version_we_speak_and_pings_are_rare(
    auth: AuthService, redis_url: str, tmp_path: Path
) -> None:
    async with watching(redis_url, settings(auth.address, tmp_path)) as watcher:
        await until_ready(watcher)
    assert set().union(*auth.access.called.values()) == {client.CLIENT_VERSION}
    # Teleport hangs up on who pings more often than once a minute; with calls or without.
    options = dict(client.OPTIONS)
    assert (options["grpc.keepalive_time_ms"], options["grpc.http2.max_pings_without_data"]) == (60_000, 0)


async def test_what_redis_does_not_take_waits_at_teleport_and_not_here(
    auth: AuthService, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Back-pressure: through our queue and gRPC's window to Teleport's own buffer."""
    valkey = Valkey(tmp_path_factory.mktemp("v"))
    valkey.start()
    try:
        async with watching(valkey.url, settings(auth.address, tmp_path)) as watcher:
            await until_ready(watcher)
            valkey.stop()
            requests = 1500
            for _ in range(requests):
                auth.create_request(reason="x" * 100_000)
            await wait_until(lambda: len(watcher._arrivals) == WAITING, "no more are taken")
            await wait_until(lambda: auth.watches.unsent < requests, "Teleport has sent what is taken")
            assert auth.watches.unsent > requests // 2
            valkey.start()
            with Redis.from_url(valkey.url) as redis:
                ids = {request.Metadata.Name for request in auth.find(types_pb2.AccessRequestFilter())}
                await wait_until(
                    lambda: redis.xlen(keys.EVENTS) > requests and {one.id for one in changed(redis)} == ids,
                    "then all are told",
                    timeout=120,
                )
    finally:
        valkey.stop()


async def test_a_server_that_punishes_pings_is_connected_to_again_and_nothing_is_lost(
    auth: AuthService,
    redis: Redis,
    redis_url: str,
    tmp_path: Path,
    *,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Should a server or what stands before it allow fewer pings than we send: GOAWAY too_many_pings."""
    options = {**dict(client.OPTIONS), "grpc.keepalive_time_ms": 200}
    monkeypatch.setattr(client, "OPTIONS", tuple(options.items()))
    registry = CollectorRegistry()

    def reconnects() -> float:
        return registry.get_sample_value("access_mail_watcher_reconnects_total", {"reason": "unavailable"}) or 0

    async with watching(redis_url, settings(auth.address, tmp_path), registry) as watcher:
        await until_ready(watcher)
        ids = {auth.create_request()}
        await wait_until(lambda: reconnects() >= 1, "the punishment is met", timeout=60)
        assert "too_many_pings" in capfd.readouterr().err, "gRPC has said why"
        ids.add(auth.create_request())
        await wait_until(lambda: {request.id for request in changed(redis)} == ids, "both are told")


async def test_a_request_beyond_every_measure_is_named_and_counted_and_hides_no_other(
    auth: AuthService,
    redis: Redis,
    redis_url: str,
    tmp_path: Path,
    *,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The watch cannot tell which one it was; the listing that follows does."""
    options = {**dict(client.OPTIONS), "grpc.max_receive_message_length": 100_000}
    monkeypatch.setattr(client, "OPTIONS", tuple(options.items()))
    registry = CollectorRegistry()
    async with watching(redis_url, settings(auth.address, tmp_path), registry) as watcher:
        await until_ready(watcher)
        ids = {auth.create_request(request_id="r1")}
        auth.create_request(request_id="r2-monster", reason="x" * 200_000)
        ids |= {auth.create_request(request_id=f"r{number}") for number in range(3, 10)}
        await wait_until(lambda: {request.id for request in changed(redis)} == ids, "all others are told")
        await wait_until(lambda: "request 'r2-monster' is passed over" in caplog.text, "it is named")
        await until_ready(watcher)
        auth.create_request(request_id="s1")
        await wait_until(lambda: "s1" in {request.id for request in changed(redis)}, "it watches on")
    assert "request 'r2-monster' is passed over: it is larger than can be read" in caplog.text
    assert (registry.get_sample_value("access_mail_watcher_undecodable_total", {"fault": "size"}) or 0) >= 1
