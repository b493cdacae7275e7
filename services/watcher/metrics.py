"""The watcher's metrics: what came from Teleport, what went on the stream, and whether both ends are there."""

from enum import StrEnum

from prometheus_client import CollectorRegistry, Counter, Gauge

from services.watcher.teleport.decode import Fault


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
    FAILED = "failed"


class Wait(StrEnum):
    """Why events have to wait for the stream."""

    REDIS = "redis"
    FULL = "full"


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
            "undecodable", "Requests, watched or listed, that cannot be passed on, by fault", "fault", Fault
        )
        self.reconnects = counter("reconnects", "New connections to Teleport, by reason", "reason", Reconnect)
        self.snapshots = counter("snapshots", "Listings of all requests, by outcome", "outcome", SnapshotOutcome)
        self.found = Counter(
            "access_mail_watcher_events_found",
            "Events that a snapshot found, for the watch had not brought them",
            registry=registry,
        )
        self.waits = counter("append_waits", "Tries to append that had to be repeated, by reason", "reason", Wait)
        self.appended = Counter("access_mail_watcher_events_appended", "Events put on the stream", registry=registry)
        self.connected = gauge("connected", "1 while Teleport's events are followed")
        self.rules = gauge("rules", "Access Monitoring Rules that notify us, at the last listing")
        self.rules_shown = gauge("rules_shown", "1 while Teleport shows us its Access Monitoring Rules")
        self.listed = gauge("listed_requests", "Requests that Teleport held at the last complete snapshot")
        self.last_event = gauge("last_event_timestamp_seconds", "When the watch last brought an event")
        self.last_append = gauge("last_append_timestamp_seconds", "When events were last put on the stream")
        self.last_snapshot = gauge("last_snapshot_timestamp_seconds", "When a snapshot was last complete")
        self.identity_expiry = gauge("identity_expiry_timestamp_seconds", "When the certificate in use ends")
