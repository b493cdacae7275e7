"""The roles in docs/teleport allow what the client does and no more, and what is missing is named with its worth."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from redis import Redis

from console.check import Finding, _allowed
from services.watcher.teleport.connect import connect
from services.watcher.teleport.identity import Identity
from services.watcher.teleport.permissions import Permission, permissions
from shared.settings import TeleportSettings
from simulators.teleport import AuthService
from simulators.teleport.rbac import NEEDS
from tests.integration.watching import AUTHORITY, changed, settings, until_ready, watching

FOLDER = Path(__file__).parents[2] / "docs" / "teleport"
REQUIRED = {("access_request", "list"), ("access_request", "read")}


def document(name: str) -> Any:
    return yaml.safe_load((FOLDER / name).read_text())


def allowed_by(name: str) -> set[tuple[str, str]]:
    """What a role allows."""
    rules = document(name)["spec"]["allow"]["rules"]
    return {(kind, verb) for rule in rules for kind in rule["resources"] for verb in rule["verbs"]}


@pytest.fixture
async def auth() -> AsyncIterator[AuthService]:
    async with AuthService(AUTHORITY) as service:
        yield service


@pytest.fixture
def identity(tmp_path: Path) -> Identity:
    return Identity.load(TeleportSettings(identity=AUTHORITY.identity("access-mail").write_file(tmp_path / "identity")))


async def found(auth: AuthService, identity: Identity) -> dict[tuple[str, str], Permission]:
    connection = await connect(auth.address, identity)
    async with connection.client as client:
        return {(one.resource, one.verb): one for one in await permissions(client)}


async def test_with_the_role_of_the_docs_nothing_that_is_needed_is_refused(
    auth: AuthService, identity: Identity
) -> None:
    auth.allow_only(allowed_by("role.yaml"))
    tried = await found(auth, identity)
    assert {one for one, permission in tried.items() if not permission.refusal} == allowed_by("role.yaml")


async def test_what_is_optional_is_named_with_what_it_would_buy(auth: AuthService, identity: Identity) -> None:
    auth.allow_only(REQUIRED)
    request_id = auth.create_request()
    tried = await found(auth, identity)
    missing = {one: permission for one, permission in tried.items() if permission.refusal}
    # Of two verbs that one call needs the first is tried for both.
    optional = (allowed_by("role.yaml") | allowed_by("role-optional.yaml")) - REQUIRED
    assert missing.keys() == optional - {("access_monitoring_rule", "read")}
    for (kind, verb), permission in missing.items():
        assert permission.refusal == f'PERMISSION_DENIED: access denied to perform action "{verb}" on "{kind}"'
        line = _allowed(permission)
        assert not line.required
        assert line.text.startswith(f"may not {verb} {kind}, which would buy: {permission.buys} (")
    assert auth.plugin_entry(request_id) == {}, "trying changes nothing"


@pytest.mark.parametrize("missing", sorted(REQUIRED))
async def test_what_is_required_fails_the_check(
    auth: AuthService, identity: Identity, missing: tuple[str, str]
) -> None:
    auth.allow_only(allowed_by("role.yaml") - {missing})
    tried = await found(auth, identity)
    kind, verb = missing
    assert _allowed(tried[missing]) == Finding(
        good=False, text=f"may not {verb} {kind} ({tried[missing].refusal}); allow it in the role"
    )


async def test_the_watcher_works_with_the_role_and_calls_nothing_that_the_roles_do_not_name(
    auth: AuthService, redis: Redis, redis_url: str, tmp_path: Path
) -> None:
    auth.allow_only(allowed_by("role.yaml"))
    request_id = auth.create_request()
    async with watching(redis_url, settings(auth.address, tmp_path)) as watcher:
        await until_ready(watcher)
    assert [request.id for request in changed(redis)] == [request_id]
    judged_otherwise = {"/proto.AuthService/Ping", "/proto.AuthService/WatchEvents", "/proto.AuthService/ListResources"}
    needed = {permission for method in auth.access.called - judged_otherwise for permission in NEEDS[method]}
    assert needed <= allowed_by("role.yaml") | allowed_by("role-optional.yaml")


def test_the_people_and_bots_of_the_docs_have_roles_that_exist() -> None:
    names = {document(path.name)["metadata"]["name"] for path in FOLDER.glob("*.yaml") if "tbot" not in path.name}
    bots = [output for name in ("tbot-directory.yaml", "tbot-kubernetes.yaml") for output in document(name)["outputs"]]
    assert {output["type"] for output in bots} == {"identity"}
    assert {role for output in bots for role in output["roles"]} <= names
    assert set(document("user.yaml")["spec"]["roles"]) <= names
    assert set(document("impersonator.yaml")["spec"]["allow"]["impersonate"]["roles"]) <= names


def test_every_file_is_named_in_the_readme() -> None:
    text = (FOLDER / "README.md").read_text()
    assert [path.name for path in FOLDER.glob("*.yaml") if f"({path.name})" not in text] == []
