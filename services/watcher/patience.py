"""How long it is waited for what somebody may be told twice without: longer than a connection may last."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

PATIENT_SECONDS = 60.0
"""Without the answer somebody may be told twice; but nobody is to wait for ever."""

KEPT = 1_000
"""Waits that a connection's end has cut off; the oldest are forgotten first, and begin anew."""


class Patience:
    """Of one watcher, at all its connections: what was waited at one counts at the next."""

    def __init__(self) -> None:
        self.is_lost = False
        """Set once a wait was in vain: until something is answered, each is tried once."""
        self._waited: OrderedDict[str, float] = OrderedDict()

    @asynccontextmanager
    async def wait(self, request_id: str) -> AsyncIterator[None]:
        """Wait in the block as long as is left for this request. Raises `TimeoutError` when nothing is.

        Time without a connection does not count: nobody was asked.
        """
        waited, began = self._waited.get(request_id, 0.0), time.monotonic()
        try:
            async with asyncio.timeout(PATIENT_SECONDS - waited):
                yield
        except asyncio.CancelledError:
            self._note(request_id, waited + time.monotonic() - began)
            raise
        except BaseException:
            self._waited.pop(request_id, None)
            raise
        self._waited.pop(request_id, None)

    def _note(self, request_id: str, waited: float) -> None:
        """Several events of a request may wait at the same time."""
        self._waited[request_id] = max(waited, self._waited.pop(request_id, 0.0))
        if len(self._waited) > KEPT:
            self._waited.popitem(last=False)
