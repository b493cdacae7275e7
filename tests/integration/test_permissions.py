"""The roles in docs/teleport allow what the client does and no more, and what is missing is named with its worth."""

import re
import tomllib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from redis import Redis

from console.check import Finding, _allowed
from services.watcher.teleport.connect import connect
from services.watcher.teleport.identity import Identity
from services.watcher.teleport.pb import auth_pb2, types_pb2
from services.watcher.teleport.permissions import Permission, permissions
from shared.events import RulesListed
from shared.settings import TeleportSettings
from simulators.teleport import AuthService
from simulators.teleport.rbac import NEEDS, PREVIEW
from tests.integration.watching import AUTHORITY, changed, rules_events, settings, until_ready, watching

LIST_READ = (("list", "read"), ("read", "list"))
FOLDER = Path(__file__).parents[2] / "docs" / "teleport"
REQUIRED = {("access_request", "list"), ("access_request", "read")}


def document(name: str) -> Any:
    return yaml.safe_load((FOLDER / name).read_text())


def allowed_by(*names: str) -> set[tuple[str, str]]:
    """What the roles allow together."""
    roles = [document(name)["spec"]["allow"] for name in names]
    rules = [rule for allow in roles for rule in allow["rules"]]
    by_rule = {(kind, verb) for rule in rules for kind in rule["resources"] for verb in rule["verbs"]}
    previews = any(allow.get("review_requests", {}).get("preview_as_roles") for allow in roles)
    return by_rule | ({PREVIEW} if previews else set())


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


async def test_with_both_roles_nothing_is_refused(auth: AuthService, identity: Identity) -> None:
    auth.directory.add_node("n-1", "web-1")
    auth.allow_only(allowed_by("role.yaml", "role-optional.yaml"))
    assert [permission for permission in (await found(auth, identity)).values() if permission.refusal] == []


async def test_kinds_of_resources_that_this_version_cannot_list_are_no_fault(
    auth: AuthService, identity: Identity
) -> None:
    auth.faults.unimplemented.add("ListResources")
    missing = [permission for permission in (await found(auth, identity)).values() if permission.refusal]
    assert [(one.resource, one.verb) for one in missing] == [PREVIEW]


OPTIONAL = sorted(allowed_by("role-optional.yaml"))


@pytest.mark.parametrize("missing", [None, *OPTIONAL], ids=str)
async def test_each_optional_permission_buys_what_it_says(
    auth: AuthService, redis: Redis, redis_url: str, tmp_path: Path, *, missing: tuple[str, str] | None
) -> None:
    auth.directory.login_states["alice"] = {"team": ["blue"]}
    auth.directory.users["bob"] = {"team": ["red"]}
    auth.directory.roles["editor"] = ["ubuntu"]
    auth.directory.add_node("n-1", "web-1", {"env": "prod"})
    group = types_pb2.UserGroupV1(
        Header=types_pb2.ResourceHeader(Metadata=types_pb2.Metadata(Name="g-1", Description="the admins"))
    )
    auth.directory.resources["user_group"] = {"g-1": auth_pb2.PaginatedResource(UserGroup=group)}
    auth.create_rule("all", "true", ["ann@example.com"])
    auth.allow_only(allowed_by("role.yaml", "role-optional.yaml") - {missing})
    resources = ["/teleport.example.com/node/n-1", "/teleport.example.com/user_group/g-1"]
    for user in ("alice", "bob"):
        auth.create_request(user, resources=resources)
    async with watching(redis_url, settings(auth.address, tmp_path)) as watcher:
        await until_ready(watcher)
    requests = {request.user: request for request in changed(redis)}
    alice, bob = requests["alice"], requests["bob"]
    node, user_group = alice.resources
    rules = [rule.name for event in rules_events(redis) if isinstance(event, RulesListed) for rule in event.rules]
    had = {
        ("access_monitoring_rule", "list"): rules == ["all"],
        ("access_monitoring_rule", "read"): rules == ["all"],
        ("user_login_state", "read"): alice.user_traits == {"team": ("blue",)},
        ("user", "read"): bob.user_traits == {"team": ("red",)},
        ("role", "read"): alice.logins_by_role == {"editor": ("ubuntu",)},
        ("user_group", "list"): user_group.friendly_name == "the admins",
        ("user_group", "read"): user_group.friendly_name == "the admins",
        PREVIEW: (node.friendly_name, node.labels) == ("web-1", {"env": "prod"}),
    }
    assert had.keys() == set(OPTIONAL)
    lost = {permission for permission, is_had in had.items() if not is_had}
    assert lost == {one for one in OPTIONAL if one == missing or (one, missing) in TOGETHER}


TOGETHER = {
    *(((kind, verb), (kind, other)) for kind in ("access_monitoring_rule", "user_group") for verb, other in LIST_READ),
    # Who has not logged in is asked for only where it may be known who has.
    (("user", "read"), ("user_login_state", "read")),
    # Groups are resources, too.
    *((("user_group", verb), PREVIEW) for verb in ("list", "read")),
}
"""(lost, missing): permissions that are worth nothing without another one."""


async def test_what_is_optional_is_named_with_what_it_would_buy(auth: AuthService, identity: Identity) -> None:
    auth.allow_only(REQUIRED)
    request_id = auth.create_request()
    tried = await found(auth, identity)
    missing = {one: permission for one, permission in tried.items() if permission.refusal}
    # Of two verbs that one call needs the first is tried for both.
    optional = allowed_by("role.yaml", "role-optional.yaml") - REQUIRED
    assert missing.keys() == optional - {("access_monitoring_rule", "read"), ("user_group", "read")}
    said = {PREVIEW: "none is shown", ("user_group", "list"): "PERMISSION_DENIED: access denied to list user_group"}
    for (kind, verb), permission in missing.items():
        denied = f'PERMISSION_DENIED: access denied to perform action "{verb}" on "{kind}"'
        assert permission.refusal.startswith(said.get((kind, verb), denied))
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
    needed = {permission for method in auth.access.called.keys() - judged_otherwise for permission in NEEDS[method]}
    assert needed <= allowed_by("role.yaml", "role-optional.yaml")


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
    named = set(re.findall(r"(?:\(|-[fc] )([\w-]+\.yaml)", text))
    assert len(named) > 5
    assert [name for name in named if not (FOLDER / name).exists()] == []


@pytest.mark.parametrize("name", ["tbot-directory.yaml", "tbot-kubernetes.yaml"])
def test_what_tbot_writes_is_what_access_mail_is_told_to_read(name: str) -> None:
    comments = [line[2:].strip() for line in (FOLDER / name).read_text().splitlines() if line.startswith("# ")]
    start = comments.index("[teleport]")
    configuration = "\n".join(line for line in comments[start:] if re.match(r"\[|\w+ +=", line))
    teleport = tomllib.loads(configuration)["teleport"]
    (output,) = document(name)["outputs"]
    assert teleport.pop("refresh_identity") is True
    assert teleport.keys() <= TeleportSettings.model_fields.keys()
    if output["destination"]["type"] == "directory":
        folder = output["destination"]["path"]
        files = {"identity": "identity", "client_key": "key", "client_crt": "tlscert"}
        assert teleport == {key: f"{folder}/{file}" for key, file in files.items()} | {
            "root_cas": f"{folder}/teleport-host-ca.crt"
        }
    else:
        assert Path(teleport["identity"]).name == "identity", "the key of the Secret that tbot writes"
