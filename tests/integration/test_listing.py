"""All requests are found, however many and whatever is wrong with some, with old servers and new ones."""

import tracemalloc
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.watcher.teleport import client as client_module
from services.watcher.teleport import listing
from services.watcher.teleport.access_request import SightedRequest
from services.watcher.teleport.client import TeleportClient
from services.watcher.teleport.connect import connect
from services.watcher.teleport.errors import TeleportUnavailable
from services.watcher.teleport.identity import Identity
from services.watcher.teleport.listing import HIDING
from services.watcher.teleport.undecodable import Fault, Undecodable
from shared.events import AccessRequest
from simulators.teleport import AuthService
from tests.integration.watching import AUTHORITY, settings

LIMIT = 100_000


@pytest.fixture
async def auth() -> AsyncIterator[AuthService]:
    async with AuthService(AUTHORITY) as service:
        yield service


@pytest.fixture
async def client(auth: AuthService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[TeleportClient]:
    """A client that takes no answer beyond `LIMIT` bytes."""
    name = "grpc.max_receive_message_length"
    options = [(option, LIMIT if option == name else value) for option, value in client_module.OPTIONS]
    monkeypatch.setattr(client_module, "OPTIONS", tuple(options))
    teleport = settings(auth.address, tmp_path)
    connection = await connect(teleport.address, Identity.load(teleport))
    async with connection.client:
        yield connection.client


async def listed(client: TeleportClient) -> tuple[list[str], list[Undecodable]]:
    """Ids of the requests that can be read, and the others."""
    found = [request async for page in client.requests() for request in page]
    readable = [request.id for request in found if isinstance(request, SightedRequest)]
    return readable, [request for request in found if isinstance(request, Undecodable)]


async def test_pages_that_are_too_large_are_asked_for_in_smaller_ones(
    auth: AuthService, client: TeleportClient
) -> None:
    ids = [auth.create_request(reason="x" * 4_000) for _ in range(120)]
    assert await listed(client) == (sorted(ids), [])


@pytest.mark.parametrize(
    "large",
    [["r005"], ["r000"], ["r149"], ["r010", "r070", "r140"], ["r000", "r070"], ["r070", "r149"]],
    ids=",".join,
)
async def test_a_request_that_is_too_large_is_named_and_hides_no_other(
    auth: AuthService, client: TeleportClient, large: list[str]
) -> None:
    ids = [f"r{number:03}" for number in range(150)]
    for request_id in ids:
        auth.create_request(request_id=request_id, reason="x" * (2 * LIMIT if request_id in large else 100))
    readable, others = await listed(client)
    assert set(readable) == set(ids) - set(large)
    assert {one.name for one in others} == set(large)
    assert {one.fault for one in others} == {Fault.SIZE}
    assert await client.request(large[0]) == Undecodable(large[0], Fault.SIZE)


@pytest.mark.parametrize("large", [{"r000", "r001"}, {"r070", "r071"}, {"r148", "r149"}, {"r000", "r149"}])
async def test_several_in_a_row_hide_no_other_either(
    auth: AuthService, client: TeleportClient, large: set[str]
) -> None:
    ids = [f"r{number:03}" for number in range(150)]
    for request_id in sorted(ids, key=lambda request_id: request_id[::-1]):
        auth.create_request(request_id=request_id, reason="x" * (2 * LIMIT if request_id in large else 100))
    readable, others = await listed(client)
    assert set(readable) == set(ids) - large
    assert others
    assert {one.name for one in others} <= large


async def test_nothing_but_a_request_that_is_too_large(auth: AuthService, client: TeleportClient) -> None:
    auth.create_request(request_id="only", reason="x" * 2 * LIMIT)
    readable, others = await listed(client)
    assert readable == []
    assert {one.fault for one in others} == {Fault.SIZE}


async def test_where_there_is_no_way_past_several_in_a_row_it_is_said(
    auth: AuthService, client: TeleportClient
) -> None:
    large = {"r010", "r011", "r100", "r101"}
    for request_id in (f"r{number:03}" for number in range(150)):
        auth.create_request(request_id=request_id, reason="x" * (2 * LIMIT if request_id in large else 100))
    readable, others = await listed(client)
    assert {"r000", "r009", "r102", "r149"} <= set(readable)
    assert HIDING in others


async def test_what_hides_others_in_an_old_servers_listing_is_said_and_named_when_it_is_asked_for(
    auth: AuthService, client: TeleportClient
) -> None:
    auth.faults.unimplemented.add("ListAccessRequests")
    for number in range(150):
        auth.create_request(request_id=f"r{number:03}", reason="x" * (2 * LIMIT if number == 120 else 100))
    readable, others = await listed(client)
    assert readable == [f"r{number:03}" for number in range(120)]
    assert others == [HIDING]
    assert await client.request("r120") == Undecodable("r120", Fault.SIZE)
    assert isinstance(await client.request("r121"), SightedRequest)


@pytest.mark.parametrize("old", [False, True])
async def test_a_listing_that_brings_nothing_is_given_up(
    auth: AuthService, client: TeleportClient, monkeypatch: pytest.MonkeyPatch, *, old: bool
) -> None:
    monkeypatch.setattr(listing, "CALL_SECONDS", 0.3)
    if old:
        auth.faults.unimplemented.add("ListAccessRequests")
    auth.faults.delays["GetAccessRequestsV2" if old else "ListAccessRequests"] = 3600
    with pytest.raises(TeleportUnavailable, match="does not answer in time"):
        await client.request("r1")


@pytest.mark.parametrize("old", [False, True])
async def test_a_request_that_is_no_utf_8_is_named_and_hides_no_other(
    auth: AuthService, client: TeleportClient, *, old: bool
) -> None:
    if old:
        auth.faults.unimplemented.add("ListAccessRequests")
    ids = [auth.create_request(request_id=f"r{number}", reason="café") for number in range(250)]
    auth.faults.latin_1.add("r3")
    readable, others = await listed(client)
    assert sorted(readable) == sorted(set(ids) - {"r3"})
    assert others == [Undecodable("r3", Fault.TEXT)]


async def test_an_event_that_is_no_utf_8_is_passed_over_alone(auth: AuthService, client: TeleportClient) -> None:
    auth.faults.latin_1.add("r1")
    async with client.watch() as events:
        for number in range(3):
            auth.create_request(request_id=f"r{number}", reason="café")
        first, second, third = [await anext(events) for _ in range(3)]
    assert isinstance(first, AccessRequest)
    assert second == Undecodable("r1", Fault.TEXT)
    assert isinstance(third, AccessRequest)


async def test_ten_thousand_requests_are_listed_in_bounded_memory(auth: AuthService, client: TeleportClient) -> None:
    number = 10_000
    for _ in range(number):
        auth.create_request(reason="x" * 300)
    tracemalloc.start()
    try:
        found = 0
        async for page in client.requests():
            found += len(page)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found == number
    assert peak < 20_000_000
