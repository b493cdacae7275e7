"""What a condition may ask about: the variables, their types, and their values for a request."""

from collections.abc import Mapping, Sequence
from typing import Final

from services.router.conditions.kinds import Dict, Kind, Strings, Value
from services.router.conditions.times import NEVER_SET
from shared.events import AccessRequest, Resource

VARIABLES: Final[dict[str, Kind]] = {
    "access_request.spec.roles": Kind.SET,
    "access_request.spec.suggested_reviewers": Kind.SET,
    "access_request.spec.system_annotations": Kind.DICT,
    "access_request.spec.user": Kind.STRING,
    "access_request.spec.request_reason": Kind.STRING,
    "access_request.spec.creation_time": Kind.TIME,
    "access_request.spec.expiry": Kind.TIME,
    "access_request.spec.resource_labels_union": Kind.DICT,
    "access_request.spec.resource_labels_intersection": Kind.DICT,
    "user.traits": Kind.DICT,
    "true": Kind.BOOL,
    "false": Kind.BOOL,
}

Variables = Mapping[str, Value]


def variables_of(request: AccessRequest) -> Variables:
    """The values of all variables. What is not known of the request (traits, labels) is empty."""
    return {
        "access_request.spec.roles": frozenset(request.roles),
        "access_request.spec.suggested_reviewers": frozenset(request.suggested_reviewers),
        "access_request.spec.system_annotations": _sets(request.system_annotations),
        "access_request.spec.user": request.user,
        "access_request.spec.request_reason": request.request_reason,
        "access_request.spec.creation_time": request.created or NEVER_SET,
        "access_request.spec.expiry": request.request_expires or NEVER_SET,
        "access_request.spec.resource_labels_union": _union(request.resources),
        "access_request.spec.resource_labels_intersection": _intersection(request),
        "user.traits": _sets(request.user_traits),
        "true": True,
        "false": False,
    }


def _sets(values: Mapping[str, Sequence[str]]) -> Dict:
    return {key: frozenset(some) for key, some in values.items()}


def _union(resources: Sequence[Resource]) -> Dict:
    found: dict[str, set[str]] = {}
    for resource in resources:
        for label, value in resource.labels.items():
            found.setdefault(label, set()).add(value)
    return _sets({label: tuple(values) for label, values in found.items()})


def _intersection(request: AccessRequest) -> dict[str, Strings]:
    """Labels that all requested resources share; none where some of the resources are not known here."""
    if not request.resources or request.resource_count > len(request.resources):
        return {}
    shared = set(request.resources[0].labels.items())
    for resource in request.resources[1:]:
        shared &= set(resource.labels.items())
    return {label: frozenset((value,)) for label, value in shared}
