"""The stream between watcher and router: an ordered, durable log of access events, read by a consumer group.

The writer is asyncio, as the watcher is; the reader is synchronous, as the router is.
"""

import secrets
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from pydantic import ValidationError
from redis import Redis
from redis.asyncio import Redis as AsyncRedis
from redis.exceptions import ResponseError

from shared import keys
from shared.events import Event, RequestState
from shared.rules import KnownRules, known_rules

GROUP = "router"
DATA = b"data"
DEAD_LETTERS_KEPT = 10_000
DEAD_CONSUMER_SECONDS = 3600
HISTORIES = 10
"""Of Redis's data, that are remembered: behind some addresses there are several servers, each with its own."""
PAGE = 1_000
"""Pending entries that are asked for at once."""

Position = tuple[int, int]
"""Where an entry stands in the stream: its id, as something that sorts."""


class EventLogFull(Exception):
    """The stream is at its limit: the routers are down or too slow. Nothing was appended."""


@dataclass(frozen=True)
class KnownRequest:
    """What the router has committed about a request."""

    state: RequestState | None
    """None: only the request's end was seen."""
    review_count: int
    gone: bool


class EventWriter:
    """Appends events, and notices when Redis has lost what it was given."""

    def __init__(self, redis: AsyncRedis, *, limit: int = 100_000) -> None:
        self._redis = redis
        self._limit = limit
        self._length = 0
        self._epoch: bytes | None = None
        self._histories: deque[str] = deque(maxlen=HISTORIES)

    async def open(self) -> None:
        """Read or write the epoch and make sure that the group exists. Raises `redis.exceptions.RedisError`."""
        await self._redis.set(keys.EPOCH, secrets.token_hex(8), nx=True)
        epoch = cast("bytes", await self._redis.get(keys.EPOCH))
        try:
            # From 0: events that were appended before the group was lost are still to be routed.
            await self._redis.xgroup_create(keys.EVENTS, GROUP, id="0", mkstream=True)
        except ResponseError as error:
            if not is_busy_group(error):
                raise
        self._epoch = epoch  # last: if the group cannot be made, the loss is still to be told

    async def append(self, events: Sequence[Event]) -> bool:
        """Put the events on the stream, in one transaction.

        Gives False if Redis had lost its data since `open`: the events are on the stream and the group exists
        again, but what was there before is gone, so that the caller must take a snapshot. Raises `EventLogFull`,
        or `redis.exceptions.RedisError` when it is not known whether the events were appended.
        """
        if self._length + len(events) > self._limit:
            self._length = int(await self._redis.xlen(keys.EVENTS))
            if self._length + len(events) > self._limit:
                raise EventLogFull(f"{self._length} events wait for a router")
        async with self._redis.pipeline(transaction=True) as pipeline:
            pipeline.get(keys.EPOCH)
            for event in events:
                pipeline.xadd(keys.EVENTS, {DATA: event.model_dump_json().encode()})
            pipeline.xlen(keys.EVENTS)
            epoch, *_, self._length = await pipeline.execute()
        return await self._is_still(epoch)

    async def holds(self) -> bool:
        """Does Redis still have what it was given? To be asked every few seconds; False as for `append`."""
        return await self._is_still(await self._redis.get(keys.EPOCH))

    async def is_another(self) -> bool:
        """Has a history of the data begun that was not met before? It may go on from an older copy.

        The epoch does not tell, for the copy has it too, nor need the connection: one that was idle is made again in
        silence. Each start and each promotion begins a history (`master_replid`), also when a server that was demoted
        comes back, whose process (`run_id`) is known. Always False where Redis does not tell it.
        """
        try:
            history = str((await self._redis.info("replication")).get("master_replid", ""))
        except ResponseError:
            return False
        if not history or history in self._histories:
            return False
        self._histories.append(history)
        return len(self._histories) > 1

    async def _is_still(self, epoch: object) -> bool:
        if epoch is not None and epoch == self._epoch:
            return True
        await self.open()
        return False

    async def known(self, request_ids: Sequence[str]) -> dict[str, KnownRequest]:
        """What the router has committed about these requests; those that it does not know are left out."""
        async with self._redis.pipeline(transaction=False) as pipeline:
            for request_id in request_ids:
                pipeline.hmget(keys.request(request_id), ["state", "reviews", "gone"])
            rows = await pipeline.execute()
        return {
            request_id: KnownRequest(
                state=RequestState(state.decode()) if state else None, review_count=int(reviews), gone=gone == b"1"
            )
            for request_id, (state, reviews, gone) in zip(request_ids, rows, strict=True)
            if reviews is not None
        }

    async def known_rules(self) -> KnownRules | None:
        """What the router has committed about the Access Monitoring Rules; None: nothing that can be read."""
        try:
            return known_rules(cast("dict[bytes, bytes]", await self._redis.hgetall(keys.RULES)))
        except ValidationError:
            return None

    async def open_requests(self, routed_before_seconds: float) -> set[str]:
        """Ids of requests that the router holds for pending and has routed longer ago than this, by Redis's clock."""
        seconds, microseconds = await self._redis.time()
        until = seconds + microseconds / 1e6 - routed_before_seconds
        members = await self._redis.zrange(keys.OPEN, "-inf", cast("int", until), byscore=True)
        return {cast("bytes", member).decode() for member in members}


@dataclass(frozen=True)
class Delivery:
    """One entry of the stream in this reader's hands, until it is acknowledged."""

    entry: str
    """The entry's id: `milliseconds-sequence`."""
    data: bytes
    was_left: bool = False
    """Another reader had it for long, and may have died over it."""

    @property
    def position(self) -> Position:
        """Where it stands in the stream."""
        return position_of(self.entry)


class EventReader:
    """One consumer of the group. Whoever routes a delivery also acknowledges it, in the same script (`put.lua`)."""

    def __init__(self, redis: Redis, consumer: str) -> None:
        self._redis = redis
        self._consumer = consumer

    def open(self) -> None:
        """Make sure that the group exists. Raises `redis.exceptions.RedisError`."""
        try:
            self._redis.xgroup_create(keys.EVENTS, GROUP, id="0", mkstream=True)
        except ResponseError as error:
            if not is_busy_group(error):
                raise

    def own(self, count: int, after: str = "0") -> list[Delivery]:
        """What this consumer has not acknowledged after this entry: an answer may have been lost with a connection."""
        return self._read(after, count, block_milliseconds=None)

    def new(self, count: int, block_milliseconds: int) -> list[Delivery]:
        """Entries that no consumer has seen; waits for the first one."""
        return self._read(">", count, block_milliseconds)

    def ahead(self, count: int, after: str, block_milliseconds: int) -> list[Delivery]:
        """Entries after this one, whoever has or will have them in hand: only to be looked at. Waits for the first."""
        return self._of_stream(self._redis.xread({keys.EVENTS: after}, count=count, block=block_milliseconds))

    def _read(self, start: str, count: int, block_milliseconds: int | None) -> list[Delivery]:
        stream: dict[Any, Any] = {keys.EVENTS: start}
        return self._of_stream(
            self._redis.xreadgroup(GROUP, self._consumer, stream, count=count, block=block_milliseconds)
        )

    def _of_stream(self, reply: object) -> list[Delivery]:
        # redis-py: [[stream, entries]]; where the URL asks for ?protocol=3, {stream: [entries]}.
        streams = cast("dict[bytes, Any] | list[Any]", reply or [])
        lists = [lists[0] for lists in streams.values()] if isinstance(streams, dict) else [one[1] for one in streams]
        return [delivery for entries in lists for delivery in self._deliveries(entries)]

    def left_by_the_dead(self, count: int, idle_milliseconds: int) -> list[Delivery]:
        """Take over what other consumers have held for too long."""
        _, entries, *_ = self._redis.xautoclaim(
            keys.EVENTS, GROUP, self._consumer, min_idle_time=idle_milliseconds, start_id="0", count=count
        )
        return [replace(delivery, was_left=True) for delivery in self._deliveries(entries)]

    @staticmethod
    def _deliveries(entries: Iterable[Any]) -> list[Delivery]:
        return [Delivery(entry.decode(), fields.get(DATA, b"")) for entry, fields in entries if fields]

    def held_elsewhere(self, until: str) -> list[str]:
        """Entries up to this one that other consumers hold, in the stream's order.

        An event must not overtake an earlier one of the same request, which another router may have in hand.
        """
        held: list[str] = []
        start = "-"
        while True:
            rows = cast("list[Any]", self._redis.xpending_range(keys.EVENTS, GROUP, min=start, max=until, count=PAGE))
            held += [row["message_id"].decode() for row in rows if row["consumer"] != self._consumer.encode()]
            if len(rows) < PAGE:
                return held
            start = f"({rows[-1]['message_id'].decode()}"

    def read(self, entries: Sequence[str]) -> list[Delivery]:
        """These entries, whoever holds them; those that are on the stream no more are left out."""
        with self._redis.pipeline(transaction=False) as pipeline:
            for entry in entries:
                pipeline.xrange(keys.EVENTS, entry, entry)
            return [delivery for found in pipeline.execute() for delivery in self._deliveries(found)]

    def bury(self, delivery: Delivery, error: str) -> None:
        """Make the entry a dead letter and acknowledge it."""
        with self._redis.pipeline(transaction=True) as pipeline:
            fields = {DATA: delivery.data, b"error": error.encode(), b"entry": delivery.entry.encode()}
            pipeline.xadd(keys.DEAD, cast("Any", fields), maxlen=DEAD_LETTERS_KEPT)
            pipeline.xack(keys.EVENTS, GROUP, delivery.entry)
            pipeline.execute()

    def trim(self) -> None:
        """Forget the entries that every group has read and acknowledged."""
        kept = []
        for group in self._redis.xinfo_groups(keys.EVENTS):
            pending = self._redis.xpending(keys.EVENTS, group["name"])
            milliseconds, sequence = position_of(group["last-delivered-id"].decode())
            kept.append(position_of(pending["min"].decode()) if pending["pending"] else (milliseconds, sequence + 1))
        if kept:
            self._redis.xtrim(keys.EVENTS, minid="{}-{}".format(*min(kept)), approximate=False)

    def remove_dead_consumers(self) -> None:
        """Forget consumers that have asked for nothing for an hour and hold nothing: each router start makes one."""
        for consumer in self._redis.xinfo_consumers(keys.EVENTS, GROUP):
            if consumer["idle"] > DEAD_CONSUMER_SECONDS * 1000 and not consumer["pending"]:
                self._redis.xgroup_delconsumer(keys.EVENTS, GROUP, consumer["name"])


def is_busy_group(error: ResponseError) -> bool:
    """Does the error say that the group exists already?"""
    return str(error).startswith("BUSYGROUP")


def position_of(entry: str) -> Position:
    """Read an entry's id."""
    milliseconds, _, sequence = entry.partition("-")
    return int(milliseconds), int(sequence or 0)
