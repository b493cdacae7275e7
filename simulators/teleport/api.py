# ruff: noqa: N802 - gRPC methods bear the names that Teleport gave them
"""Teleport's gRPC methods, each one translated into what it does to the simulated cluster."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from google.protobuf.empty_pb2 import Empty
from grpc import StatusCode
from grpc.aio import ServicerContext

from services.watcher.teleport.pb import (
    accounts_pb2,
    accounts_pb2_grpc,
    auth_pb2,
    auth_pb2_grpc,
    rules_pb2,
    rules_pb2_grpc,
    types_pb2,
    users_pb2,
    users_pb2_grpc,
)
from simulators.teleport.cluster import Cluster
from simulators.teleport.errors import TraceError
from simulators.teleport.messages import ACCESS_MONITORING_RULE, ACCESS_REQUEST, init_event

Context = ServicerContext[Any, Any]
"""Of any method: its messages' types are those of the method."""

KNOWN_KINDS = frozenset({ACCESS_REQUEST, ACCESS_MONITORING_RULE})


class _Api:
    """What all services of one cluster share."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    @asynccontextmanager
    async def _call(self, method: str, context: Context) -> AsyncIterator[None]:
        """Let the call suffer its faults, and answer a `TraceError` with its status."""
        self._cluster.client_certificates.update(context.auth_context().get("x509_pem_cert", ()))
        try:
            async with self._cluster.faults.met(method):
                yield
        except TraceError as error:
            await context.abort(error.code, error.text)


class RulesApi(_Api, rules_pb2_grpc.AccessMonitoringRulesServiceServicer):
    """The service `teleport.accessmonitoringrules.v1.AccessMonitoringRulesService` over one cluster."""

    async def ListAccessMonitoringRulesWithFilter(
        self, request: rules_pb2.ListAccessMonitoringRulesWithFilterRequest, context: Context
    ) -> rules_pb2.ListAccessMonitoringRulesResponse:
        """Return one page of the matching rules."""
        async with self._call("ListAccessMonitoringRulesWithFilter", context):
            if ACCESS_MONITORING_RULE in self._cluster.faults.denied_kinds:
                text = f"access denied to perform action list on {ACCESS_MONITORING_RULE}"
                raise TraceError(StatusCode.PERMISSION_DENIED, text)
            return self._cluster.rules_page(request)


class AuthApi(_Api, auth_pb2_grpc.AuthServiceServicer):
    """The service `proto.AuthService` over one cluster."""

    async def Ping(self, request: auth_pb2.PingRequest, context: Context) -> auth_pb2.PingResponse:
        """Tell which cluster this is and what it can do."""
        del request  # it has no fields
        async with self._call("Ping", context):
            return self._cluster.ping

    async def WatchEvents(self, request: auth_pb2.Watch, context: Context) -> AsyncIterator[auth_pb2.Event]:
        """Send INIT with the accepted kinds, then what happens from now on."""
        async with self._call("WatchEvents", context):
            faults = self._cluster.faults
            accepted = accepted_kinds(request, faults.denied_kinds)
            with self._cluster.watches.opened(kind.Kind for kind in accepted) as watch:
                yield faults.first_event or init_event(accepted)
                async for event in watch.events():
                    yield event

    async def GetAccessRequestsV2(
        self, request: types_pb2.AccessRequestFilter, context: Context
    ) -> AsyncIterator[types_pb2.AccessRequestV3]:
        """Send all matching requests."""
        async with self._call("GetAccessRequestsV2", context):
            for found in self._cluster.find(request):
                yield found

    async def ListAccessRequests(
        self, request: auth_pb2.ListAccessRequestsRequest, context: Context
    ) -> auth_pb2.ListAccessRequestsResponse:
        """Return one page of the matching requests."""
        async with self._call("ListAccessRequests", context):
            return self._cluster.page(request)

    async def CreateAccessRequestV2(
        self, request: types_pb2.AccessRequestV3, context: Context
    ) -> types_pb2.AccessRequestV3:
        """Create a request."""
        async with self._call("CreateAccessRequestV2", context):
            return self._cluster.create(request)

    async def DeleteAccessRequest(self, request: auth_pb2.RequestID, context: Context) -> Empty:
        """Delete a request."""
        async with self._call("DeleteAccessRequest", context):
            self._cluster.delete(request.ID)
            return Empty()

    async def SetAccessRequestState(self, request: auth_pb2.RequestStateSetter, context: Context) -> Empty:
        """Approve or deny as an administrator."""
        async with self._call("SetAccessRequestState", context):
            self._cluster.set_state(request)
            return Empty()

    async def SubmitAccessReview(
        self, request: types_pb2.AccessReviewSubmission, context: Context
    ) -> types_pb2.AccessRequestV3:
        """Add a review."""
        async with self._call("SubmitAccessReview", context):
            return self._cluster.submit(request)

    async def GetPluginData(self, request: types_pb2.PluginDataFilter, context: Context) -> auth_pb2.PluginDataSeq:
        """Return what plugins have noted."""
        async with self._call("GetPluginData", context):
            return self._cluster.find_plugin_data(request)

    async def UpdatePluginData(self, request: types_pb2.PluginDataUpdateParams, context: Context) -> Empty:
        """Compare and swap what a plugin has noted."""
        async with self._call("UpdatePluginData", context):
            self._cluster.update_plugin_data(request)
            return Empty()

    async def GetRole(self, request: auth_pb2.GetRoleRequest, context: Context) -> types_pb2.RoleV6:
        """Return a role."""
        async with self._call("GetRole", context):
            return self._cluster.directory.role(request.Name)

    async def ListResources(
        self, request: auth_pb2.ListResourcesRequest, context: Context
    ) -> auth_pb2.ListResourcesResponse:
        """Return one page of the resources that are asked for by name."""
        async with self._call("ListResources", context):
            return self._cluster.directory.page(request)


class UsersApi(_Api, accounts_pb2_grpc.UsersServiceServicer):
    """The service `teleport.users.v1.UsersService`."""

    async def GetUser(self, request: accounts_pb2.GetUserRequest, context: Context) -> accounts_pb2.GetUserResponse:
        """Return a user."""
        async with self._call("GetUser", context):
            return accounts_pb2.GetUserResponse(user=self._cluster.directory.user(request.name))


class LoginStatesApi(_Api, users_pb2_grpc.UserLoginStateServiceServicer):
    """The service `teleport.userloginstate.v1.UserLoginStateService`."""

    async def GetUserLoginState(
        self, request: users_pb2.GetUserLoginStateRequest, context: Context
    ) -> users_pb2.UserLoginState:
        """Return what a user's last login has left."""
        async with self._call("GetUserLoginState", context):
            return self._cluster.directory.login_state(request.name)


def accepted_kinds(watch: auth_pb2.Watch, denied: set[str]) -> list[types_pb2.WatchKind]:
    """Return the kinds that this watch will see. Raises `TraceError` where Teleport refuses to open it."""
    if not watch.Kinds:
        raise TraceError(StatusCode.PERMISSION_DENIED, "can't setup global watch")
    accepted = []
    for kind in watch.Kinds:
        objection = _objection(kind, denied)
        if objection is None:
            accepted.append(kind)
        elif not watch.AllowPartialSuccess:
            raise objection
    if not accepted:
        raise TraceError(StatusCode.INVALID_ARGUMENT, "none of the requested kinds can be watched")
    return accepted


def _objection(kind: types_pb2.WatchKind, denied: set[str]) -> TraceError | None:
    if kind.Kind in denied:
        return TraceError(StatusCode.PERMISSION_DENIED, f"access denied to perform action read on {kind.Kind}")
    if kind.Kind not in KNOWN_KINDS:
        return TraceError(StatusCode.INVALID_ARGUMENT, f"watcher does not support object kind {kind.Kind}")
    if kind.Filter:
        return TraceError(StatusCode.UNIMPLEMENTED, "the simulated cluster filters no watches")
    return None
