"""Answers whose texts are no UTF-8: for Go any bytes are a text, for protobuf's readers here they are not."""

from collections.abc import Callable
from collections.abc import Set as AbstractSet
from typing import Any

import grpc

from services.watcher.teleport.pb import auth_pb2, types_pb2
from simulators.teleport.api import AuthApi

ACCENTED, LATIN_1 = "é".encode(), b"\xe9!"
"""Of the same length, so that all lengths in the message still hold."""


def handlers(api: AuthApi, spoiled: AbstractSet[str]) -> dict[str, Any]:
    """Some of Teleport's methods; every é in the requests and roles of these names is sent in Latin-1."""

    def written(message: Any) -> bytes:
        if isinstance(message, auth_pb2.ListAccessRequestsResponse):
            requests = [written(request) for request in message.AccessRequests]
            return auth_pb2.RequestPage(AccessRequests=requests, NextKey=message.NextKey).SerializeToString()
        request = message.AccessRequest if isinstance(message, auth_pb2.Event) else message
        data: bytes = message.SerializeToString()
        return data.replace(ACCENTED, LATIN_1) if request.Metadata.Name in spoiled else data

    def stream(method: Callable[..., Any], read: Callable[[bytes], Any]) -> Any:
        return grpc.unary_stream_rpc_method_handler(method, read, written)

    return {
        "ListAccessRequests": grpc.unary_unary_rpc_method_handler(
            api.ListAccessRequests, auth_pb2.ListAccessRequestsRequest.FromString, written
        ),
        "GetAccessRequestsV2": stream(api.GetAccessRequestsV2, types_pb2.AccessRequestFilter.FromString),
        "GetRole": grpc.unary_unary_rpc_method_handler(api.GetRole, auth_pb2.GetRoleRequest.FromString, written),
        "WatchEvents": stream(api.WatchEvents, auth_pb2.Watch.FromString),
    }
