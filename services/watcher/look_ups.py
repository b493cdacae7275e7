"""Look-ups that may fail: so many at once, each with a deadline, and a kind that fails is left alone for a while."""

import asyncio
import logging
import time
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from services.watcher.backoff import Backoff
from services.watcher.metrics import LookUp, LookUpOutcome, WatcherMetrics
from services.watcher.patience import Patience
from services.watcher.teleport.errors import (
    TeleportError,
    TeleportInvalid,
    TeleportNotFound,
    TeleportRefused,
    TeleportUnavailable,
)
from shared.tasks import end

log = logging.getLogger(__name__)

AT_ONCE = 16
"""Look-ups over one connection; whatever else is to be asked waits for its turn, and its deadline begins then."""

DEADLINE_SECONDS = 3.0
TRY_SECONDS = 10.0
"""Of the patience, for one try: a connection of which one call hangs may bring the next one."""
PAUSES = (0.05, 0.5)
"""Between tries: the shortest and the longest, in seconds."""
REFUSED_SECONDS = 60.0
FAILED_SECONDS = 10.0
FAILURES = 3
"""In a row, after which the kind is left alone."""

REMEMBERED = 1_000
"""Answers; the one that was used last longest ago goes first."""
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
    part: str = ""
    """One of few parts of the kind that may be refused alone."""

    def __str__(self) -> str:
        return f"{self.kind.value} of kind {self.part}" if self.part else self.kind.value


class _RestsError(Exception):
    """The subject is left alone for now."""


class LookUps:
    """Asks, counts, and says once for each kind what cannot be had and what follows from that."""

    def __init__(self, metrics: WatcherMetrics, patience: Patience) -> None:
        self._metrics = metrics
        self._patience = patience
        self._room = asyncio.Semaphore(AT_ONCE)
        self._remembered: OrderedDict[Hashable, tuple[float, Any]] = OrderedDict()
        self._in_flight: dict[Hashable, asyncio.Task[Mapping[str, Any]]] = {}
        self._resting: dict[Subject, float] = {}
        self._failures: Counter[Subject] = Counter()
        self._complaints: dict[Subject, str] = {}

    async def end(self) -> None:
        """Give up what is being asked: nobody waits for it any more."""
        await end(set(self._in_flight.values()))

    async def each(
        self, subject: Subject, keys: Iterable[str], ask: Callable[[Sequence[str]], Awaitable[Mapping[str, Found]]]
    ) -> dict[str, Found]:
        """What Teleport says of each; left out is what it does not have, may not tell, or does not answer in time.

        An answer is good for a minute, and for all who wait for it. `ask` is called once with all that is not known.
        """
        found: dict[str, Found] = {}
        waits: set[asyncio.Task[Mapping[str, Found]]] = set()
        missing = []
        wanted = list(dict.fromkeys(keys))
        for key in wanted:
            if (subject, key) in self._in_flight:
                waits.add(self._in_flight[subject, key])
            elif (known := self._recalled((subject, key))) is None:
                missing.append(key)
            elif known[1] is not None:
                found[key] = known[1]
        if missing:
            waits.add(self._begin(subject, missing, ask))
        # Whoever is cancelled takes no answer away from the others.
        for answer in await asyncio.gather(*map(asyncio.shield, waits)):
            found.update((key, answer[key]) for key in wanted if key in answer)
        return found

    def _recalled(self, name: Hashable) -> tuple[float, Any] | None:
        known = self._remembered.get(name)
        if known is None or time.monotonic() >= known[0]:
            return None
        self._remembered.move_to_end(name)
        return known

    def _begin(
        self, subject: Subject, keys: Sequence[str], ask: Callable[[Sequence[str]], Awaitable[Mapping[str, Found]]]
    ) -> asyncio.Task[Mapping[str, Found]]:
        async def answers() -> Mapping[str, Found]:
            async with self._room:
                found, outcome = await self._counted(subject, lambda: self._in_time(subject, lambda: ask(keys)))
            if outcome in (LookUpOutcome.FOUND, LookUpOutcome.MISSING):
                self._remember({(subject, key): (found or {}).get(key) for key in keys})
            return found or {}

        def landed(_: object) -> None:
            for key in keys:
                del self._in_flight[subject, key]

        task = asyncio.create_task(answers())
        self._in_flight.update(((subject, key), task) for key in keys)
        task.add_done_callback(landed)
        return task

    def _remember(self, answers: Mapping[Hashable, object]) -> None:
        until = time.monotonic() + REMEMBERED_SECONDS
        for name, answer in answers.items():
            self._remembered[name] = until, answer
            self._remembered.move_to_end(name)
        while len(self._remembered) > REMEMBERED:
            self._remembered.popitem(last=False)

    async def _in_time(self, subject: Subject, ask: Callable[[], Awaitable[Found]]) -> Found:
        """What Teleport says before the deadline.

        It is asked again, because the connection may have ended: its owner then notices that too, and ends us. To
        give up before that would make the event complete, without facts that the next connection would bring.
        """
        backoff = Backoff(*PAUSES)
        trouble = ""
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                while True:
                    try:
                        return await ask()
                    except TeleportUnavailable as error:
                        trouble = str(error)
                    await asyncio.sleep(backoff.next())
                    self._ensure_awake(subject)
        except TimeoutError as error:
            raise TimeoutError(trouble) from error

    async def _counted(
        self, subject: Subject, ask: Callable[[], Awaitable[Found]]
    ) -> tuple[Found | None, LookUpOutcome]:
        found, outcome = await self._answer(subject, ask)
        self._metrics.look_ups.labels(subject.kind.value, outcome.value).inc()
        return found, outcome

    async def _answer(
        self, subject: Subject, ask: Callable[[], Awaitable[Found]]
    ) -> tuple[Found | None, LookUpOutcome]:
        try:
            self._ensure_awake(subject)
            found = await ask()
        except _RestsError:
            return None, LookUpOutcome.SKIPPED
        except (TeleportNotFound, TeleportInvalid):
            return None, LookUpOutcome.MISSING
        except TeleportRefused as error:
            self._rest(subject, REFUSED_SECONDS, f"Teleport refuses it: {error}")
            return None, LookUpOutcome.REFUSED
        except (TeleportError, TimeoutError) as error:
            self._failed(subject, str(error) or "no answer in time")
            return None, LookUpOutcome.FAILED
        self._answered(subject)
        return found, LookUpOutcome.FOUND

    async def record(self, request_id: str, ask: Callable[[], Awaitable[Found]]) -> Found | None:
        """What Teleport says; None if it may not tell, or does not answer although it is asked for a minute.

        If that was in vain, no other waits so long: until one is answered, each is tried once.
        """
        subject = Subject(LookUp.RECORD)

        async def again() -> Found:
            backoff = Backoff(*PAUSES)
            while True:
                try:
                    async with self._room, asyncio.timeout(TRY_SECONDS):  # between tries others have their turn
                        self._ensure_awake(subject)
                        return await ask()
                except TeleportRefused:
                    raise
                except (TeleportError, TimeoutError):
                    if self._patience.is_lost:
                        raise
                    await asyncio.sleep(backoff.next())

        async def patiently() -> Found:
            async with self._patience.wait(request_id):
                return await again()

        found, outcome = await self._counted(subject, patiently)
        if outcome in (LookUpOutcome.FOUND, LookUpOutcome.FAILED):
            self._patience.is_lost = outcome is LookUpOutcome.FAILED
        return found

    def _ensure_awake(self, subject: Subject) -> None:
        if time.monotonic() < self._resting.get(subject, 0):
            raise _RestsError

    def _answered(self, subject: Subject) -> None:
        self._failures[subject] = 0
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
