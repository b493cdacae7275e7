"""Compares what Teleport holds with what the router knows: nothing that happened while nobody watched stays unknown."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from services.watcher.outbox import Outbox
from services.watcher.teleport.access_request import Sighted, SightedRequest
from services.watcher.teleport.client import TeleportClient
from services.watcher.teleport.listing import HIDING
from services.watcher.teleport.undecodable import Undecodable
from shared.event_log import KnownRequest
from shared.events import Cluster, RequestChanged, RequestGone

SETTLED_DOWN_SECONDS = 60.0
"""A request that was routed just now may be younger than the listing."""

ASKED_AT_ONCE = 20


@dataclass(frozen=True)
class Page:
    """A part of a snapshot."""

    listed: int
    """Requests that Teleport listed."""
    news: list[RequestChanged | RequestGone]
    """What the router does not know."""
    undecodable: list[Undecodable]

    @property
    def is_whole(self) -> bool:
        """Can nothing be missing between its requests?"""
        return HIDING not in self.undecodable


async def snapshot(client: TeleportClient, outbox: Outbox, cluster: Cluster) -> AsyncIterator[Page]:
    """List all requests and give what is new, changed or gone. Raises `TeleportError`.

    What is already known costs one look at Redis per page. A request is gone if the router holds it for pending,
    the listing lacks it, and Teleport does not have it when asked by its id.
    """
    # Asked for before the listing begins: whatever is in it must appear there if it still exists.
    missing = await outbox.open_requests(SETTLED_DOWN_SECONDS)
    async for requests in client.requests():
        missing.difference_update(request_id_of(request) for request in requests)
        yield await _compare(requests, outbox, cluster, listed=len(requests))
    for some in _portions(sorted(missing)):
        found = await asyncio.gather(*map(client.request, some))
        page = await _compare([request for request in found if request is not None], outbox, cluster, listed=0)
        gone = [RequestGone(request_id=one) for one, request in zip(some, found, strict=True) if request is None]
        yield Page(page.listed, [*page.news, *gone], page.undecodable)


async def _compare(requests: Sequence[Sighted], outbox: Outbox, cluster: Cluster, *, listed: int) -> Page:
    readable = [request for request in requests if isinstance(request, SightedRequest)]
    known = await outbox.known_or_on_its_way([request.id for request in readable])
    return Page(
        listed=listed,
        news=[
            RequestChanged(request=request.whole(), cluster=cluster)
            for request in readable
            if is_news(request, known.get(request.id))
        ],
        undecodable=[request for request in requests if isinstance(request, Undecodable)],
    )


def is_news(request: SightedRequest, known: KnownRequest | None) -> bool:
    """Does the listing say more than the router knows? A listing may be older than that: knowledge only grows."""
    if known is None:
        return True
    if known.gone:
        return False
    return known.state is None or request.state.rank > known.state.rank or request.review_count > known.review_count


def request_id_of(request: Sighted) -> str:
    """The id of a request that Teleport listed."""
    return request.id if isinstance(request, SightedRequest) else request.name


def _portions(ids: Sequence[str]) -> list[Sequence[str]]:
    return [ids[start : start + ASKED_AT_ONCE] for start in range(0, len(ids), ASKED_AT_ONCE)]
