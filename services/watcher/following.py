"""One connection to Teleport while it lasts: its events, the snapshots, and whether it still answers."""

import asyncio
import logging
import time
from contextlib import suppress

from services.watcher.arrivals import Arrivals
from services.watcher.backoff import Backoff
from services.watcher.enrich import Enricher
from services.watcher.metrics import Received, SnapshotOutcome, WatcherMetrics
from services.watcher.outbox import Outbox
from services.watcher.passed_over import PassedOver
from services.watcher.patience import Patience
from services.watcher.rules import Rules
from services.watcher.snapshot import Page, snapshot
from services.watcher.teleport.client import Watch
from services.watcher.teleport.connect import Connection
from services.watcher.teleport.errors import TeleportError, TeleportRefused
from services.watcher.teleport.undecodable import RULE_KIND, Undecodable
from services.watcher.together import first_to_end
from services.watcher.witness import Witness
from shared.events import AccessRequest, RequestChanged, RequestGone, RuleChanged, RuleDeleted

log = logging.getLogger(__name__)

HEARTBEAT_SECONDS = 5.0
ANSWER_SECONDS = 10.0
"""With the heartbeat: a connection that stands but brings nothing is noticed within 15 s."""

FOUND_AT_ONCE = 50
"""Events that a snapshot may have on their way, so that those of the watch always find room beside them."""
BEGUN_AT_ONCE = 10
"""Of them: so many are asked of Redis together."""


class Following:
    """Follows one connection. What is heard of requests goes to the arrivals, which outlive it."""

    def __init__(
        self,
        connection: Connection,
        arrivals: Arrivals,
        outbox: Outbox,
        *,
        rules: Rules,
        witness: Witness,
        patience: Patience,
        passed_over: PassedOver,
        metrics: WatcherMetrics,
        snapshot_seconds: float,
    ) -> None:
        self._client = connection.client
        self._cluster = connection.server.cluster
        self._arrivals = arrivals
        self._outbox = outbox
        self._rules = rules
        self._enricher = Enricher(connection.client, outbox, patience, metrics)
        self._witness = witness
        self._passed_over = passed_over
        self._metrics = metrics
        self._snapshot_seconds = snapshot_seconds
        self._refused = Backoff(1, 30)
        self.trouble: str | None = "the first listing of all requests is not complete yet"
        """What is missing; None once everything that Teleport holds was looked at."""
        self.looked = asyncio.Event()
        """Set once it was tried to look at everything: whatever comes now comes here."""
        self._is_caught_up = False

    async def run(self) -> None:
        """Follow until the connection ends. Raises `TeleportError`."""
        # Watch first, then list: what happens during the listing must not fall between the two. Both append at
        # once, in any order: the router's knowledge only grows, so that an older state does no harm.
        async with self._client.watch() as watch:
            await self._rules.begin(self._client, shown=watch.shows_rules)
            try:
                await first_to_end(
                    self._receive(watch),
                    self._take_snapshots(watch),
                    self._tell_rules_again(watch),
                    self._ask_if_it_lives(),
                    self._witness.run(self._client),
                )
            finally:
                await self._enricher.end()

    async def _receive(self, watch: Watch) -> None:
        async for event in watch:
            self._metrics.last_event.set_to_current_time()
            match event:
                case AccessRequest():
                    self._metrics.received.labels(Received.CHANGED.value).inc()
                    await self._look_up(RequestChanged(request=event, cluster=self._cluster))
                case RequestGone():
                    self._metrics.received.labels(Received.GONE.value).inc()
                    await self._look_up(event)
                case RuleChanged() | RuleDeleted():
                    self._metrics.received.labels(Received.RULE.value).inc()
                    await self._rules.tell(event)
                case Undecodable():
                    self._metrics.received.labels(Received.UNDECODABLE.value).inc()
                    self._passed_over.note(event)
                    if event.kind == RULE_KIND:  # as it is now it does not count, as it was before it does no more
                        await self._rules.tell(RuleDeleted(name=event.name))
                case None:
                    self._metrics.received.labels(Received.OTHER.value).inc()

    async def _look_up(self, event: RequestChanged | RequestGone) -> None:
        (incoming,) = self._enricher.begin(self._cluster, [event])
        await self._arrivals.put(incoming)

    async def _take_snapshots(self, watch: Watch) -> None:
        while True:
            self._outbox.in_doubt.clear()
            pause = self._snapshot_seconds
            try:
                await self._take_snapshot()
            except TeleportRefused as error:
                # Without listing the events are worth all the more: do not give up the watch.
                self._complain(f"Teleport refuses to list requests: {error}")
                pause = self._refused.next()
            self.looked.set()
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._outbox.in_doubt.wait()
            await self._rules.compare(self._client, shown=watch.shows_rules)

    async def _tell_rules_again(self, watch: Watch) -> None:
        """Routers wait for the rules, so that these must not wait for the end of a long snapshot."""
        while True:
            await self._outbox.lost.wait()
            self._outbox.lost.clear()
            await self._rules.compare(self._client, shown=watch.shows_rules)

    async def _take_snapshot(self) -> None:
        began = time.monotonic()
        listed = found = 0
        outcome = SnapshotOutcome.COMPLETE
        room = asyncio.Semaphore(FOUND_AT_ONCE)
        try:
            async for page in snapshot(self._client, self._outbox, self._cluster):
                listed += page.listed
                found += len(page.news)
                if not page.is_whole:
                    outcome = SnapshotOutcome.PARTIAL
                await self._tell(page, room)
            for _ in range(FOUND_AT_ONCE):  # all are back: whatever was found is on the stream
                await room.acquire()
        except TeleportError:
            self._metrics.snapshots.labels(SnapshotOutcome.FAILED.value).inc()
            raise
        self._metrics.snapshots.labels(outcome.value).inc()
        if outcome is SnapshotOutcome.COMPLETE:
            self._metrics.last_snapshot.set_to_current_time()
            self._metrics.listed.set(listed)
        level = logging.INFO if found or not self._is_caught_up else logging.DEBUG
        log.log(level, "listed %d requests in %.1f s: %d are new", listed, time.monotonic() - began, found)
        self._is_caught_up = True
        self.trouble = None

    async def _tell(self, page: Page, room: asyncio.Semaphore) -> None:
        self._metrics.found.inc(len(page.news))
        for undecodable in page.undecodable:
            self._passed_over.note(undecodable)
        for start in range(0, len(page.news), BEGUN_AT_ONCE):
            portion = page.news[start : start + BEGUN_AT_ONCE]
            for _ in portion:
                await room.acquire()
            for incoming in self._enricher.begin(self._cluster, portion):
                incoming.told.add_done_callback(lambda _: room.release())
                await self._arrivals.put(incoming)

    def _complain(self, trouble: str) -> None:
        if trouble != self.trouble:
            log.error("%s; will be tried again, `access-mail check` tells what the role lacks", trouble)
        self.trouble = trouble

    async def _ask_if_it_lives(self) -> None:
        """Teleport's stream has no heartbeat of its own, and a connection may be dead without being closed."""
        while True:
            await asyncio.sleep(HEARTBEAT_SECONDS)
            self._cluster = (await self._client.ping(ANSWER_SECONDS)).cluster
