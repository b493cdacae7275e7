"""The simulated cluster's Access Monitoring Rules, over real gRPC: listed in pages, watched, and refused."""

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import grpc
import pytest
from grpc import StatusCode, aio

from services.watcher.teleport.pb import auth_pb2, rules_pb2, types_pb2
from services.watcher.teleport.pb.rules_pb2_grpc import AccessMonitoringRulesServiceStub
from simulators.certificates import ClusterAuthority
from simulators.teleport import AuthService, TraceError
from simulators.teleport.messages import new_rule
from tests.integration.teleport_client import Watching, client, refusal

if TYPE_CHECKING:
    from services.watcher.teleport.pb.rules_pb2_grpc import AccessMonitoringRulesServiceAsyncStub as Stub

AUTHORITY = ClusterAuthority.create("teleport.example.com")
EVERYTHING = auth_pb2.Watch(
    Kinds=[types_pb2.WatchKind(Kind="access_request"), types_pb2.WatchKind(Kind="access_monitoring_rule")],
    AllowPartialSuccess=True,
)
OURS = rules_pb2.ListAccessMonitoringRulesWithFilterRequest(
    page_size=2, subjects=["access_request"], notification_name="email"
)


@pytest.fixture
async def auth() -> AsyncIterator[AuthService]:
    async with AuthService(AUTHORITY) as service:
        yield service


@pytest.fixture
async def stub(auth: AuthService) -> "AsyncIterator[Stub]":
    identity = AUTHORITY.identity("access-mail")
    credentials = grpc.ssl_channel_credentials(
        identity.host_authority, private_key=identity.pair.key, certificate_chain=identity.pair.certificate
    )
    options = [("grpc.ssl_target_name_override", "teleport.cluster.local"), ("grpc.use_local_subchannel_pool", 1)]
    async with aio.secure_channel(auth.address, credentials, options) as channel:
        yield AccessMonitoringRulesServiceStub(channel)


async def test_rules_are_listed_in_pages_those_alone_that_are_asked_for(auth: AuthService, stub: "Stub") -> None:
    for name in ("c", "a", "b"):
        auth.create_rule(name, "true", ["ops@example.com"])
    auth.put_rule(new_rule("chat", "true", ["channel"], notify="slack"))
    first = await stub.ListAccessMonitoringRulesWithFilter(OURS)
    assert [rule.metadata.name for rule in first.rules] == ["a", "b"]
    query = rules_pb2.ListAccessMonitoringRulesWithFilterRequest()
    query.CopyFrom(OURS)
    query.page_token = first.next_page_token
    last = await stub.ListAccessMonitoringRulesWithFilter(query)
    assert ([rule.metadata.name for rule in last.rules], last.next_page_token) == (["c"], "")
    everything = await stub.ListAccessMonitoringRulesWithFilter(rules_pb2.ListAccessMonitoringRulesWithFilterRequest())
    assert len(everything.rules) == 4


async def test_changes_are_shown_to_those_who_watch_rules(auth: AuthService) -> None:
    async with client(AUTHORITY.identity("access-mail"), auth.address) as requests:
        watching = Watching(requests, EVERYTHING)
        init = await watching.next()
        assert [kind.Kind for kind in init.WatchStatus.Spec.Kinds] == ["access_request", "access_monitoring_rule"]
        auth.create_rule("ops", "true", ["ops@example.com"])
        put = await watching.next()
        assert (put.Type, put.AccessMonitoringRule.metadata.name) == (auth_pb2.PUT, "ops")
        auth.delete_rule("ops")
        delete = await watching.next()
        assert (delete.Type, delete.ResourceHeader.Kind) == (auth_pb2.DELETE, "access_monitoring_rule")
        assert (delete.ResourceHeader.Version, delete.ResourceHeader.Metadata.Name) == ("v1", "ops")


async def test_a_rule_that_is_not_there_cannot_be_deleted(auth: AuthService) -> None:
    with pytest.raises(TraceError) as caught:
        auth.delete_rule("nothing")
    assert caught.value.code is StatusCode.NOT_FOUND


async def test_a_role_without_permission_neither_lists_nor_watches_rules(auth: AuthService, stub: "Stub") -> None:
    auth.faults.denied_kinds.add("access_monitoring_rule")
    assert await refusal(stub.ListAccessMonitoringRulesWithFilter(OURS)) is StatusCode.PERMISSION_DENIED
    async with client(AUTHORITY.identity("access-mail"), auth.address) as requests:
        init = await Watching(requests, EVERYTHING).next()
        assert [kind.Kind for kind in init.WatchStatus.Spec.Kinds] == ["access_request"]
