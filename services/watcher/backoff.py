"""Pauses between tries that grow and are spread, so that many who wait for one server do not come back together."""

import random


class Backoff:
    """Decorrelated jitter: each pause is between the first one and three times the one before, up to the longest."""

    def __init__(self, first: float, longest: float) -> None:
        """Both in seconds."""
        self._first = first
        self._longest = longest
        self._last = first

    def next(self) -> float:
        """Seconds to wait before the next try."""
        self._last = min(self._longest, random.uniform(self._first, self._last * 3))  # noqa: S311 spreads, hides nothing
        return self._last

    def lasted(self, seconds: float) -> None:
        """What was tried worked for so long: short pauses again, if that is longer than any pause.

        Who is cut off at once again and again, however far it came, must not hammer.
        """
        if seconds > self._longest:
            self._last = self._first
