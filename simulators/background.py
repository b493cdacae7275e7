"""Runs a simulator beside code that has no event loop, such as a demo or a test of a whole process."""

import asyncio
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from threading import Thread
from typing import TypeVar

Simulator = TypeVar("Simulator")


@contextmanager
def in_background(simulator: AbstractAsyncContextManager[Simulator]) -> Iterator[Simulator]:
    """Enter the simulator on a loop of its own in a thread, and leave it at the end. Raises what entering raises."""
    loop = asyncio.new_event_loop()
    thread = Thread(target=loop.run_forever, name="simulator")
    thread.start()
    try:
        entered = asyncio.run_coroutine_threadsafe(simulator.__aenter__(), loop).result()
        try:
            yield entered
        finally:
            asyncio.run_coroutine_threadsafe(simulator.__aexit__(None, None, None), loop).result()
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
