"""Teleport's messages as the Auth Service writes them: complete headers, and year 1 for times that are not set."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from google.protobuf.timestamp_pb2 import Timestamp

from services.watcher.teleport.pb import auth_pb2, header_pb2, rules_pb2, types_pb2

ACCESS_REQUEST = "access_request"
ACCESS_MONITORING_RULE = "access_monitoring_rule"

UNSET_SECONDS = -62135596800
"""What Go's zero time becomes: 0001-01-01. Fields that cannot be null are on the wire even when they are not set."""

UNKNOWN_RESOURCE_EVENT = b"\x08\x01\x9a\x06\x00"
"""An `Event` of type PUT whose resource has the field number 99, empty: what a newer server may send."""


@dataclass(frozen=True)
class Draft:
    """What somebody asks for, in the words of `tsh request create`."""

    user: str
    roles: Sequence[str]
    reason: str
    suggested_reviewers: Sequence[str]
    resources: Sequence[str]
    """Resource ids in Teleport's notation `/cluster/kind/name`."""
    ttl: timedelta
    """How long the request may stay pending."""
    access: timedelta
    """How long the granted access lasts, counted from now."""
    approvals: int
    denials: int


def timestamp(instant: datetime) -> Timestamp:
    """Return the instant as protobuf has it."""
    value = Timestamp()
    value.FromDatetime(instant)
    return value


def instant(value: Timestamp) -> datetime | None:
    """Return the instant that a message means, None for Go's zero time."""
    return None if value.seconds == UNSET_SECONDS else value.ToDatetime(UTC)


def state_name(state: types_pb2.RequestState.ValueType) -> str:
    """Return Teleport's name of the state, or the number of one that is not known here."""
    return types_pb2.RequestState.Name(state) if state in types_pb2.RequestState.values() else str(state)


def request_end(request: types_pb2.AccessRequestV3) -> datetime | None:
    """When the request itself ends: field 22 of newer servers, otherwise its metadata; None where neither is set."""
    if request.Spec.HasField("ResourceExpiry"):
        return instant(request.Spec.ResourceExpiry)
    if request.Metadata.HasField("Expires"):
        return instant(request.Metadata.Expires)
    return None


def new_request(draft: Draft, request_id: str, now: datetime) -> types_pb2.AccessRequestV3:
    """Return a pending request as a v18 server shows it: its end stands in field 22, not in its metadata."""
    spec = types_pb2.AccessRequestSpecV3(
        User=draft.user,
        Roles=draft.roles,
        State=types_pb2.PENDING,
        Created=timestamp(now),
        Expires=timestamp(now + draft.access),
        RequestReason=draft.reason,
        Thresholds=[types_pb2.AccessReviewThreshold(Name="default", Approve=draft.approvals, Deny=draft.denials)],
        SuggestedReviewers=draft.suggested_reviewers,
        RequestedResourceIDs=[resource_id(resource) for resource in draft.resources],
        ResourceExpiry=timestamp(now + draft.ttl),
    )
    return completed(types_pb2.AccessRequestV3(Metadata=types_pb2.Metadata(Name=request_id), Spec=spec), now)


def completed(request: types_pb2.AccessRequestV3, now: datetime) -> types_pb2.AccessRequestV3:
    """Return a copy with all that Teleport adds to a request that a client creates, and year 1 for unset times."""
    whole = types_pb2.AccessRequestV3()
    whole.CopyFrom(request)
    whole.Kind = ACCESS_REQUEST
    whole.Version = "v3"
    whole.Metadata.Name = whole.Metadata.Name or str(uuid.uuid4())
    whole.Metadata.Namespace = "default"
    spec = whole.Spec
    spec.State = spec.State or types_pb2.PENDING
    if not spec.HasField("Created"):
        spec.Created.CopyFrom(timestamp(now))
    if not spec.HasField("Expires"):
        spec.Expires.CopyFrom(timestamp(now + timedelta(hours=8)))
    if request_end(whole) is None:
        spec.ResourceExpiry.CopyFrom(timestamp(now + timedelta(hours=1)))
    if not spec.Thresholds:
        spec.Thresholds.add(Name="default", Approve=1, Deny=1)
    for moment in (spec.MaxDuration, spec.SessionTTL):
        if not moment.ByteSize():
            moment.seconds = UNSET_SECONDS
    for annotations in (spec.ResolveAnnotations, spec.SystemAnnotations):
        annotations.SetInParent()
    return whole


def resource_id(text: str) -> types_pb2.ResourceID:
    """Read `/cluster/kind/name`, the notation of `tsh request create --resource`."""
    _, cluster, kind, name = text.split("/", 3)
    return types_pb2.ResourceID(ClusterName=cluster, Kind=kind, Name=name)


def put_event(request: types_pb2.AccessRequestV3) -> auth_pb2.Event:
    """Return the event of a created or changed request: the whole request."""
    return auth_pb2.Event(Type=auth_pb2.PUT, AccessRequest=request)


def delete_event(request_id: str) -> auth_pb2.Event:
    """Return the event of a request that was deleted or has expired: a header, nothing else."""
    metadata = types_pb2.Metadata(Name=request_id, Namespace="default")
    header = types_pb2.ResourceHeader(Kind=ACCESS_REQUEST, Version="v3", Metadata=metadata)
    return auth_pb2.Event(Type=auth_pb2.DELETE, ResourceHeader=header)


def new_rule(
    name: str, condition: str, recipients: Sequence[str], notify: str = "email"
) -> rules_pb2.AccessMonitoringRule:
    """Return a rule as `tctl create` makes it."""
    return rules_pb2.AccessMonitoringRule(
        metadata=header_pb2.Metadata(name=name, namespace="default"),
        kind=ACCESS_MONITORING_RULE,
        version="v1",
        spec=rules_pb2.AccessMonitoringRuleSpec(
            subjects=[ACCESS_REQUEST],
            condition=condition,
            notification=rules_pb2.Notification(name=notify, recipients=recipients),
        ),
    )


def put_rule_event(rule: rules_pb2.AccessMonitoringRule) -> auth_pb2.Event:
    """Return the event of a created or changed rule: the whole rule."""
    return auth_pb2.Event(Type=auth_pb2.PUT, AccessMonitoringRule=rule)


def delete_rule_event(name: str) -> auth_pb2.Event:
    """Return the event of a deleted rule: a header, nothing else."""
    metadata = types_pb2.Metadata(Name=name, Namespace="default")
    header = types_pb2.ResourceHeader(Kind=ACCESS_MONITORING_RULE, Version="v1", Metadata=metadata)
    return auth_pb2.Event(Type=auth_pb2.DELETE, ResourceHeader=header)


def init_event(kinds: Sequence[types_pb2.WatchKind]) -> auth_pb2.Event:
    """Return the first event of a watch, which names the accepted kinds."""
    status = types_pb2.WatchStatusV1(
        Kind="watch_status",
        Version="v1",
        Metadata=types_pb2.Metadata(Namespace="default"),
        Spec=types_pb2.WatchStatusSpecV1(Kinds=kinds),
    )
    return auth_pb2.Event(Type=auth_pb2.INIT, WatchStatus=status)
