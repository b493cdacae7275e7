"""What all mailers know of the relay together: said once when it changes, and measured."""

import logging
import re

from services.mailer.errors import Trouble
from services.mailer.seam import WorkerMetrics
from shared.mail_queue.mailer_end import Claims
from shared.relay import RelayState

log = logging.getLogger(__name__)

_ADDRESS = re.compile(r"<?[^\s<>@]+@[^\s<>@]+>?")
"""A relay's answer may repeat one, and no address stands in a log."""


class RelayWatch:
    """Told of each claim."""

    def __init__(self, metrics: WorkerMetrics) -> None:
        self._metrics = metrics
        self._last = RelayState()
        self._is_told = False
        """Does the log say that it turns this mailer away?"""

    @property
    def turns_us_away(self) -> str | None:
        """Why this mailer alone can send nothing; None: it can, or all mailers fare alike, or the relay has no time."""
        reason, detail = self._last.turns_us_away, _without_addresses(self._last.detail)
        if reason in (None, Trouble.BUSY):
            return None
        return f"the relay turns only this mailer away ({reason}: {detail})"

    def sees(self, claims: Claims) -> None:
        """The relay as this claim has found it."""
        state = claims.relay
        if claims.is_probe:
            self._metrics.relay_probed()
        if state == self._last:
            return
        self._metrics.relay_seen(state)
        if state.held is not None and self._last.held is None:
            log.error(
                "the relay is held (%s: %s): all mails wait and none is lost, one at a time tries it again",
                state.held,
                _without_addresses(state.detail),
            )
        if state.held is None and self._last.held is not None:
            log.info("the relay lets us in again")
        self._last = state
        if not self._is_told and self.turns_us_away is not None:
            self._is_told = True
            log.error("%s; others send its mails, and it tries one at a time", self.turns_us_away)
        if self._is_told and state.reason is None:
            self._is_told = False
            log.info("the relay does not turn this mailer away any more")


def _without_addresses(detail: str) -> str:
    return _ADDRESS.sub("<address>", detail)
