"""One connection to Teleport and its following, as a task: so it can begin before the one before it is given up."""

import asyncio
import time

from services.watcher.following import Following
from services.watcher.teleport.connect import Connection
from shared.tasks import end


class Session:
    """Follows a connection from its construction on. Whoever made it ends it."""

    def __init__(self, connection: Connection, following: Following) -> None:
        self.following = following
        self._connection = connection
        self._began = time.monotonic()
        self._work = asyncio.create_task(following.run())

    @property
    def seconds(self) -> float:
        """How long it has lasted."""
        return time.monotonic() - self._began

    async def until(self, event: asyncio.Event) -> None:
        """Wait for the event. Raises the `TeleportError` that ends this session, if that comes first."""
        waiting = asyncio.create_task(event.wait())
        try:
            await asyncio.wait((self._work, waiting), return_when=asyncio.FIRST_COMPLETED)
        finally:
            await end([waiting])
        if self._work.done():
            self._work.result()

    async def end(self) -> None:
        """Stop following, and close the connection."""
        try:
            await end([self._work])
        finally:
            await self._connection.client.close()
