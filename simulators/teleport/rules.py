"""The Access Monitoring Rules of a simulated cluster: stored, and listed in pages."""

from grpc import StatusCode

from services.watcher.teleport.pb import rules_pb2
from simulators.teleport.errors import TraceError

LARGEST_PAGE = 1000


class AccessMonitoringRules:
    """Rules by name. A stored message is never changed, only replaced: events and listings may share it."""

    def __init__(self) -> None:
        self._by_name: dict[str, rules_pb2.AccessMonitoringRule] = {}
        self._changes = 0

    def put(self, rule: rules_pb2.AccessMonitoringRule) -> rules_pb2.AccessMonitoringRule:
        """Store a copy of the rule with a new revision, and return that copy."""
        self._changes += 1
        stored = rules_pb2.AccessMonitoringRule()
        stored.CopyFrom(rule)
        stored.metadata.revision = str(self._changes)
        self._by_name[stored.metadata.name] = stored
        return stored

    def remove(self, name: str) -> None:
        """Forget the rule. Raises `TraceError` (NotFound)."""
        if name not in self._by_name:
            raise TraceError(StatusCode.NOT_FOUND, f'access monitoring rule "{name}" not found')
        del self._by_name[name]

    def page(
        self, query: rules_pb2.ListAccessMonitoringRulesWithFilterRequest
    ) -> rules_pb2.ListAccessMonitoringRulesResponse:
        """Return the page that starts at the token: rules of any of the subjects that notify the plugin."""
        size = min(query.page_size or LARGEST_PAGE, LARGEST_PAGE)
        names = [name for name in sorted(self._by_name) if name >= query.page_token]
        matching = [name for name in names if _matches(self._by_name[name], query)]
        return rules_pb2.ListAccessMonitoringRulesResponse(
            rules=[self._by_name[name] for name in matching[:size]],
            next_page_token=matching[size] if len(matching) > size else "",
        )


def _matches(rule: rules_pb2.AccessMonitoringRule, query: rules_pb2.ListAccessMonitoringRulesWithFilterRequest) -> bool:
    subjects = set(query.subjects)
    return (not subjects or bool(subjects & set(rule.spec.subjects))) and (
        not query.notification_name or rule.spec.notification.name == query.notification_name
    )
