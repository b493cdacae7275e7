"""Who and what a simulated cluster knows beside its requests: users with traits, roles with logins, resources."""

import re
from collections.abc import Mapping, Sequence
from typing import TypeVar

from grpc import StatusCode

from services.watcher.teleport.pb import auth_pb2, types_pb2, users_pb2
from simulators.teleport.errors import TraceError

_NAME = re.compile(r'resource\.metadata\.name == "([^"]*)"')
"""The only predicate that the simulated cluster understands, be it once or joined by `||`."""

Found = TypeVar("Found")


class Directory:
    """Plain values, to be filled at will."""

    def __init__(self) -> None:
        self.users: dict[str, Mapping[str, Sequence[str]]] = {}
        """Traits by user."""
        self.login_states: dict[str, Mapping[str, Sequence[str]]] = {}
        """Traits of those who have logged in."""
        self.roles: dict[str, Sequence[str]] = {}
        """Logins by role."""
        self.resources: dict[str, dict[str, auth_pb2.PaginatedResource]] = {}
        """By the kind that Teleport lists, such as `app_server`, then by id."""
        self.denied: set[str] = set()
        """Kinds that nobody may list."""
        self.shows_resources = True
        """While false, resources are as good as not there: the roles to preview as see none."""

    def add_node(self, name: str, hostname: str, labels: Mapping[str, str] | None = None) -> None:
        """Let there be a server."""
        node = types_pb2.ServerV2(
            Kind="node",
            Version="v2",
            Metadata=types_pb2.Metadata(Name=name, Labels=labels),
            Spec=types_pb2.ServerSpecV2(Hostname=hostname),
        )
        self.resources.setdefault("node", {})[name] = auth_pb2.PaginatedResource(Node=node)

    def user(self, name: str) -> types_pb2.UserV2:
        """Answer `GetUser`. Raises `TraceError` (NotFound)."""
        traits = _known(self.users, name, "user")
        user = types_pb2.UserV2(Kind="user", Version="v2", Metadata=types_pb2.Metadata(Name=name))
        for key, values in traits.items():
            user.Spec.Traits.Values[key].Values.extend(values)
        return user

    def login_state(self, name: str) -> users_pb2.UserLoginState:
        """Answer `GetUserLoginState`. Raises `TraceError` (NotFound)."""
        traits = _known(self.login_states, name, "user_login_state")
        found = [users_pb2.Trait(key=key, values=values) for key, values in traits.items()]
        return users_pb2.UserLoginState(spec=users_pb2.Spec(traits=found))

    def role(self, name: str) -> types_pb2.RoleV6:
        """Answer `GetRole`. Raises `TraceError` (NotFound)."""
        logins = _known(self.roles, name, "role")
        allow = types_pb2.RoleConditions(Logins=logins)
        metadata = types_pb2.Metadata(Name=name)
        return types_pb2.RoleV6(Kind="role", Version="v7", Metadata=metadata, Spec=types_pb2.RoleSpecV6(Allow=allow))

    def page(self, query: auth_pb2.ListResourcesRequest) -> auth_pb2.ListResourcesResponse:
        """Answer `ListResources`: what has one of the names, if any are, at most `Limit` at a time.

        Raises `TraceError`.
        """
        if query.ResourceType in self.denied:
            raise TraceError(StatusCode.PERMISSION_DENIED, f"access denied to list {query.ResourceType}")
        kind = self.resources.get(query.ResourceType, {}) if self.shows_resources else {}
        wanted = _NAME.findall(query.PredicateExpression) if query.PredicateExpression else kind
        names = sorted({name for name in wanted if name in kind})
        rest = [name for name in names if name >= query.StartKey]
        shown, beyond = rest[: query.Limit], rest[query.Limit :]
        return auth_pb2.ListResourcesResponse(
            Resources=[kind[name] for name in shown], NextKey=beyond[0] if beyond else "", TotalCount=len(names)
        )


def _known(all_: Mapping[str, Found], name: str, kind: str) -> Found:
    try:
        return all_[name]
    except KeyError:
        raise TraceError(StatusCode.NOT_FOUND, f'{kind} "{name}" is not found') from None
