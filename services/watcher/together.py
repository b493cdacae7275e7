"""Coroutines that live and die together."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from shared.tasks import end


async def first_to_end(*coroutines: Coroutine[Any, Any, object]) -> None:
    """Run all until the first one ends, then cancel the others; raises what that one raised."""
    tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
    try:
        ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await end(tasks)  # what the others say to that is of no interest: the first one's end is why
    for task in ended:
        task.result()
