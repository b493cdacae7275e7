"""Waiting for a condition with a deadline and a description, in place of sleeping."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable

POLL_SECONDS = 0.02


async def wait_until(
    condition: Callable[[], object] | Callable[[], Awaitable[object]],
    description: str,
    timeout: float = 10,  # noqa: ASYNC109  # the deadline names what was waited for
) -> None:
    """Return as soon as the condition holds. Raises `AssertionError` with the description after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        result = condition()
        if inspect.isawaitable(result):
            result = await result
        if result:
            return
        if time.monotonic() > deadline:
            raise AssertionError(f"after {timeout:g} s still not: {description}")
        await asyncio.sleep(POLL_SECONDS)


def wait_for(condition: Callable[[], object], description: str, timeout: float = 10) -> None:
    """Like `wait_until`, for tests without a loop."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"after {timeout:g} s still not: {description}")
        time.sleep(POLL_SECONDS)
