"""What Redis does not do for the worker: said once at the first failure, and once when all works again."""

import logging

from redis.exceptions import RedisError

log = logging.getLogger(__name__)


class RedisTrouble:
    """Kept by activity: a Redis that is full still answers what only reads, and that mends nothing."""

    def __init__(self, first: str) -> None:
        """`first` is the activity whose success is the connection."""
        self._failing = {first: "not connected to Redis yet"}
        self._said = False
        self.reason: str | None = self._failing[first]
        """Why no mail can be taken; None while all is well. May be read in any thread."""

    def failed(self, activity: str, error: RedisError) -> None:
        """It was tried in vain."""
        if not self._said:
            log.warning("Redis does not do its part (%s): will be tried again, nothing is lost", error)
        self._said = True
        self._failing[activity] = self.reason = f"Redis: {error}"

    def answered(self, activity: str) -> None:
        """It worked."""
        if self._failing.pop(activity, None) is None or self._failing:
            return
        log.info("connected to Redis")
        self._said = False
        self.reason = None
