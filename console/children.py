"""The processes of `access-mail start`: tied to it, watched together, stopped in order."""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Awaitable, Mapping, Sequence
from typing import NoReturn, TypeVar

from console import tether

T = TypeVar("T")


class ChildEnded(Exception):
    """A process that belongs to the whole has ended by itself; the text says which, and how."""

    def __init__(self, name: str, status: int) -> None:
        how = f"exit status {status}" if status >= 0 else f"signal {signal.Signals(-status).name}"
        super().__init__(f"{name} has ended with {how}")
        self.name = name


class Children:
    """Processes by name. None outlives this one, in whatever way it ends."""

    def __init__(self) -> None:
        self._processes: dict[str, Process] = {}

    async def spawn(
        self, name: str, command: Sequence[str], environ: Mapping[str, str], inherited: tuple[int, ...] = ()
    ) -> None:
        """Start a process. A Ctrl-C in the terminal is for us: the child has a session of its own.

        Call it in the main thread: the kernel ties a child to the thread that made it.
        """
        tied = [sys.executable, "-I", "-S", tether.__file__, str(os.getpid()), *command]
        self._processes[name] = await asyncio.create_subprocess_exec(
            *tied, env=environ, pass_fds=inherited, stdin=DEVNULL, start_new_session=True
        )

    def send(self, number: signal.Signals, names: Sequence[str]) -> None:
        """Send a signal to those that live."""
        for name in names:
            process = self._processes.get(name)
            if process is not None and process.returncode is None:
                process.send_signal(number)

    async def one_ends(self) -> NoReturn:
        """Wait until a process ends. Raises `ChildEnded`, always."""
        waits = {asyncio.create_task(process.wait()): name for name, process in self._processes.items()}
        try:
            done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        ended = done.pop()
        raise ChildEnded(waits[ended], ended.result())

    async def meanwhile(self, awaited: Awaitable[T]) -> T:
        """The awaited result, as long as all processes live. Raises `ChildEnded`."""
        result = asyncio.ensure_future(awaited)
        end = asyncio.create_task(self.one_ends())
        try:
            await asyncio.wait({result, end}, return_when=asyncio.FIRST_COMPLETED)
            return end.result() if end.done() else result.result()
        finally:
            result.cancel()
            end.cancel()
            await asyncio.gather(result, end, return_exceptions=True)

    async def stop(self, seconds: Mapping[str, float]) -> None:
        """SIGTERM for one after the other, in this order and each with its seconds; the last waits for all others."""
        *earlier, last = seconds
        for name in earlier:
            await self._stop_one(name, seconds[name])
        self.send(signal.SIGKILL, earlier)
        await self._stop_one(last, seconds[last])
        self.send(signal.SIGKILL, [last])
        await asyncio.gather(*(process.wait() for process in self._processes.values()))

    async def _stop_one(self, name: str, seconds: float) -> None:
        self.send(signal.SIGTERM, [name])
        process = self._processes.get(name)
        if process is not None:
            await asyncio.wait({asyncio.ensure_future(process.wait())}, timeout=seconds)
