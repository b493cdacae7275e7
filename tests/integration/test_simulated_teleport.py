"""The simulated Auth Service does what Teleport does, over real gRPC and mutual TLS."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from grpc import StatusCode
from grpc.aio import AioRpcError

from services.watcher.teleport.pb import auth_pb2, types_pb2
from simulators.background import in_background
from simulators.certificates import ClusterAuthority, Identity
from simulators.teleport import AuthService, TraceError
from tests.integration.teleport_client import PING, Watching, client, opened, refusal
from tests.waiting import wait_until

if TYPE_CHECKING:
    from services.watcher.teleport.pb.auth_pb2_grpc import AuthServiceAsyncStub as Stub

AUTHORITY = ClusterAuthority.create("teleport.example.com")

YEAR_1 = -62135596800


@pytest.fixture
async def auth() -> AsyncIterator[AuthService]:
    async with AuthService(AUTHORITY) as service:
        yield service


@pytest.fixture
async def stub(auth: AuthService) -> "AsyncIterator[Stub]":
    async with client(AUTHORITY.identity("access-mail"), auth.address) as stub:
        yield stub


async def test_a_client_of_the_cluster_is_told_which_cluster_it_is(stub: "Stub") -> None:
    pong = await stub.Ping(PING)
    assert pong.ClusterName == "teleport.example.com"
    assert pong.ServerFeatures.AdvancedAccessWorkflows


@pytest.mark.parametrize(
    "identity",
    [
        pytest.param(ClusterAuthority.create("evil.example.com").identity("access-mail"), id="foreign"),
        pytest.param(AUTHORITY.identity("access-mail", lifetime=timedelta(hours=-1)), id="expired"),
    ],
)
async def test_the_server_refuses_a_certificate_that_is_expired_or_of_another_cluster(
    auth: AuthService, identity: Identity
) -> None:
    trusting = replace(identity, host_authority=AUTHORITY.host_ca.pem)
    async with client(trusting, auth.address) as stub:
        assert await refusal(stub.Ping(PING)) is StatusCode.UNAVAILABLE


async def test_a_client_that_does_not_trust_the_host_authority_does_not_connect(auth: AuthService) -> None:
    distrusting = replace(AUTHORITY.identity("access-mail"), host_authority=AUTHORITY.web_ca.pem)
    async with client(distrusting, auth.address) as stub:
        assert await refusal(stub.Ping(PING)) is StatusCode.UNAVAILABLE


async def test_a_watch_begins_with_the_accepted_kinds_and_shows_only_what_happens_afterwards(
    auth: AuthService, stub: "Stub"
) -> None:
    auth.create_request(request_id="before")
    watching = Watching(stub)
    init = await watching.next()
    assert init.Type == auth_pb2.INIT
    assert [kind.Kind for kind in init.WatchStatus.Spec.Kinds] == ["access_request"]
    request_id = auth.create_request("bob", ["admin"], reason="INC-1", resources=["/leaf/node/web-1"])
    event = await watching.next()
    assert event.Type == auth_pb2.PUT
    assert event.AccessRequest == auth.get(request_id)
    auth.delete(request_id)
    event = await watching.next()
    assert event.Type == auth_pb2.DELETE
    assert (event.ResourceHeader.Kind, event.ResourceHeader.Version) == ("access_request", "v3")
    assert event.ResourceHeader.Metadata.Name == request_id


async def test_a_request_is_complete_and_its_unset_times_are_year_1(auth: AuthService) -> None:
    spec = auth.get(auth.create_request("bob", resources=["/leaf/node/web-1"])).Spec
    assert spec.RequestedResourceIDs == [types_pb2.ResourceID(ClusterName="leaf", Kind="node", Name="web-1")]
    assert (spec.MaxDuration.seconds, spec.SessionTTL.seconds) == (YEAR_1, YEAR_1)
    assert spec.HasField("SystemAnnotations")
    assert not spec.HasField("AssumeStartTime")
    assert spec.ResourceExpiry.seconds < spec.Expires.seconds


@pytest.mark.parametrize(
    ("kinds", "partial", "answer"),
    [
        ([], True, StatusCode.PERMISSION_DENIED),
        (["access_request", "moon"], False, StatusCode.INVALID_ARGUMENT),
        (["access_request", "access_monitoring_rule"], False, StatusCode.PERMISSION_DENIED),
        (["moon", "access_monitoring_rule"], True, StatusCode.INVALID_ARGUMENT),
        (["moon", "access_monitoring_rule", "access_request"], True, ["access_request"]),
        (["access_request"], False, ["access_request"]),
    ],
)
async def test_a_watch_is_refused_or_reduced_by_its_kinds(
    auth: AuthService, stub: "Stub", *, kinds: list[str], partial: bool, answer: StatusCode | list[str]
) -> None:
    auth.faults.denied_kinds.add("access_monitoring_rule")
    wanted = [types_pb2.WatchKind(Kind=kind) for kind in kinds]
    watching = Watching(stub, auth_pb2.Watch(Kinds=wanted, AllowPartialSuccess=partial))
    if isinstance(answer, list):
        assert [kind.Kind for kind in (await watching.next()).WatchStatus.Spec.Kinds] == answer
    else:
        assert await refusal(watching.next()) is answer


async def test_reviews_settle_a_request_at_its_threshold_and_move_its_end(auth: AuthService, stub: "Stub") -> None:
    watching = await opened(stub)
    request_id = auth.create_request(approvals=2)
    auth.review(request_id, "carol", types_pb2.APPROVED, "fine")
    auth.review(request_id, "dave", types_pb2.APPROVED, "go on")
    states = [(await watching.next()).AccessRequest.Spec.State for _ in range(3)]
    assert states == [types_pb2.PENDING, types_pb2.PENDING, types_pb2.APPROVED]
    spec = auth.get(request_id).Spec
    assert [review.Author for review in spec.Reviews] == ["carol", "dave"]
    assert spec.ResolveReason == "go on"
    assert spec.ResourceExpiry == spec.Expires


async def test_a_promotion_settles_without_regard_to_thresholds(auth: AuthService) -> None:
    request_id = auth.create_request(approvals=5)
    auth.promote(request_id, "Web team")
    spec = auth.get(request_id).Spec
    assert (spec.State, spec.accessList.Title) == (types_pb2.PROMOTED, "Web team")
    assert spec.Reviews[0].accessList == spec.accessList


async def test_a_denial_overturns_an_approval_and_is_final(auth: AuthService, stub: "Stub") -> None:
    request_id = auth.create_request()
    auth.approve(request_id, "yes")
    auth.deny(request_id, "no")
    assert auth.get(request_id).Spec.ResolveReason == "no"
    again = auth_pb2.RequestStateSetter(ID=request_id, State=types_pb2.APPROVED)
    assert await refusal(stub.SetAccessRequestState(again)) is StatusCode.INVALID_ARGUMENT
    late = types_pb2.AccessReview(Author="carol", ProposedState=types_pb2.APPROVED)
    submission = types_pb2.AccessReviewSubmission(RequestID=request_id, Review=late)
    assert await refusal(stub.SubmitAccessReview(submission)) is StatusCode.PERMISSION_DENIED


async def test_nobody_reviews_twice(auth: AuthService) -> None:
    request_id = auth.create_request(approvals=2)
    auth.review(request_id, "carol", types_pb2.APPROVED)
    with pytest.raises(TraceError, match="already reviewed"):
        auth.review(request_id, "carol", types_pb2.APPROVED)


async def test_the_whole_life_of_a_request_can_be_lived_over_grpc(auth: AuthService, stub: "Stub") -> None:
    spec = types_pb2.AccessRequestSpecV3(User="bob", Roles=["admin"])
    created = await stub.CreateAccessRequestV2(types_pb2.AccessRequestV3(Spec=spec))
    assert created.Spec.State == types_pb2.PENDING
    assert await refusal(stub.CreateAccessRequestV2(created)) is StatusCode.ALREADY_EXISTS
    request_id = created.Metadata.Name
    review = types_pb2.AccessReview(Author="carol", ProposedState=types_pb2.APPROVED)
    submission = types_pb2.AccessReviewSubmission(RequestID=request_id, Review=review)
    assert (await stub.SubmitAccessReview(submission)).Spec.State == types_pb2.APPROVED
    await stub.SetAccessRequestState(auth_pb2.RequestStateSetter(ID=request_id, State=types_pb2.DENIED))
    assert auth.get(request_id).Spec.State == types_pb2.DENIED
    await stub.DeleteAccessRequest(auth_pb2.RequestID(ID=request_id))
    assert await refusal(stub.DeleteAccessRequest(auth_pb2.RequestID(ID=request_id))) is StatusCode.NOT_FOUND


async def test_a_request_whose_time_is_over_is_deleted(auth: AuthService, stub: "Stub") -> None:
    watching = await opened(stub)
    request_id = auth.create_request(ttl=timedelta(milliseconds=50))
    old = auth.get(request_id)
    old.Spec.ClearField("ResourceExpiry")
    old.Metadata.Name = "of-an-old-server"
    old.Metadata.Expires.FromDatetime(datetime.now(UTC))
    auth.put(old)
    events = [await watching.next() for _ in range(4)]
    gone = [event.ResourceHeader.Metadata.Name for event in events if event.Type == auth_pb2.DELETE]
    assert sorted(gone) == sorted([request_id, "of-an-old-server"])
    assert await listed(stub, types_pb2.AccessRequestFilter()) == []


async def test_an_approved_request_lives_as_long_as_its_access(auth: AuthService, stub: "Stub") -> None:
    watching = await opened(stub)
    short = auth.create_request(ttl=timedelta(milliseconds=50), access=timedelta(hours=1))
    auth.approve(short)
    other = auth.create_request(ttl=timedelta(milliseconds=100))
    kinds = [(await watching.next()).Type for _ in range(3)]
    assert kinds == [auth_pb2.PUT] * 3
    assert (await watching.next()).ResourceHeader.Metadata.Name == other
    assert auth.get(short).Spec.State == types_pb2.APPROVED


async def listed(stub: "Stub", wanted: types_pb2.AccessRequestFilter, limit: int = 0, **order: object) -> list[str]:
    """Ids of a listing, page after page."""
    ids: list[str] = []
    query = auth_pb2.ListAccessRequestsRequest(Filter=wanted, Limit=limit, **order)  # type: ignore[arg-type] # fields
    while True:
        page = await stub.ListAccessRequests(query)
        assert len(page.AccessRequests) <= (limit or 1000)
        ids += [request.Metadata.Name for request in page.AccessRequests]
        if not page.NextKey:
            return ids
        query.StartKey = page.NextKey


@pytest.mark.parametrize("sort", auth_pb2.AccessRequestSort.values())
@pytest.mark.parametrize("descending", [False, True])
async def test_pages_together_are_the_whole_listing(
    auth: AuthService, stub: "Stub", *, sort: auth_pb2.AccessRequestSort.ValueType, descending: bool
) -> None:
    ids = [auth.create_request(f"user/{number % 3}", request_id=f"id-{number}") for number in range(10)]
    auth.approve(ids[4])
    everything = types_pb2.AccessRequestFilter()
    found = await listed(stub, everything, 3, Sort=sort, Descending=descending)
    assert sorted(found) == ids
    assert found == await listed(stub, everything, 100, Sort=sort, Descending=descending)
    pending = types_pb2.AccessRequestFilter(State=types_pb2.PENDING)
    assert sorted(await listed(stub, pending, 4, Sort=sort, Descending=descending)) == [*ids[:4], *ids[5:]]


async def test_listings_find_by_id_user_and_state(auth: AuthService, stub: "Stub") -> None:
    ids = [auth.create_request(user) for user in ("alice", "bob")]
    assert await listed(stub, types_pb2.AccessRequestFilter(ID=ids[1])) == [ids[1]]
    assert await listed(stub, types_pb2.AccessRequestFilter(ID="unknown")) == []
    assert await listed(stub, types_pb2.AccessRequestFilter(User="alice")) == [ids[0]]
    streamed = stub.GetAccessRequestsV2(types_pb2.AccessRequestFilter(User="bob"))
    assert [request.Metadata.Name async for request in streamed] == [ids[1]]
    nothing = stub.GetAccessRequestsV2(types_pb2.AccessRequestFilter(ID="unknown"))
    assert [request async for request in nothing] == []


async def test_ten_thousand_requests_are_listed_in_pages(auth: AuthService, stub: "Stub") -> None:
    watching = await opened(stub)
    ids = {auth.create_request() for _ in range(10_000)}
    seen = [await watching.next() for _ in range(10_000)]
    assert {event.AccessRequest.Metadata.Name for event in seen} == ids
    assert set(await listed(stub, types_pb2.AccessRequestFilter(), 200)) == ids


async def test_hostile_text_arrives_as_it_is(auth: AuthService, stub: "Stub") -> None:
    text = "\x00\r\nBcc: x\u202e" * 80_000
    watching = await opened(stub)
    auth.create_request(reason=text)
    assert (await watching.next()).AccessRequest.Spec.RequestReason == text


async def test_the_service_runs_beside_a_caller_in_another_thread() -> None:
    with in_background(AuthService(AUTHORITY)) as auth:
        async with client(AUTHORITY.identity("access-mail"), auth.address) as stub:
            watching = await opened(stub)
            request_id = auth.create_request()
            assert (await watching.next()).AccessRequest.Metadata.Name == request_id


async def test_a_restarted_service_keeps_its_port_and_what_it_knows(auth: AuthService, stub: "Stub") -> None:
    watching = await opened(stub)
    request_id = auth.create_request()
    await watching.next()
    await auth.stop()
    assert await refusal(watching.next()) is StatusCode.UNAVAILABLE
    assert await refusal(stub.Ping(PING)) is StatusCode.UNAVAILABLE
    await auth.start()
    await wait_until(lambda: pinged(stub), "the service answers again")
    assert await listed(stub, types_pb2.AccessRequestFilter()) == [request_id]


async def pinged(stub: "Stub") -> bool:
    """Does the service answer?"""
    try:
        await stub.Ping(PING)
    except AioRpcError:
        return False
    return True
