"""Teleport's messages about people, roles and resources in short: beside `decode`, the reader of protobuf fields.

All is cut here, at the border: what one request brings along has a bounded size.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from services.watcher.teleport.pb import auth_pb2, types_pb2, users_pb2

NAME_CHARACTERS = 256
LOGINS = 100
TRAITS_CHARACTERS = 32_000
"""Of a user's traits together: what is beyond is left out."""
LABELS_CHARACTERS = 4_000
"""Of a resource's labels together."""

OKTA_NAMES = ("teleport.internal/okta-app-name", "teleport.internal/okta-group-name")
"""Labels in which Teleport keeps what people call an application or a group of Okta's."""

Traits = dict[str, tuple[str, ...]]


@dataclass(frozen=True)
class Described:
    """What people call a resource, and its labels."""

    friendly_name: str
    labels: dict[str, str]


def decode_login_state(state: users_pb2.UserLoginState) -> Traits:
    """The traits that a user had at the last login."""
    return _traits((trait.key, trait.values) for trait in state.spec.traits)


def decode_traits(user: types_pb2.UserV2) -> Traits:
    """The traits that a user was given."""
    return _traits((key, values.Values) for key, values in sorted(user.Spec.Traits.Values.items()))


def _traits(pairs: Iterable[tuple[str, Iterable[str]]]) -> Traits:
    found: Traits = {}
    room = TRAITS_CHARACTERS
    for key, values in pairs:
        kept = []
        room -= len(key)
        for value in values:
            room -= len(value) + 1
            if room < 0:
                break
            kept.append(value)
        if room < 0 and not kept:
            break
        found[key] = tuple(kept)
    return found


def decode_logins(role: types_pb2.RoleV6) -> tuple[str, ...]:
    """The logins that a role allows."""
    return tuple(login[:NAME_CHARACTERS] for login in role.Spec.Allow.Logins[:LOGINS])


def decode_resources(page: auth_pb2.ListResourcesResponse) -> dict[str, Described]:
    """The resources of a page by their ids; those of kinds that are not known here are left out."""
    return dict(
        _described(getattr(resource, kind)) for resource in page.Resources if (kind := resource.WhichOneof("resource"))
    )


def _described(resource: object) -> tuple[str, Described]:
    match resource:
        case types_pb2.ServerV2():
            found = _shown(resource.Metadata, resource.Spec.CmdLabels, resource.Spec.Hostname)
        case types_pb2.AppServerV3():
            app = resource.Spec.App
            found = _shown(app.Metadata, app.Spec.DynamicLabels, _application_name(app.Metadata))
        case types_pb2.UserGroupV1():
            found = _shown(resource.Header.Metadata, {}, _application_name(resource.Header.Metadata))
        case types_pb2.WindowsDesktopV3():
            found = _shown(resource.Metadata, {})
        case types_pb2.DatabaseServerV3():
            found = _shown(resource.Spec.Database.Metadata, resource.Spec.Database.Spec.DynamicLabels)
        case types_pb2.KubernetesServerV3():
            found = _shown(resource.Spec.Cluster.Metadata, resource.Spec.Cluster.Spec.DynamicLabels)
        case types_pb2.KubernetesClusterV3():
            found = _shown(resource.Metadata, resource.Spec.DynamicLabels)
        case _:
            raise TypeError(f"no resource: {type(resource)}")
    return found


def _shown(
    metadata: types_pb2.Metadata, dynamic: Mapping[str, types_pb2.CommandLabelV2], friendly_name: str = ""
) -> tuple[str, Described]:
    """On a clash the dynamic label counts, as for Teleport."""
    labels = dict(metadata.Labels) | {key: label.Result for key, label in dynamic.items()}
    kept = {}
    room = LABELS_CHARACTERS
    for key, value in sorted(labels.items()):
        room -= len(key) + len(value)
        if room >= 0:
            kept[key] = value
    return metadata.Name, Described(friendly_name[:NAME_CHARACTERS], kept)


def _application_name(metadata: types_pb2.Metadata) -> str:
    names = (metadata.Labels[label] for label in OKTA_NAMES if label in metadata.Labels)
    return next(names, metadata.Description)
