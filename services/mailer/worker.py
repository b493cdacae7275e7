"""An RQ worker to everyone who looks, that claims jobs in batches and runs them concurrently on one loop.

Jobs go through the scripts of `shared.mail_queue`; `registration.py` has RQ's own bookkeeping of workers.
"""

import asyncio
import logging
import random
import time
import uuid
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar

import uvloop
from redis import Redis
from redis.asyncio import Redis as AsyncRedis
from redis.exceptions import RedisError
from rq.worker import WorkerStatus

from services.mailer.redis_trouble import RedisTrouble
from services.mailer.registration import RegisteredWorker
from shared.claimed import Claimed
from shared.mail import Dead, Verdict
from shared.mail_queue.mailer_end import BATCH, CLAIM_SECONDS, MailerEnd, Malformed, Settlement
from shared.tasks import end

log = logging.getLogger(__name__)

RENEW_SECONDS = 5.0
DUE_SECONDS = 1.0
RECOVER_SECONDS = 5.0
SWEEP_SECONDS = 10.0
HEARTBEAT_SECONDS = 10.0
IDLE_SECONDS = 1
RETRY_SECONDS = (0.05, 1.0)
"""Redis away: pauses between tries, at random."""
STILL_HELD_SECONDS = CLAIM_SECONDS - 5.0
"""A mail whose last confirmed renewal is older is not sent: another worker may have its claim soon."""
WARM_SHUTDOWN_SECONDS = 7.0
"""`access-mail start` gives a mailer ten seconds, Kubernetes thirty."""
SETTLE_AT_SHUTDOWN_SECONDS = 2.0
COLD_SHUTDOWN_STOPS = 2
LOST = float("-inf")

T = TypeVar("T")


class Delivery(Protocol):
    """Where the worker's mails go: the mailroom."""

    async def deliver(self, claimed: Claimed, still_held: Callable[[], bool], /) -> Verdict:
        """Send one mail; `still_held` is asked right before its content leaves."""

    async def close(self) -> None:
        """Leave the relay."""


class WorkerMetrics(Protocol):
    """What the worker counts."""

    def claimed(self, jobs: int) -> None:
        """Count jobs taken from the queue."""

    def settled(self, verdict: Verdict, claimed: Claimed | None, accepted_at: float) -> None:
        """Count what became of a mail (None: a job that was no mail), at a time by this host's clock."""

    def recovered(self, jobs: int) -> None:
        """Count jobs that dead or stock workers had left."""

    def claims_lost(self, jobs: int) -> None:
        """Count mails whose claim was lost while they were in hand."""

    def redis_failed(self) -> None:
        """Count a time that Redis did not do its part."""


@dataclass
class Held:
    """A job in this worker's hands."""

    id: str
    renewed_at: float
    """Monotonic time of the last confirmed renewal, when the request for it was sent."""
    task: asyncio.Task[None] | None = None
    """None: a job that is no mail, and is not sent."""
    is_leaving: bool = False
    """Its content was let go to the relay, which may have it from then on."""


class MailWorker(RegisteredWorker):
    """Sends the mails of the queue, at most `capacity` at a time."""

    def __init__(
        self, redis: Redis, mails: AsyncRedis, delivery: Delivery, metrics: WorkerMetrics, capacity: int
    ) -> None:
        """`redis` is RQ's own connection, `mails` the one for the scripts."""
        super().__init__(redis)
        self._end = MailerEnd(mails, redis, worker=self.name, worker_key=self.key, executions_key=self.executions_key)
        self._delivery = delivery
        self._metrics = metrics
        self._capacity = capacity
        self._held: dict[str, Held] = {}
        self._done: asyncio.Queue[Settlement] = asyncio.Queue()
        self._room = asyncio.Event()
        self._stops = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._recover_from = 0.0
        self.turned = time.monotonic()
        """Monotonic time at which the loop turned last."""
        self._trouble = RedisTrouble(first="birth")

    # -- as the process drives it

    @property
    def trouble(self) -> str | None:
        """Why no mail can be taken; None while all is well."""
        return self._trouble.reason

    def work(self, *_: Any, **options: Any) -> bool:
        """Work until `stop`; with `burst`, until nothing is left to do now. Tells whether there was any job."""
        return uvloop.run(self.serve(burst=bool(options.get("burst"))))

    def stop(self) -> None:
        """End gracefully; a second time, put the claims back at once. May be called in a signal handler."""
        self._stops += 1
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._room.set)

    async def serve(self, *, burst: bool) -> bool:
        """The worker's life. Tells whether there was any job."""
        self._loop = asyncio.get_running_loop()
        await self._unless_stopped("birth", partial(asyncio.to_thread, self.register))
        timers = (
            ("renew", self._renew, RENEW_SECONDS),
            ("due", self._queue_due, DUE_SECONDS),
            ("recover", self._recover, RECOVER_SECONDS),
            ("sweep", self._sweep, SWEEP_SECONDS),
            ("heartbeat", partial(asyncio.to_thread, self.beat), HEARTBEAT_SECONDS),
        )
        async with asyncio.TaskGroup() as group:
            background = [group.create_task(self._every(seconds, name, action)) for name, action, seconds in timers]
            background.append(group.create_task(self._settle()))
            try:
                worked = await self._claim(group, burst=burst)
                await self._finish()
            finally:
                await end(background)
        try:
            await asyncio.to_thread(self.teardown)
        except RedisError as error:
            self._redis_failed("death", error)  # it forgets this worker in a minute
        await self._delivery.close()
        await self._end.close()
        self._loop = None
        return worked

    # -- taking jobs

    async def _claim(self, group: asyncio.TaskGroup, *, burst: bool) -> bool:
        worked = False
        while not self._stops:
            room = self._capacity - len(self._held)
            if room <= 0:
                await self._wait_for_room()
                continue
            claims = await self._unless_stopped(
                "claim", partial(self._end.claim, [uuid.uuid4().hex for _ in range(room)])
            )
            if claims is None:
                break
            self._metrics.claimed(len(claims.jobs))
            for job in claims.jobs:
                self._take(group, job)
            for job_id in claims.poison:
                log.error("mail %s is a dead letter: its workers died too often in a row", job_id)
                self._metrics.settled(Dead("poison"), None, time.time())
            worked = worked or bool(claims.jobs)
            if not claims.jobs and burst and not self._held:
                break
            if not claims.jobs:
                await self._try_to_wait()
        return worked

    def _take(self, group: asyncio.TaskGroup, job: Claimed | Malformed) -> None:
        # Claims are younger than this by the answer's way here: a little, against the margin of STILL_HELD_SECONDS.
        now = time.monotonic()
        self._state = WorkerStatus.BUSY  # `claim.lua` has told Redis
        if isinstance(job, Claimed):
            held = self._held[job.execution] = Held(job.mail.id, now)
            held.task = group.create_task(self._send(job))
            return
        log.error("job %s is a dead letter: %s", job.id, job.error)
        self._held[job.execution] = Held(job.id, now)
        self._is_done(Settlement(job.id, job.execution, job.now, Dead("malformed", job.error)), None)

    async def _send(self, job: Claimed) -> None:
        try:
            verdict = await self._delivery.deliver(job, lambda: self._is_still_held(job.execution))
        except Exception as error:  # a fault of ours in one mail must not stop the others
            log.exception("mail %s is a dead letter: a fault of ours", job.mail.id)
            verdict = Dead("internal_error", repr(error))
        self._is_done(Settlement(job.mail.id, job.execution, job.now, verdict), job)

    def _is_still_held(self, execution: str) -> bool:
        held = self._held.get(execution)
        if held is None or time.monotonic() - held.renewed_at >= STILL_HELD_SECONDS:
            return False
        held.is_leaving = True
        return True

    async def _wait_for_room(self) -> None:
        self._room.clear()
        if not self._stops and len(self._held) >= self._capacity:
            await self._room.wait()

    async def _try_to_wait(self) -> None:
        """Once, then back to claiming: a full Redis refuses to wait, and only mails that leave make room."""
        try:
            await self._wait_for_work()
        except RedisError as error:
            self._redis_failed("wait", error)
            await asyncio.sleep(random.uniform(*RETRY_SECONDS))  # noqa: S311  # no secret
        else:
            self._trouble.answered("wait")

    async def _wait_for_work(self) -> None:
        if not self._held and self.get_state() != WorkerStatus.IDLE:
            await asyncio.to_thread(self.rest)
        if await self._end.is_suspended():
            await asyncio.sleep(IDLE_SECONDS)
        else:
            await self._end.wait_for_work(IDLE_SECONDS)

    # -- giving them back

    def _is_done(self, settlement: Settlement, claimed: Claimed | None) -> None:
        self._metrics.settled(settlement.verdict, claimed, time.time())
        self._done.put_nowait(settlement)

    async def _settle(self) -> None:
        """Settle what is done, in as few round trips as it comes; for ever."""
        while True:
            batch = [await self._done.get()]
            while not self._done.empty() and len(batch) < BATCH:
                batch.append(self._done.get_nowait())
            # Until it succeeds, shutdown or not: a receipt counts even when the claim is lost by then.
            self._metrics.claims_lost(await self._persist("settle", partial(self._end.settle, batch)))
            for settlement in batch:
                self._held.pop(settlement.execution, None)
                self._done.task_done()
            self._room.set()

    async def _finish(self) -> None:
        """Warm shutdown: mails in flight finish and are settled; what is not done in time goes back untouched."""
        tasks = [held.task for held in self._held.values() if held.task]
        deadline = time.monotonic() + WARM_SHUTDOWN_SECONDS
        while tasks and self._stops < COLD_SHUTDOWN_STOPS and time.monotonic() < deadline:
            _, pending = await asyncio.wait(tasks, timeout=0.1)
            tasks = list(pending)
        for task in tasks:
            task.cancel()
        with suppress(TimeoutError, RedisError):  # Redis is away: the claims' end puts all that back
            async with asyncio.timeout(SETTLE_AT_SHUTDOWN_SECONDS):
                await asyncio.gather(*tasks, return_exceptions=True)
                await self._done.join()
                left = [(held.id, execution, held.is_leaving) for execution, held in self._held.items()]
                if left:
                    log.info("%d mails in flight go back into the queue", await self._end.release(left))

    # -- timers

    async def _renew(self) -> None:
        if not self._held:
            return
        asked_at = time.monotonic()
        held = dict(self._held)
        lost = await self._end.renew([(one.id, execution) for execution, one in held.items()])
        for execution, one in held.items():
            one.renewed_at = LOST if execution in lost else asked_at

    async def _queue_due(self) -> None:
        while await self._end.queue_due() >= BATCH:
            continue

    async def _recover(self) -> None:
        if time.monotonic() < self._recover_from:
            return
        recovered = await self._end.recover()
        if recovered:
            log.warning("%d mails of a worker that died are queued again", recovered)
            self._metrics.recovered(recovered)

    async def _sweep(self) -> None:
        freed, adopted = await self._end.sweep()
        await asyncio.to_thread(self.clean_up_after_stock_workers)
        if freed or adopted:
            log.warning(
                "%d stuck threads freed, %d mails that another RQ worker failed are queued again", freed, adopted
            )
            self._metrics.recovered(freed + adopted)

    # -- Redis away

    async def _every(self, seconds: float, activity: str, action: Callable[[], Awaitable[None]]) -> None:
        while True:
            await self._persist(activity, action)
            await asyncio.sleep(seconds)

    async def _persist(self, activity: str, action: Callable[[], Awaitable[T]]) -> T:
        """Do it until Redis does its part."""
        while True:
            self.turned = time.monotonic()
            try:
                result = await action()
            except RedisError as error:
                self._redis_failed(activity, error)
                await asyncio.sleep(random.uniform(*RETRY_SECONDS))  # noqa: S311  # no secret
            else:
                self._trouble.answered(activity)
                return result

    async def _unless_stopped(self, activity: str, action: Callable[[], Awaitable[T]]) -> T | None:
        """Do it until Redis does its part; None if the worker is to stop before that."""
        doing = asyncio.ensure_future(self._persist(activity, action))
        while not self._stops:
            done, _ = await asyncio.wait([doing], timeout=IDLE_SECONDS)
            if done:
                return doing.result()
        # What was asked for may have been given: a claim that is not taken up ends by itself.
        done, _ = await asyncio.wait([doing], timeout=IDLE_SECONDS)
        if done:
            return doing.result()
        doing.cancel()
        return None

    def _redis_failed(self, activity: str, error: RedisError) -> None:
        self._metrics.redis_failed()
        # Others could not renew either: their claims are not over just because they look so.
        self._recover_from = time.monotonic() + CLAIM_SECONDS
        self._trouble.failed(activity, error)
