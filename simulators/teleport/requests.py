"""The Access Requests of a simulated cluster: found, listed in pages, and let go when their time is over."""

import heapq
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from datetime import datetime

from grpc import StatusCode

from services.watcher.teleport.pb import auth_pb2, types_pb2
from simulators.teleport.errors import TraceError
from simulators.teleport.messages import request_end, state_name

DEFAULT_PAGE = 1000
"""Requests in a page when the client names no limit (Teleport: `defaults.DefaultChunkSize`)."""


class AccessRequests:
    """Requests by id. A stored message is never changed, only replaced: events and listings may share it."""

    def __init__(self) -> None:
        self._by_id: dict[str, types_pb2.AccessRequestV3] = {}
        self._ends: list[tuple[datetime, str]] = []
        self._sorted: dict[int, list[tuple[str, str]]] = {}
        self._changes = 0

    def add(self, request: types_pb2.AccessRequestV3) -> types_pb2.AccessRequestV3:
        """Store a new request. Raises `TraceError` (AlreadyExists)."""
        request_id = request.Metadata.Name
        if request_id in self._by_id:
            raise TraceError(StatusCode.ALREADY_EXISTS, f'access request "{request_id}" already exists')
        return self.put(request)

    def put(self, request: types_pb2.AccessRequestV3) -> types_pb2.AccessRequestV3:
        """Store a copy of the request with a new revision, and return that copy."""
        self._changes += 1
        stored = types_pb2.AccessRequestV3()
        stored.CopyFrom(request)
        stored.Metadata.Revision = str(self._changes)
        request_id = stored.Metadata.Name
        self._by_id[request_id] = stored
        self._sorted.clear()
        end = request_end(stored)
        if end is not None:
            heapq.heappush(self._ends, (end, request_id))
        return stored

    def get(self, request_id: str) -> types_pb2.AccessRequestV3:
        """Return the request. Raises `TraceError` (NotFound)."""
        try:
            return self._by_id[request_id]
        except KeyError:
            raise TraceError(StatusCode.NOT_FOUND, f'access request "{request_id}" not found') from None

    def remove(self, request_id: str) -> None:
        """Forget the request. Raises `TraceError` (NotFound)."""
        self.get(request_id)
        del self._by_id[request_id]
        self._sorted.clear()

    def __contains__(self, request_id: str) -> bool:
        return request_id in self._by_id

    def remove_ended(self, now: datetime) -> list[str]:
        """Forget the requests whose end has come, and return their ids."""
        ended = []
        while self._ends and self._ends[0][0] <= now:
            end, request_id = heapq.heappop(self._ends)
            # A request whose end was moved stands here more than once; only its present end counts.
            if request_id in self and request_end(self._by_id[request_id]) == end:
                self.remove(request_id)
                ended.append(request_id)
        return ended

    def find(self, wanted: types_pb2.AccessRequestFilter) -> list[types_pb2.AccessRequestV3]:
        """Return what matches id, user and state. An unknown id is an empty answer, not an error."""
        if wanted.ID:
            found = self._by_id.get(wanted.ID)
            candidates = [] if found is None else [found]
        else:
            candidates = list(self._by_id.values())
        return [request for request in candidates if _matches(request, wanted)]

    def page(self, query: auth_pb2.ListAccessRequestsRequest) -> auth_pb2.ListAccessRequestsResponse:
        """Return the page that starts at `StartKey`, with the key of the next one while there is any."""
        limit = query.Limit if query.Limit > 0 else DEFAULT_PAGE
        matching: list[types_pb2.AccessRequestV3] = []
        for key, request_id in self._from(query):
            request = self._by_id[request_id]
            if not _matches(request, query.Filter):
                continue
            if len(matching) == limit:
                return auth_pb2.ListAccessRequestsResponse(AccessRequests=matching, NextKey=f"{key}/{request_id}")
            matching.append(request)
        return auth_pb2.ListAccessRequestsResponse(AccessRequests=matching)

    def _from(self, query: auth_pb2.ListAccessRequestsRequest) -> Iterator[tuple[str, str]]:
        ordered = self._in_order(query.Sort)
        field, _, request_id = query.StartKey.rpartition("/")
        start = (field, request_id)
        if query.Filter.ID:
            known = query.Filter.ID in self
            yield from [(_sort_key(self._by_id[query.Filter.ID], query.Sort), query.Filter.ID)] if known else []
        elif query.Descending:
            last = bisect_right(ordered, start) if query.StartKey else len(ordered)
            yield from (ordered[position] for position in range(last - 1, -1, -1))
        else:
            yield from (ordered[position] for position in range(bisect_left(ordered, start), len(ordered)))

    def _in_order(self, sort: auth_pb2.AccessRequestSort.ValueType) -> list[tuple[str, str]]:
        """Return (value, id) of all requests in order. Kept until something changes: a listing has many pages."""
        if sort not in self._sorted:
            keys = ((_sort_key(request, sort), request_id) for request_id, request in self._by_id.items())
            self._sorted[sort] = sorted(keys)
        return self._sorted[sort]


def _sort_key(request: types_pb2.AccessRequestV3, sort: auth_pb2.AccessRequestSort.ValueType) -> str:
    spec = request.Spec
    if sort == auth_pb2.CREATED:
        return f"{spec.Created.seconds:020d}.{spec.Created.nanos:09d}"
    if sort == auth_pb2.STATE:
        return state_name(spec.State)
    return spec.User if sort == auth_pb2.USER else ""


def _matches(request: types_pb2.AccessRequestV3, wanted: types_pb2.AccessRequestFilter) -> bool:
    return (
        (not wanted.ID or request.Metadata.Name == wanted.ID)
        and (not wanted.User or request.Spec.User == wanted.User)
        and (not wanted.State or request.Spec.State == wanted.State)
    )
