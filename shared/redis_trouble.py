"""What Redis does not do for a service: said once at the first failure, and once when all works again."""

import logging

from redis.exceptions import RedisError

log = logging.getLogger(__name__)


class RedisTrouble:
    """Kept by activity: a Redis that is full still answers what only reads, and that mends nothing."""

    def __init__(self, first: str) -> None:
        """`first` is the activity whose success is the connection."""
        self._failing = {first: "not connected to Redis yet"}
        self._well = "connected to Redis"
        self._said = False
        self.reason: str | None = self._failing[first]
        """What is missing; None while all is well. May be read in any thread."""

    def failed(self, activity: str, error: RedisError) -> None:
        """Redis was asked in vain."""
        self.waits(activity, f"Redis does not do its part: {error}")

    def waits(self, activity: str, reason: str) -> None:
        """It cannot be done for now, for a reason that concerns Redis."""
        if not self._said:
            log.warning("%s; will be tried again, nothing is lost", reason)
        self._said = True
        self._failing[activity] = self.reason = reason

    def answered(self, activity: str) -> None:
        """It worked."""
        if self._failing.pop(activity, None) is None or self._failing:
            return
        log.info("%s", self._well)
        self._well = "Redis does its part again"
        self._said = False
        self.reason = None
