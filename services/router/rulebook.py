"""The Access Monitoring Rules, ready to be asked: each is compiled once, and a bad one harms no other. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Self

from services.router.conditions import Condition, EvaluationError, ParseError, variables_of
from services.router.schedules import Hours, ScheduleError
from shared.events import AccessMonitoringRule, AccessRequest


@dataclass(frozen=True)
class Fault:
    """What is wrong with a rule."""

    rule: str
    reason: str


@dataclass(frozen=True)
class CompiledRule:
    """A rule that can be asked."""

    rule: AccessMonitoringRule
    condition: Condition
    schedules: tuple[Hours, ...]

    @classmethod
    def of(cls, rule: AccessMonitoringRule) -> Self:
        """Raises `ParseError` or `ScheduleError`."""
        return cls(
            rule, Condition.parse(rule.condition), tuple(Hours.of(schedule) for schedule in rule.schedules.values())
        )


@dataclass(frozen=True)
class Matches:
    """What the rules say to a request."""

    rules: tuple[AccessMonitoringRule, ...] = ()
    """Those that apply, in the order of their names."""
    faults: tuple[Fault, ...] = ()
    """Rules that could not answer: they do not apply."""


@dataclass(frozen=True)
class Rulebook:
    """All rules as Teleport has them now."""

    rules: Mapping[str, CompiledRule]
    refused: Mapping[str, tuple[AccessMonitoringRule, str]]
    """By name: rules that cannot be used, and why."""

    @classmethod
    def empty(cls) -> Self:
        """As if there were no rules."""
        return cls({}, {})

    def changed(self, rules: Iterable[AccessMonitoringRule]) -> "Rulebook":
        """The book of these rules. Those that were here already are not compiled again."""
        compiled: dict[str, CompiledRule] = {}
        refused: dict[str, tuple[AccessMonitoringRule, str]] = {}
        for rule in sorted(rules, key=lambda rule: rule.name):
            known, bad = self.rules.get(rule.name), self.refused.get(rule.name)
            if known is not None and known.rule == rule:
                compiled[rule.name] = known
            elif bad is not None and bad[0] == rule:
                refused[rule.name] = bad
            else:
                try:
                    compiled[rule.name] = CompiledRule.of(rule)
                except ParseError as error:
                    refused[rule.name] = rule, f"its condition, {error}"
                except ScheduleError as error:
                    refused[rule.name] = rule, f"its schedules: {error}"
        return Rulebook(compiled, refused)

    def new_faults(self, before: "Rulebook") -> list[Fault]:
        """What is wrong here and was not, in the same rule, in the book before."""
        return [Fault(name, bad[1]) for name, bad in self.refused.items() if before.refused.get(name) != bad]

    def matching(self, request: AccessRequest) -> Matches:
        """The rules that apply to the request: its creation is inside the shifts, if there are any, and it fits."""
        if not self.rules:
            return Matches()
        variables = variables_of(request)
        matching: list[AccessMonitoringRule] = []
        faults: list[Fault] = []
        for name, compiled in self.rules.items():
            if compiled.schedules and not (
                request.created and any(hours.contain(request.created) for hours in compiled.schedules)
            ):
                continue
            try:
                if compiled.condition.holds(variables):
                    matching.append(compiled.rule)
            except EvaluationError as error:
                faults.append(Fault(name, str(error)))
        return Matches(tuple(matching), tuple(faults))
