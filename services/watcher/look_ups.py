"""Look-ups that may fail: each has a deadline, and a kind of them that fails is left alone for a while."""

import asyncio
import logging
import time
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Any, TypeVar

from services.watcher.backoff import Backoff
from services.watcher.metrics import LookUp, LookUpOutcome, WatcherMetrics
from services.watcher.teleport.client import TeleportError, TeleportInvalid, TeleportNotFound, TeleportRefused

log = logging.getLogger(__name__)

DEADLINE_SECONDS = 3.0
PATIENT_SECONDS = 60.0
"""Without the answer somebody may be told twice; but nobody is to wait for ever."""
REFUSED_SECONDS = 60.0
FAILED_SECONDS = 10.0
FAILURES = 3
"""In a row, after which the kind is left alone."""

REMEMBERED = 1_000
REMEMBERED_SECONDS = 60.0

WITHOUT = {
    LookUp.RECORD: "whoever was told of a request before Redis lost its data is told again",
    LookUp.TRAITS: "mails name no logins that depend on traits, and rules see none",
    LookUp.LOGINS: "mails name no logins",
    LookUp.RESOURCES: "mails name resources by their ids, and rules see no labels",
}

Found = TypeVar("Found")


@dataclass(frozen=True)
class Subject:
    """What is left alone when it is refused or fails."""

    kind: LookUp
    part: str

    def __str__(self) -> str:
        return f"{self.kind.value} of kind {self.part}" if self.part else self.kind.value


class LookUps:
    """Asks, counts, and says once for each kind what cannot be had and what follows from that."""

    def __init__(self, metrics: WatcherMetrics) -> None:
        self._metrics = metrics
        self._remembered: OrderedDict[Hashable, tuple[float, Any]] = OrderedDict()
        self._resting: dict[Subject, float] = {}
        self._failures: Counter[Subject] = Counter()
        self._complaints: dict[Subject, str] = {}
        self._given_up: set[Subject] = set()

    async def remembered(self, kind: LookUp, key: str, ask: Callable[[], Awaitable[Found]]) -> Found | None:
        """As `once`, but an answer is good for a minute."""
        known = self._remembered.get((kind, key))
        if known is not None and time.monotonic() < known[0]:
            found: Found | None = known[1]
            return found
        found, outcome = await self._asked(Subject(kind, ""), ask, DEADLINE_SECONDS)
        if outcome in (LookUpOutcome.FOUND, LookUpOutcome.MISSING):
            self._remembered[kind, key] = (time.monotonic() + REMEMBERED_SECONDS, found)
            self._remembered.move_to_end((kind, key))
            if len(self._remembered) > REMEMBERED:
                self._remembered.popitem(last=False)
        return found

    async def once(self, kind: LookUp, ask: Callable[[], Awaitable[Found]], *, part: str = "") -> Found | None:
        """What Teleport says; None if it has nothing, may not tell, or does not answer in time.

        `part` is one of few parts of the kind that may be refused alone.
        """
        found, _ = await self._asked(Subject(kind, part), ask, DEADLINE_SECONDS)
        return found

    async def _asked(
        self, subject: Subject, ask: Callable[[], Awaitable[Found]], seconds: float
    ) -> tuple[Found | None, LookUpOutcome]:
        found, outcome = None, LookUpOutcome.SKIPPED
        if time.monotonic() >= self._resting.get(subject, 0):
            try:
                async with asyncio.timeout(seconds):
                    found = await ask()
            except (TeleportNotFound, TeleportInvalid):
                outcome = LookUpOutcome.MISSING
            except TeleportRefused as error:
                outcome = LookUpOutcome.REFUSED
                self._rest(subject, REFUSED_SECONDS, f"Teleport refuses it: {error}")
            except (TeleportError, TimeoutError) as error:
                outcome = LookUpOutcome.FAILED
                self._failed(subject, str(error) or "no answer in time")
            else:
                outcome = LookUpOutcome.FOUND
                self._answered(subject)
        self._metrics.look_ups.labels(subject.kind.value, outcome.value).inc()
        return found, outcome

    async def patiently(self, kind: LookUp, ask: Callable[[], Awaitable[Found]]) -> Found | None:
        """As `once`, but what fails is tried again for a minute. If that was in vain, no other waits so long.

        Until one of the kind is answered: each is tried once meanwhile.
        """
        subject = Subject(kind, "")

        async def again() -> Found:
            backoff = Backoff(0.05, 0.5)
            while True:
                try:
                    async with asyncio.timeout(DEADLINE_SECONDS):
                        return await ask()
                except TeleportRefused:
                    raise
                except (TeleportError, TimeoutError):
                    if subject in self._given_up:
                        raise
                    await asyncio.sleep(backoff.next())

        found, outcome = await self._asked(subject, again, PATIENT_SECONDS)
        if outcome is LookUpOutcome.FAILED:
            self._given_up.add(subject)
        return found

    def _answered(self, subject: Subject) -> None:
        self._failures[subject] = 0
        self._given_up.discard(subject)
        if self._complaints.pop(subject, None):
            log.info("Teleport tells of %s again", subject)

    def _failed(self, subject: Subject, trouble: str) -> None:
        self._failures[subject] += 1
        if self._failures[subject] >= FAILURES:
            self._rest(subject, FAILED_SECONDS, f"it fails: {trouble}")

    def _rest(self, subject: Subject, seconds: float, trouble: str) -> None:
        self._resting[subject] = time.monotonic() + seconds
        self._failures[subject] = 0
        if self._complaints.get(subject) != trouble:
            log.warning("looking up %s: %s; %s", subject, trouble, WITHOUT[subject.kind])
        self._complaints[subject] = trouble
