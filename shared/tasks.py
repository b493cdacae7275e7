"""Ends asyncio tasks for certain."""

import asyncio
from collections.abc import Iterable
from typing import Any

AGAIN_SECONDS = 0.5


async def end(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel the tasks and wait until they have ended; what they raise is passed over. A cancellation meanwhile waits.

    Once is not enough: redis-py writes through `asyncio.wait_for`, which before Python 3.12 swallows a cancellation
    that meets its result (https://github.com/python/cpython/issues/86296), and a loop then goes on for ever.
    """
    tasks = list(tasks)
    pending, is_cancelled = set(tasks), False
    while pending:
        for task in pending:
            task.cancel()
        try:
            _, pending = await asyncio.wait(pending, timeout=AGAIN_SECONDS)
        except asyncio.CancelledError:
            is_cancelled = True
    for task in tasks:
        if not task.cancelled():
            task.exception()  # otherwise asyncio complains that nobody has looked
    if is_cancelled:
        raise asyncio.CancelledError
