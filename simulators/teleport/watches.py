"""The open watches of a simulated cluster: whoever changes something tells all of them, from whichever thread."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Lock

from grpc import StatusCode

from services.watcher.teleport.pb import auth_pb2
from simulators.teleport.errors import TraceError


@dataclass(frozen=True)
class End:
    """The stream ends with this status; OK is a clean end of file."""

    code: StatusCode
    text: str


@dataclass(frozen=True, eq=False)
class Watch:
    """One client's stream of events."""

    kinds: frozenset[str]
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)
    waiting: asyncio.Queue[auth_pb2.Event | End] = field(default_factory=asyncio.Queue)

    def put(self, item: auth_pb2.Event | End) -> None:
        """Add to the stream, from any thread."""
        self.loop.call_soon_threadsafe(self.waiting.put_nowait, item)

    async def events(self) -> AsyncIterator[auth_pb2.Event]:
        """Yield what happens until the stream is ended. Raises `TraceError` if it is to end with an error."""
        while True:
            item = await self.waiting.get()
            if isinstance(item, auth_pb2.Event):
                yield item
            elif item.code is StatusCode.OK:
                return
            else:
                raise TraceError(item.code, item.text)


class Watches:
    """All open watches."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._open: set[Watch] = set()

    def __len__(self) -> int:
        return len(self._open)

    @property
    def unsent(self) -> int:
        """How many events wait for clients that take no more."""
        with self._lock:
            return sum(watch.waiting.qsize() for watch in self._open)

    @contextmanager
    def opened(self, kinds: Iterable[str]) -> Iterator[Watch]:
        """Register a watch of these kinds on the running loop for as long as the block lasts."""
        watch = Watch(frozenset(kinds))
        with self._lock:
            self._open.add(watch)
        try:
            yield watch
        finally:
            with self._lock:
                self._open.discard(watch)

    def publish(self, kind: str, event: auth_pb2.Event) -> None:
        """Show the event to all who watch this kind."""
        with self._lock:
            for watch in self._open:
                if kind in watch.kinds:
                    watch.put(event)

    def publish_to_all(self, item: auth_pb2.Event | End) -> None:
        """Put an event or an end into every stream, whatever it watches."""
        with self._lock:
            for watch in self._open:
                watch.put(item)
