"""Teleport's messages in the words of `shared.events`; the only module that reads protobuf fields.

Texts and lists are cut here, at the border, so that nothing behind it can be made to grow without bound. The limits of
what decides who is told stand in `facts`.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final

from google.protobuf.message import DecodeError
from google.protobuf.timestamp_pb2 import Timestamp

from services.watcher.teleport import facts
from services.watcher.teleport.facts import NAME_CHARACTERS, Border, Fact
from services.watcher.teleport.pb import auth_pb2, rules_pb2, types_pb2, wrappers_pb2
from shared.events import (
    AccessMonitoringRule,
    AccessRequest,
    Cluster,
    RequestGone,
    RequestState,
    Resource,
    Review,
    RuleChanged,
    RuleDeleted,
    Schedule,
    Shift,
    Threshold,
)

KIND: Final = "access_request"
RULE_KIND: Final = "access_monitoring_rule"
RULE_VERSIONS: Final = ("", "v1")

PLUGIN: Final = "email"
"""The name that the Go plugin has in Teleport: rules that notify it notify us, and its records are ours."""

REMARK_CHARACTERS = 2_000
"""Of a review or a resolution."""
REVIEWS = 20
THRESHOLDS = 20
RULE_RECIPIENTS = 500
SCHEDULES = 20
SHIFTS = 100
CONDITION_CHARACTERS = 10_000
"""A longer condition is passed on cut, one character longer than any that is used: the router refuses it."""

STATES = {
    types_pb2.PENDING: RequestState.PENDING,
    types_pb2.APPROVED: RequestState.APPROVED,
    types_pb2.DENIED: RequestState.DENIED,
    types_pb2.PROMOTED: RequestState.PROMOTED,
}

LEGAL_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")


class Fault(StrEnum):
    """Why something of Teleport's cannot be passed on."""

    ID = "id"
    STATE = "state"
    TEXT = "text"
    SIZE = "size"


@dataclass(frozen=True)
class Undecodable:
    """A request or rule that we cannot speak of: to be counted, logged and passed over, never to stop the others."""

    name: str
    """As Teleport gave it, which may be anything; cut. Of a request, its id."""
    fault: Fault
    kind: str = KIND


@dataclass(frozen=True)
class AuthServer:
    """What the Auth Service says of itself."""

    cluster: Cluster
    version: str


Decoded = AccessRequest | Undecodable
WatchEvent = AccessRequest | RequestGone | RuleChanged | RuleDeleted | Undecodable | None
"""None: an event about something that we did not ask for or do not know."""


def decode_ping(response: auth_pb2.PingResponse) -> AuthServer:
    """Read the answer to a Ping."""
    return AuthServer(
        cluster=Cluster(
            name=_name(response.ClusterName),
            proxy_public_addr=_name(response.ProxyPublicAddr),
            reviews_in_web=response.ServerFeatures.AdvancedAccessWorkflows,
        ),
        version=_name(response.ServerVersion),
    )


def is_init(event: auth_pb2.Event) -> bool:
    """Is it the event that every watch begins with? Very old servers send it without a resource."""
    return event.Type == auth_pb2.INIT


def accepted_kinds(init: auth_pb2.Event, asked: Iterable[str]) -> frozenset[str]:
    """What a watch will tell of, as its first event says; very old servers say nothing, and accept all."""
    if init.WhichOneof("Resource") != "WatchStatus":
        return frozenset(asked)
    return frozenset(kind.Kind for kind in init.WatchStatus.Spec.Kinds)


def read_event(data: bytes) -> WatchEvent:
    """Read an event of the watch from its bytes: one that cannot be read is that event's fault, and no other's."""
    try:
        return decode_event(auth_pb2.Event.FromString(data))
    except DecodeError:
        return _sparse_event(data)


def read_request(data: bytes) -> Decoded:
    """Read a request from its bytes, as `read_event`."""
    try:
        return decode_request(types_pb2.AccessRequestV3.FromString(data))
    except DecodeError:
        return _spoiled(lambda: auth_pb2.SparseRequest.FromString(data).Metadata.Name)


def read_rule(data: bytes) -> AccessMonitoringRule | Undecodable | None:
    """Read a rule from its bytes, as `read_event`; None: as `decode_rule`."""
    try:
        return decode_rule(rules_pb2.AccessMonitoringRule.FromString(data))
    except DecodeError:
        return _spoiled(lambda: rules_pb2.SparseRule.FromString(data).metadata.name, RULE_KIND)


def _sparse_event(data: bytes) -> Undecodable:
    try:
        event = auth_pb2.SparseEvent.FromString(data)
    except DecodeError:
        return Undecodable("", Fault.TEXT)
    if event.HasField("AccessMonitoringRule"):
        return _spoiled(lambda: event.AccessMonitoringRule.metadata.name, RULE_KIND)
    return _spoiled(lambda: event.AccessRequest.Metadata.Name)


def _spoiled(name: Callable[[], bytes], kind: str = KIND) -> Undecodable:
    """Where something cannot be read whole, its name perhaps can."""
    try:
        known = name().decode(errors="replace")
    except DecodeError:
        known = ""
    return Undecodable(_name(known), Fault.TEXT, kind)


def request_id_in(key: str) -> str:
    """The request's id at the end of a key of Teleport's listing, cut."""
    return _name(key.rpartition("/")[2])


def decode_event(event: auth_pb2.Event) -> WatchEvent:
    """Read an event of the watch."""
    resource = event.WhichOneof("Resource")
    if event.Type == auth_pb2.PUT and resource == "AccessRequest":
        return decode_request(event.AccessRequest)
    if event.Type == auth_pb2.DELETE and resource == "ResourceHeader" and event.ResourceHeader.Kind == KIND:
        request_id = event.ResourceHeader.Metadata.Name
        return RequestGone(request_id=request_id) if _is_legal(request_id) else _undecodable(request_id, Fault.ID)
    if event.Type == auth_pb2.PUT and resource == "AccessMonitoringRule":
        rule = decode_rule(event.AccessMonitoringRule)
        # It may have been for us before it was changed.
        return RuleChanged(rule=rule) if rule else RuleDeleted(name=_name(event.AccessMonitoringRule.metadata.name))
    if event.Type == auth_pb2.DELETE and resource == "ResourceHeader" and event.ResourceHeader.Kind == RULE_KIND:
        return RuleDeleted(name=_name(event.ResourceHeader.Metadata.Name))
    return None


def decode_rule(message: rules_pb2.AccessMonitoringRule) -> AccessMonitoringRule | None:
    """Read a rule; None: it notifies nobody of Access Requests through us, or is of a version that is not known."""
    spec = message.spec
    is_ours = spec.notification.name == PLUGIN and KIND in spec.subjects and message.version in RULE_VERSIONS
    if not is_ours:
        return None
    return AccessMonitoringRule(
        name=_name(message.metadata.name),
        condition=spec.condition[: CONDITION_CHARACTERS + 1],
        recipients=_names(spec.notification.recipients[:RULE_RECIPIENTS]),
        schedules={_name(name): _schedule(spec.schedules[name]) for name in sorted(spec.schedules)[:SCHEDULES]},
    )


def _schedule(schedule: rules_pb2.Schedule) -> Schedule:
    shifts = schedule.time.shifts[:SHIFTS]
    return Schedule(
        shifts=tuple(
            Shift(weekday=_name(shift.weekday), start=_name(shift.start), end=_name(shift.end)) for shift in shifts
        ),
        timezone=_name(schedule.time.timezone),
    )


def decode_request(message: types_pb2.AccessRequestV3) -> Decoded:
    """Read a request. A state that no known version of Teleport has is a fault: what it would mean is not known."""
    spec = message.Spec
    request_id = message.Metadata.Name
    if not _is_legal(request_id):
        return _undecodable(request_id, Fault.ID)
    if spec.State not in STATES:
        return _undecodable(request_id, Fault.STATE)
    border = Border()
    resource_ids = _resource_ids(spec)
    resources = border.first(Fact.RESOURCES, resource_ids, facts.RESOURCES)
    roles = border.names(Fact.ROLES, spec.Roles, facts.ROLES)
    suggested_reviewers = border.names(Fact.SUGGESTED_REVIEWERS, spec.SuggestedReviewers, facts.SUGGESTED_REVIEWERS)
    user = border.text(Fact.USER, spec.User, NAME_CHARACTERS)
    request_reason = border.text(Fact.REQUEST_REASON, spec.RequestReason, facts.REASON_CHARACTERS)
    system_annotations = border.sets(
        Fact.SYSTEM_ANNOTATIONS, _annotations(spec.SystemAnnotations), facts.ANNOTATIONS_CHARACTERS
    )
    return AccessRequest(
        id=request_id,
        user=user,
        roles=roles,
        role_count=len(spec.Roles),
        state=STATES[spec.State],
        created=_time(spec.Created),
        access_expires=_time(spec.Expires),
        # Newer servers may leave the metadata's empty, older ones know no other.
        request_expires=_time(spec.ResourceExpiry) or _time(message.Metadata.Expires),
        request_reason=request_reason,
        resolve_reason=_remark(spec.ResolveReason),
        reviews=_reviews(spec.Reviews),
        review_count=len(spec.Reviews),
        suggested_reviewers=suggested_reviewers,
        suggested_reviewer_count=len(spec.SuggestedReviewers),
        resources=tuple(map(_resource, resources)),
        resource_count=len(resource_ids),
        thresholds=tuple(
            Threshold(name=_name(threshold.Name), approve=threshold.Approve, deny=threshold.Deny)
            for threshold in spec.Thresholds[:THRESHOLDS]
        ),
        access_list=_name(spec.accessList.Title or spec.accessList.Name),
        system_annotations=system_annotations,
        cut=border.cut,
    )


def _is_legal(request_id: str) -> bool:
    return LEGAL_ID.fullmatch(request_id) is not None


def _undecodable(request_id: str, fault: Fault) -> Undecodable:
    return Undecodable(_name(request_id), fault)


def _resource_ids(spec: types_pb2.AccessRequestSpecV3) -> Sequence[types_pb2.ResourceID]:
    """Where the newest form of the list is there it is the one that counts."""
    return [access.id for access in spec.RequestedResourceAccessIDs] or spec.RequestedResourceIDs


def _resource(resource: types_pb2.ResourceID) -> Resource:
    return Resource(
        cluster=_name(resource.ClusterName),
        kind=_name(resource.Kind),
        name=_name(resource.Name),
        sub_resource=_name(resource.SubResourceName),
    )


def _annotations(annotations: wrappers_pb2.LabelValues) -> Iterable[tuple[str, Iterable[str]]]:
    return ((key, annotations.Values[key].Values) for key in sorted(annotations.Values))


def _reviews(reviews: Sequence[types_pb2.AccessReview]) -> tuple[Review, ...]:
    """The newest ones, each with its place in Teleport's whole list."""
    first = max(0, len(reviews) - REVIEWS)
    return tuple(
        Review(
            position=position,
            author=_name(review.Author),
            proposed_state=STATES.get(review.ProposedState),
            reason=_remark(review.Reason),
            created=_time(review.Created),
        )
        for position, review in enumerate(reviews[first:], first + 1)
    )


def _time(timestamp: Timestamp) -> datetime | None:
    """A time that was never set is absent, or year 1 (Go's zero time). What no calendar holds is no time either."""
    try:
        time = timestamp.ToDatetime(UTC)
    except (ValueError, OverflowError):
        return None
    # An absent message reads as the epoch, before which Teleport did not exist.
    return time if timestamp.seconds > 0 else None


def _remark(text: str) -> str:
    return facts.cut(text, REMARK_CHARACTERS)


def _name(text: str) -> str:
    return facts.cut(text, NAME_CHARACTERS)


def _names(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(map(_name, texts))
