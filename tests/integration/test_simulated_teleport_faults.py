"""Each scripted fault of the simulated Auth Service does what it says."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import pytest
from grpc import StatusCode

from services.watcher.teleport.pb import auth_pb2, types_pb2
from simulators.certificates import ClusterAuthority
from simulators.teleport import AuthService
from tests.integration.teleport_client import PING, REQUESTS, Watching, client, opened, refusal
from tests.waiting import wait_until

if TYPE_CHECKING:
    from services.watcher.teleport.pb.auth_pb2_grpc import AuthServiceAsyncStub as Stub

AUTHORITY = ClusterAuthority.create("teleport.example.com")


@pytest.fixture
async def auth() -> AsyncIterator[AuthService]:
    async with AuthService(AUTHORITY) as service:
        yield service


@pytest.fixture
async def stub(auth: AuthService) -> "AsyncIterator[Stub]":
    async with client(AUTHORITY.identity("access-mail"), auth.address) as stub:
        yield stub


async def test_streams_end_cleanly_after_what_came_before(auth: AuthService, stub: "Stub") -> None:
    watching = [await opened(stub), await opened(stub)]
    auth.create_request()
    auth.faults.end_streams()
    for watch in watching:
        assert (await watch.next()).Type == auth_pb2.PUT
        with pytest.raises(EOFError):
            await watch.next()
    await opened(stub)


async def test_streams_end_with_a_status(auth: AuthService, stub: "Stub") -> None:
    watching = await opened(stub)
    auth.faults.end_streams(StatusCode.UNAVAILABLE)
    assert await refusal(watching.next()) is StatusCode.UNAVAILABLE


async def test_the_next_calls_of_a_method_fail_and_no_others(auth: AuthService, stub: "Stub") -> None:
    auth.faults.fail("Ping", StatusCode.PERMISSION_DENIED, times=2)
    auth.faults.fail("Ping", StatusCode.UNAVAILABLE)
    auth.faults.fail("WatchEvents", StatusCode.UNKNOWN)
    codes = [await refusal(stub.Ping(PING)) for _ in range(3)]
    assert codes == [StatusCode.PERMISSION_DENIED, StatusCode.PERMISSION_DENIED, StatusCode.UNAVAILABLE]
    assert (await stub.Ping(PING)).ClusterName
    assert await refusal(Watching(stub).next()) is StatusCode.UNKNOWN


async def test_an_old_cluster_lists_only_by_stream(auth: AuthService, stub: "Stub") -> None:
    request_id = auth.create_request()
    auth.faults.unimplemented.add("ListAccessRequests")
    listing = stub.ListAccessRequests(auth_pb2.ListAccessRequestsRequest())
    assert await refusal(listing) is StatusCode.UNIMPLEMENTED
    streamed = stub.GetAccessRequestsV2(types_pb2.AccessRequestFilter())
    assert [request.Metadata.Name async for request in streamed] == [request_id]


async def test_init_can_be_late(auth: AuthService, stub: "Stub") -> None:
    auth.faults.delays["WatchEvents"] = 0.2
    began = time.monotonic()
    await opened(stub)
    assert time.monotonic() - began >= 0.2


async def test_a_call_that_waits_does_not_outlive_the_service(auth: AuthService, stub: "Stub") -> None:
    auth.faults.delays["Ping"] = 3600
    waiting = asyncio.ensure_future(refusal(stub.Ping(PING)))
    await opened(stub)
    await auth.stop()
    assert await waiting is not StatusCode.OK
    await auth.start()


async def test_the_first_event_can_be_another_than_init(auth: AuthService, stub: "Stub") -> None:
    auth.faults.first_event = auth_pb2.Event(Type=auth_pb2.DELETE)
    assert (await Watching(stub).next()).Type == auth_pb2.DELETE


async def test_an_event_of_a_newer_server_has_an_unknown_resource(auth: AuthService, stub: "Stub") -> None:
    watching = await opened(stub)
    auth.faults.send_unknown_event()
    event = await watching.next()
    assert event.Type == auth_pb2.PUT
    assert event.WhichOneof("Resource") is None
    assert event.SerializeToString() == b"\x08\x01\x9a\x06\x00"


async def test_updates_of_plugin_data_lose_against_another_plugin(auth: AuthService, stub: "Stub") -> None:
    change = types_pb2.PluginDataUpdateParams(
        Kind="access_request", Resource=auth.create_request(), Plugin="email", Set={"user": "alice"}
    )
    auth.faults.fail_compare(2)
    codes = [await refusal(stub.UpdatePluginData(change)) for _ in range(2)]
    assert codes == [StatusCode.FAILED_PRECONDITION] * 2
    assert auth.plugin_entry(change.Resource) == {}
    await stub.UpdatePluginData(change)
    assert auth.plugin_entry(change.Resource) == {"user": "alice"}


async def test_lost_events_leave_their_changes_in_the_listing_only(auth: AuthService, stub: "Stub") -> None:
    watching = await opened(stub)
    auth.faults.lose_events = True
    auth.create_request(request_id="unseen")
    auth.faults.lose_events = False
    auth.create_request(request_id="seen")
    assert (await watching.next()).AccessRequest.Metadata.Name == "seen"
    page = await stub.ListAccessRequests(auth_pb2.ListAccessRequestsRequest())
    assert {request.Metadata.Name for request in page.AccessRequests} == {"unseen", "seen"}


async def test_denied_kinds_refuse_a_watch(auth: AuthService, stub: "Stub") -> None:
    auth.faults.denied_kinds.add("access_request")
    assert await refusal(Watching(stub, REQUESTS).next()) is StatusCode.PERMISSION_DENIED


async def test_a_message_beyond_4_mib_is_too_large_for_a_client(auth: AuthService, stub: "Stub") -> None:
    for _ in range(5):
        auth.create_request(reason="x" * 1_000_000)
    listing = stub.ListAccessRequests(auth_pb2.ListAccessRequestsRequest())
    assert await refusal(listing) is StatusCode.RESOURCE_EXHAUSTED


async def test_a_client_that_goes_away_ends_its_watch(auth: AuthService, stub: "Stub") -> None:
    watching = await opened(stub)
    assert len(auth.watches) == 1
    watching.cancel()
    await wait_until(lambda: not auth.watches, "the watch is closed")
