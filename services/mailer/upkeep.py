"""What a worker does on timers: keeps its claims, looks whether they are still wanted, and frees what others left."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from services.mailer.in_hand import Hands
from services.mailer.job_faults import JobFaults
from services.mailer.seam import Delivery, WorkerMetrics
from shared.mail_queue.mailer_end import BATCH, MailerEnd

log = logging.getLogger(__name__)

RENEW_SECONDS = 5.0
DUE_SECONDS = 1.0
RECOVER_SECONDS = 5.0
SWEEP_SECONDS = 10.0
STRAYS_SECONDS = 1.0
LOOK_SECONDS = 0.5
"""Far shorter than `KNOWN_SECONDS`: a loop that is late for once keeps no mail back."""


class Upkeep:
    """Each of its actions raises `RedisError`."""

    def __init__(
        self,
        end: MailerEnd,
        hands: Hands,
        delivery: Delivery,
        metrics: WorkerMetrics,
        faults: JobFaults,
        *,
        clean_up_after_stock_workers: Callable[[], None],
    ) -> None:
        """The clean-up is called in a thread."""
        self._end = end
        self._hands = hands
        self._delivery = delivery
        self._metrics = metrics
        self._faults = faults
        self._clean_up_after_stock_workers = clean_up_after_stock_workers

    def timers(self) -> list[tuple[str, Callable[[], Awaitable[None]], float]]:
        """Name, action, and seconds between."""
        return [
            ("renew", self._renew, RENEW_SECONDS),
            ("look", self._look_again, LOOK_SECONDS),
            ("strays", self._release_strays, STRAYS_SECONDS),
            ("due", self._queue_due, DUE_SECONDS),
            ("recover", self._recover, RECOVER_SECONDS),
            ("sweep", self._sweep, SWEEP_SECONDS),
        ]

    async def _renew(self) -> None:
        if claims := self._hands.claims():
            asked_at = time.monotonic()
            self._hands.renewed(claims, await self._end.renew(claims), asked_at)

    async def _look_again(self) -> None:
        with self._hands.asking(LOOK_SECONDS) as unsure:
            for now in await self._end.look_again([job.claimed for job in unsure.values() if job.claimed]):
                job = unsure[now.execution]
                job.unwanted, job.known_at = self._delivery.unwanted(now), time.monotonic()

    async def _release_strays(self) -> None:
        """What a claim took whose answer was lost: left alone, it would pass for the mails of a mailer that died."""
        if strays := self._hands.strays(await self._end.held()):
            released, canceled = await self._end.release(strays)
            self._metrics.canceled(canceled)
            if released:  # not what was settled while we asked
                log.warning("%d mails go back into the queue: Redis's word that they were ours was lost", released)

    async def _queue_due(self) -> None:
        while await self._end.queue_due() >= BATCH:
            continue

    async def _recover(self) -> None:
        recovered = await self._end.recover()
        if recovered:
            log.warning("%d mails of a worker that died are queued again", recovered)
            self._metrics.recovered(recovered)

    async def _sweep(self) -> None:
        swept = await self._end.sweep()
        self._metrics.canceled(swept.canceled)
        self._faults.tell(swept.faults)
        if swept.freed or swept.adopted:
            said = "%d stuck threads freed, %d mails that another RQ worker failed are queued again"
            log.warning(said, swept.freed, swept.adopted)
            self._metrics.recovered(swept.freed + swept.adopted)
        await asyncio.to_thread(self._clean_up_after_stock_workers)
