"""What can go wrong with a cluster, on demand: plain attributes that last, and methods for what happens once."""

import asyncio
from collections import Counter, defaultdict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from grpc import StatusCode

from services.watcher.teleport.pb import auth_pb2
from simulators.teleport.errors import TraceError
from simulators.teleport.messages import UNKNOWN_RESOURCE_EVENT
from simulators.teleport.watches import End, Watches


class Faults:
    """The faults of one simulated cluster. Methods are named as Teleport's gRPC methods, such as `WatchEvents`."""

    def __init__(self, watches: Watches) -> None:
        self.denied_kinds: set[str] = set()
        """Kinds that nobody may watch; of rules, nor list."""
        self.unimplemented: set[str] = set()
        """Methods that this cluster does not have, as `ListAccessRequests` in an old one."""
        self.delays: dict[str, float] = {}
        """Seconds by method before a call is looked at; for `WatchEvents`, before INIT is sent."""
        self.first_event: auth_pb2.Event | None = None
        """What opens a watch in place of INIT."""
        self.lose_events = False
        """While true, changes happen unseen by all watches."""
        self.denied: set[str] = set()
        """Methods that nobody may call, such as `GetUser`."""
        self.latin_1: set[str] = set()
        """Ids of requests, names of roles and rules in which every é is sent in Latin-1, which is no UTF-8."""
        self.calls: Counter[str] = Counter()
        """How often each method was called."""
        self.most_at_once: Counter[str] = Counter()
        """How many calls of each method were open at the same time, at most."""
        self._open: Counter[str] = Counter()
        self._watches = watches
        self._failures: defaultdict[str, deque[TraceError]] = defaultdict(deque)

    def fail(self, method: str, code: StatusCode, *, times: int = 1, text: str = "refused on demand") -> None:
        """Refuse the next `times` calls of the method, after those already scripted."""
        self._failures[method].extend([TraceError(code, text)] * times)

    def fail_compare(self, times: int = 1) -> None:
        """Answer the next `times` updates of plugin data as if another plugin had been faster (CompareFailed)."""
        text = 'expectations not met for field "user"'
        self.fail("UpdatePluginData", StatusCode.FAILED_PRECONDITION, times=times, text=text)

    def end_streams(self, code: StatusCode = StatusCode.OK, text: str = "ended on demand") -> None:
        """End every open watch once it has sent what came before; with OK it is a clean end of file."""
        self._watches.publish_to_all(End(code, text))

    def send(self, event: auth_pb2.Event) -> None:
        """Send this event to every open watch as it is."""
        self._watches.publish_to_all(event)

    def send_unknown_event(self) -> None:
        """Send every open watch an event about a resource that only newer servers know (field number 99)."""
        self.send(auth_pb2.Event.FromString(UNKNOWN_RESOURCE_EVENT))

    @asynccontextmanager
    async def met(self, method: str) -> AsyncIterator[None]:
        """A call of the method, which suffers what was scripted for it. Raises `TraceError` if it is to fail."""
        self.calls[method] += 1
        self._open[method] += 1
        self.most_at_once[method] = max(self.most_at_once[method], self._open[method])
        try:
            await self._meet(method)
            yield
        finally:
            self._open[method] -= 1

    async def _meet(self, method: str) -> None:
        await asyncio.sleep(self.delays.get(method, 0))
        if method in self.unimplemented:
            raise TraceError(StatusCode.UNIMPLEMENTED, f"unknown method {method} for service proto.AuthService")
        if method in self.denied:
            raise TraceError(StatusCode.PERMISSION_DENIED, f"access denied to {method}")
        if self._failures[method]:
            raise self._failures[method].popleft()
