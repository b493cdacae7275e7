"""What a role allows its holder to call, as Teleport judges it: by kinds of resources and verbs."""

from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import grpc
from grpc import StatusCode, aio

Permission = tuple[str, str]
"""A kind of resources and a verb, such as `access_request`, `list`."""

LIST_REQUESTS = frozenset({("access_request", "list"), ("access_request", "read")})

NEEDS: dict[str, frozenset[Permission]] = {
    "/proto.AuthService/ListAccessRequests": LIST_REQUESTS,
    "/proto.AuthService/GetAccessRequestsV2": LIST_REQUESTS,
    "/proto.AuthService/GetPluginData": LIST_REQUESTS,
    "/proto.AuthService/UpdatePluginData": frozenset({("access_plugin_data", "update")}),
    "/proto.AuthService/GetRole": frozenset({("role", "read")}),
    "/teleport.users.v1.UsersService/GetUser": frozenset({("user", "read")}),
    "/teleport.userloginstate.v1.UserLoginStateService/GetUserLoginState": frozenset({("user_login_state", "read")}),
    "/teleport.accessmonitoringrules.v1.AccessMonitoringRulesService/ListAccessMonitoringRulesWithFilter": frozenset(
        {("access_monitoring_rule", "list"), ("access_monitoring_rule", "read")}
    ),
}
"""By method. `WatchEvents` judges each kind by itself, as does `ListResources`."""

PREVIEW: Permission = ("resources", "preview")
"""No rule of a role but its `preview_as_roles`: without them `ListResources` is allowed, and shows nothing."""

LIST_USER_GROUPS = frozenset({("user_group", "list"), ("user_group", "read")})
"""Every other kind of resources may be listed by whoever sees any."""


class RoleBasedAccess(aio.ServerInterceptor):
    """Refuses calls before anybody looks at what they are about."""

    def __init__(self) -> None:
        self.allowed: frozenset[Permission] | None = None
        """What the callers' role allows; None: everything."""
        self.called: defaultdict[str, set[str | bytes | None]] = defaultdict(set)
        """The methods that were called, with the versions that clients named; None where one named none."""

    def lacks(self, permissions: Iterable[Permission]) -> list[Permission]:
        """Those of the permissions that the role does not give."""
        return [] if self.allowed is None else sorted(set(permissions) - self.allowed)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Let the call pass or refuse it."""
        method = handler_call_details.method
        self.called[method].add(dict(handler_call_details.invocation_metadata).get("version"))
        lacking = self.lacks(NEEDS.get(method, ()))
        if not lacking:
            return await continuation(handler_call_details)
        kind, verb = lacking[0]

        async def refuse(_: bytes, context: aio.ServicerContext[bytes, bytes]) -> bytes:
            text = f'access denied to perform action "{verb}" on "{kind}"'
            await context.abort(StatusCode.PERMISSION_DENIED, text)

        return grpc.unary_unary_rpc_method_handler(refuse)
