"""The router's metrics: events in, mails out, and what went wrong."""

from enum import StrEnum

from prometheus_client import CollectorRegistry, Counter, Gauge


class EventOutcome(StrEnum):
    """What became of an event."""

    ROUTED = "routed"
    """It taught something new."""
    KNOWN = "known"
    """It taught nothing new: seen twice, or late."""
    SETTLED_UNANNOUNCED = "settled_unannounced"
    """The request was over when it was first seen: nobody was told of it, so nobody is told of its end."""
    DEAD = "dead"
    """It could not be routed: a dead letter."""


class RouterMetrics:
    """All of them, their label values created up front so that rates begin with the first scrape."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.events = Counter(
            "access_mail_router_events", "Events taken from the stream, by outcome", ["outcome"], registry=registry
        )
        for outcome in EventOutcome:
            self.events.labels(outcome.value)
        self.mails = Counter("access_mail_router_mails", "Mail jobs put into the queue", registry=registry)
        self.mails_known = Counter(
            "access_mail_router_mails_known", "Mails that had a job or a receipt already", registry=registry
        )
        self.conflicts = Counter(
            "access_mail_router_commit_conflicts",
            "Commits repeated because another router was first",
            registry=registry,
        )
        self.postponed = Counter(
            "access_mail_router_postponed",
            "Events that waited for an earlier one of their request in another router's hands",
            registry=registry,
        )
        self.unaddressable = Counter(
            "access_mail_router_unaddressable_reviewers",
            "Suggested reviewers whose name is no e-mail address",
            registry=registry,
        )
        self.rules_used = Gauge(
            "access_mail_router_rules", "Access Monitoring Rules that are asked for each request", registry=registry
        )
        self.rules_refused = Gauge(
            "access_mail_router_rules_refused",
            "Access Monitoring Rules that cannot be used; the log names each with its fault",
            registry=registry,
        )
        self.rule_failures = Counter(
            "access_mail_router_rule_failures",
            "Times that a rule had no answer for a request, and did not apply",
            registry=registry,
        )
        self.rule_changes = Counter(
            "access_mail_router_rule_changes", "Events that have changed the rules", registry=registry
        )
        self.unaddressable_by_rules = Counter(
            "access_mail_router_unaddressable_rule_recipients",
            "Recipients of rules that are no e-mail addresses",
            registry=registry,
        )
        self.errors = Counter(
            "access_mail_router_redis_errors", "Times that Redis did not do its part", registry=registry
        )
        self.last_success = Gauge(
            "access_mail_router_last_success_timestamp_seconds", "When an event was last committed", registry=registry
        )
