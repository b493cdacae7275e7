"""Teleport's messages about people, roles and resources in short: beside `decode`, the reader of protobuf fields.

All is cut here, at the border, to the limits of `facts`: what one request brings along has a bounded size.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from services.watcher.teleport.facts import (
    LABELS_CHARACTERS,
    NAME_CHARACTERS,
    TRAITS_CHARACTERS,
    Border,
    Fact,
    Sets,
    cut,
)
from services.watcher.teleport.pb import auth_pb2, types_pb2, users_pb2

LOGINS = 100

OKTA_NAMES = tuple(f"teleport.internal/okta-{kind}-name" for kind in ("app", "group", "role"))
"""Labels in which Teleport keeps what people call an application, a group or a role of Okta's."""


@dataclass(frozen=True)
class Traits:
    """A user's."""

    values: Sets
    are_cut: bool
    """Are there more?"""


@dataclass(frozen=True)
class Described:
    """What people call a resource, and its labels."""

    friendly_name: str
    labels: dict[str, str]
    labels_are_cut: bool
    """Are there more?"""


def decode_login_state(state: users_pb2.UserLoginState) -> Traits:
    """The traits that a user had at the last login."""
    return _traits((trait.key, trait.values) for trait in state.spec.traits)


def decode_traits(user: types_pb2.UserV2) -> Traits:
    """The traits that a user was given."""
    return _traits((key, values.Values) for key, values in sorted(user.Spec.Traits.Values.items()))


def _traits(pairs: Iterable[tuple[str, Iterable[str]]]) -> Traits:
    border = Border()
    return Traits(border.sets(Fact.USER_TRAITS, pairs, TRAITS_CHARACTERS), are_cut=bool(border.cut))


def decode_logins(role: types_pb2.RoleV6) -> tuple[str, ...]:
    """The logins that a role allows."""
    return tuple(cut(login, NAME_CHARACTERS) for login in role.Spec.Allow.Logins[:LOGINS])


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
            # Of an account of AWS Identity Center the server alone bears the name.
            name = _application_name(app.Metadata) or resource.Metadata.Description
            found = _shown(app.Metadata, app.Spec.DynamicLabels, name)
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
    border = Border()
    pairs = ((key, (value,)) for key, value in sorted(labels.items()))
    kept = {key: values[0] for key, values in border.sets(Fact.LABELS, pairs, LABELS_CHARACTERS).items() if values}
    return metadata.Name, Described(cut(friendly_name, NAME_CHARACTERS), kept, labels_are_cut=bool(border.cut))


def _application_name(metadata: types_pb2.Metadata) -> str:
    names = (metadata.Labels[label] for label in OKTA_NAMES if label in metadata.Labels)
    return next(names, metadata.Description)
