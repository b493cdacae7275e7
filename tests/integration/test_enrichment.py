"""What Teleport tells beside an event goes with it, and what it does not tell delays or changes nothing else."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from grpc import StatusCode
from prometheus_client import CollectorRegistry
from redis import Redis

from services.watcher import look_ups, patience
from services.watcher.teleport import facts
from services.watcher.teleport.pb import auth_pb2, types_pb2
from shared.events import AnnouncedThread, RequestChanged, RequestGone, RequestState, Resource
from simulators.teleport import AuthService
from tests.integration.test_watcher import remember
from tests.integration.watching import AUTHORITY, changed, events, gone, settings, until_ready, watching
from tests.waiting import wait_until

LOOK_UPS = {"GetPluginData", "GetUserLoginState", "GetUser", "GetRole", "ListResources"}
NODE, NODE_2, UNKNOWN = (f"/teleport.example.com/node/{name}" for name in ("n-1", "n-2", "n-9"))
RECORD = {"user": "alice", "roles": "editor", "email_threads": "ann@example.com/2026/X.1@host", "reviews_count": "2"}


@pytest.fixture
async def auth() -> AsyncIterator[AuthService]:
    async with AuthService(AUTHORITY) as service:
        directory = service.directory
        directory.login_states["alice"] = {"logins": ["alice", "root"], "unix user": ["al"], "team": ["blue"]}
        directory.roles["editor"] = ["ubuntu", "{{internal.logins}}", '{{external["unix user"]}}-adm', "{{x.y(z)}}"]
        directory.add_node("n-1", "web-1", {"env": "prod"})
        yield service


def write_record(auth: AuthService, request_id: str, entry: dict[str, str]) -> None:
    auth.update_plugin_data(
        types_pb2.PluginDataUpdateParams(Kind="access_request", Resource=request_id, Plugin="email", Set=entry)
    )


def counted(registry: CollectorRegistry, kind: str, outcome: str) -> float:
    labels = {"kind": kind, "outcome": outcome}
    return registry.get_sample_value("access_mail_watcher_look_ups_total", labels) or 0


@pytest.mark.parametrize("live", [False, True])
async def test_names_logins_traits_and_labels_go_with_a_new_request(
    auth: AuthService, redis: Redis, redis_url: str, tmp_path: Path, *, live: bool
) -> None:
    if not live:
        auth.create_request(resources=[NODE])
    async with watching(redis_url, settings(auth.address, tmp_path)) as watcher:
        await until_ready(watcher)
        if live:
            auth.create_request(resources=[NODE])
        await wait_until(lambda: changed(redis), "it is told")
    (request,) = changed(redis)
    assert request.user_traits == {"logins": ("alice", "root"), "unix user": ("al",), "team": ("blue",)}
    assert request.logins_by_role == {"editor": ("ubuntu", "alice", "root", "al-adm")}
    assert request.resources == (
        Resource(
            cluster="teleport.example.com", kind="node", name="n-1", friendly_name="web-1", labels={"env": "prod"}
        ),
    )
    (event,) = events(redis)
    assert event.announced is None


async def test_a_user_who_never_logged_in_has_the_traits_that_were_given(
    auth: AuthService, redis: Redis, redis_url: str, tmp_path: Path
) -> None:
    auth.directory.users["bob"] = {"level": ["L1", "L2"], "none": []}
    auth.create_request(user="bob")
    auth.create_request(user="nobody-knows")
    async with watching(redis_url, settings(auth.address, tmp_path)) as watcher:
        await until_ready(watcher)
    assert {request.user: request.user_traits for request in changed(redis)} == {
        "bob": {"level": ("L1", "L2"), "none": ()},
        "nobody-knows": {},
    }


@pytest.mark.parametrize("trouble", ["refused", "slow"])
@pytest.mark.parametrize(
    ("method", "kind"),
    [
        ("GetPluginData", "record"),
        ("GetUserLoginState", "traits"),
        ("GetRole", "logins"),
        ("ListResources", "resources"),
    ],
)
async def test_each_look_up_may_fail_alone(
    auth: AuthService,
    redis: Redis,
    redis_url: str,
    tmp_path: Path,
    *,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    method: str,
    kind: str,
    trouble: str,
) -> None:
    monkeypatch.setattr(look_ups, "DEADLINE_SECONDS", 2)
    monkeypatch.setattr(patience, "PATIENT_SECONDS", 2)
    monkeypatch.setattr(look_ups, "FAILED_SECONDS", 60)
    if trouble == "refused":
        auth.faults.denied.add(method)
    else:
        auth.faults.delays[method] = 30
    ids = [
        auth.create_request(f"user{number}", [f"role{number}"], resources=[f"{NODE}{number}"]) for number in range(40)
    ]
    for number in range(40):
        auth.directory.add_node(f"n-1{number}", "web-1")
        auth.directory.login_states[f"user{number}"] = {"team": ["blue"]}
        auth.directory.roles[f"role{number}"] = ["ubuntu"]
    for request_id in ids:
        write_record(auth, request_id, RECORD)
    registry = CollectorRegistry()
    async with watching(redis_url, settings(auth.address, tmp_path), registry) as watcher:
        await until_ready(watcher)
        told = [event for event in events(redis) if isinstance(event, RequestChanged)]
        skipped = counted(registry, kind, "skipped")
        auth.create_request("user40", ["role40"], resources=[f"{NODE}40"])
        await wait_until(lambda: counted(registry, kind, "skipped") > skipped, "it is not asked for again at once")
    assert {event.request.id for event in told} == set(ids)
    for event in told:
        request = event.request
        got = {
            "record": event.announced is not None,
            "traits": request.user_traits == {"team": ("blue",)},
            "logins": list(request.logins_by_role.values()) == [("ubuntu",)],
            "resources": request.resources[0].friendly_name == "web-1",
        }
        assert got == {name: name != kind for name in got}
    assert counted(registry, kind, "refused" if trouble == "refused" else "failed") >= 1
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == 1, warnings
    assert warnings[0].startswith(f"looking up {kind}")


async def test_a_kind_of_resources_may_be_refused_alone(
    auth: AuthService, redis: Redis, redis_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    auth.directory.denied.add("app_server")
    app = types_pb2.AppServerV3(
        Spec=types_pb2.AppServerSpecV3(App=types_pb2.AppV3(Metadata=types_pb2.Metadata(Name="a-1", Description="wiki")))
    )
    auth.directory.resources["app_server"] = {"a-1": auth_pb2.PaginatedResource(AppServer=app)}
    async with watching(redis_url, settings(auth.address, tmp_path)) as watcher:
        await until_ready(watcher)
        for number in range(2):
            auth.create_request(resources=[NODE, "/teleport.example.com/app/a-1"])
            await wait_until(lambda count=number + 1: len(changed(redis)) == count, "it is told")
    names = [[resource.friendly_name for resource in request.resources] for request in changed(redis)]
    assert names == [["web-1", ""]] * 2
    assert caplog.text.count("looking up resources of kind app: ") == 1


async def test_what_is_refused_is_asked_for_again_later(
    auth: AuthService, redis: Redis, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(look_ups, "REFUSED_SECONDS", 0.0)
    auth.faults.fail("GetRole", StatusCode.PERMISSION_DENIED)
    async with watching(redis_url, settings(auth.address, tmp_path)) as watcher:
        await until_ready(watcher)
        for number in range(2):
            auth.create_request()
            await wait_until(lambda count=number + 1: len(changed(redis)) == count, "it is told")
    assert [bool(request.logins_by_role) for request in changed(redis)] == [False, True]


async def test_an_answer_is_good_for_several_requests(
    auth: AuthService, redis: Redis, redis_url: str, tmp_path: Path
) -> None:
    async with watching(redis_url, settings(auth.address, tmp_path)) as watcher:
        await until_ready(watcher)
        for number in range(5):
            auth.create_request(roles=["editor", "deleted"])
            await wait_until(lambda count=number + 1: len(changed(redis)) == count, "it is told")
    assert (auth.faults.calls["GetUserLoginState"], auth.faults.calls["GetRole"]) == (1, 2)
    assert all(request.logins_by_role for request in changed(redis))


async def test_an_answer_about_a_resource_is_good_for_all_who_ask_for_it(
    auth: AuthService, redis: Redis, redis_url: str, tmp_path: Path
) -> None:
    auth.directory.add_node("n-2", "web-2", {"env": "dev"})
    async with watching(redis_url, settings(auth.address, tmp_path)) as watcher:
        await until_ready(watcher)
        for number, resources in enumerate([[NODE], [NODE, NODE_2, UNKNOWN], [UNKNOWN, NODE_2, NODE]]):
            auth.create_request(resources=resources)
            await wait_until(lambda count=number + 1: len(changed(redis)) == count, "it is told")
    assert auth.faults.calls["ListResources"] == 2
    names = [[resource.friendly_name for resource in request.resources] for request in changed(redis)]
    assert names == [["web-1"], ["web-1", "web-2", ""], ["", "web-2", "web-1"]]
    assert changed(redis)[2].resources[1].labels == {"env": "dev"}


async def test_what_is_being_asked_is_not_asked_again(
    auth: AuthService, redis: Redis, redis_url: str, tmp_path: Path
) -> None:
    auth.faults.delays |= dict.fromkeys(["GetUserLoginState", "GetRole", "ListResources"], 0.5)
    ids = {auth.create_request(resources=[NODE]) for _ in range(20)}
    async with watching(redis_url, settings(auth.address, tmp_path)) as watcher:
        await until_ready(watcher)
    told = changed(redis)
    assert {request.id for request in told} == ids
    for request in told:
        assert request.user_traits
        assert request.logins_by_role
        assert request.resources[0].friendly_name == "web-1"
    calls = auth.faults.calls
    assert (calls["GetUserLoginState"], calls["GetRole"], calls["ListResources"]) == (1, 1, 1)


async def test_so_many_look_ups_are_made_at_once_and_no_more(
    auth: AuthService, redis: Redis, redis_url: str, tmp_path: Path
) -> None:
    roles = [f"role{number}" for number in range(90)]
    auth.directory.roles |= {role: ["ubuntu"] for role in roles}
    auth.faults.delays["GetRole"] = 0.05
    for number in range(3):
        auth.create_request(f"user{number}", roles[30 * number : 30 * number + 30], resources=[f"{NODE}{number}"])
    async with watching(redis_url, settings(auth.address, tmp_path)) as watcher:
        await until_ready(watcher)
    assert auth.faults.most_at_once["GetRole"] == look_ups.AT_ONCE
    assert sorted(role for request in changed(redis) for role in request.logins_by_role) == sorted(roles)


async def test_what_is_larger_than_is_looked_at_is_told_and_counted(
    auth: AuthService, redis: Redis, redis_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    auth.directory.login_states["bob"] = {"groups": [f"group-{number:06}" for number in range(10_000)]}
    auth.directory.add_node("n-2", "web-2", {f"label-{number}": "v" * 100 for number in range(1_000)})
    request_id = auth.create_request("bob", [f"role{number}" for number in range(1_001)], resources=[NODE_2])
    whole = auth.create_request("alice", [f"role{number}" for number in range(1_000)])
    registry = CollectorRegistry()
    async with watching(redis_url, settings(auth.address, tmp_path), registry) as watcher:
        await until_ready(watcher)
    requests = {request.id: request for request in changed(redis)}
    assert requests[whole].cut == ()
    assert len(requests[whole].roles) == 1_000
    cut = ("roles", "user_traits", "labels")
    assert requests[request_id].cut == cut
    assert 0 < len(requests[request_id].user_traits["groups"]) < 10_000
    count = {
        fact: registry.get_sample_value("access_mail_watcher_facts_cut_total", {"fact": fact}) for fact in facts.Fact
    }
    assert count == {fact: float(fact in cut) for fact in facts.Fact}
    assert caplog.text.count(f"request {request_id} is larger than is looked at: cut are its {', '.join(cut)}") == 1
    assert whole not in caplog.text


async def test_look_ups_keep_the_order_of_events(
    auth: AuthService, redis: Redis, redis_url: str, tmp_path: Path
) -> None:
    auth.faults.delays["GetPluginData"] = 0.2
    async with watching(redis_url, settings(auth.address, tmp_path)) as watcher:
        await until_ready(watcher)
        request_id = auth.create_request(approvals=2)
        auth.review(request_id, "carol", types_pb2.APPROVED)
        auth.review(request_id, "dave", types_pb2.APPROVED)
        auth.delete(request_id)
        await wait_until(lambda: gone(redis), "the end is told")
    assert [request.review_count for request in changed(redis)] == [0, 1, 2]
    assert isinstance(events(redis)[-1], RequestGone)


async def test_what_redis_knows_is_not_looked_up(
    auth: AuthService, redis: Redis, redis_url: str, tmp_path: Path
) -> None:
    ids = [auth.create_request(resources=[NODE], approvals=2) for _ in range(300)]
    for request_id in ids:
        remember(redis, request_id, RequestState.PENDING)
    async with watching(redis_url, settings(auth.address, tmp_path)) as watcher:
        await until_ready(watcher)
        auth.review(ids[0], "carol", types_pb2.APPROVED)
        auth.delete(ids[1])
        await wait_until(lambda: gone(redis), "the end is told")
    assert not LOOK_UPS & set(auth.faults.calls)


async def test_an_unknown_request_comes_with_what_its_record_says(
    auth: AuthService, redis: Redis, redis_url: str, tmp_path: Path
) -> None:
    listed, settled = auth.create_request(), auth.create_request()
    write_record(auth, listed, RECORD)
    write_record(auth, settled, {**RECORD, "resolution": "APPROVED"})
    auth.approve(settled)
    async with watching(redis_url, settings(auth.address, tmp_path)) as watcher:
        await until_ready(watcher)
        deleted = auth.create_request()
        write_record(auth, deleted, RECORD)
        redis.flushall()
        auth.delete(deleted)
        await wait_until(lambda: gone(redis) == [deleted], "the end is told")
        await wait_until(lambda: {listed, settled} <= {request.id for request in changed(redis)}, "and the others")
    ann = (AnnouncedThread(address="ann@example.com", message_id="X.1@host"),)
    for event in events(redis):
        assert event.announced is not None
        assert (event.announced.threads, event.announced.review_count) == (ann, 2)
        if isinstance(event, RequestGone):
            assert event.announced.user == "alice"
            assert event.cluster is not None
            assert event.cluster.name == "teleport.example.com"
        else:
            assert event.announced.resolution == ("approved" if event.request.id == settled else "")


async def test_a_settled_request_that_nobody_heard_of_is_looked_up_no_further(
    auth: AuthService, redis: Redis, redis_url: str, tmp_path: Path
) -> None:
    auth.approve(auth.create_request(resources=[NODE]))
    async with watching(redis_url, settings(auth.address, tmp_path)) as watcher:
        await until_ready(watcher)
    assert LOOK_UPS & set(auth.faults.calls) == {"GetPluginData"}
    assert len(changed(redis)) == 1


async def test_resources_are_asked_for_by_kind_and_page(
    auth: AuthService, redis: Redis, redis_url: str, tmp_path: Path
) -> None:
    app = types_pb2.AppV3(Metadata=types_pb2.Metadata(Name="a-1", Description="the wiki", Labels={"env": "dev"}))
    app.Spec.DynamicLabels["env"].Result = "test"
    server = types_pb2.AppServerV3(Spec=types_pb2.AppServerSpecV3(App=app))
    auth.directory.resources["app_server"] = {"a-1": auth_pb2.PaginatedResource(AppServer=server)}
    nodes = [f"/teleport.example.com/node/{name}" for name in ("n-1", "n-9", 'quo"ted')]
    auth.create_request(resources=[*nodes, "/leaf/app/a-1", "/teleport.example.com/strange/s-1"])
    async with watching(redis_url, settings(auth.address, tmp_path)) as watcher:
        await until_ready(watcher)
    (request,) = changed(redis)
    assert [(one.friendly_name, one.labels) for one in request.resources] == [
        ("web-1", {"env": "prod"}),
        ("", {}),
        ("", {}),
        ("the wiki", {"env": "test"}),
        ("", {}),
    ]
    assert auth.faults.calls["ListResources"] == 2


async def test_an_answer_that_is_no_utf_8_spoils_nothing_else(
    auth: AuthService, redis: Redis, redis_url: str, tmp_path: Path
) -> None:
    auth.directory.roles["legacy"] = ["café"]
    auth.faults.latin_1.add("legacy")
    auth.create_request(roles=["editor", "legacy"])
    async with watching(redis_url, settings(auth.address, tmp_path)) as watcher:
        await until_ready(watcher)
    assert list(changed(redis)[0].logins_by_role) == ["editor"]


async def test_a_request_whose_look_up_the_connections_end_cuts_off_is_told_with_all_its_facts(
    auth: AuthService, redis: Redis, redis_url: str, tmp_path: Path
) -> None:
    async with watching(redis_url, settings(auth.address, tmp_path)) as watcher:
        await until_ready(watcher)
        auth.faults.delays["GetUserLoginState"] = 30
        auth.create_request()
        await wait_until(lambda: auth.faults.calls["GetUserLoginState"], "it is being looked up")
        auth.faults.delays.clear()
        auth.faults.end_streams()
        await wait_until(lambda: changed(redis), "it is told")
        assert all(request.user_traits for request in changed(redis))


@pytest.mark.parametrize("method", ["GetUserLoginState", "GetRole", "ListResources"])
async def test_a_request_whose_look_up_dies_with_the_server_is_told_with_all_its_facts(
    auth: AuthService, redis: Redis, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, method: str
) -> None:
    monkeypatch.setattr(look_ups, "DEADLINE_SECONDS", 30)
    async with watching(redis_url, settings(auth.address, tmp_path)) as watcher:
        await until_ready(watcher)
        auth.faults.fail(method, StatusCode.UNAVAILABLE, times=2, text="the server goes down")
        auth.create_request(resources=[NODE])
        await wait_until(lambda: auth.faults.calls[method], "it is being looked up")
        await auth.stop()
        await wait_until(lambda: watcher.ready() is not None, "the end is noticed")
        await auth.start()
        await wait_until(lambda: changed(redis), "it is told")
    for request in changed(redis):
        assert request.user_traits
        assert request.logins_by_role
        assert request.resources[0].friendly_name == "web-1"
