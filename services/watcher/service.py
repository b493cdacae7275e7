"""The watcher's work: connect, follow, append; connect again for ever, with the credentials that are good now."""

import asyncio
import logging
import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import Self

from prometheus_client import CollectorRegistry
from redis.asyncio import Redis

from services.watcher.backoff import Backoff
from services.watcher.following import Following
from services.watcher.metrics import Reconnect, WatcherMetrics
from services.watcher.outbox import Outbox
from services.watcher.settings import WatcherConfiguration
from services.watcher.teleport.client import TeleportRefused, TeleportUnavailable
from services.watcher.teleport.connect import connect
from services.watcher.teleport.identity import Identity, IdentityError
from services.watcher.together import first_to_end
from shared.event_log import EventWriter
from shared.events import RequestChanged, RequestGone
from shared.redis import connect_async
from shared.settings import Settings, SettingsError, TeleportSettings
from shared.stream_backlog import stream_backlog

log = logging.getLogger(__name__)

QUEUE = 200
"""Events between Teleport and the stream. Once it is full Teleport's own buffer fills, then Teleport hangs up."""

BATCH = 100
"""Events appended in one step."""

REDIS_CHECK_SECONDS = 5.0
STALLED_SECONDS = 30.0


class Watcher:
    """Follows one cluster until it is stopped; never ends because Teleport or Redis is away."""

    def __init__(self, redis: Redis, teleport: TeleportSettings, registry: CollectorRegistry) -> None:
        """Raises `IdentityError` if the credentials cannot be used: no patience would mend that."""
        self._redis = redis
        self._teleport = teleport
        self._metrics = WatcherMetrics(registry)
        self._outbox = Outbox(EventWriter(redis), self._metrics)
        self._events: asyncio.Queue[RequestChanged | RequestGone] = asyncio.Queue(QUEUE)
        self._soon = Backoff(0.02, 5)
        self._slowly = Backoff(1, 30)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping = asyncio.Event()
        self._renewed = asyncio.Event()
        self._following: Following | None = None
        self._trouble: str | None = "not connected to Teleport yet"
        self._complaint = ""
        self._turned = time.monotonic()
        self._identity = Identity.load(teleport)
        self._metrics.identity_expiry.set(self._identity.not_after.timestamp())

    @classmethod
    def from_settings(cls, settings: Settings, registry: CollectorRegistry) -> Self:
        """The watcher as its process runs it. Raises `SettingsError`, also for credentials that cannot be used."""
        teleport = WatcherConfiguration.of(settings).teleport
        registry.register(stream_backlog(settings.redis, "watcher"))
        try:
            return cls(connect_async(settings.redis, "watcher"), teleport, registry)
        except IdentityError as error:
            raise SettingsError([str(error)]) from error

    # -- as the process drives it

    def run(self) -> None:
        """Work until `stop`."""
        asyncio.run(self.work())

    def stop(self) -> None:
        """End `run`. What is not appended by then is found by the next watcher's first snapshot."""
        if self._loop is not None and self._loop.is_running():
            self._loop.call_soon_threadsafe(self._stopping.set)
        else:
            self._stopping.set()

    def reload(self, settings: Settings) -> None:
        """Take over changed settings and read the credentials again. Raises `SettingsError` and keeps the old ones."""
        teleport = WatcherConfiguration.of(settings).teleport
        try:
            identity = Identity.load(teleport)
        except IdentityError as error:
            raise SettingsError([str(error)]) from error
        if self._loop is not None and self._loop.is_running():
            self._loop.call_soon_threadsafe(self._use, teleport, identity)
        else:
            self._use(teleport, identity)

    def live(self) -> str | None:
        """Has the loop turned lately? None if so."""
        stalled = time.monotonic() - self._turned
        return f"the loop has not turned for {stalled:.0f} s" if stalled > STALLED_SECONDS else None

    def ready(self) -> str | None:
        """What is missing; None while everything that Teleport holds is known and what it tells is appended."""
        following = self._following
        return self._outbox.trouble or self._trouble or (following.trouble if following else None)

    # -- the work

    async def work(self) -> None:
        """Work until `stop`."""
        self._loop = asyncio.get_running_loop()
        try:
            await first_to_end(self._stopping.wait(), self._turn(), self._refresh(), self._watch())
        finally:
            await self._redis.aclose()

    async def _watch(self) -> None:
        await self._outbox.open()
        await first_to_end(self._append(), self._check_redis(), self._keep_following())

    async def _keep_following(self) -> None:
        while True:
            self._renewed.clear()
            try:
                await first_to_end(self._renewed.wait(), self._follow())
                self._metrics.reconnects.labels(Reconnect.RENEWED.value).inc()
            except TeleportUnavailable as error:
                self._metrics.reconnects.labels(Reconnect.UNAVAILABLE.value).inc()
                self._complain(logging.WARNING, f"no connection to Teleport: {error}")
                await self._pause(self._soon)
            except (TeleportRefused, IdentityError) as error:
                self._metrics.reconnects.labels(Reconnect.REFUSED.value).inc()
                self._complain(logging.ERROR, f"no access to Teleport: {error}")
                with suppress(IdentityError):  # the error in hand says what is wrong
                    self._use(self._teleport, Identity.load(self._teleport))
                await self._pause(self._slowly)

    async def _follow(self) -> None:
        self._identity.ensure_valid(datetime.now(UTC))
        connection = await connect(self._teleport.address, self._identity)
        seconds = self._teleport.snapshot_interval.total_seconds()
        following = Following(connection, self._events, self._outbox, self._metrics, seconds)
        async with connection.client:
            log.info(
                "connected to cluster %s, Teleport %s, %s, as %s until %s",
                connection.server.cluster.name,
                connection.server.version,
                connection.route,
                self._identity.user,
                self._identity.not_after.isoformat(),
            )
            self._following, self._trouble, self._complaint = following, None, ""
            try:
                await following.run()
            finally:
                if following.caught_up:
                    # Only now: a server that takes a connection and cuts it at once must not be hammered.
                    self._soon.reset()
                    self._slowly.reset()
                self._following, self._trouble = None, "the connection to Teleport has ended"

    def _complain(self, level: int, trouble: str) -> None:
        if trouble != self._complaint:
            log.log(level, "%s; will be tried again", trouble)
        self._trouble = self._complaint = trouble

    async def _pause(self, backoff: Backoff) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(backoff.next()):
                await self._renewed.wait()

    async def _append(self) -> None:
        while True:
            batch = [await self._events.get()]
            while len(batch) < BATCH and not self._events.empty():
                batch.append(self._events.get_nowait())
            await self._outbox.append(batch)

    async def _check_redis(self) -> None:
        while True:
            await asyncio.sleep(REDIS_CHECK_SECONDS)
            await self._outbox.check()

    async def _turn(self) -> None:
        while True:
            self._turned = time.monotonic()
            await asyncio.sleep(1)

    # -- credentials

    async def _refresh(self) -> None:
        """Look at the file now and then. What will not do is said once, and what is in use is kept."""
        said = ""
        while True:
            await asyncio.sleep(self._teleport.refresh_identity_interval.total_seconds())
            if not self._teleport.refresh_identity:
                continue
            try:
                self._use(self._teleport, Identity.load(self._teleport))
                said = ""
            except IdentityError as error:
                if str(error) != said:
                    log.error("%s; the credentials in use are kept", error)  # noqa: TRY400 the sentence says it all
                said = str(error)

    def _use(self, teleport: TeleportSettings, identity: Identity) -> None:
        """Connect anew if anything has changed."""
        if (teleport, identity) == (self._teleport, self._identity):
            return
        self._teleport = teleport
        self._identity = identity
        self._metrics.identity_expiry.set(identity.not_after.timestamp())
        log.info("new credentials or settings: as %s until %s", identity.user, identity.not_after.isoformat())
        self._renewed.set()
