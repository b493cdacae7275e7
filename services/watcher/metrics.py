"""The watcher's metrics: what came from Teleport, what went on the stream, and whether both ends are there."""

from enum import StrEnum

from prometheus_client import CollectorRegistry, Counter, Gauge

from services.watcher.teleport.facts import Fact
from services.watcher.teleport.undecodable import Fault


class Received(StrEnum):
    """What an event of the watch was about."""

    CHANGED = "request_changed"
    GONE = "request_gone"
    RULE = "rule"
    UNDECODABLE = "undecodable"
    OTHER = "other"
    """Something that we did not ask for, or that only newer versions know: skipped."""


class Reconnect(StrEnum):
    """Why a new connection to Teleport is made."""

    UNAVAILABLE = "unavailable"
    REFUSED = "refused"
    RENEWED = "renewed"
    """The credentials or settings are new ones."""


class SnapshotOutcome(StrEnum):
    """How a listing of all requests ended."""

    COMPLETE = "complete"
    PARTIAL = "partial"
    """Something that is too large to be read hid others."""
    FAILED = "failed"


class Wait(StrEnum):
    """Why events have to wait for the stream."""

    REDIS = "redis"
    FULL = "full"


class Witnessed(StrEnum):
    """What became of a receipt on its way into Teleport's record of its request."""

    WRITTEN = "written"
    """The record says it."""
    GONE = "gone"
    """Teleport has neither the request nor a record of it."""
    FORGOTTEN = "forgotten"
    """Redis has forgotten what the request was."""
    UNREADABLE = "unreadable"
    CONTENDED = "contended"
    """Others changed the record each time: left for later."""
    FULL = "full"
    """Teleport takes no more into the record: left for later."""
    REFUSED = "refused"
    """The role may not write records: left for later."""
    UNAVAILABLE = "unavailable"
    """Teleport did not answer: left for later."""


class LookUp(StrEnum):
    """What Teleport is asked about a request that Redis does not know."""

    RECORD = "record"
    """Its plugin data: who was told of it."""
    TRAITS = "traits"
    LOGINS = "logins"
    RESOURCES = "resources"


class LookUpOutcome(StrEnum):
    """What came of a look-up."""

    FOUND = "found"
    MISSING = "missing"
    """Teleport has no such thing, or none that can be asked for or read."""
    REFUSED = "refused"
    """The role may not know."""
    FAILED = "failed"
    """No answer in time, or a fault of Teleport's."""
    SKIPPED = "skipped"
    """Its kind was refused or failed a moment ago."""


class WatcherMetrics:
    """All of them, their label values created up front so that rates begin with the first scrape."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, about: str, label: str, values: type[StrEnum]) -> Counter:
            made = Counter(f"access_mail_watcher_{name}", about, [label], registry=registry)
            for value in values:
                made.labels(value.value)
            return made

        def gauge(name: str, about: str) -> Gauge:
            return Gauge(f"access_mail_watcher_{name}", about, registry=registry)

        self.received = counter("events_received", "Events of Teleport's watch, by type", "type", Received)
        self.undecodable = counter(
            "undecodable", "Requests and rules that cannot be passed on, by fault", "fault", Fault
        )
        self.facts_cut = counter(
            "facts_cut", "New requests of which a fact that decides who is told was cut, by fact", "fact", Fact
        )
        self.reconnects = counter("reconnects", "New connections to Teleport, by reason", "reason", Reconnect)
        self.snapshots = counter("snapshots", "Listings of all requests, by outcome", "outcome", SnapshotOutcome)
        self.found = Counter(
            "access_mail_watcher_events_found",
            "Events that a snapshot found, for the watch had not brought them",
            registry=registry,
        )
        self.waits = counter("append_waits", "Tries to append that had to be repeated, by reason", "reason", Wait)
        self.witnessed = counter("receipts", "Receipts for Teleport's records, by outcome", "outcome", Witnessed)
        self.look_ups = Counter(
            "access_mail_watcher_look_ups",
            "Questions to Teleport about new requests, by kind and outcome",
            ["kind", "outcome"],
            registry=registry,
        )
        for kind in LookUp:
            for outcome in LookUpOutcome:
                self.look_ups.labels(kind.value, outcome.value)
        self.appended = Counter("access_mail_watcher_events_appended", "Events put on the stream", registry=registry)
        self.connected = gauge("connected", "1 while Teleport's events are followed")
        self.rules = gauge("rules", "Access Monitoring Rules that notify us, at the last listing")
        self.rules_shown = gauge("rules_shown", "1 while Teleport shows us its Access Monitoring Rules")
        self.listed = gauge("listed_requests", "Requests that Teleport held at the last complete snapshot")
        self.last_event = gauge("last_event_timestamp_seconds", "When the watch last brought an event")
        self.last_append = gauge("last_append_timestamp_seconds", "When events were last put on the stream")
        self.last_snapshot = gauge("last_snapshot_timestamp_seconds", "When a snapshot was last complete")
        self.last_witnessed = gauge("last_witnessed_timestamp_seconds", "When a receipt was last put into a record")
        self.identity_expiry = gauge("identity_expiry_timestamp_seconds", "When the certificate in use ends")
