"""The calls that we make to Teleport's Auth Service.

TeleportError                  the watcher's one vocabulary of failure towards Teleport
├── TeleportUnavailable        nobody answers, or the answer was cut off: try again soon
└── TeleportRefused            Teleport answers no: try again slowly, an operator must change something
    ├── TeleportNotFound       … because what the call is about does not exist
    └── TeleportUnimplemented  … because its version does not know the call
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from types import TracebackType
from typing import Any, Self, TypeAlias, cast

import grpc
from google.protobuf.message import Message
from grpc import aio

from services.watcher.teleport.decode import (
    KIND,
    PLUGIN,
    RULE_KIND,
    AuthServer,
    Decoded,
    WatchEvent,
    accepted_kinds,
    decode_event,
    decode_ping,
    decode_request,
    decode_rule,
    is_init,
)
from services.watcher.teleport.dial import SERVER_NAME, Route, describe, is_refusal
from services.watcher.teleport.identity import Identity
from services.watcher.teleport.pb import auth_pb2, rules_pb2, types_pb2
from services.watcher.teleport.pb.auth_pb2_grpc import AuthServiceStub
from services.watcher.teleport.pb.rules_pb2_grpc import AccessMonitoringRulesServiceStub
from services.watcher.teleport.tunnel import Tunnel
from shared.events import AccessMonitoringRule

CLIENT_VERSION = "18.2.8"
"""Teleport's version whose API we speak: servers convert some resources for clients that name none."""

INIT_SECONDS = 15
"""Teleport's own client waits so long for a watch to begin."""

CALL_SECONDS = 30

PAGE = 100
"""Requests per call of a listing."""

RULES_SECONDS = 10
"""For a page of rules: what happens meanwhile waits, and Teleport hangs up on who is slow for 30 s."""

RULES_PAGE = 100

# Keepalive as in Teleport's own client: its servers hang up on who pings more often than once a minute.
# A page of requests may exceed gRPC's default of 4 MiB, which Teleport does not limit when it sends.
OPTIONS = (
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 180_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
    ("grpc.default_authority", SERVER_NAME),
    ("grpc.enable_http_proxy", 0),
    ("grpc.enable_retries", 0),
)


class TeleportError(Exception):
    """Teleport did not do what it was asked for."""


class TeleportUnavailable(TeleportError):
    """Nobody answered, or the answer was cut off: the same may work in a moment."""


class TeleportRefused(TeleportError):
    """Teleport said no: the same will not work until somebody changes a permission, credentials or the address."""


class TeleportNotFound(TeleportRefused):
    """What the call is about does not exist."""


class TeleportUnimplemented(TeleportRefused):
    """This version of Teleport does not know the call."""


REFUSALS: dict[grpc.StatusCode, type[TeleportRefused]] = {
    grpc.StatusCode.PERMISSION_DENIED: TeleportRefused,
    grpc.StatusCode.UNAUTHENTICATED: TeleportRefused,
    grpc.StatusCode.INVALID_ARGUMENT: TeleportRefused,
    grpc.StatusCode.FAILED_PRECONDITION: TeleportRefused,
    grpc.StatusCode.NOT_FOUND: TeleportNotFound,
    grpc.StatusCode.UNIMPLEMENTED: TeleportUnimplemented,
}
"""All other codes may be gone in a moment, UNKNOWN too: so a server ends the watch of a slow client."""

Watching: TypeAlias = "aio.UnaryStreamCall[auth_pb2.Watch, auth_pb2.Event]"


class Watch:
    """The events of a watch that has begun. They never end but with a `TeleportError`."""

    def __init__(self, kinds: frozenset[str], events: AsyncIterator[WatchEvent]) -> None:
        self.shows_rules = RULE_KIND in kinds
        """Does our role allow to hear of changed rules?"""
        self._events = events

    def __aiter__(self) -> AsyncIterator[WatchEvent]:
        return self._events

    async def __anext__(self) -> WatchEvent:
        return await anext(self._events)


class TeleportClient:
    """One connection to the Auth Service. When a call fails with `TeleportUnavailable` make a new one."""

    def __init__(self, tunnel: Tunnel) -> None:
        self._tunnel = tunnel
        self._channel = aio.insecure_channel(f"unix:{tunnel.socket}", options=OPTIONS)
        self._auth = AuthServiceStub(self._channel)
        self._rules = AccessMonitoringRulesServiceStub(self._channel)
        self._metadata = aio.Metadata(("version", CLIENT_VERSION))
        self._has_pages = True

    @classmethod
    async def open(cls, route: Route, identity: Identity) -> Self:
        """Connect. Raises `TeleportUnavailable`, or `TeleportRefused` if the server is not of our cluster."""
        try:
            tunnel = await Tunnel.open(route, identity)
        except OSError as error:
            raise _of_connection(error) from error
        return cls(tunnel)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End all calls and the connection."""
        try:
            await self._channel.close()
        finally:
            await self._tunnel.close()

    async def ping(self, timeout: float = CALL_SECONDS) -> AuthServer:  # noqa: ASYNC109 gRPC's own deadline
        """Ask who is there, within `timeout` seconds. Its answer proves that our certificate is accepted."""
        with self._translated():
            call = self._auth.Ping(auth_pb2.PingRequest(), timeout=timeout, metadata=self._metadata)
            return decode_ping(await call)

    @asynccontextmanager
    async def watch(self) -> AsyncIterator[Watch]:
        """Follow what happens to Access Requests and rules: entered once Teleport has confirmed that it has begun.

        Nothing that happened before is told. Raises `TeleportError`.
        """
        # Rules that our role may not read must not fail the watch of requests.
        kinds = [types_pb2.WatchKind(Kind=kind) for kind in (KIND, RULE_KIND)]
        wanted = auth_pb2.Watch(Kinds=kinds, AllowPartialSuccess=True)
        call = self._auth.WatchEvents(wanted, metadata=self._metadata)
        try:
            yield Watch(await self._begin(call), self._events(call))
        finally:
            call.cancel()

    async def _begin(self, call: Watching) -> frozenset[str]:
        """The kinds that Teleport will tell of."""
        try:
            async with asyncio.timeout(INIT_SECONDS):
                first = await self._next(call)
        except TimeoutError as error:
            raise TeleportUnavailable(f"the watch did not begin within {INIT_SECONDS} s") from error
        if not is_init(first):
            raise TeleportUnavailable("the watch began with another event than INIT")
        kinds = accepted_kinds(first, (KIND, RULE_KIND))
        if KIND not in kinds:
            raise TeleportRefused(f"Teleport does not let this role watch {KIND}")
        return kinds

    async def _events(self, call: Watching) -> AsyncIterator[WatchEvent]:
        while True:
            yield decode_event(await self._next(call))

    async def _next(self, call: Watching) -> auth_pb2.Event:
        with self._translated():
            event = await call.read()
        if not isinstance(event, auth_pb2.Event):
            raise TeleportUnavailable("Teleport ended the watch")
        return event

    async def requests(self) -> AsyncIterator[list[Decoded]]:
        """All Access Requests that Teleport holds, in lists of at most `PAGE`. Raises `TeleportError`."""
        async for page in self._listing(types_pb2.AccessRequestFilter()):
            yield page

    async def request(self, request_id: str) -> Decoded | None:
        """One Access Request; None: Teleport has it no more. Raises `TeleportError`."""
        wanted = types_pb2.AccessRequestFilter(ID=request_id)
        found = [request async for page in self._listing(wanted) for request in page]
        return found[0] if found else None

    async def _listing(self, wanted: types_pb2.AccessRequestFilter) -> AsyncIterator[list[Decoded]]:
        if self._has_pages:
            try:
                async for page in self._in_pages(wanted):
                    yield page
            except TeleportUnimplemented:
                self._has_pages = False
        if not self._has_pages:
            async for page in self._in_stream(wanted):
                yield page

    async def _in_pages(self, wanted: types_pb2.AccessRequestFilter) -> AsyncIterator[list[Decoded]]:
        call = auth_pb2.ListAccessRequestsRequest(Filter=wanted, Limit=PAGE)
        while True:
            with self._translated():
                answer = await self._auth.ListAccessRequests(call, timeout=CALL_SECONDS, metadata=self._metadata)
            if cast("object", answer) is None:  # what gRPC gives where it cannot parse a message
                raise TeleportUnavailable("the list of Access Requests cannot be read")
            yield [decode_request(request) for request in answer.AccessRequests]
            if not answer.NextKey:
                return
            call.StartKey = answer.NextKey

    async def _in_stream(self, wanted: types_pb2.AccessRequestFilter) -> AsyncIterator[list[Decoded]]:
        """As older servers list: one message per request."""
        page: list[Decoded] = []
        with self._translated():
            async for request in self._auth.GetAccessRequestsV2(wanted, metadata=self._metadata):
                page.append(decode_request(request))
                if len(page) == PAGE:
                    yield page
                    page = []
        if page:
            yield page

    async def attempt(self, method: str, request: Message) -> None:
        """Make a call of this full name to learn whether we may; its answer is not read. Raises `TeleportError`."""
        call: Any = self._channel.unary_unary(method, request_serializer=type(request).SerializeToString)
        with self._translated():
            await call(request, timeout=CALL_SECONDS, metadata=self._metadata)

    async def rules(self) -> AsyncIterator[list[AccessMonitoringRule]]:
        """All Access Monitoring Rules that notify us, in pages. Raises `TeleportError`."""
        call = rules_pb2.ListAccessMonitoringRulesWithFilterRequest(
            page_size=RULES_PAGE, subjects=[KIND], notification_name=PLUGIN
        )
        while True:
            with self._translated():
                answer = await self._rules.ListAccessMonitoringRulesWithFilter(
                    call, timeout=RULES_SECONDS, metadata=self._metadata
                )
            if cast("object", answer) is None:  # what gRPC gives where it cannot parse a message
                raise TeleportUnavailable("the list of Access Monitoring Rules cannot be read")
            yield [rule for rule in map(decode_rule, answer.rules) if rule is not None]
            if not answer.next_page_token:
                return
            call.page_token = answer.next_page_token

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Raise gRPC's errors as ours."""
        try:
            yield
        except aio.AioRpcError as error:
            raise self._of_call(error) from error

    def _of_call(self, error: aio.AioRpcError) -> TeleportError:
        code, details = error.code(), error.details() or "no reason given"
        if code in REFUSALS:
            return REFUSALS[code](f"{code.name}: {details}")
        if self._tunnel.failure is not None:
            return _of_connection(self._tunnel.failure)
        if self._tunnel.has_ended:
            return TeleportUnavailable("Teleport closed the connection")
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return TeleportUnavailable("Teleport does not answer in time")
        return TeleportUnavailable(f"{code.name}: {details}")


def _of_connection(error: Exception) -> TeleportError:
    return (TeleportRefused if is_refusal(error) else TeleportUnavailable)(describe(error))
