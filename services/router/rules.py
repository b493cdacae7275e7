"""The rules in the router's hands: as the hash in Redis has them, compiled anew only when it has changed."""

import logging

from pydantic import ValidationError

from services.router.metrics import RouterMetrics
from services.router.rulebook import Fault, Rulebook
from shared.mail import one_line
from shared.mail_queue.router_end import RouterEnd

log = logging.getLogger(__name__)

UNKNOWN = "the Access Monitoring Rules are not known yet: a watcher lists them once it reaches Teleport"
LOGGED_NAME, LOGGED_REASON = 100, 300


class Rules:
    """What all routers share, as this one saw it last."""

    def __init__(self, end: RouterEnd, metrics: RouterMetrics) -> None:
        self._end = end
        self._metrics = metrics
        self._revision = ""
        self._compiled = Rulebook.empty()
        self._complained: set[str] = set()
        self._trouble: str | None = UNKNOWN

    @property
    def trouble(self) -> str | None:
        """What is missing; None while the rules are known, be it that there are none."""
        return self._trouble

    def current(self) -> Rulebook | None:
        """The rules as they are now, at the price of one look at Redis; None while they are not known.

        Raises `redis.exceptions.RedisError`.
        """
        revision = self._end.rules_revision()
        if revision != self._revision:
            self._read()
        return None if self._trouble else self._compiled

    def _read(self) -> None:
        try:
            known = self._end.rules()
        except ValidationError as error:
            self._trouble = f"the rules in Redis are none that this version can read ({error.error_count()} faults)"
            return
        if known is None:
            self._revision, self._trouble = "", UNKNOWN
            return
        before, self._compiled = self._compiled, self._compiled.changed(known.rules)
        self._complained &= {name for name, rule in self._compiled.rules.items() if before.rules.get(name) == rule}
        self._revision, self._trouble = known.revision, None
        self._metrics.rules_used.set(len(self._compiled.rules))
        self._metrics.rules_refused.set(len(self._compiled.refused))
        for fault in self._compiled.new_faults(before):
            _say("Access Monitoring Rule %s is not used, all others are: %s", fault)
        if self._compiled.rules != before.rules:
            log.info("%d Access Monitoring Rules are used", len(self._compiled.rules))

    def failed(self, faults: tuple[Fault, ...]) -> None:
        """Count rules that could not answer, and say so once for each."""
        for fault in faults:
            self._metrics.rule_failures.inc()
            if fault.rule not in self._complained:
                self._complained.add(fault.rule)
                _say("Access Monitoring Rule %s has no answer for a request, and does not apply to it: %s", fault)


def _say(text: str, fault: Fault) -> None:
    log.warning(text, one_line(fault.rule, LOGGED_NAME), one_line(fault.reason, LOGGED_REASON))
