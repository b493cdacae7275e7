"""All Access Requests that Teleport holds, page by page: one that cannot be read never hides the others."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
from grpc import aio

from services.watcher.teleport.access_request import Sighted, read_request
from services.watcher.teleport.facts import name
from services.watcher.teleport.pb import auth_pb2, types_pb2
from services.watcher.teleport.undecodable import Fault, Undecodable

PAGE = 100
"""Requests per call."""

CALL_SECONDS = 30
"""For a page, or for the next message of a stream, which may go on for as long as it brings something."""

TOO_LARGE = "larger than max"
"""What gRPC says of an answer above its limit, with the status that Teleport uses for too many calls."""

HIDING = Undecodable("", Fault.SIZE)
"""In a listing: there was no way past something too large, whose id is not known. Requests may be missing."""


ORDERS = tuple((sort, descending) for sort in (auth_pb2.DEFAULT, auth_pb2.CREATED) for descending in (False, True))
"""Tried one after the other, as long as something too large stands in the way."""


class _StuckError(Exception):
    """The next request is too large, and Teleport has not said which one it is: there is no way past it."""


class Listing:
    """Every method raises `grpc.aio.AioRpcError`, `TimeoutError` where a stream falls silent, or

    `google.protobuf.message.DecodeError` for what is no listing.
    """

    def __init__(self, channel: aio.Channel, metadata: aio.Metadata) -> None:
        # Bytes, not messages: each request is read alone.
        self._pages: Any = channel.unary_unary(
            "/proto.AuthService/ListAccessRequests",
            request_serializer=auth_pb2.ListAccessRequestsRequest.SerializeToString,
        )
        self._stream: Any = channel.unary_stream(
            "/proto.AuthService/GetAccessRequestsV2", request_serializer=types_pb2.AccessRequestFilter.SerializeToString
        )
        self._metadata = metadata
        self._has_pages = True

    async def of(self, wanted: types_pb2.AccessRequestFilter) -> AsyncIterator[list[Sighted]]:
        """What matches, in lists of at most `PAGE`."""
        if self._has_pages:
            try:
                async for page in self._in_pages(wanted):
                    yield page
            except aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNIMPLEMENTED:
                    raise
                self._has_pages = False
        if not self._has_pages:
            async for page in self._in_stream(wanted):
                yield page

    async def _in_pages(self, wanted: types_pb2.AccessRequestFilter) -> AsyncIterator[list[Sighted]]:
        """As Teleport lists since v15. What hides behind a request that is too large may be found in another order."""
        for sort, descending in ORDERS:
            call = auth_pb2.ListAccessRequestsRequest(Filter=wanted, Sort=sort, Descending=descending, Limit=PAGE)
            try:
                async for page in self._in_order(call):
                    yield page
            except _StuckError:
                continue
            return
        yield [Undecodable(wanted.ID, Fault.SIZE)]

    async def _in_order(self, call: auth_pb2.ListAccessRequestsRequest) -> AsyncIterator[list[Sighted]]:
        """A page that is too large is asked for again in smaller ones; a request that is, is named and skipped."""
        is_key_of_next = False
        while True:
            try:
                data = await self._pages(call, timeout=CALL_SECONDS, metadata=self._metadata)
            except aio.AioRpcError as error:
                if not _is_too_large(error):
                    raise
                if call.Limit > 1:
                    call.Limit = max(1, call.Limit // 4)
                    continue
                if not is_key_of_next:
                    raise _StuckError from error
                yield [Undecodable(_request_id_in(call.StartKey), Fault.SIZE)]
                call.StartKey, is_key_of_next = _beyond(call.StartKey, descending=call.Descending), False
                continue
            page = auth_pb2.RequestPage.FromString(data)
            yield [read_request(request) for request in page.AccessRequests]
            if not page.NextKey:
                return
            call.StartKey, is_key_of_next = page.NextKey, True
            call.Limit = min(PAGE, call.Limit * 2)

    async def _in_stream(self, wanted: types_pb2.AccessRequestFilter) -> AsyncIterator[list[Sighted]]:
        """As older servers list: one message per request. One that is too large ends it, and hides what follows."""
        page: list[Sighted] = []
        call = self._stream(wanted, metadata=self._metadata)
        try:
            while (data := await _next(call)) is not None:
                page.append(read_request(data))
                if len(page) == PAGE:
                    yield page
                    page = []
        except aio.AioRpcError as error:
            if not _is_too_large(error):
                raise
            page.append(Undecodable(wanted.ID, Fault.SIZE))
        finally:
            call.cancel()
        if page:
            yield page


async def _next(call: Any) -> bytes | None:
    """The next message; None at the end."""
    async with asyncio.timeout(CALL_SECONDS):
        data = await call.read()
    return data if isinstance(data, bytes) else None


def _is_too_large(error: aio.AioRpcError) -> bool:
    return error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED and TOO_LARGE in (error.details() or "")


def _request_id_in(key: str) -> str:
    """What a key ends with, cut."""
    return name(key.rpartition("/")[2])


def _beyond(key: str, *, descending: bool) -> str:
    """A key between this one and the next. Keys end with an id, whose characters all stand between `!` and `~`.

    A slash may part the id from what stands before it.
    """
    if not descending:
        return f"{key}!"
    below = "." if key[-1] == "0" else chr(ord(key[-1]) - 1)
    return f"{key[:-1]}{below}~"
