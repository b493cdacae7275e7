"""How much the relay bears at once, as far as it has let us know: half after a complaint, then slowly more again."""

import logging
from collections.abc import Callable

log = logging.getLogger(__name__)

GROW_SECONDS = 10.0
"""After a relay's complaint the way is wider by one each time that so much time has passed."""


class Width:
    """How many connections the relay gets at once."""

    def __init__(self, most: int, clock: Callable[[], float]) -> None:
        self._most = most
        self._clock = clock
        self._width = most
        self._since = 0.0

    @property
    def now(self) -> int:
        """From one to `most`."""
        if self._width == self._most:
            return self._most
        return min(self._most, self._width + int((self._clock() - self._since) / GROW_SECONDS))

    def halve(self, at_once: int, began: float) -> None:
        """The relay is busy: half of what is there `at_once` will do.

        `began`: when what it complains about did, by the clock. Before it last got less, this is no news.
        """
        if began >= self._since:
            self.narrow(at_once // 2, "it is busy")

    def narrow(self, width: int, why: str) -> None:
        """No more than this many for now, but one in any case."""
        before = self.now
        if before > max(1, width):
            self._width, self._since = max(1, width), self._clock()
            log.info("the relay gets %d connections at once for now, not %d: %s", self._width, before, why)
