"""Who the watcher is to Teleport: read at the start, looked at again now and then, and never old without a word."""

import asyncio
import logging
from datetime import UTC, datetime

from services.watcher.metrics import WatcherMetrics
from services.watcher.teleport.identity import Identity, IdentityError
from shared.settings import TeleportSettings

log = logging.getLogger(__name__)

LOOK_SECONDS = 1.0

STEPS = (0.0, 0.01, 0.05, 0.1, 0.2)
"""Shares of a certificate's lifetime: when no more than one of them is left it is said, once for each."""


class Credentials:
    """The settings and the identity that the next connection is to use."""

    def __init__(self, settings: TeleportSettings, metrics: WatcherMetrics) -> None:
        """Raises `IdentityError` if they cannot be used: no patience would mend that."""
        self.settings = settings
        self.identity = Identity.load(settings)
        self.renewed = asyncio.Event()
        """Set when they are others than before: whoever connects clears it first."""
        self._metrics = metrics
        self._metrics.identity_expiry.set(self.identity.not_after.timestamp())

    def use(self, settings: TeleportSettings, identity: Identity) -> None:
        """Take these over if anything is new in them."""
        if (settings, identity) == (self.settings, self.identity):
            return
        self.settings = settings
        self.identity = identity
        self._metrics.identity_expiry.set(identity.not_after.timestamp())
        log.info("new credentials or settings: as %s until %s", identity.user, identity.not_after.isoformat())
        self.renewed.set()

    def read_again(self) -> None:
        """Look for better ones on disk. Raises `IdentityError` and keeps what there is."""
        self.use(self.settings, Identity.load(self.settings))

    async def refresh(self) -> None:
        """Look at the file at every interval. What will not do is said once, and what is in use is kept."""
        said = ""
        while True:
            await asyncio.sleep(self.settings.refresh_identity_interval.total_seconds())
            if not self.settings.refresh_identity:
                continue
            try:
                self.read_again()
                said = ""
            except IdentityError as error:
                if str(error) != said:
                    log.error("%s; the credentials in use are kept", error)  # noqa: TRY400 the sentence says it all
                said = str(error)

    async def warn(self) -> None:
        """Say that the certificate in use will end, and that it has ended, once at every step."""
        said: tuple[Identity, float | None] = (self.identity, None)
        while True:
            step = step_of(self.identity, datetime.now(UTC))
            if (self.identity, step) != said and step is not None:
                self._tell(self.identity)
            said = (self.identity, step)
            await asyncio.sleep(LOOK_SECONDS)

    def _tell(self, identity: Identity) -> None:
        try:
            identity.ensure_valid(datetime.now(UTC))
        except IdentityError as error:
            log.error("%s; no new connection can be made", error)  # noqa: TRY400 the sentence says it all
            return
        then = "" if self.settings.refresh_identity else ", then reload (SIGHUP)"
        ends = f"{identity.not_after:%Y-%m-%d %H:%M:%S} UTC"
        log.warning(
            "%s: the certificate of user %r ends %s; %s%s", identity.source, identity.user, ends, identity.renewal, then
        )


def step_of(identity: Identity, now: datetime) -> float | None:
    """The smallest of `STEPS` that the rest of the certificate's lifetime does not exceed; None: there is time."""
    left = (identity.not_after - now) / (identity.not_after - identity.not_before)
    return next((step for step in STEPS if left <= step), None)
