"""Receipts on their way back to the watchers, which make Teleport a second witness of what was told to whom.

The mailers' scripts append them (`shared/mail_queue/common.lua`); here is the reading end.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from shared import keys
from shared.event_log import is_busy_group, position_of
from shared.mail import Notice, Outcome, Recipient, mail_id, parse_mail_id
from shared.memory import TOLD, RequestFacts

GROUP = "witness"
DEAD_CONSUMER_MILLISECONDS = 3600 * 1000


@dataclass(frozen=True)
class WrittenReceipt:
    """A receipt in this reader's hands, until it is acknowledged."""

    entry: str
    """Its id on the stream: `milliseconds-sequence`."""
    request_id: str
    notice: Notice
    recipient_hash: str
    perhaps_read: bool
    """Was the mail delivered, or may it have been?"""
    was_left: bool = False
    """Has it been in a reader's hands before?"""

    @property
    def written(self) -> float:
        """When it was written: seconds since the epoch, by Redis's clock."""
        return position_of(self.entry)[0] / 1000


@dataclass(frozen=True)
class Unreadable:
    """An entry that is no receipt of a mail."""

    entry: str


@dataclass(frozen=True)
class ToldRequest:
    """What the memory has of a request that mails were sent about."""

    facts: RequestFacts
    told: tuple[Recipient, ...]


class ReceiptReader:
    """One consumer of the group of watchers. Every method raises `redis.exceptions.RedisError`."""

    def __init__(self, redis: Redis, consumer: str) -> None:
        self._redis = redis
        self._consumer = consumer

    async def open(self) -> None:
        """Make sure that the group exists."""
        try:
            await self._redis.xgroup_create(keys.RECEIPTS, GROUP, id="0", mkstream=True)
        except ResponseError as error:
            if not is_busy_group(error):
                raise

    async def new(self, count: int, block_milliseconds: int | None) -> list[WrittenReceipt | Unreadable]:
        """Receipts that no consumer has seen; with a time, waits so long for the first one."""
        stream: dict[Any, Any] = {keys.RECEIPTS: ">"}
        reply: Any = await self._redis.xreadgroup(GROUP, self._consumer, stream, count=count, block=block_milliseconds)
        rows = (reply or {}).values() if isinstance(reply or {}, dict) else [entries for _, entries in reply]
        flat = (row for entries in rows for entry in entries for row in _rows(entry))
        return [_receipt(entry, fields) for entry, fields in flat]

    async def left(self, count: int, idle_milliseconds: int) -> list[WrittenReceipt | Unreadable]:
        """Take over what any consumer, be it dead, another or this one, has held for so long."""
        _, entries, *_ = await self._redis.xautoclaim(
            keys.RECEIPTS, GROUP, self._consumer, min_idle_time=idle_milliseconds, start_id="0", count=count
        )
        found = [_receipt(entry, fields) for row in entries for entry, fields in _rows(row) if fields]
        return [one if isinstance(one, Unreadable) else replace(one, was_left=True) for one in found]

    async def done(self, entries: Sequence[str]) -> None:
        """Forget these receipts: the record has them, or there is none to have them."""
        if entries:
            async with self._redis.pipeline(transaction=True) as pipeline:
                pipeline.xack(keys.RECEIPTS, GROUP, *entries)
                pipeline.xdel(keys.RECEIPTS, *entries)
                await pipeline.execute()

    async def remove_dead_consumers(self) -> None:
        """Forget consumers that have asked for nothing for an hour and hold nothing: each watcher start makes one."""
        for consumer in await self._redis.xinfo_consumers(keys.RECEIPTS, GROUP):
            if consumer["idle"] > DEAD_CONSUMER_MILLISECONDS and not consumer["pending"]:
                await self._redis.xgroup_delconsumer(keys.RECEIPTS, GROUP, consumer["name"])

    async def remembered(self, request_ids: Sequence[str]) -> dict[str, ToldRequest]:
        """What is known of these requests; left out are those of which nothing is, or nothing readable."""
        async with self._redis.pipeline(transaction=False) as pipeline:
            for request_id in request_ids:
                pipeline.hmget(keys.request(request_id), ["facts", "told"])
            rows = await pipeline.execute()
        found = ((request_id, _told_request(row)) for request_id, row in zip(request_ids, rows, strict=True))
        return {request_id: told for request_id, told in found if told is not None}

    async def settled(self, request_id: str, notices: Iterable[Notice], told: Sequence[Recipient]) -> set[Notice]:
        """Those of the notices whose mails to all these people have a receipt, whatever it says."""
        asked = list(dict.fromkeys(notices)) if told else []
        async with self._redis.pipeline(transaction=False) as pipeline:
            for notice in asked:
                pipeline.exists(*(keys.receipt(mail_id(request_id, notice, person)) for person in told))
            counts = await pipeline.execute()
        return {notice for notice, count in zip(asked, counts, strict=True) if count == len(told)}


def _rows(entry: Any) -> list[Any]:
    """Redis's second protocol gives rows, the third lists of them."""
    return list(entry) if isinstance(entry[0], list | tuple) else [entry]


def _receipt(entry: bytes, fields: dict[bytes, bytes]) -> WrittenReceipt | Unreadable:
    try:
        request_id, notice, recipient_hash = parse_mail_id(fields[b"mail"].decode())
        delivered = Outcome(fields[b"outcome"].decode()) is Outcome.DELIVERED
    except (KeyError, ValueError):
        return Unreadable(entry.decode())
    return WrittenReceipt(
        entry=entry.decode(),
        request_id=request_id,
        notice=notice,
        recipient_hash=recipient_hash,
        perhaps_read=delivered or fields.get(b"perhaps") == b"1",
    )


def _told_request(row: Sequence[bytes | None]) -> ToldRequest | None:
    facts, told = row
    if facts is None or told is None:
        return None
    try:
        return ToldRequest(RequestFacts.model_validate_json(facts), TOLD.validate_json(told))
    except ValidationError:
        return None
