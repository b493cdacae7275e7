"""Plugin data of the simulated Auth Service follow Teleport's rules of compare-and-swap, over real gRPC."""

from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from grpc import StatusCode

from services.watcher.teleport.pb import types_pb2
from simulators.certificates import ClusterAuthority
from simulators.teleport import AuthService, TraceError
from simulators.teleport.cluster import Cluster
from tests.integration.teleport_client import client, refusal

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


def change(
    request_id: str, values: Mapping[str, str], expect: Mapping[str, str] | None = None, *, plugin: str = "email"
) -> types_pb2.PluginDataUpdateParams:
    """One update of a plugin's entry."""
    return types_pb2.PluginDataUpdateParams(
        Kind="access_request", Resource=request_id, Plugin=plugin, Set=values, Expect=expect
    )


@pytest.mark.parametrize(
    ("stored", "expect", "values", "after"),
    [
        pytest.param({}, {}, {"a": "1"}, {"a": "1"}, id="nothing is compared with nothing stored"),
        pytest.param({"a": "1"}, {}, {"a": "2"}, {"a": "2"}, id="an empty Expect compares nothing"),
        pytest.param({}, {"a": ""}, {"a": "1"}, {"a": "1"}, id="empty means not there, without an entry"),
        pytest.param({"b": "1"}, {"a": ""}, {"a": "1"}, {"a": "1", "b": "1"}, id="empty means not there"),
        pytest.param({"a": "1"}, {"a": ""}, {"a": "2"}, None, id="it is there"),
        pytest.param({}, {"a": "1"}, {"a": "2"}, None, id="it is not there, without an entry"),
        pytest.param({"b": "1"}, {"a": "1"}, {"a": "2"}, None, id="it is not there"),
        pytest.param({"a": "1"}, {"a": "1"}, {"a": "2"}, {"a": "2"}, id="as expected"),
        pytest.param({"a": "1"}, {"a": "2"}, {"a": "3"}, None, id="another value"),
        pytest.param({"a": "1", "b": "1"}, {"a": "1"}, {"c": "1"}, {"a": "1", "b": "1", "c": "1"}, id="unnamed stay"),
        pytest.param({"a": "1", "b": "1"}, {"a": "1"}, {"a": ""}, {"b": "1"}, id="an empty value removes"),
        pytest.param({"a": "1"}, {"a": "1"}, {"a": ""}, {}, id="an empty entry is no entry"),
    ],
)
async def test_compare_and_swap(
    auth: AuthService,
    stub: "Stub",
    *,
    stored: dict[str, str],
    expect: dict[str, str],
    values: dict[str, str],
    after: dict[str, str] | None,
) -> None:
    request_id = auth.create_request()
    await stub.UpdatePluginData(change(request_id, stored))
    if after is None:
        refused = stub.UpdatePluginData(change(request_id, values, expect))
        assert await refusal(refused) is StatusCode.FAILED_PRECONDITION
    else:
        await stub.UpdatePluginData(change(request_id, values, expect))
    assert auth.plugin_entry(request_id) == (stored if after is None else after)


async def test_nothing_stored_is_an_empty_answer(stub: "Stub") -> None:
    wanted = types_pb2.PluginDataFilter(Kind="access_request", Resource="unknown", Plugin="email")
    assert not (await stub.GetPluginData(wanted)).PluginData


async def test_an_item_holds_the_entries_of_all_plugins(auth: AuthService, stub: "Stub") -> None:
    request_id = auth.create_request()
    await stub.UpdatePluginData(change(request_id, {"a": "1"}))
    await stub.UpdatePluginData(change(request_id, {"b": "2"}, plugin="slack"))
    wanted = types_pb2.PluginDataFilter(Kind="access_request", Resource=request_id, Plugin="email")
    (item,) = (await stub.GetPluginData(wanted)).PluginData
    assert (item.Kind, item.SubKind, item.Version) == ("plugin_data", "access_request", "v3")
    assert item.Metadata.Name == request_id
    assert {plugin: dict(entry.Data) for plugin, entry in item.Spec.Entries.items()} == {
        "email": {"a": "1"},
        "slack": {"b": "2"},
    }
    wanted.Plugin = "jira"
    assert not (await stub.GetPluginData(wanted)).PluginData


async def test_only_requests_have_plugin_data(stub: "Stub") -> None:
    wanted = types_pb2.PluginDataFilter(Kind="moon")
    assert await refusal(stub.GetPluginData(wanted)) is StatusCode.INVALID_ARGUMENT
    update = types_pb2.PluginDataUpdateParams(Kind="moon", Resource="r", Plugin="email")
    assert await refusal(stub.UpdatePluginData(update)) is StatusCode.INVALID_ARGUMENT


async def test_a_record_begins_only_while_its_request_exists_and_outlives_it(auth: AuthService, stub: "Stub") -> None:
    assert await refusal(stub.UpdatePluginData(change("unknown", {"a": "1"}))) is StatusCode.NOT_FOUND
    request_id = auth.create_request()
    await stub.UpdatePluginData(change(request_id, {"a": "1"}))
    auth.expire(request_id)
    await stub.UpdatePluginData(change(request_id, {"a": "2"}, {"a": "1"}))
    assert auth.plugin_entry(request_id) == {"a": "2"}


def test_a_failed_update_begins_no_record() -> None:
    cluster = Cluster("teleport.example.com")
    request_id = cluster.create_request()
    with pytest.raises(TraceError, match='expectations not met for field "a"'):
        cluster.update_plugin_data(change(request_id, {"a": "2"}, {"a": "1"}))
    assert cluster.plugin_data.get(request_id) is None


def test_a_record_lives_an_hour_longer_than_the_access() -> None:
    now = [datetime(2026, 11, 24, tzinfo=UTC)]
    cluster = Cluster("teleport.example.com", clock=lambda: now[0])
    request_id = cluster.create_request(access=timedelta(hours=8))
    cluster.update_plugin_data(change(request_id, {"a": "1"}))
    now[0] += timedelta(hours=8, minutes=59)
    cluster.expire_due()
    with pytest.raises(TraceError, match="not found"):
        cluster.get(request_id)
    assert cluster.plugin_entry(request_id) == {"a": "1"}
    now[0] += timedelta(minutes=1)
    cluster.expire_due()
    assert cluster.plugin_entry(request_id) == {}


def test_a_record_has_a_limit_for_all_plugins_together() -> None:
    cluster = Cluster("teleport.example.com")
    cluster.plugin_data.size_limit = 10
    request_id = cluster.create_request()
    cluster.update_plugin_data(change(request_id, {"a": "12345"}, plugin="slack"))
    with pytest.raises(TraceError, match="size limit exceeded") as refused:
        cluster.update_plugin_data(change(request_id, {"a": "12345"}))
    assert refused.value.code is StatusCode.INVALID_ARGUMENT
    cluster.update_plugin_data(change(request_id, {"a": "123"}))
