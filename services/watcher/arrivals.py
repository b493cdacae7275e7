"""Events on their way to the stream while it is looked up what they are about.

Those of one request leave in the order in which they came; those of different requests never wait for one another.
"""

import asyncio
from collections import defaultdict, deque

from services.watcher.enrich import Incoming
from shared.events import request_id_of

GATHER_SECONDS = 0.02
"""While others are looked up: to append each alone would cost more than to look it up."""


class Arrivals:
    """Holds so many events at most, so that whoever brings more has to wait."""

    def __init__(self, limit: int) -> None:
        self._room = asyncio.Semaphore(limit)
        self._lines: defaultdict[str, deque[Incoming]] = defaultdict(deque)
        self._ready: asyncio.Queue[Incoming] = asyncio.Queue()
        """The first of each line, once all is known about it."""

    def __len__(self) -> int:
        return sum(map(len, self._lines.values()))

    async def put(self, incoming: Incoming) -> None:
        """Add an event behind the others of its request."""
        await self._room.acquire()
        line = self._lines[request_id_of(incoming.event)]
        line.append(incoming)
        if len(line) == 1:
            self._attend(incoming)

    async def take(self, most: int) -> list[Incoming]:
        """Wait for an event that is looked up, and give it with what else is. Each is of another request."""
        batch = [await self._ready.get()]
        if len(self._lines) > 1:
            await asyncio.sleep(GATHER_SECONDS)
        while len(batch) < most and not self._ready.empty():
            batch.append(self._ready.get_nowait())
        return batch

    def told(self, batch: list[Incoming]) -> None:
        """These are on the stream, or need not be: the next ones of their requests may follow."""
        for incoming in batch:
            request_id = request_id_of(incoming.event)
            line = self._lines[request_id]
            line.popleft()
            if line:
                self._attend(line[0])
            else:
                del self._lines[request_id]
            self._room.release()
            incoming.told.set_result(None)

    def _attend(self, first: Incoming) -> None:
        first.look_up.add_done_callback(lambda _: self._ready.put_nowait(first))
