"""The calls that we make to Teleport's Auth Service."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeAlias, cast

from google.protobuf.message import Message
from grpc import aio

from services.watcher.teleport.access_request import Sighted
from services.watcher.teleport.decode import (
    PLUGIN,
    AuthServer,
    WatchEvent,
    accepted_kinds,
    decode_ping,
    is_init,
    read_event,
    read_rule,
)
from services.watcher.teleport.dial import SERVER_NAME, Route
from services.watcher.teleport.errors import (
    TeleportInvalid,
    TeleportRefused,
    TeleportUnavailable,
    of_connection,
    translated,
)
from services.watcher.teleport.identity import Identity
from services.watcher.teleport.inquiries import Inquiries
from services.watcher.teleport.listing import CALL_SECONDS, Listing
from services.watcher.teleport.pb import auth_pb2, rules_pb2, types_pb2
from services.watcher.teleport.pb.auth_pb2_grpc import AuthServiceStub
from services.watcher.teleport.tunnel import Tunnel
from services.watcher.teleport.undecodable import KIND, RULE_KIND, Undecodable
from shared.events import AccessMonitoringRule

CLIENT_VERSION = "18.2.8"
"""Teleport's version whose API we speak: servers convert some resources for clients that name none."""

INIT_SECONDS = 15
"""Teleport's own client waits so long for a watch to begin."""

MESSAGE_LIMIT = 8 * 1024 * 1024
"""Bytes of one answer: a page of requests may exceed gRPC's default of 4 MiB, which Teleport does not limit."""

RULES_SECONDS = 10
"""For a page of rules: what happens meanwhile waits, and Teleport hangs up on who is slow for 30 s."""

RULES_PAGE = 100
# Keepalive as in Teleport's own client: its servers hang up on who pings more often than once a minute.
OPTIONS = (
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 180_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.max_receive_message_length", MESSAGE_LIMIT),
    ("grpc.default_authority", SERVER_NAME),
    ("grpc.enable_http_proxy", 0),
    ("grpc.enable_retries", 0),
)


Watching: TypeAlias = "aio.UnaryStreamCall[auth_pb2.Watch, bytes]"


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
        self._translated = partial(translated, tunnel)
        self._channel = aio.insecure_channel(f"unix:{tunnel.socket}", options=OPTIONS)
        self._auth = AuthServiceStub(self._channel)
        self._metadata = aio.Metadata(("version", CLIENT_VERSION))
        self._requests = Listing(self._channel, self._metadata)
        self.inquiries = Inquiries(self._channel, self._metadata, self._translated)
        """What else Teleport tells about people, roles and resources."""
        # Bytes, not messages: an event or a rule that cannot be read is passed over alone.
        self._rules: Any = self._channel.unary_unary(
            "/teleport.accessmonitoringrules.v1.AccessMonitoringRulesService/ListAccessMonitoringRulesWithFilter",
            request_serializer=rules_pb2.ListAccessMonitoringRulesWithFilterRequest.SerializeToString,
        )
        self._watch: Any = self._channel.unary_stream(
            "/proto.AuthService/WatchEvents", request_serializer=auth_pb2.Watch.SerializeToString
        )

    @classmethod
    async def open(cls, route: Route, identity: Identity) -> Self:
        """Connect. Raises `TeleportUnavailable`, or `TeleportRefused` if the server is not of our cluster."""
        try:
            tunnel = await Tunnel.open(route, identity)
        except OSError as error:
            raise of_connection(error) from error
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
        call = self._watch(wanted, metadata=self._metadata)
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
        with self._translated():
            event = auth_pb2.Event.FromString(first)
        if not is_init(event):
            raise TeleportUnavailable("the watch began with another event than INIT")
        kinds = accepted_kinds(event, (KIND, RULE_KIND))
        if KIND not in kinds:
            raise TeleportRefused(f"Teleport does not let this role watch {KIND}")
        return kinds

    async def _events(self, call: Watching) -> AsyncIterator[WatchEvent]:
        while True:
            yield read_event(await self._next(call))

    async def _next(self, call: Watching) -> bytes:
        with self._translated():
            event = await call.read()
        if not isinstance(event, bytes):
            raise TeleportUnavailable("Teleport ended the watch")
        return event

    async def requests(self) -> AsyncIterator[list[Sighted]]:
        """All Access Requests that Teleport holds, in lists of at most `PAGE`. Raises `TeleportError`."""
        async for page in self._listing(types_pb2.AccessRequestFilter()):
            yield page

    async def request(self, request_id: str) -> Sighted | None:
        """One Access Request; None: Teleport has it no more. Raises `TeleportError`."""
        wanted = types_pb2.AccessRequestFilter(ID=request_id)
        found = [request async for page in self._listing(wanted) for request in page]
        return found[0] if found else None

    async def _listing(self, wanted: types_pb2.AccessRequestFilter) -> AsyncIterator[list[Sighted]]:
        with self._translated():
            async for page in self._requests.of(wanted):
                yield page

    async def plugin_entry(self, request_id: str) -> dict[str, str]:
        """What the e-mail plugin, Go's or this, has noted at the request; {} if nothing. Raises `TeleportError`."""
        wanted = types_pb2.PluginDataFilter(Kind=KIND, Resource=request_id, Plugin=PLUGIN)
        with self._translated():
            found = await self._auth.GetPluginData(wanted, timeout=CALL_SECONDS, metadata=self._metadata)
        if cast("object", found) is None:  # what gRPC gives where it cannot parse a message
            raise TeleportInvalid("the record cannot be read: it holds texts that are no UTF-8")
        return {key: text for item in found.PluginData for key, text in item.Spec.Entries[PLUGIN].Data.items()}

    async def update_plugin_entry(self, request_id: str, before: Mapping[str, str], after: Mapping[str, str]) -> None:
        """Put `after` in place of `before`, where an empty text means that there is none. Raises `TeleportError`:

        `TeleportConflict` if it is not as before, `TeleportNotFound` if there is neither a request nor a record,
        `TeleportInvalid` if the record would be too large.
        """
        update = types_pb2.PluginDataUpdateParams(
            Kind=KIND, Resource=request_id, Plugin=PLUGIN, Set=after, Expect=before
        )
        with self._translated():
            await self._auth.UpdatePluginData(update, timeout=CALL_SECONDS, metadata=self._metadata)

    async def attempt(self, method: str, request: Message) -> None:
        """Make a call of this full name to learn whether we may; its answer is not read. Raises `TeleportError`."""
        call: Any = self._channel.unary_unary(method, request_serializer=type(request).SerializeToString)
        with self._translated():
            await call(request, timeout=CALL_SECONDS, metadata=self._metadata)

    async def rules(self) -> AsyncIterator[list[AccessMonitoringRule | Undecodable]]:
        """All Access Monitoring Rules that notify us, in pages. Raises `TeleportError`."""
        call = rules_pb2.ListAccessMonitoringRulesWithFilterRequest(
            page_size=RULES_PAGE, subjects=[KIND], notification_name=PLUGIN
        )
        while True:
            with self._translated():
                data = await self._rules(call, timeout=RULES_SECONDS, metadata=self._metadata)
                page = rules_pb2.RulesPage.FromString(data)
            yield [rule for rule in map(read_rule, page.rules) if rule is not None]
            if not page.next_page_token:
                return
            call.page_token = page.next_page_token
