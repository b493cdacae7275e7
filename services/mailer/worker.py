"""An RQ worker to everyone who looks, that claims jobs in batches and runs them concurrently on one loop.

Jobs go through the scripts of `shared.mail_queue`; `registration.py` has RQ's own bookkeeping of workers.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

import uvloop
from redis import Redis
from redis.asyncio import Redis as AsyncRedis
from redis.exceptions import RedisError
from rq.worker import WorkerStatus

from services.mailer.in_hand import Hands, InHand
from services.mailer.job_faults import JobFaults
from services.mailer.persistence import Persistence
from services.mailer.registration import RegisteredWorker
from services.mailer.relay_watch import RelayWatch
from services.mailer.seam import Delivery, WorkerMetrics
from services.mailer.upkeep import Upkeep
from shared.claimed import Claimed, Malformed
from shared.mail import Dead
from shared.mail_queue.mailer_end import BATCH, Claims, MailerEnd, Settlement
from shared.pulse import Pulse
from shared.redis_trouble import RedisTrouble
from shared.relay import RelayTerms
from shared.tasks import Crew, end

log = logging.getLogger(__name__)

HEARTBEAT_SECONDS = 10.0
IDLE_SECONDS = 1
GATHER_SECONDS = 0.02
"""How long room for a few mails waits for room for more: a claim costs Redis and us the same for one and for many."""
GIVE_BACK_SECONDS = 4.0
"""How long before the end of its grace a worker that is to stop gives back what is still in flight."""
LEAVE_SECONDS = 2.0
"""How long before it Redis is waited for no more: relay and Redis are to be left yet."""
COLD_SHUTDOWN_STOPS = 2
CLAIM, SETTLE = "claim", "settle"

T = TypeVar("T")


class MailWorker(RegisteredWorker):
    """Sends the mails of the queue, at most `capacity` at a time."""

    def __init__(
        self,
        redis: Redis,
        mails: AsyncRedis,
        delivery: Delivery,
        metrics: WorkerMetrics,
        *,
        relay: RelayTerms,
        capacity: int,
        grace: float,
    ) -> None:
        """`redis` is RQ's own connection, `mails` the one for the scripts.

        `grace`: seconds from the first wish to stop until it has stopped.
        """
        super().__init__(redis)
        self._end = MailerEnd(
            mails, redis, relay, worker=self.name, worker_key=self.key, executions_key=self.executions_key
        )
        self._relay = RelayWatch(metrics)
        self._delivery = delivery
        self._metrics = metrics
        self._hands = Hands(capacity)
        self._grace = grace
        self._done: asyncio.Queue[Settlement] = asyncio.Queue()
        self._woken = asyncio.Event()
        self._stops: list[float] = []
        """Monotonic times of the wishes to stop."""
        self._faults = JobFaults()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._trouble = RedisTrouble(first="birth")
        self.pulse = Pulse(CLAIM)
        self._persistence = Persistence(self._trouble, self.pulse, metrics.redis_failed)
        clean_up = self.clean_up_after_stock_workers
        self._upkeep = Upkeep(
            self._end, self._hands, delivery, metrics, self._faults, clean_up_after_stock_workers=clean_up
        )

    # -- as the process drives it

    @property
    def trouble(self) -> str | None:
        """Why no mail can be taken; None while all is well."""
        return self._trouble.reason

    @property
    def turned_away(self) -> str | None:
        """Why no mail of this worker can be sent while others' can; None: they fare alike."""
        return self._relay.turns_us_away

    def work(self, *_: Any, **options: Any) -> bool:
        """Work until `stop`; with `burst`, until nothing is left to do now. Tells whether there was any job.

        Raises what any of its loops has raised: none can do without the others.
        """
        return uvloop.run(self.serve(burst=bool(options.get("burst"))))

    def stop(self) -> None:
        """End gracefully; a second time, put the claims back at once. May be called in a signal handler."""
        self._stops.append(time.monotonic())
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._woken.set)

    async def serve(self, *, burst: bool) -> bool:
        """The worker's life. Tells whether there was any job."""
        self._loop = asyncio.get_running_loop()
        crew = Crew()
        try:
            await self._unless_stopped("birth", partial(asyncio.to_thread, self.register))
            self.pulse.rests("birth")
            for activity, action, seconds in self._upkeep.timers():
                crew.start(self._persistence.every(seconds, activity, action))
            beat = partial(asyncio.to_thread, self.beat)
            crew.start(self._persistence.every(HEARTBEAT_SECONDS, "heartbeat", beat))
            crew.start(self._settle())
            return await crew.run(self._claim_and_finish(crew, burst=burst))
        finally:
            self._loop = None
            await self._leave()

    async def _leave(self) -> None:
        if self.trouble is None:  # otherwise Redis forgets this worker in a minute
            try:
                await asyncio.to_thread(self.teardown)
            except RedisError as error:
                self._trouble.failed("death", error)
        await self._delivery.close()
        await self._end.close()

    # -- taking jobs

    async def _claim_and_finish(self, crew: Crew, *, burst: bool) -> bool:
        worked = await self._claim(crew, burst=burst)
        self.pulse.rests(CLAIM)
        await self._finish()
        return worked

    async def _claim(self, crew: Crew, *, burst: bool) -> bool:
        worked = False
        while not self._stops:
            self.pulse.turns(CLAIM)
            self._woken.clear()
            room = self._hands.room
            if room <= 0:
                await self._rest(IDLE_SECONDS)
                continue
            if room < self._hands.handful and await self._rest(GATHER_SECONDS):
                continue
            is_idle = not self._hands  # when Redis is asked: what is settled meanwhile may bring more work
            answer = await self._unless_stopped(CLAIM, self._reach_out)
            if answer is None:
                break
            asked_at, claims = answer
            self._metrics.claimed(len(claims.jobs))
            self._metrics.canceled(claims.canceled)
            self._faults.tell(claims.faults)
            self._relay.sees(claims)
            for job in claims.jobs:
                self._take(crew, job, asked_at)
            for job_id in claims.poison:
                log.error("mail %s is a dead letter: its workers died too often in a row", job_id)
                self._metrics.settled(Dead("poison"), None, time.time())
            worked = worked or bool(claims.jobs)
            if burst and is_idle and not claims.jobs and (claims.relay.reason or not claims.pause):
                break
            if not claims.jobs and claims.pause:
                await self._rest(min(claims.pause, IDLE_SECONDS))
            elif not claims.jobs:
                await self._try_to_wait()
        return worked

    async def _reach_out(self) -> tuple[float, Claims]:
        """Claims live from Redis's answer on, which is later than the time of asking that is given with them."""
        asked_at = time.monotonic()
        return asked_at, await self._end.claim(self._hands.reach_out())

    def _take(self, crew: Crew, job: Claimed | Malformed, asked_at: float) -> None:
        self._state = WorkerStatus.BUSY  # `claim.lua` has told Redis
        if isinstance(job, Claimed):
            held = self._hands.take(job.mail.id, job.execution, asked_at, job)
            held.task = crew.start(self._send(job, held))
            return
        log.error("job %s is a dead letter: %s", job.id, job.error)
        self._hands.take(job.id, job.execution, asked_at, None)
        self._is_done(Settlement(job.id, job.execution, job.now, Dead("malformed", job.error)), None)

    async def _send(self, job: Claimed, held: InHand) -> None:
        try:
            verdict = await self._delivery.deliver(job, held.may_leave)
        except Exception as error:  # a fault of ours in one mail must not stop the others
            log.exception("mail %s has met a fault of ours", job.mail.id)
            verdict = Dead("internal_error", repr(error))
        if held.is_kept_back and held.unwanted is not None:
            verdict = held.unwanted
        if isinstance(verdict, Dead):
            # Not the relay's words, which may hold the address: `access-mail dead list` has them.
            log.warning("mail %s is a dead letter: %s", held.id, verdict.reason)
        self._is_done(Settlement(held.id, job.execution, job.now, verdict), job)

    async def _rest(self, seconds: float) -> bool:
        """Until something was settled, or the worker is to stop, which is told; or for so long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        return self._woken.is_set()

    async def _try_to_wait(self) -> None:
        """Once, then back to claiming: a full Redis refuses to wait, and only mails that leave make room."""
        try:
            await self._persistence.once("wait", self._wait_for_work)
        except RedisError:
            await self._persistence.pause()
        self.pulse.rests("wait")

    async def _wait_for_work(self) -> None:
        if not self._hands and self.get_state() != WorkerStatus.IDLE:
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
            self.pulse.rests(SETTLE)
            batch = [await self._done.get()]
            await asyncio.sleep(0)  # one turn of the loop: what relays have answered by now is settled in the same go
            while not self._done.empty() and len(batch) < BATCH:
                batch.append(self._done.get_nowait())
            # Until it succeeds, shutdown or not: a receipt counts even when the claim is lost by then.
            settled = await self._persistence.until_done(SETTLE, partial(self._end.settle, batch))
            self._metrics.claims_lost(settled.lost)
            self._metrics.canceled(settled.canceled)
            self._faults.tell(settled.faults)
            self._hands.let_go([settlement.execution for settlement in batch])
            for _ in batch:
                self._done.task_done()
            self._woken.set()

    async def _finish(self) -> None:
        """Warm shutdown: mails in flight finish and are settled; what is not done in time goes back untouched."""
        until = (self._stops[0] if self._stops else time.monotonic()) + self._grace
        tasks = self._hands.tasks
        while tasks and len(self._stops) < COLD_SHUTDOWN_STOPS and time.monotonic() < until - GIVE_BACK_SECONDS:
            _, pending = await asyncio.wait(tasks, timeout=0.1)
            tasks = list(pending)
        giving_back = asyncio.create_task(self._give_back(tasks))
        await asyncio.wait([giving_back], timeout=max(0.5, until - LEAVE_SECONDS - time.monotonic()))
        if giving_back.done():
            giving_back.result()
        else:
            await end([giving_back])  # Redis is away: the claims' end puts all that back

    async def _give_back(self, tasks: list[asyncio.Task[None]]) -> None:
        """End these deliveries; what is not done then goes back."""
        await end(tasks)
        await self._done.join()
        self._hands.close()
        if self._hands:
            await self._persistence.until_done("release", self._release)
        else:
            with suppress(RedisError):  # one try: most likely there is nothing
                await self._persistence.once("release", self._release)

    async def _release(self) -> None:
        left = [*self._hands.left(), *self._hands.strays(await self._end.held())]
        if left:
            released, canceled = await self._end.release(left)
            self._metrics.canceled(canceled)
            log.info("%d mails in flight go back into the queue", released)

    async def _unless_stopped(self, activity: str, action: Callable[[], Awaitable[T]]) -> T | None:
        """Do it until Redis does its part; None if the worker is to stop before that."""
        doing = asyncio.create_task(self._persistence.until_done(activity, action))
        while not doing.done():
            # What was asked for before the stop may have been given: it is taken up, or goes back at the end.
            is_last = bool(self._stops)
            await asyncio.wait([doing], timeout=IDLE_SECONDS)
            if is_last:
                break
        if doing.done():
            return doing.result()
        await end([doing])
        return None
