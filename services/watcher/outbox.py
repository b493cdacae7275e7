"""The stream as the watcher needs it: every operation waits for Redis as long as it takes, and loses nothing."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from services.watcher.appended import Appended
from services.watcher.backoff import Backoff
from services.watcher.metrics import Wait, WatcherMetrics
from shared.event_log import EventLogFull, EventWriter, KnownRequest
from shared.events import Event
from shared.redis_trouble import RedisTrouble
from shared.rules import KnownRules

log = logging.getLogger(__name__)

SHORTEST_PAUSE = 0.02
LONGEST_PAUSE = 5.0
STREAM = "stream"

SLOW_SECONDS = 20.0
"""Teleport hangs up on who is slow for 30 s: after such a pause something may have been missed."""

Result = TypeVar("Result")


class Outbox:
    """One operation at a time, repeated until it is done. What is wrong meanwhile is said once, and in `trouble`."""

    def __init__(self, stream: EventWriter, metrics: WatcherMetrics) -> None:
        self._stream = stream
        self._metrics = metrics
        self._appended = Appended()
        self._turn = asyncio.Lock()
        self._trouble = RedisTrouble(first=STREAM)
        self.in_doubt = asyncio.Event()
        """Set when events may be missing on the stream: whoever takes a snapshot clears it first."""
        self.lost = asyncio.Event()
        """Set when Redis may have lost all, the rules too: whoever tells them again clears it first."""

    @property
    def trouble(self) -> str | None:
        """What is missing; None while Redis takes what it is given."""
        return self._trouble.reason

    async def open(self) -> None:
        """Make the stream ready."""
        await self._done(self._stream.open)
        await self._done(self._stream.is_another)

    async def append(self, events: Sequence[Event]) -> None:
        """Put the events on the stream; they may be there twice if Redis's answer was lost."""
        began = time.monotonic()
        if not await self._done(lambda: self._stream.append(events)):
            self._lost("Redis has lost its data")
        elif time.monotonic() - began > SLOW_SECONDS:
            self._doubt("events had to wait")
        self._appended.note(events)
        self._metrics.appended.inc(len(events))
        self._metrics.last_append.set_to_current_time()

    async def check(self) -> None:
        """Ask whether Redis still has what it was given."""
        if not await self._done(self._stream.holds):
            self._lost("Redis has lost its data")
        elif await self._done(self._stream.is_another):
            self._lost("another Redis answers, perhaps with older data")

    async def known(self, request_ids: Sequence[str]) -> dict[str, KnownRequest]:
        """What the router has committed about these requests."""
        return await self._done(lambda: self._stream.known(request_ids))

    async def known_or_on_its_way(self, request_ids: Sequence[str]) -> dict[str, KnownRequest]:
        """The same, and what waits for the router on the stream."""
        return self._appended.added_to(await self.known(request_ids), request_ids)

    async def known_rules(self) -> KnownRules | None:
        """What the router has committed about the Access Monitoring Rules."""
        return await self._done(self._stream.known_rules)

    async def open_requests(self, routed_before_seconds: float) -> set[str]:
        """Requests that the router holds for pending and has routed longer ago than this, without an end in sight."""
        held = await self._done(lambda: self._stream.open_requests(routed_before_seconds))
        return {request_id for request_id in held if not self._appended.is_gone(request_id)}

    async def _done(self, operation: Callable[[], Awaitable[Result]]) -> Result:
        backoff = Backoff(SHORTEST_PAUSE, LONGEST_PAUSE)
        was_away = False
        async with self._turn:
            while True:
                try:
                    result = await operation()
                except EventLogFull as error:
                    self._metrics.waits.labels(Wait.FULL.value).inc()
                    self._trouble.waits(STREAM, f"the stream is full: {error}")
                except RedisError as error:
                    self._metrics.waits.labels(Wait.REDIS.value).inc()
                    self._trouble.failed(STREAM, error)
                    was_away = was_away or isinstance(error, RedisConnectionError | RedisTimeoutError)
                else:
                    self._trouble.answered(STREAM)
                    if was_away:  # a crash may have cost its last second, which no epoch tells
                        self._appended.forget()
                        self._doubt("Redis was away")
                    return result
                await asyncio.sleep(backoff.next())

    def _lost(self, why: str) -> None:
        self._appended.forget()
        self._doubt(why)
        self.lost.set()

    def _doubt(self, why: str) -> None:
        log.warning("%s: all requests are listed again", why)
        self.in_doubt.set()
