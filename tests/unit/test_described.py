"""Every kind of resource has its name and labels, whatever message it comes in, and nothing is of unbounded size."""

import pytest

from services.watcher.teleport import facts
from services.watcher.teleport.described import (
    Described,
    decode_login_state,
    decode_logins,
    decode_resources,
    decode_traits,
)
from services.watcher.teleport.inquiries import RESOURCE_TYPES
from services.watcher.teleport.pb import auth_pb2, types_pb2, users_pb2, wrappers_pb2

STATIC = {"env": "dev", "team": "blue"}
DYNAMIC = {"env": types_pb2.CommandLabelV2(Result="prod"), "load": types_pb2.CommandLabelV2(Result="3")}
MERGED = {"env": "prod", "team": "blue", "load": "3"}


def named(description: str = "", **labels: str) -> types_pb2.Metadata:
    return types_pb2.Metadata(Name="r-1", Description=description, Labels=STATIC | labels)


def app_server(app: types_pb2.Metadata, description: str = "") -> auth_pb2.PaginatedResource:
    spec = types_pb2.AppServerSpecV3(App=types_pb2.AppV3(Metadata=app, Spec=types_pb2.AppSpecV3(DynamicLabels=DYNAMIC)))
    return auth_pb2.PaginatedResource(
        AppServer=types_pb2.AppServerV3(Metadata=types_pb2.Metadata(Description=description), Spec=spec)
    )


def user_group(metadata: types_pb2.Metadata) -> auth_pb2.PaginatedResource:
    group = types_pb2.UserGroupV1(Header=types_pb2.ResourceHeader(Kind="user_group", Metadata=metadata))
    return auth_pb2.PaginatedResource(UserGroup=group)


CLUSTER = types_pb2.KubernetesClusterV3(Metadata=named(), Spec=types_pb2.KubernetesClusterSpecV3(DynamicLabels=DYNAMIC))
OKTA_APP, OKTA_GROUP, OKTA_ROLE = (f"teleport.internal/okta-{kind}-name" for kind in ("app", "group", "role"))

KINDS = {
    "node": (
        auth_pb2.PaginatedResource(
            Node=types_pb2.ServerV2(
                Metadata=named("not this"), Spec=types_pb2.ServerSpecV2(Hostname="web-1", CmdLabels=DYNAMIC)
            )
        ),
        "web-1",
        MERGED,
    ),
    "app": (app_server(named("the wiki"), "not this"), "the wiki", MERGED),
    "an app of Okta's": (
        app_server(named("not this", **{OKTA_APP: "Wiki"})),
        "Wiki",
        MERGED | {OKTA_APP: "Wiki"},
    ),
    "aws_ic_account": (app_server(named(), "Production"), "Production", MERGED),
    "user_group": (user_group(named("the admins")), "the admins", STATIC),
    "a group of Okta's": (user_group(named(**{OKTA_GROUP: "Admins"})), "Admins", STATIC | {OKTA_GROUP: "Admins"}),
    "a role of Okta's": (user_group(named(**{OKTA_ROLE: "Owner"})), "Owner", STATIC | {OKTA_ROLE: "Owner"}),
    "db": (
        auth_pb2.PaginatedResource(
            DatabaseServer=types_pb2.DatabaseServerV3(
                Spec=types_pb2.DatabaseServerSpecV3(
                    Database=types_pb2.DatabaseV3(
                        Metadata=named("not this"), Spec=types_pb2.DatabaseSpecV3(DynamicLabels=DYNAMIC)
                    )
                )
            )
        ),
        "",
        MERGED,
    ),
    "kube_cluster": (
        auth_pb2.PaginatedResource(
            KubernetesServer=types_pb2.KubernetesServerV3(Spec=types_pb2.KubernetesServerSpecV3(Cluster=CLUSTER))
        ),
        "",
        MERGED,
    ),
    "kube_cluster as older servers list it": (auth_pb2.PaginatedResource(KubeCluster=CLUSTER), "", MERGED),
    "windows_desktop": (
        auth_pb2.PaginatedResource(WindowsDesktop=types_pb2.WindowsDesktopV3(Metadata=named("not this"))),
        "",
        STATIC,
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_has_its_name_and_labels(kind: str) -> None:
    resource, name, labels = KINDS[kind]
    page = auth_pb2.ListResourcesResponse(Resources=[resource])
    assert decode_resources(page) == {"r-1": Described(name, labels, labels_are_cut=False)}


def test_each_kind_that_is_listed_is_described_here() -> None:
    assert KINDS.keys() >= RESOURCE_TYPES.keys()


def test_kinds_that_are_not_known_are_passed_over() -> None:
    unknown = auth_pb2.PaginatedResource.FromString(b"\x9a\x06\x00")  # field 99, empty
    node, _, _ = KINDS["node"]
    page = auth_pb2.ListResourcesResponse(Resources=[unknown, node])
    assert list(decode_resources(page)) == ["r-1"]


def test_names_and_labels_of_a_resource_are_bounded() -> None:
    labels = {f"label-{number:04}": "v" * 100 for number in range(1_000)}
    node = types_pb2.ServerV2(
        Metadata=types_pb2.Metadata(Name="r-1", Labels=labels), Spec=types_pb2.ServerSpecV2(Hostname="h" * 1_000)
    )
    page = auth_pb2.ListResourcesResponse(Resources=[auth_pb2.PaginatedResource(Node=node)])
    found = decode_resources(page)["r-1"]
    assert found.friendly_name == "h" * 255 + "…"
    assert found.labels_are_cut
    assert found.labels.items() <= labels.items(), "none is shortened"
    size = sum(len(key) + len(value) for key, value in found.labels.items())
    assert facts.LABELS_CHARACTERS * 0.95 < size <= facts.LABELS_CHARACTERS


def test_fifty_labels_of_the_longest_that_aws_allows_are_whole() -> None:
    labels = {f"{number:03}".ljust(127, "k"): "v" * 256 for number in range(50)}
    node = types_pb2.ServerV2(Metadata=types_pb2.Metadata(Name="r-1", Labels=labels))
    page = auth_pb2.ListResourcesResponse(Resources=[auth_pb2.PaginatedResource(Node=node)])
    assert decode_resources(page)["r-1"] == Described("", labels, labels_are_cut=False)


def test_traits_are_bounded_together_and_none_is_shortened() -> None:
    groups = [f"CN=group-{number:04},OU=Groups,DC=example,DC=com" for number in range(3_000)]
    state = users_pb2.UserLoginState(
        spec=users_pb2.Spec(
            traits=[
                users_pb2.Trait(key="team", values=["blue"]),
                users_pb2.Trait(key="groups", values=groups),
                users_pb2.Trait(key="zone", values=["eu"]),
            ]
        )
    )
    traits = decode_login_state(state)
    assert traits.are_cut
    assert list(traits.values) == ["team", "groups"]
    kept = traits.values["groups"]
    assert 2_000 < len(kept) < 3_000
    assert kept == tuple(groups[: len(kept)])


@pytest.mark.parametrize("values", [{}, {"none": []}, {"": [""]}, {"team": ["blue", "blue"], "level": ["L1"]}], ids=str)
def test_traits_within_the_limit_are_whole(values: dict[str, list[str]]) -> None:
    sets = {key: wrappers_pb2.StringValues(Values=some) for key, some in values.items()}
    user = types_pb2.UserV2(Spec=types_pb2.UserSpecV2(Traits=wrappers_pb2.LabelValues(Values=sets)))
    traits = decode_traits(user)
    assert not traits.are_cut
    assert traits.values == {key: tuple(some) for key, some in values.items()}


def test_logins_are_bounded() -> None:
    logins = ["l" * 1_000, *(f"user{number}" for number in range(500))]
    role = types_pb2.RoleV6(Spec=types_pb2.RoleSpecV6(Allow=types_pb2.RoleConditions(Logins=logins)))
    found = decode_logins(role)
    assert len(found) == 100
    assert found[:2] == ("l" * 255 + "…", "user0")
