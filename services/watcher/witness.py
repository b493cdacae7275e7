"""Makes Teleport the second witness: what mailers have sent is written into the record of its request.

Receipts are gathered per request and written by compare-and-swap, so that several watchers and the Go plugin may
write at once. What cannot be written stays with the group, and is tried again by any watcher after a pause.
"""

import asyncio
import logging
import random
from collections import defaultdict
from collections.abc import Sequence

from redis.exceptions import RedisError

from services.watcher.backoff import Backoff
from services.watcher.metrics import WatcherMetrics, Witnessed
from services.watcher.record import KEYS, News, Resolution, Thread, as_go_writes, merged
from services.watcher.teleport.client import TeleportClient
from services.watcher.teleport.errors import (
    TeleportConflict,
    TeleportError,
    TeleportInvalid,
    TeleportNotFound,
    TeleportRefused,
    TeleportUnavailable,
)
from shared.mail import NoticeKind, mail_id
from shared.receipts import ReceiptReader, ToldRequest, Unreadable, WrittenReceipt

log = logging.getLogger(__name__)

BATCH = 500
BLOCK_MILLISECONDS = 1000
GATHER_SECONDS = 0.2
"""The mails of one request are delivered side by side: a moment later most of their receipts are there."""
LEFT_MILLISECONDS = 60_000
"""What has not been written for so long is anybody's: its watcher is dead, or the record was full or contended."""
UPKEEP_SECONDS = 5.0
REFUSED_SECONDS = 60.0
WRITTEN_AT_ONCE = 8
COMPARE_TRIES = 5
CONTENDED_SECONDS = 0.05

RESOLUTIONS = {
    NoticeKind.APPROVED: Resolution.APPROVED,
    NoticeKind.DENIED: Resolution.DENIED,
    NoticeKind.PROMOTED: Resolution.PROMOTED,
    NoticeKind.EXPIRED: Resolution.EXPIRED,
}


class Witness:
    """One watcher's part of the witnessing, over whichever connection to Teleport there is."""

    def __init__(self, receipts: ReceiptReader, metrics: WatcherMetrics) -> None:
        self._receipts = receipts
        self._metrics = metrics
        self._complaint = ""

    async def run(self, client: TeleportClient) -> None:
        """Write receipts into records for as long as it is let; never ends because something is refused or away."""
        backoff = Backoff(0.1, 5)
        while True:
            try:
                await self._receipts.open()
                await self._follow(client)
            except RedisError:  # the outbox says so; here is nothing to lose
                await asyncio.sleep(backoff.next())
            except TeleportUnavailable:  # if it is the connection, whoever watches will end this
                await asyncio.sleep(backoff.next())
            except TeleportRefused as error:
                self._complain(f"receipts cannot be witnessed in Teleport: {error}")
                await asyncio.sleep(REFUSED_SECONDS)

    async def _follow(self, client: TeleportClient) -> None:
        loop = asyncio.get_running_loop()
        upkeep = loop.time()
        while True:
            batch: list[WrittenReceipt | Unreadable] = []
            if loop.time() >= upkeep:
                batch = await self._receipts.left(BATCH, LEFT_MILLISECONDS)
                if len(batch) < BATCH:
                    upkeep = loop.time() + UPKEEP_SECONDS
                    await self._receipts.remove_dead_consumers()
            if not batch:
                batch = await self._receipts.new(BATCH, BLOCK_MILLISECONDS)
            if batch and len(batch) < BATCH:
                await asyncio.sleep(GATHER_SECONDS)
                batch += await self._receipts.new(BATCH - len(batch), None)
            await self._write_all(client, batch)

    async def _write_all(self, client: TeleportClient, batch: Sequence[WrittenReceipt | Unreadable]) -> None:
        """Write what can be written. Raises the error that will meet the others, too, and leaves them."""
        unreadable = [one.entry for one in batch if isinstance(one, Unreadable)]
        await self._done(unreadable, Witnessed.UNREADABLE)
        requests: defaultdict[str, list[WrittenReceipt]] = defaultdict(list)
        for one in batch:
            if isinstance(one, WrittenReceipt):
                requests[one.request_id].append(one)
        remembered = await self._receipts.remembered(list(requests)) if requests else {}
        room = asyncio.Semaphore(WRITTEN_AT_ONCE)
        trouble: list[TeleportError | RedisError] = []

        async def write(request_id: str, receipts: Sequence[WrittenReceipt]) -> None:
            async with room:
                if not trouble:
                    try:
                        await self._write(client, request_id, receipts, remembered.get(request_id))
                    except (TeleportError, RedisError) as error:
                        trouble.append(error)

        async with asyncio.TaskGroup() as group:
            for request_id, receipts in requests.items():
                group.create_task(write(request_id, receipts))
        if trouble:
            raise trouble[0]

    async def _write(
        self, client: TeleportClient, request_id: str, receipts: Sequence[WrittenReceipt], known: ToldRequest | None
    ) -> None:
        entries = [receipt.entry for receipt in receipts]
        if known is None:
            # Where Redis has just lost its data the router learns of the request again in a moment.
            await self._done([one.entry for one in receipts if one.was_left], Witnessed.FORGOTTEN)
            return
        news = await self._news(request_id, receipts, known)
        try:
            if news.says_something:
                await self._swap(client, request_id, news)
        except TeleportNotFound:
            await self._done(entries, Witnessed.GONE)
        except TeleportConflict:
            self._left(request_id, entries, Witnessed.CONTENDED, "others change it all the time")
        except TeleportInvalid as error:
            self._left(request_id, entries, Witnessed.FULL, str(error))
        except TeleportUnavailable:
            self._metrics.witnessed.labels(Witnessed.UNAVAILABLE.value).inc(len(entries))
            raise
        except TeleportRefused:
            self._metrics.witnessed.labels(Witnessed.REFUSED.value).inc(len(entries))
            raise
        else:
            self._works()
            self._metrics.last_witnessed.set_to_current_time()
            await self._done(entries, Witnessed.WRITTEN)

    async def _swap(self, client: TeleportClient, request_id: str, news: News) -> None:
        """Read, merge, compare and swap. Raises `TeleportConflict` if others were faster each time."""
        for tries in range(1, COMPARE_TRIES + 1):
            entry = await client.plugin_entry(request_id)
            before = {key: entry.get(key, "") for key in KEYS}
            after = merged(entry, news)
            if after == before:
                return
            try:
                await client.update_plugin_entry(request_id, before, after)
            except TeleportConflict:
                if tries == COMPARE_TRIES:
                    raise
                await asyncio.sleep(random.uniform(0, CONTENDED_SECONDS * tries))  # noqa: S311 spreads, hides nothing
            else:
                return

    async def _news(self, request_id: str, receipts: Sequence[WrittenReceipt], known: ToldRequest) -> News:
        """What these receipts add. A review or resolution counts once nobody who was told is still to hear of it."""
        notices = [receipt.notice for receipt in receipts if receipt.notice.kind is not NoticeKind.REQUESTED]
        settled = await self._receipts.settled(request_id, notices, known.told) if notices else set()
        resolutions = [RESOLUTIONS[notice.kind] for notice in settled if notice.kind in RESOLUTIONS]
        # Reasons are cut to what a mail shows of them, which is all that whoever reads the record wants of them: the Go
        # plugin compares what it has read, not what Teleport holds. What a record can hold is for the threads.
        request = known.facts.request
        return News(
            user=request.user if request else "",
            roles=request.roles if request else (),
            request_reason=request.request_reason if request else "",
            threads=_threads(request_id, receipts, known),
            review_count=max((notice.review or 0 for notice in settled), default=0),
            resolution=max(resolutions, key=list(Resolution).index, default=None),
            resolve_reason=request.resolve_reason if request else "",
        )

    # -- what is counted and said

    async def _done(self, entries: Sequence[str], how: Witnessed) -> None:
        await self._receipts.done(entries)
        self._metrics.witnessed.labels(how.value).inc(len(entries))

    def _left(self, request_id: str, entries: Sequence[str], why: Witnessed, reason: str) -> None:
        self._metrics.witnessed.labels(why.value).inc(len(entries))
        log.warning("request %s: its record in Teleport is left for later: %s", request_id, reason)

    def _complain(self, trouble: str) -> None:
        if trouble != self._complaint:
            log.warning(
                "%s; mails go out all the same, but whoever has had one has it again should Redis lose its data. "
                "Give the role `update` on `access_plugin_data`; will be tried again",
                trouble,
            )
        self._complaint = trouble

    def _works(self) -> None:
        if self._complaint:
            log.info("receipts are witnessed in Teleport again")
        self._complaint = ""


def _threads(request_id: str, receipts: Sequence[WrittenReceipt], known: ToldRequest) -> tuple[Thread, ...]:
    told = {person.hash: person for person in known.told}
    threads = []
    for receipt in receipts:
        person = told.get(receipt.recipient_hash)
        if person is not None and receipt.notice.kind is NoticeKind.REQUESTED and receipt.perhaps_read:
            message_id = f"{mail_id(request_id, receipt.notice, person)}@{known.facts.message_id_domain}"
            threads.append(Thread(person.address, as_go_writes(receipt.written), message_id))
    return tuple(threads)
