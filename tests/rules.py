"""Access Monitoring Rules for tests."""

from redis import Redis

from shared.event_log import GROUP
from shared.events import AccessMonitoringRule, RulesListed
from shared.mail_queue.router_end import RouterEnd


def rule(name: str, condition: str, *recipients: str) -> AccessMonitoringRule:
    """A rule that applies at all times."""
    return AccessMonitoringRule(name=name, condition=condition, recipients=recipients)


def know_rules(redis: Redis, *rules: AccessMonitoringRule) -> None:
    """Let the routers know these rules, and that there are no others, as if a watcher had listed them before."""
    RouterEnd(redis, GROUP, "test").commit_rules("0-1", RulesListed(rules=rules))
