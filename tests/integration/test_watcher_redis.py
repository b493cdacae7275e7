"""Nothing is lost while Redis is away, and when Redis has lost its data it is told again."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from grpc import StatusCode
from prometheus_client import CollectorRegistry
from redis import Redis
from redis.asyncio import Redis as AsyncRedis

from services.watcher import look_ups, patience, service
from services.watcher import outbox as outbox_module
from services.watcher.backoff import Backoff
from services.watcher.metrics import WatcherMetrics
from services.watcher.outbox import Outbox
from services.watcher.teleport.pb import auth_pb2, types_pb2
from shared import keys
from shared.event_log import GROUP, EventWriter
from shared.events import RequestChanged, RequestGone, RulesListed, request_id_of
from simulators.teleport import AuthService
from simulators.teleport.errors import TraceError
from tests.integration.test_enrichment import RECORD, write_record
from tests.integration.watching import (
    AUTHORITY,
    Valkey,
    changed,
    events,
    gone,
    rules_events,
    settings,
    until_ready,
    watching,
)
from tests.waiting import wait_until


@pytest.fixture
async def auth() -> AsyncIterator[AuthService]:
    async with AuthService(AUTHORITY) as service:
        yield service


@pytest.fixture
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    valkey = Valkey(tmp_path_factory.mktemp("v"))
    valkey.start()
    yield valkey
    valkey.stop()


async def test_what_happens_while_redis_is_away_is_told_when_it_is_back(
    auth: AuthService,
    valkey: Valkey,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(outbox_module, "LONGEST_PAUSE", 0.2)
    caplog.set_level(logging.INFO)
    registry = CollectorRegistry()

    def waits() -> float:
        return registry.get_sample_value("access_mail_watcher_append_waits_total", {"reason": "redis"}) or 0

    async with watching(valkey.url, settings(auth.address, tmp_path), registry) as watcher:
        await until_ready(watcher)
        valkey.stop()
        ids = [auth.create_request() for _ in range(30)]
        auth.delete(ids[0])
        await wait_until(lambda: "Redis" in (watcher.ready() or ""), "the loss is noticed")
        await wait_until(lambda: waits() > 3, "it tries again and again")
        assert watcher.live() is None
        valkey.start()
        await until_ready(watcher)
        with Redis.from_url(valkey.url) as redis:
            await wait_until(lambda: {request.id for request in changed(redis)} == set(ids), "all is told")
            await wait_until(lambda: gone(redis), "the end is told")
            # an answer that was lost may have been a success: then it stands there twice
            assert set(gone(redis)) == {ids[0]}
            first = next(event for event in events(redis) if request_id_of(event) == ids[0])
            assert isinstance(first, RequestChanged)
    assert caplog.text.count("will be tried again, nothing is lost") == 1
    assert caplog.text.count("Redis does its part again") == 1


async def test_a_watcher_that_starts_before_redis_waits_for_it(
    auth: AuthService, valkey: Valkey, tmp_path: Path
) -> None:
    valkey.stop()
    request_id = auth.create_request()
    async with watching(valkey.url, settings(auth.address, tmp_path)) as watcher:
        await wait_until(lambda: "does not do its part" in (watcher.ready() or ""), "it waits")
        valkey.start()
        await until_ready(watcher)
    with Redis.from_url(valkey.url) as redis:
        assert [request.id for request in changed(redis)] == [request_id]


async def test_it_ends_when_it_is_told_to_though_nothing_answers(valkey: Valkey, tmp_path: Path) -> None:
    valkey.stop()
    async with watching(valkey.url, settings("127.0.0.1:1", tmp_path)) as watcher:
        await wait_until(lambda: "does not do its part" in (watcher.ready() or ""), "it waits")


async def test_when_redis_has_lost_its_data_everything_is_told_again(
    auth: AuthService, redis: Redis, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "REDIS_CHECK_SECONDS", 0.1)
    old = auth.create_request()
    async with watching(redis_url, settings(auth.address, tmp_path)) as watcher:
        await until_ready(watcher)
        redis.flushall()
        await wait_until(lambda: redis.exists(keys.EVENTS), "the stream is there again")
        await wait_until(lambda: [request.id for request in changed(redis)] == [old], "it is told again")
    assert [group["name"] for group in redis.xinfo_groups(keys.EVENTS)] == [GROUP.encode()]


async def test_a_redis_that_came_back_with_older_data_is_told_what_it_lacks(
    auth: AuthService, valkey: Valkey, tmp_path: Path
) -> None:
    auth.create_rule("old", "true", ["old@example.com"])
    async with watching(valkey.url, settings(auth.address, tmp_path)) as watcher:
        await until_ready(watcher)
    valkey.stop()
    valkey.copy(tmp_path / "backup")
    valkey.start()
    async with watching(valkey.url, settings(auth.address, tmp_path)) as watcher:
        await until_ready(watcher)
        request_id = auth.create_request()
        auth.create_rule("new", "true", ["new@example.com"])
        with Redis.from_url(valkey.url) as redis:
            await wait_until(lambda: len(rules_events(redis)) == 3, "the rule is told")
            await wait_until(lambda: changed(redis), "the request is told")
        valkey.stop()
        valkey.restore(tmp_path / "backup")
        valkey.start()
        with Redis.from_url(valkey.url) as redis:
            assert changed(redis) == []
            await wait_until(lambda: {one.id for one in changed(redis)} == {request_id}, "it is told again", 30)
            await wait_until(lambda: len(rules_events(redis)) >= 2, "and so are the rules")
            told = rules_events(redis)[-1]
    assert isinstance(told, RulesListed)
    assert [rule.name for rule in told.rules] == ["new", "old"]


async def test_a_server_that_comes_back_after_another_counts_as_another(valkey: Valkey) -> None:
    async with AsyncRedis.from_url(valkey.url) as client:
        writer = EventWriter(client)
        assert not await writer.is_another(), "the first one"
        assert not await writer.is_another(), "still the same"
        await client.replicaof("127.0.0.1", "1")  # demoted: it takes over another's data, then is promoted again
        await client.replicaof("NO", "ONE")
        assert await writer.is_another()
        assert not await writer.is_another()


async def test_a_server_that_did_not_say_who_it_is_counts_as_the_first_once_it_does(valkey: Valkey) -> None:
    async with AsyncRedis.from_url(valkey.url) as client, AsyncRedis.from_url(valkey.url) as admin:
        writer = EventWriter(client)
        await admin.acl_setuser("default", commands=["-info"], enabled=True)
        assert not await writer.is_another()
        await admin.acl_setuser("default", commands=["+info"], enabled=True)
        assert not await writer.is_another()
        valkey.stop()
        valkey.start()
        await client.connection_pool.disconnect()
        assert await writer.is_another()


async def test_a_loss_that_an_append_meets_first_is_noticed_by_it(
    auth: AuthService, redis: Redis, redis_url: str, tmp_path: Path
) -> None:
    old = auth.create_request()
    async with watching(redis_url, settings(auth.address, tmp_path)) as watcher:
        await until_ready(watcher)
        redis.flushall()
        new = auth.create_request()
        await wait_until(lambda: {request.id for request in changed(redis)} == {old, new}, "both are told")
    assert [group["name"] for group in redis.xinfo_groups(keys.EVENTS)] == [GROUP.encode()]


@pytest.mark.parametrize("trouble", ["fails", "hangs"])
async def test_after_a_loss_nothing_is_told_before_it_is_known_who_was_told_of_it(
    auth: AuthService, redis: Redis, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, trouble: str
) -> None:
    monkeypatch.setattr(look_ups, "TRY_SECONDS", 0.2)
    ids = [auth.create_request() for _ in range(40)]
    for request_id in ids:
        write_record(auth, request_id, RECORD)
    async with watching(redis_url, settings(auth.address, tmp_path)) as watcher:
        await until_ready(watcher)
        tries = auth.faults.calls["GetPluginData"]
        if trouble == "fails":
            auth.faults.fail("GetPluginData", StatusCode.UNAVAILABLE, times=200)
        else:
            auth.faults.delays["GetPluginData"] = 3600
        redis.flushall()
        new = auth.create_request()
        await wait_until(lambda: auth.faults.calls["GetPluginData"] - tries >= 100, "it is tried again and again", 30)
        assert changed(redis) == []
        auth.faults.delays.clear()
        await wait_until(lambda: {request.id for request in changed(redis)} == {*ids, new}, "all are told", 60)
    assert {event.announced is None for event in events(redis) if request_id_of(event) != new} == {False}


class Stubborn(AuthService):
    """A cluster that cannot read its records of some requests."""

    unreadable: frozenset[str] = frozenset()

    def find_plugin_data(self, wanted: types_pb2.PluginDataFilter) -> auth_pb2.PluginDataSeq:
        """As a cluster whose store is not well."""
        if wanted.Resource in self.unreadable:
            raise TraceError(StatusCode.UNAVAILABLE, "the store is not well")
        return super().find_plugin_data(wanted)


async def test_records_that_are_waited_for_hold_up_no_other_request(
    redis: Redis, redis_url: str, tmp_path: Path
) -> None:
    async with Stubborn(AUTHORITY) as auth:
        auth.unreadable = frozenset(auth.create_request(request_id=f"r{n}") for n in range(2 * look_ups.AT_ONCE))
        auth.create_request(request_id="readable")
        async with watching(redis_url, settings(auth.address, tmp_path)):
            await wait_until(lambda: [one.id for one in changed(redis)] == ["readable"], "the one is told", 30)


async def test_a_wait_for_a_record_goes_on_at_the_next_connection(
    auth: AuthService, redis: Redis, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "PATIENT_SECONDS", 0.2)
    auth.faults.delays["GetPluginData"] = 3600
    auth.create_request()
    async with watching(redis_url, settings(auth.address, tmp_path)) as watcher, asyncio.timeout(60):
        watcher._soon = Backoff(0.02, 0.05)
        while not changed(redis):  # no connection lasts until the patience of one alone would end
            tries = auth.faults.calls["GetPluginData"]
            await wait_until(
                lambda before=tries: changed(redis) or auth.faults.calls["GetPluginData"] > before, "it is tried", 30
            )
            auth.faults.end_streams()


@pytest.fixture
async def stream(redis_url: str) -> AsyncIterator[EventWriter]:
    async with AsyncRedis.from_url(redis_url) as client:
        yield EventWriter(client, limit=2)


async def test_a_full_stream_is_waited_for(stream: EventWriter, redis: Redis, caplog: pytest.LogCaptureFixture) -> None:
    registry = CollectorRegistry()
    outbox = Outbox(stream, WatcherMetrics(registry))
    await outbox.open()
    await outbox.append([RequestGone(request_id="one"), RequestGone(request_id="two")])

    def waits() -> float:
        return registry.get_sample_value("access_mail_watcher_append_waits_total", {"reason": "full"}) or 0

    async def make_room() -> None:
        await wait_until(waits, "it waits")
        assert "the stream is full" in (outbox.trouble or "")
        redis.xtrim(keys.EVENTS, maxlen=0)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(outbox.append([RequestGone(request_id="three")]))
        tasks.create_task(make_room())
    assert gone(redis) == ["three"]
    assert outbox.trouble is None
    assert caplog.text.count("the stream is full") == 1


async def test_after_a_long_wait_all_is_listed_again(
    stream: EventWriter, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox = Outbox(stream, WatcherMetrics(CollectorRegistry()))
    await outbox.open()
    await outbox.append([RequestGone(request_id="one")])
    assert not outbox.in_doubt.is_set()
    monkeypatch.setattr(outbox_module, "SLOW_SECONDS", -1)
    await outbox.append([RequestGone(request_id="two")])
    assert outbox.in_doubt.is_set()
    assert gone(redis) == ["one", "two"]
