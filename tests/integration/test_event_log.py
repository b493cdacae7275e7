"""The stream between watcher and router, on a real Valkey."""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from redis import Redis
from redis.asyncio import Redis as AsyncRedis

from shared import event_log, keys
from shared.event_log import EventLogFull, EventReader, EventWriter
from shared.events import RequestGone, RequestState, parse_event
from tests.mails import mail, memory, put


def gone(number: int) -> RequestGone:
    return RequestGone(request_id=f"r{number}")


@pytest.fixture
async def writer(redis_url: str) -> AsyncIterator[EventWriter]:
    async with AsyncRedis.from_url(redis_url) as connection:
        writer = EventWriter(connection, limit=5)
        await writer.open()
        yield writer


async def test_events_come_in_the_order_in_which_they_were_appended(redis: Redis, writer: EventWriter) -> None:
    assert await writer.append([gone(1), gone(2)])
    assert await writer.append([gone(3)])
    reader = EventReader(redis, "c1")
    deliveries = reader.new(10, block_milliseconds=10)
    assert [parse_event(one.data) for one in deliveries] == [gone(1), gone(2), gone(3)]
    assert reader.own(10) == deliveries, "they stay this reader's until they are acknowledged"


@pytest.mark.parametrize("protocol", [2, 3])
async def test_both_protocols_of_redis_bring_the_same(redis_url: str, writer: EventWriter, protocol: int) -> None:
    await writer.append([gone(1), gone(2)])
    with Redis.from_url(redis_url, protocol=protocol) as connection:
        reader = EventReader(connection, "c1")
        deliveries = reader.new(10, block_milliseconds=10)
        assert [parse_event(one.data) for one in deliveries] == [gone(1), gone(2)]
        assert reader.own(10) == reader.ahead(10, "0", block_milliseconds=10) == deliveries
        left = [replace(delivery, was_left=True) for delivery in deliveries]
        assert reader.left_by_the_dead(10, idle_milliseconds=0) == left
        assert reader.new(10, block_milliseconds=10) == reader.own(10, deliveries[-1].entry) == []


async def test_a_full_stream_takes_nothing_and_loses_nothing(redis: Redis, writer: EventWriter) -> None:
    await writer.append([gone(n) for n in range(5)])
    with pytest.raises(EventLogFull):
        await writer.append([gone(6)])
    assert redis.xlen(keys.EVENTS) == 5
    reader = EventReader(redis, "c1")
    redis.xack(keys.EVENTS, event_log.GROUP, *(one.entry for one in reader.new(10, block_milliseconds=10)))
    reader.trim()
    assert await writer.append([gone(6)])


async def test_a_loss_is_told_once_and_what_was_appended_since_is_read(redis: Redis, writer: EventWriter) -> None:
    assert await writer.holds()
    redis.flushall()
    assert not await writer.append([gone(1)])
    assert await writer.holds()
    assert len(EventReader(redis, "c1").new(10, block_milliseconds=10)) == 1


async def test_trimming_keeps_what_somebody_still_holds(redis: Redis, writer: EventWriter) -> None:
    await writer.append([gone(n) for n in range(4)])
    reader = EventReader(redis, "c1")
    first, second, *_ = reader.new(4, block_milliseconds=10)
    redis.xack(keys.EVENTS, event_log.GROUP, first.entry)
    reader.trim()
    rows: Any = redis.xrange(keys.EVENTS)
    assert rows[0][0].decode() == second.entry


async def test_what_others_hold_is_told_in_order_however_much_it_is(
    redis: Redis, writer: EventWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_log, "PAGE", 2)
    await writer.append([gone(n) for n in range(5)])
    mine, other = EventReader(redis, "mine"), EventReader(redis, "other")
    held = [one for reader in (other, mine, other, other, other) for one in reader.new(1, block_milliseconds=10)]
    expected = [one.entry for one in held if one is not held[1]]
    assert mine.held_elsewhere(held[-1].entry) == expected
    assert mine.held_elsewhere(held[-2].entry) == expected[:-1]
    assert mine.read([held[3].entry, "1-1", held[0].entry]) == [held[3], held[0]]


async def test_looking_ahead_takes_nothing_from_anybody(redis: Redis, writer: EventWriter) -> None:
    await writer.append([gone(n) for n in range(3)])
    reader = EventReader(redis, "c1")
    (first,) = reader.new(1, block_milliseconds=10)
    assert [parse_event(one.data) for one in reader.ahead(2, "0", block_milliseconds=10)] == [gone(0), gone(1)]
    assert len(reader.ahead(9, first.entry, block_milliseconds=10)) == 2
    assert len(reader.new(9, block_milliseconds=10)) == 2


async def test_consumers_that_are_dead_and_hold_nothing_are_forgotten(
    redis: Redis, writer: EventWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_log, "DEAD_CONSUMER_SECONDS", -1)
    await writer.append([gone(1)])
    EventReader(redis, "holds one").new(1, block_milliseconds=10)
    EventReader(redis, "holds none").new(1, block_milliseconds=10)
    EventReader(redis, "holds none").remove_dead_consumers()
    assert [row["name"] for row in redis.xinfo_consumers(keys.EVENTS, event_log.GROUP)] == [b"holds one"]


async def test_the_writer_knows_what_the_router_has_committed(redis: Redis, writer: EventWriter) -> None:
    put(redis, [mail("requested")])
    put(redis, [mail("requested", request_id="r2")], memory(RequestState.DENIED, "r2"))
    known = await writer.known(["r1", "r2", "r3"])
    assert {name: one.state for name, one in known.items()} == {"r1": RequestState.PENDING, "r2": RequestState.DENIED}
    assert await writer.open_requests(0) == {"r1"}
    assert await writer.open_requests(60) == set()
