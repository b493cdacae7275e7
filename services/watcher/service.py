"""The watcher's work: connect, follow, append; connect again for ever, with the credentials that are good now."""

import asyncio
import logging
import os
import secrets
import socket
from contextlib import suppress
from datetime import UTC, datetime
from typing import Self

from prometheus_client import CollectorRegistry
from redis.asyncio import Redis

from services.watcher.arrivals import Arrivals
from services.watcher.backoff import Backoff
from services.watcher.credentials import Credentials
from services.watcher.following import Following
from services.watcher.metrics import Reconnect, WatcherMetrics
from services.watcher.outbox import Outbox
from services.watcher.passed_over import PassedOver
from services.watcher.patience import Patience
from services.watcher.rules import Rules
from services.watcher.session import Session
from services.watcher.settings import WatcherConfiguration
from services.watcher.teleport.connect import connect
from services.watcher.teleport.errors import TeleportError, TeleportRefused, TeleportUnavailable
from services.watcher.teleport.identity import Identity, IdentityError
from services.watcher.together import first_to_end
from services.watcher.witness import Witness
from shared.event_log import EventWriter
from shared.pulse import Pulse
from shared.receipts import ReceiptReader
from shared.redis import connect_async
from shared.settings import Settings, SettingsError, TeleportSettings
from shared.stream_backlog import stream_backlog

log = logging.getLogger(__name__)

WAITING = 200
"""Events between Teleport and the stream. With more of them Teleport's own buffer fills, then Teleport hangs up."""

BATCH = 100
"""Events appended in one step."""

REDIS_CHECK_SECONDS = 5.0
FOLLOW = "follow"


class Watcher:
    """Follows one cluster until it is stopped; never ends because Teleport or Redis is away."""

    def __init__(self, redis: Redis, teleport: TeleportSettings, registry: CollectorRegistry) -> None:
        """Raises `IdentityError` if the credentials cannot be used: no patience would mend that."""
        self._redis = redis
        self._metrics = WatcherMetrics(registry)
        self._outbox = Outbox(EventWriter(redis), self._metrics)
        self._passed_over = PassedOver(self._metrics)
        self._rules = Rules(self._outbox, self._passed_over, self._metrics)
        consumer = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self._witness = Witness(ReceiptReader(redis, consumer), self._metrics)
        self._arrivals = Arrivals(WAITING)
        self._patience = Patience()
        self._soon = Backoff(0.02, 5)
        self._slowly = Backoff(1, 30)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping = asyncio.Event()
        self._following: Following | None = None
        self._trouble: str | None = "not connected to Teleport yet"
        self._complaint = ""
        self._pulse = Pulse(FOLLOW)
        self._credentials = Credentials(teleport, self._metrics)

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
            self._loop.call_soon_threadsafe(self._credentials.use, teleport, identity)
        else:
            self._credentials.use(teleport, identity)

    def live(self) -> str | None:
        """Has the loop turned lately? None if so."""
        return self._pulse.stalled()

    def ready(self) -> str | None:
        """What is missing; None while everything that Teleport holds is known and what it tells is appended."""
        following = self._following
        return self._outbox.trouble or self._trouble or (following.trouble if following else None)

    # -- the work

    async def work(self) -> None:
        """Work until `stop`."""
        self._loop = asyncio.get_running_loop()
        try:
            attendants = (self._turn(), self._credentials.refresh(), self._credentials.warn())
            await first_to_end(self._stopping.wait(), self._watch(), *attendants)
        finally:
            await self._redis.aclose()

    async def _watch(self) -> None:
        await self._outbox.open()
        await first_to_end(self._append(), self._check_redis(), self._keep_following())

    async def _keep_following(self) -> None:
        while True:
            try:
                await self._follow()
            except TeleportUnavailable as error:
                self._metrics.reconnects.labels(Reconnect.UNAVAILABLE.value).inc()
                self._complain(logging.WARNING, f"no connection to Teleport: {error}")
                await self._pause(self._soon)
            except (TeleportRefused, IdentityError) as error:
                self._metrics.reconnects.labels(Reconnect.REFUSED.value).inc()
                self._complain(logging.ERROR, f"no access to Teleport: {error}")
                with suppress(IdentityError):  # the error in hand says what is wrong
                    self._credentials.read_again()
                await self._pause(self._slowly)

    async def _follow(self) -> None:
        """Follow a connection until it ends, and where credentials or settings are new, its successor."""
        session = await self._connect()
        self._following, self._trouble, self._complaint = session.following, None, ""
        self._metrics.connected.set(1)
        try:
            while True:
                await session.until(self._credentials.renewed)
                successor = await self._successor(session)
                if successor:
                    session, left = successor, session
                    self._following = session.following
                    await left.end()
        finally:
            self._soon.lasted(session.seconds)
            self._slowly.lasted(session.seconds)
            self._following, self._trouble = None, "the connection to Teleport has ended"
            self._metrics.connected.set(0)
            await session.end()

    async def _successor(self, session: Session) -> Session | None:
        """A session with the new credentials that has looked at everything; None: it does not work, ask again.

        Until then the old one goes on. Both bring the same events meanwhile, which does no harm. Raises the
        `TeleportError` that ends the old one while the new one is waited for.
        """
        successor = None
        try:
            successor = await self._connect()
            await successor.until(successor.following.looked)
        except (TeleportError, IdentityError) as error:
            if successor:
                await successor.end()
            if str(error) != self._complaint:
                log.error("%s; the connection in use is kept, the new one tried again", error)  # noqa: TRY400 it says all
            self._complaint = str(error)
            with suppress(TimeoutError):
                async with asyncio.timeout(self._slowly.next()):
                    await session.until(self._credentials.renewed)
            self._credentials.renewed.set()
            return None
        except BaseException:
            if successor:
                await successor.end()
            raise
        self._complaint = ""
        self._metrics.reconnects.labels(Reconnect.RENEWED.value).inc()
        return successor

    async def _connect(self) -> Session:
        self._credentials.renewed.clear()
        teleport, identity = self._credentials.settings, self._credentials.identity
        identity.ensure_valid(datetime.now(UTC))
        connection = await connect(teleport.address, identity)
        log.info(
            "connected to cluster %s, Teleport %s, %s, as %s until %s",
            connection.server.cluster.name,
            connection.server.version,
            connection.route,
            identity.user,
            identity.not_after.isoformat(),
        )
        following = Following(
            connection,
            self._arrivals,
            self._outbox,
            rules=self._rules,
            witness=self._witness,
            patience=self._patience,
            passed_over=self._passed_over,
            metrics=self._metrics,
            snapshot_seconds=teleport.snapshot_interval.total_seconds(),
        )
        return Session(connection, following)

    def _complain(self, level: int, trouble: str) -> None:
        if trouble != self._complaint:
            log.log(level, "%s; will be tried again", trouble)
        self._trouble = self._complaint = trouble

    async def _pause(self, backoff: Backoff) -> None:
        seconds = backoff.next()
        log.debug("the next try is in %.3f s", seconds)
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._credentials.renewed.wait()

    async def _append(self) -> None:
        while True:
            batch = await self._arrivals.take(BATCH)
            known = [await incoming.known() for incoming in batch]
            await self._outbox.append([event for event in known if event is not None])
            self._arrivals.told(batch)

    async def _check_redis(self) -> None:
        while True:
            await asyncio.sleep(REDIS_CHECK_SECONDS)
            await self._outbox.check()

    async def _turn(self) -> None:
        while True:
            self._pulse.turns(FOLLOW)
            await asyncio.sleep(1)
