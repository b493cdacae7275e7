"""What Teleport tells about the people, roles and resources of a request: names for its reviewers, facts for rules."""

import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TypeVar

from google.protobuf.message import DecodeError
from grpc import StatusCode, aio

from services.watcher.teleport.described import (
    Described,
    Traits,
    decode_login_state,
    decode_logins,
    decode_resources,
    decode_traits,
)
from services.watcher.teleport.pb import accounts_pb2, auth_pb2, users_pb2
from services.watcher.teleport.pb.accounts_pb2_grpc import UsersServiceStub
from services.watcher.teleport.pb.auth_pb2_grpc import AuthServiceStub
from services.watcher.teleport.pb.users_pb2_grpc import UserLoginStateServiceStub

RESOURCE_TYPES = {
    "node": "node",
    "app": "app_server",
    "db": "db_server",
    "kube_cluster": "kube_server",
    "windows_desktop": "windows_desktop",
    "user_group": "user_group",
    "aws_ic_account": "aws_ic_account",
}
"""The kinds of requested resources that have names or labels, and what Teleport lists for each."""


Answer = TypeVar("Answer")


class Inquiries:
    """Every method raises the client's `TeleportError`; none has a deadline of its own."""

    def __init__(
        self, channel: aio.Channel, metadata: aio.Metadata, translated: Callable[[], AbstractContextManager[None]]
    ) -> None:
        """`translated` makes the client's errors of gRPC's."""
        self._auth = AuthServiceStub(channel)
        self._users = UsersServiceStub(channel)
        self._login_states = UserLoginStateServiceStub(channel)
        self._metadata = metadata
        self._translated = translated

    async def traits(self, user: str) -> Traits:
        """The user's traits: those of the last login, else those that the user was given."""
        wanted = users_pb2.GetUserLoginStateRequest(name=user)
        with self._translated():
            try:
                state = await self._login_states.GetUserLoginState(wanted, metadata=self._metadata)
                return decode_login_state(_readable(state))
            except aio.AioRpcError as error:
                if error.code() is not StatusCode.NOT_FOUND:
                    raise
            known = await self._users.GetUser(accounts_pb2.GetUserRequest(name=user), metadata=self._metadata)
            return decode_traits(_readable(known).user)

    async def logins(self, role: str) -> tuple[str, ...]:
        """The logins that the role allows, as it is written: some stand for traits of the user."""
        with self._translated():
            known = await self._auth.GetRole(auth_pb2.GetRoleRequest(Name=role), metadata=self._metadata)
            return decode_logins(_readable(known))

    async def resources(self, kind: str, ids: Sequence[str]) -> dict[str, Described]:
        """Resources of one of `RESOURCE_TYPES` by id, as far as our role sees them among what it could request."""
        call = _listing(kind, len(ids))
        call.PredicateExpression = " || ".join(
            f"resource.metadata.name == {json.dumps(one, ensure_ascii=False)}" for one in ids
        )
        found: dict[str, Described] = {}
        for _ in ids:  # there can be no more pages than ids
            with self._translated():
                page = _readable(await self._auth.ListResources(call, metadata=self._metadata))
            found.update(decode_resources(page))
            call.StartKey = page.NextKey
            if not page.NextKey:
                break
        return found

    async def shows(self, kind: str) -> bool:
        """Do we see any resource of this kind?"""
        with self._translated():
            page = await self._auth.ListResources(_listing(kind, 1), metadata=self._metadata)
            return bool(_readable(page).Resources)


def _listing(kind: str, limit: int) -> auth_pb2.ListResourcesRequest:
    """Also what is not ours to see, but our role's to preview: a request may ask for it."""
    return auth_pb2.ListResourcesRequest(
        ResourceType=RESOURCE_TYPES[kind],
        Namespace="default",
        Limit=limit,
        UseSearchAsRoles=True,
        UsePreviewAsRoles=True,
    )


def _readable(answer: Answer | None) -> Answer:
    """Raises `DecodeError` where gRPC could not parse a message, for which it gives None."""
    if answer is None:
        raise DecodeError("the answer cannot be read")
    return answer
