"""The rules in the router's hands: as the hash in Redis has them, compiled anew only when it has changed."""

import logging
from collections.abc import Iterable

from pydantic import ValidationError

from services.router.metrics import RouterMetrics
from services.router.rulebook import Fault, Rulebook
from shared.event_log import Delivery
from shared.events import Message, RulesEvent, RulesListed, RulesUnavailable, parse_event
from shared.mail import one_line
from shared.mail_queue.router_end import RouterEnd

log = logging.getLogger(__name__)

UNKNOWN = "the Access Monitoring Rules are not known yet: a watcher lists them once it reaches Teleport"
UNREADABLE = "the Access Monitoring Rules are none that this version can read ({} faults): run one version everywhere"
LISTINGS = ("rules_listed", "rules_unavailable")
"""Types of the events that tell all rules, or that there are none to be had."""
LOGGED_NAME, LOGGED_REASON = 100, 300


class _Typed(Message):
    """No more of an event than tells what it is."""

    type: str


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

    def take(self, entry: str, event: RulesEvent) -> bool:
        """Take what the event tells, and acknowledge it. False: a later one has been taken before.

        Raises `redis.exceptions.RedisError`.
        """
        is_news = self._end.commit_rules(entry, event)
        if is_news:
            self._metrics.rule_changes.inc()
            log.info("the Access Monitoring Rules have changed (%s)", event.type)
        return is_news

    def take_first_listing(self, deliveries: Iterable[Delivery]) -> bool:
        """Take the first of these events that tells all rules, whoever has it in hand. False: none does.

        The others are read no further than to their type. Raises `redis.exceptions.RedisError`.
        """
        for delivery in deliveries:
            if _type_of(delivery.data) not in LISTINGS:
                continue
            try:
                event = parse_event(delivery.data)
            except ValidationError as error:
                self._trouble = UNREADABLE.format(error.error_count())
                continue
            if isinstance(event, RulesListed | RulesUnavailable) and self.take(delivery.entry, event):
                return True
        return False

    def _read(self) -> None:
        try:
            known = self._end.rules()
        except ValidationError as error:
            self._trouble = UNREADABLE.format(error.error_count())
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


def _type_of(data: bytes) -> str:
    """What kind of event this is; empty where nobody can tell."""
    try:
        return _Typed.model_validate_json(data).type
    except ValidationError:
        return ""
