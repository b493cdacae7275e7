"""Our trimmed definitions read Teleport's bytes as Teleport means them."""

from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.json_format import MessageToDict

from services.watcher.teleport.pb import auth_pb2, types_pb2
from tests.contracts.golden import FOLDER, VECTORS, message


def declared(fields: dict[str, Any], kind: Any) -> dict[str, Any]:
    """What our definitions declare of a message in protobuf's JSON form; all else is to be skipped.

    `kind` is its descriptor, whose class differs between protobuf's implementations.
    """
    known = kind.fields_by_name
    return {name: _declared(value, known[name]) for name, value in fields.items() if name in known}


def _declared(value: Any, field: FieldDescriptor) -> Any:
    kind = field.message_type
    if kind is None or kind.full_name.startswith("google.protobuf."):
        return value
    if kind.GetOptions().map_entry:
        return {key: _declared(one, kind.fields_by_name["value"]) for key, one in value.items()}
    if isinstance(value, list):
        return [declared(one, kind) for one in value]
    return declared(value, kind)


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_teleports_bytes_read_as_teleport_means_them(vector: dict[str, Any]) -> None:
    parsed = message(vector["name"])
    assert MessageToDict(parsed, preserving_proto_field_name=True) == declared(vector["fields"], parsed.DESCRIPTOR)


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_what_is_not_declared_survives_a_round_trip(vector: dict[str, Any]) -> None:
    parsed = message(vector["name"])
    assert type(parsed).FromString(parsed.SerializeToString()) == parsed


def test_only_these_vectors_hold_fields_that_we_leave_out() -> None:
    trimmed = {
        vector["name"]
        for vector in VECTORS
        if declared(vector["fields"], message(vector["name"]).DESCRIPTOR) != vector["fields"]
    }
    assert trimmed == {"event_put_user", "ping_enterprise", "user"}


def test_a_watch_is_written_as_teleports_client_writes_it() -> None:
    kinds = [types_pb2.WatchKind(Kind="access_request"), types_pb2.WatchKind(Kind="access_monitoring_rule")]
    watch = auth_pb2.Watch(Kinds=kinds, AllowPartialSuccess=True)
    assert watch.SerializeToString() == (FOLDER / "watch.bin").read_bytes()
