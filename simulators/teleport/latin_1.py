"""Answers whose texts are no UTF-8: for Go any bytes are a text, for protobuf's readers here they are not."""

from collections.abc import Callable
from collections.abc import Set as AbstractSet
from typing import Any

import grpc

from services.watcher.teleport.pb import auth_pb2, rules_pb2, types_pb2
from simulators.teleport.api import AuthApi, RulesApi

ACCENTED, LATIN_1 = "é".encode(), b"\xe9!"
"""Of the same length, so that all lengths in the message still hold."""


class Spoiler:
    """Serializes some of Teleport's answers, with every é in what bears one of these names in Latin-1."""

    def __init__(self, spoiled: AbstractSet[str]) -> None:
        self._spoiled = spoiled

    def of_auth(self, api: AuthApi) -> dict[str, Any]:
        """Methods of the Auth Service."""
        return {
            "ListAccessRequests": _unary(
                api.ListAccessRequests, auth_pb2.ListAccessRequestsRequest.FromString, self._page_of_requests
            ),
            "GetAccessRequestsV2": _stream(
                api.GetAccessRequestsV2, types_pb2.AccessRequestFilter.FromString, self._resource
            ),
            "GetRole": _unary(api.GetRole, auth_pb2.GetRoleRequest.FromString, self._resource),
            "WatchEvents": _stream(api.WatchEvents, auth_pb2.Watch.FromString, self._event),
        }

    def of_rules(self, api: RulesApi) -> dict[str, Any]:
        """Methods of the service of Access Monitoring Rules."""
        return {
            "ListAccessMonitoringRulesWithFilter": _unary(
                api.ListAccessMonitoringRulesWithFilter,
                rules_pb2.ListAccessMonitoringRulesWithFilterRequest.FromString,
                self._page_of_rules,
            )
        }

    def _page_of_requests(self, page: auth_pb2.ListAccessRequestsResponse) -> bytes:
        requests = map(self._resource, page.AccessRequests)
        return auth_pb2.RequestPage(AccessRequests=requests, NextKey=page.NextKey).SerializeToString()

    def _page_of_rules(self, page: rules_pb2.ListAccessMonitoringRulesResponse) -> bytes:
        rules = (self._written(rule, rule.metadata.name) for rule in page.rules)
        return rules_pb2.RulesPage(rules=rules, next_page_token=page.next_page_token).SerializeToString()

    def _event(self, event: auth_pb2.Event) -> bytes:
        rule = event.AccessMonitoringRule.metadata.name
        return self._written(event, rule or event.AccessRequest.Metadata.Name)

    def _resource(self, message: Any) -> bytes:
        return self._written(message, message.Metadata.Name)

    def _written(self, message: Any, name: str) -> bytes:
        data: bytes = message.SerializeToString()
        return data.replace(ACCENTED, LATIN_1) if name in self._spoiled else data


def _unary(method: Callable[..., Any], read: Callable[[bytes], Any], write: Callable[[Any], bytes]) -> Any:
    return grpc.unary_unary_rpc_method_handler(method, read, write)


def _stream(method: Callable[..., Any], read: Callable[[bytes], Any], write: Callable[[Any], bytes]) -> Any:
    return grpc.unary_stream_rpc_method_handler(method, read, write)
