"""Teleport's messages in the words of `shared.events`; of Access Requests see `access_request`.

Texts and lists are cut here, at the border, so that nothing behind it can be made to grow without bound. The limits of
what decides who is told stand in `facts`.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from google.protobuf.message import DecodeError

from services.watcher.teleport import facts
from services.watcher.teleport.access_request import decode_request, is_legal
from services.watcher.teleport.pb import auth_pb2, rules_pb2
from services.watcher.teleport.undecodable import KIND, RULE_KIND, Fault, Undecodable, spoiled
from shared.events import (
    AccessMonitoringRule,
    AccessRequest,
    Cluster,
    RequestGone,
    RuleChanged,
    RuleDeleted,
    Schedule,
    Shift,
)

RULE_VERSIONS: Final = ("", "v1")

PLUGIN: Final = "email"
"""The name that the Go plugin has in Teleport: rules that notify it notify us, and its records are ours."""

RULE_RECIPIENTS = 500
SCHEDULES = 20
SHIFTS = 100
CONDITION_CHARACTERS = 10_000
"""A longer condition is passed on cut, one character longer than any that is used: the router refuses it."""


@dataclass(frozen=True)
class AuthServer:
    """What the Auth Service says of itself."""

    cluster: Cluster
    version: str


WatchEvent = AccessRequest | RequestGone | RuleChanged | RuleDeleted | Undecodable | None
"""None: an event about something that we did not ask for or do not know."""


def decode_ping(response: auth_pb2.PingResponse) -> AuthServer:
    """Read the answer to a Ping."""
    return AuthServer(
        cluster=Cluster(
            name=facts.name(response.ClusterName),
            proxy_public_addr=facts.name(response.ProxyPublicAddr),
            reviews_in_web=response.ServerFeatures.AdvancedAccessWorkflows,
        ),
        version=facts.name(response.ServerVersion),
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


def read_rule(data: bytes) -> AccessMonitoringRule | Undecodable | None:
    """Read a rule from its bytes, as `read_event`; None: as `decode_rule`."""
    try:
        return decode_rule(rules_pb2.AccessMonitoringRule.FromString(data))
    except DecodeError:
        return spoiled(lambda: rules_pb2.SparseRule.FromString(data).metadata.name, RULE_KIND)


def _sparse_event(data: bytes) -> Undecodable:
    try:
        event = auth_pb2.SparseEvent.FromString(data)
    except DecodeError:
        return Undecodable("", Fault.TEXT)
    if event.HasField("AccessMonitoringRule"):
        return spoiled(lambda: event.AccessMonitoringRule.metadata.name, RULE_KIND)
    return spoiled(lambda: event.AccessRequest.Metadata.Name)


def decode_event(event: auth_pb2.Event) -> WatchEvent:
    """Read an event of the watch."""
    resource = event.WhichOneof("Resource")
    if event.Type == auth_pb2.PUT and resource == "AccessRequest":
        return decode_request(event.AccessRequest)
    if event.Type == auth_pb2.DELETE and resource == "ResourceHeader" and event.ResourceHeader.Kind == KIND:
        request_id = event.ResourceHeader.Metadata.Name
        if not is_legal(request_id):
            return Undecodable(facts.name(request_id), Fault.ID)
        return RequestGone(request_id=request_id)
    if event.Type == auth_pb2.PUT and resource == "AccessMonitoringRule":
        message = event.AccessMonitoringRule
        rule = decode_rule(message)
        # It may have been for us before it was changed.
        return RuleChanged(rule=rule) if rule else RuleDeleted(name=facts.name(message.metadata.name))
    if event.Type == auth_pb2.DELETE and resource == "ResourceHeader" and event.ResourceHeader.Kind == RULE_KIND:
        return RuleDeleted(name=facts.name(event.ResourceHeader.Metadata.Name))
    return None


def decode_rule(message: rules_pb2.AccessMonitoringRule) -> AccessMonitoringRule | None:
    """Read a rule; None: it notifies nobody of Access Requests through us, or is of a version that is not known."""
    spec = message.spec
    is_ours = spec.notification.name == PLUGIN and KIND in spec.subjects and message.version in RULE_VERSIONS
    if not is_ours:
        return None
    return AccessMonitoringRule(
        name=facts.name(message.metadata.name),
        condition=spec.condition[: CONDITION_CHARACTERS + 1],
        recipients=tuple(map(facts.name, spec.notification.recipients[:RULE_RECIPIENTS])),
        schedules={facts.name(name): _schedule(spec.schedules[name]) for name in sorted(spec.schedules)[:SCHEDULES]},
    )


def _schedule(schedule: rules_pb2.Schedule) -> Schedule:
    shifts = schedule.time.shifts[:SHIFTS]
    return Schedule(
        shifts=tuple(
            Shift(weekday=facts.name(shift.weekday), start=facts.name(shift.start), end=facts.name(shift.end))
            for shift in shifts
        ),
        timezone=facts.name(schedule.time.timezone),
    )
