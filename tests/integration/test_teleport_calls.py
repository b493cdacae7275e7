"""Every call that we make says which version we speak, and is one that the roles in docs/teleport allow."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.watcher.teleport.client import CLIENT_VERSION, TeleportClient
from services.watcher.teleport.connect import connect
from services.watcher.teleport.identity import Identity
from services.watcher.teleport.pb import accounts_pb2, auth_pb2, rules_pb2, users_pb2
from services.watcher.teleport.permissions import permissions
from shared.settings import TeleportSettings
from simulators.teleport import AuthService
from tests.integration.test_permissions import allowed_by
from tests.integration.watching import AUTHORITY

PEOPLES = {"CreateAccessRequestV2", "DeleteAccessRequest", "SetAccessRequestState", "SubmitAccessReview"}
"""Methods that are declared for those who make requests and review them."""

OURS = {
    f"/{service.full_name}/{method.name}"
    for file in (auth_pb2, accounts_pb2, rules_pb2, users_pb2)
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
    if method.name not in PEOPLES
}


@pytest.fixture
async def auth() -> AsyncIterator[AuthService]:
    async with AuthService(AUTHORITY) as service:
        service.directory.users["alice"] = {"team": ["blue"]}
        service.directory.roles["editor"] = ["ubuntu"]
        service.directory.add_node("n-1", "web-1")
        service.allow_only(allowed_by("role.yaml", "role-optional.yaml"))
        yield service


@pytest.fixture
async def client(auth: AuthService, tmp_path: Path) -> AsyncIterator[TeleportClient]:
    identity = AUTHORITY.identity("access-mail").write_file(tmp_path / "identity")
    connection = await connect(auth.address, Identity.load(TeleportSettings(identity=identity)))
    async with connection.client as client:
        yield client


async def call_everything(client: TeleportClient, request_id: str) -> None:
    """Raises `TeleportRefused` for what is not allowed."""
    async with client.watch() as watch:
        assert watch.shows_rules
    assert [request async for page in client.requests() for request in page]
    assert [page async for page in client.rules()]
    await client.update_plugin_entry(request_id, {}, {"user": "alice"})
    assert await client.plugin_entry(request_id) == {"user": "alice"}
    assert (await client.inquiries.traits("alice")).values
    assert await client.inquiries.logins("editor")
    assert await client.inquiries.resources("node", ["n-1"])


async def test_every_call_is_allowed_and_says_which_version_we_speak(auth: AuthService, client: TeleportClient) -> None:
    request_id = auth.create_request()
    await call_everything(client, request_id)
    auth.faults.unimplemented.add("ListAccessRequests")  # as in an older cluster
    assert await client.request(request_id)
    assert auth.access.called == {method: {CLIENT_VERSION} for method in OURS}


async def test_trying_what_is_allowed_says_so_too(auth: AuthService, client: TeleportClient) -> None:
    assert [one for one in await permissions(client) if one.refusal] == []
    assert auth.access.called.keys() == OURS - {"/proto.AuthService/GetAccessRequestsV2"} - {
        "/proto.AuthService/GetPluginData"  # which the right to list requests allows
    }
    assert set().union(*auth.access.called.values()) == {CLIENT_VERSION}
