"""The router's loop: take deliveries, decide what follows from each, commit all that in one step per event."""

import logging
import os
import secrets
import socket
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Self

from prometheus_client import CollectorRegistry
from pydantic import ValidationError
from redis import Redis
from redis.exceptions import RedisError

from services.router.decision import Routed, decide
from services.router.metrics import EventOutcome, RouterMetrics
from services.router.rulebook import Rulebook
from services.router.rules import Rules
from services.router.settings import RouterConfiguration
from services.router.suspects import Suspects
from services.router.turns import RULES, Elsewhere, Postponed, Received, in_order, subject_of
from shared.event_log import GROUP, Delivery, EventReader
from shared.events import Event, RequestEvent, parse_event, request_id_of
from shared.mail_queue.depth import queue_depth
from shared.mail_queue.router_end import Committed, Remembered, RouterEnd
from shared.pulse import Pulse
from shared.redis import connect
from shared.redis_trouble import RedisTrouble
from shared.settings import Settings
from shared.stream_backlog import stream_backlog

log = logging.getLogger(__name__)

BATCH = 50
"""Twice as many would be routed 2 % faster, and take a megabyte more."""
BLOCK_MILLISECONDS = 1000
SHORTEST_PAUSE_MILLISECONDS = 20
LONGEST_PAUSE_MILLISECONDS = 500
"""Before what is postponed is looked at again, unless something new comes: it grows while nothing moves."""
DEAD_ROUTER_MILLISECONDS = 5000
"""A router holds a batch for a fraction of a second; taking over a living one's is harmless (revisions, ids)."""
UPKEEP_SECONDS = 1.0
CONSUMER_UPKEEP_SECONDS = 60.0
RECONNECT_SECONDS = 0.5
ROUTING_TRIES = 5
DEATHS_SURVIVED = 3
"""Of routers that had an event in hand alone, after the one that had it among others."""
ROUTE = "route"


class Router:
    """Routes until it is stopped; never ends because Redis is away."""

    def __init__(self, redis: Redis, configuration: RouterConfiguration, registry: CollectorRegistry) -> None:
        consumer = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self._reader = EventReader(redis, consumer)
        self._end = RouterEnd(redis, GROUP, consumer)
        self._configuration = configuration
        self._metrics = RouterMetrics(registry)
        self._rules = Rules(self._end, self._metrics)
        self._is_stopping = False
        self._postponed = Postponed()
        self._elsewhere = Elsewhere(self._reader)
        self._suspects = Suspects(redis, consumer)
        self._pause_milliseconds = SHORTEST_PAUSE_MILLISECONDS
        self._foremost = ""
        """The entry that waited before all others when it was looked at last."""
        self._failures: Counter[str] = Counter()
        self._next_upkeep = self._next_consumer_upkeep = 0.0
        self._trouble = RedisTrouble(first=ROUTE)
        self._pulse = Pulse(ROUTE)

    @classmethod
    def from_settings(cls, settings: Settings, registry: CollectorRegistry) -> Self:
        """The router as its process runs it. Raises `SettingsError`."""
        registry.register(stream_backlog(settings.redis, "router"))
        registry.register(queue_depth(settings.redis, "router"))
        return cls(connect(settings.redis, "router"), RouterConfiguration.of(settings), registry)

    # -- as the process drives it

    def run(self) -> None:
        """Route until `stop`."""
        while not self._is_stopping:
            self._pulse.turns(ROUTE)
            try:
                self._follow()
            except RedisError as error:
                self._redis_failed(error)
                time.sleep(RECONNECT_SECONDS)

    def stop(self) -> None:
        """End `run` after the batch in hand. A plain flag: a signal may come while another one is being handled."""
        self._is_stopping = True

    def reload(self, settings: Settings) -> None:
        """Take over changed recipients. Raises `SettingsError`."""
        self._configuration = RouterConfiguration.of(settings)

    def live(self) -> str | None:
        """Has the loop turned lately? None if so."""
        return self._pulse.stalled()

    def ready(self) -> str | None:
        """What is missing; None while events can be routed."""
        return self._trouble.reason or self._rules.trouble

    # -- the loop

    def _follow(self) -> None:
        self._reader.open()
        self._suspects.survived()
        self._postponed.take()
        last = "0"
        # All that a connection before this one has left, before anything new: it must not be overtaken.
        while deliveries := self._reader.own(BATCH, last):
            for delivery, event in self._readable(deliveries):
                self._postponed.keep(delivery, event)
            last = deliveries[-1].entry
        self._trouble.answered(ROUTE)
        while not self._is_stopping:
            self._pulse.turns(ROUTE)
            if self._rules.trouble is None:
                self.route(self._take())
            else:
                self._await_rules()

    def _await_rules(self) -> None:
        """Look ahead on the stream for what tells the rules: it may stand behind any number of requests.

        These stay where they are, in nobody's hands, until they can be routed.
        """
        looked_at = "0"
        while not self._is_stopping and self._rules.current() is None:
            self._pulse.turns(ROUTE)
            ahead = self._reader.ahead(BATCH, looked_at, BLOCK_MILLISECONDS)
            if ahead and not self._rules.take_first_listing(ahead):
                looked_at = ahead[-1].entry

    def _take(self) -> list[Received]:
        """What to route next: what had to wait, what dead routers left, or new entries."""
        is_full, waiting = self._postponed.is_full, self._postponed.take()
        if time.monotonic() >= self._next_upkeep:
            known = {delivery.entry for delivery, _ in waiting}
            left = [delivery for delivery in self._upkeep() if delivery.entry not in known]
            if len(left) == BATCH and not is_full:
                self._next_upkeep = time.monotonic()  # there may be more
            if left:
                return in_order(waiting + self._readable(left))
        if not waiting:
            return self._readable(self._reader.new(BATCH, BLOCK_MILLISECONDS))
        pause = self._pause_before(waiting[0][0].entry)
        if is_full:
            time.sleep(pause / 1000)
            return waiting
        return waiting + self._readable(self._reader.new(BATCH, pause))

    def _pause_before(self, foremost: str) -> int:
        """Milliseconds; twice as long each time that this entry is still the foremost of those that wait."""
        grown = min(2 * self._pause_milliseconds, LONGEST_PAUSE_MILLISECONDS)
        self._pause_milliseconds = grown if foremost == self._foremost else SHORTEST_PAUSE_MILLISECONDS
        self._foremost = foremost
        return self._pause_milliseconds

    def _upkeep(self) -> list[Delivery]:
        now = time.monotonic()
        self._next_upkeep = now + UPKEEP_SECONDS
        self._rules.current()  # another router may have been told of them
        self._reader.trim()
        if now >= self._next_consumer_upkeep:
            self._next_consumer_upkeep = now + CONSUMER_UPKEEP_SECONDS
            self._reader.remove_dead_consumers()
        return self._reader.left_by_the_dead(BATCH, DEAD_ROUTER_MILLISECONDS)

    def route(self, received: Sequence[Received]) -> None:
        """Decide and commit, in the stream's order; events whose turn has not come are postponed."""
        requests: list[tuple[Delivery, RequestEvent]] = []
        for delivery, event in self._in_turn(received):
            if isinstance(event, RequestEvent) and not delivery.was_left:
                requests.append((delivery, event))
                continue
            self._route_requests(requests)  # what came before is routed by the rules of before
            requests = []
            if delivery.was_left:
                self._alone(delivery, partial(self._route_one, delivery, event))
            else:
                self._route_one(delivery, event)
        self._route_requests(requests)

    def _alone(self, delivery: Delivery, step: Callable[[], None]) -> None:
        """What a dead router has left may be what has killed it: if this one dies as well, it is known of which."""
        dead = self._suspects.begin(delivery.entry)
        if len(dead) >= DEATHS_SURVIVED:
            self._bury(delivery, f"routing it has killed {len(dead)} routers: {', '.join(dead)}")
        else:
            step()
        self._suspects.survived()

    def _route_one(self, delivery: Delivery, event: Event) -> None:
        if isinstance(event, RequestEvent):
            self._route_requests([(delivery, event)])
        else:
            self._rules.take(delivery.entry, event)

    def _route_requests(self, events: list[tuple[Delivery, RequestEvent]]) -> None:
        remaining = events
        while remaining:
            # Asked after the turn was made sure of: all that stands before these events on the stream is in it.
            rulebook = self._rules.current()
            if rulebook is None:
                for delivery, event in remaining:
                    self._postponed.keep(delivery, event)
                return
            routed = self._decide(remaining, rulebook)
            results = self._end.commit([one.commit for one in routed])
            for one, result in zip(routed, results, strict=True):
                self._count(one, result)
            # Another router was faster: read what it has learned, and decide again.
            remaining = [(r.delivery, r.event) for r, done in zip(routed, results, strict=True) if done is None]

    def _readable(self, deliveries: Sequence[Delivery]) -> list[Received]:
        readable: list[Received] = []
        for delivery in deliveries:
            if delivery.was_left:
                self._alone(delivery, partial(self._read, delivery, readable))
            else:
                self._read(delivery, readable)
        return readable

    def _read(self, delivery: Delivery, readable: list[Received]) -> None:
        """Add it to these."""
        try:
            readable.append((delivery, parse_event(delivery.data)))
        except ValidationError as error:
            self._bury(delivery, f"undecodable: {error.error_count()} faults, first: {error.errors()[0]['msg']}")

    def _in_turn(self, received: Sequence[Received]) -> list[Received]:
        """Postpone events that have an earlier one in another router's hands: of their request, or of the rules."""
        if not received:
            return []
        last, _ = received[-1]
        elsewhere = self._elsewhere.first_of_each(last.entry)
        mine = []
        for delivery, event in received:
            first = min(elsewhere.get(subject, delivery.position) for subject in (subject_of(event), RULES))
            if first < delivery.position:
                self._metrics.postponed.inc(self._postponed.keep(delivery, event))
            else:
                mine.append((delivery, event))
        return mine

    def _decide(self, events: Sequence[tuple[Delivery, RequestEvent]], rulebook: Rulebook) -> list[Routed]:
        remembered = self._end.recall(list({request_id_of(event): None for _, event in events}))
        routed = []
        for delivery, event in events:
            request_id = request_id_of(event)
            if self._postponed.has_before(delivery, event):
                self._postponed.keep(delivery, event)
                continue
            try:
                one = decide(delivery, event, remembered[request_id], self._configuration, rulebook)
            except Exception as error:  # noqa: BLE001  # a fault of ours in one event must not stop the others
                self._routing_failed(delivery, event, error)
                continue
            if one.commit.after:
                remembered[request_id] = Remembered(one.commit.after, self._end.revision(delivery.entry))
            routed.append(one)
        return routed

    # -- what is counted, logged, buried

    def _count(self, routed: Routed, result: Committed | None) -> None:
        if result is None:
            self._metrics.conflicts.inc()
            return
        self._failures.pop(routed.delivery.entry, None)
        self._metrics.events.labels(routed.outcome.value).inc()
        self._metrics.mails.inc(result.created)
        self._metrics.mails_known.inc(result.existed)
        self._metrics.last_success.set_to_current_time()
        self._rules.failed(routed.rule_faults)
        self._metrics.unaddressable_by_rules.inc(routed.audience.unaddressable_by_rules if routed.audience else 0)
        unaddressable = routed.audience.unaddressable if routed.audience else 0
        self._metrics.unaddressable.inc(unaddressable)
        if unaddressable:
            log.warning("%s: %d suggested reviewers are no e-mail addresses", routed.commit.request_id, unaddressable)
        if routed.outcome is not EventOutcome.KNOWN:
            log.info("%s: %s, %d mails", routed.commit.request_id, routed.outcome.value, result.created)

    def _routing_failed(self, delivery: Delivery, event: RequestEvent, error: Exception) -> None:
        self._failures[delivery.entry] += 1
        # Not the group's own count of deliveries, which grows as well while an entry waits for its turn or for Redis.
        tries = self._failures[delivery.entry]
        if tries >= ROUTING_TRIES:
            self._bury(delivery, f"routing failed {tries} times: {error!r}")
            return
        log.error("%s: routing failed, will be tried again", request_id_of(event), exc_info=error)
        self._postponed.keep(delivery, event)

    def _bury(self, delivery: Delivery, error: str) -> None:
        self._reader.bury(delivery, error)
        self._failures.pop(delivery.entry, None)
        self._metrics.events.labels(EventOutcome.DEAD.value).inc()
        log.error("event %s is a dead letter: %s", delivery.entry, error)

    def _redis_failed(self, error: RedisError) -> None:
        self._metrics.errors.inc()
        self._trouble.failed(ROUTE, error)
