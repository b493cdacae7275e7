"""Ends asyncio tasks for certain, and those together that cannot do without each other."""

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

AGAIN_SECONDS = 0.5

T = TypeVar("T")


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


class Crew:
    """Tasks that live and die together: what one of them raises ends all of them, for certain.

    `asyncio.TaskGroup` cancels once, and would then wait for ever for a task that has swallowed that: see `end`.
    """

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def start(self, coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Let it run beside the others."""
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    async def run(self, main: Coroutine[Any, Any, T]) -> T:
        """What `main` returns, after which all others are ended; raises what any of them has raised before that."""
        task = self.start(main)
        try:
            awaited: set[asyncio.Future[Any]] = {task, self._failed}
            await asyncio.wait(awaited, return_when=asyncio.FIRST_COMPLETED)
            if self._failed.done():
                self._failed.result()
            return task.result()
        finally:
            self._failed.cancel()
            await end(self._tasks)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and not self._failed.done():
            self._failed.set_exception(error)
