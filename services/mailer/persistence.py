"""Does things on Redis until it does its part; what is wrong meanwhile is said once and counted."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from redis.exceptions import RedisError

from shared.pulse import Pulse
from shared.redis_trouble import RedisTrouble

RETRY_SECONDS = (0.05, 1.0)
"""Redis away: pauses between tries, at random."""

T = TypeVar("T")


class Persistence:
    """The patience of all activities of one worker."""

    def __init__(self, trouble: RedisTrouble, pulse: Pulse, count_failure: Callable[[], None]) -> None:
        self._trouble = trouble
        self._pulse = pulse
        self._count_failure = count_failure

    async def until_done(self, activity: str, action: Callable[[], Awaitable[T]]) -> T:
        """What the action gives once Redis does its part."""
        while True:
            try:
                result = await self.once(activity, action)
            except RedisError:
                await self.pause()
            else:
                return result

    async def once(self, activity: str, action: Callable[[], Awaitable[T]]) -> T:
        """What the action gives. Raises `RedisError`, which is said and counted already."""
        self._pulse.turns(activity)
        try:
            result = await action()
        except RedisError as error:
            self._count_failure()
            self._trouble.failed(activity, error)
            raise
        self._trouble.answered(activity)
        return result

    async def every(self, seconds: float, activity: str, action: Callable[[], Awaitable[None]]) -> None:
        """Again and again, with this pause between; for ever."""
        while True:
            await self.until_done(activity, action)
            await asyncio.sleep(seconds)

    async def pause(self) -> None:
        """Before the next try."""
        await asyncio.sleep(random.uniform(*RETRY_SECONDS))  # noqa: S311  # no secret
