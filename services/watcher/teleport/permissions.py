"""What our role allows, found out by trying everything that we may want to do, without changing anything."""

import uuid
from collections.abc import Awaitable
from dataclasses import dataclass

from google.protobuf.message import Message

from services.watcher.teleport.client import TeleportClient
from services.watcher.teleport.errors import TeleportInvalid, TeleportNotFound, TeleportRefused, TeleportUnimplemented
from services.watcher.teleport.inquiries import RESOURCE_TYPES
from services.watcher.teleport.pb import auth_pb2, types_pb2
from services.watcher.teleport.undecodable import KIND


@dataclass(frozen=True)
class Permission:
    """One thing that our role must or may allow, and whether it does."""

    verb: str
    resource: str
    refusal: str
    """What Teleport said against it; empty: permitted."""
    buys: str = ""
    """What goes without it; empty: nothing goes without it."""


async def permissions(client: TeleportClient) -> list[Permission]:
    """Try them all. Raises `TeleportUnavailable`."""
    return [
        Permission("list", KIND, await _refusal(client.request(_nobody()))),
        Permission("read", KIND, await _refusal(_watch(client))),
        await _optional(
            client,
            "update",
            "access_plugin_data",
            "who was told is noted in Teleport too, and not told again should Redis lose its data",
        ),
        await _optional(client, "list", "access_monitoring_rule", "Access Monitoring Rules decide who is told"),
        await _optional(client, "read", "user_login_state", "mails and rules know the requester's traits"),
        await _optional(client, "read", "user", "mails and rules know the traits of who has not logged in lately"),
        await _optional(client, "read", "role", "mails name the logins that a requested role grants"),
        *await _resources(client),
    ]


async def _resources(client: TeleportClient) -> list[Permission]:
    """Do we see resources, and which kinds may we not list? What a role does not preview is hidden, not refused."""
    refused = []
    is_any_shown = False
    for kind in RESOURCE_TYPES:
        try:
            is_any_shown |= await client.inquiries.shows(kind)
        except (TeleportUnimplemented, TeleportInvalid):
            continue  # this version of Teleport lists none of the kind
        except TeleportRefused as error:
            refused.append(Permission("list", kind, str(error), f"mails and rules know resources of the kind {kind}"))
    hidden = "" if is_any_shown else "none is shown; has it preview_as_roles, and do those see any?"
    buys = "mails call resources by their names, and rules know their labels"
    return [Permission("preview", "resources", hidden, buys), *refused]


async def _optional(client: TeleportClient, verb: str, resource: str, buys: str) -> Permission:
    method, request = _CALLS[resource]
    return Permission(verb, resource, await _refusal(client.attempt(method, request)), buys)


async def _watch(client: TeleportClient) -> None:
    async with client.watch():
        pass


def _nobody() -> str:
    """An id that nothing has: what is asked about is not there, and whether we might ask is decided before that."""
    return str(uuid.uuid4())


_NAMED = auth_pb2.RequestID(ID=_nobody())
"""On the wire the same as each request that names in its first field what is looked for."""

_CALLS: dict[str, tuple[str, Message]] = {
    # A record can be made only for a request that exists, and changed only by who knows what it says.
    "access_plugin_data": (
        "/proto.AuthService/UpdatePluginData",
        types_pb2.PluginDataUpdateParams(Kind=KIND, Resource=_nobody(), Plugin="email", Expect={"user": _nobody()}),
    ),
    "access_monitoring_rule": (
        "/teleport.accessmonitoringrules.v1.AccessMonitoringRulesService/ListAccessMonitoringRulesWithFilter",
        auth_pb2.RequestID(),
    ),
    "user_login_state": ("/teleport.userloginstate.v1.UserLoginStateService/GetUserLoginState", _NAMED),
    "user": ("/teleport.users.v1.UsersService/GetUser", _NAMED),
    "role": ("/proto.AuthService/GetRole", _NAMED),
}


async def _refusal(trial: Awaitable[object]) -> str:
    try:
        await trial
    except TeleportNotFound:
        return ""
    except TeleportUnimplemented as error:
        return f"this version of Teleport has nothing of the kind: {error}"
    except TeleportRefused as error:
        return str(error)
    return ""
