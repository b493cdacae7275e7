"""Rules are compiled once, asked for each request, and a bad one harms no other; whom they name is told and why."""

from datetime import UTC, datetime
from typing import Any

import pytest

from services.router.directory import audience
from services.router.rulebook import Rulebook
from shared.events import AccessMonitoringRule, AccessRequest, RequestState, Schedule, Shift
from shared.mail import Why
from shared.settings_values import RuleEffect
from tests.rules import rule

REQUEST = AccessRequest(
    id="r1",
    user="alice",
    state=RequestState.PENDING,
    roles=("editor",),
    suggested_reviewers=("sue@example.com", "sue"),
    created=datetime(2026, 11, 20, 17, 0, tzinfo=UTC),  # a Friday
)
ROLE_MAP = {"editor": ("ann@example.com",), "*": ("all@example.com",)}
FRIDAY = Schedule(shifts=(Shift(weekday="Friday", start="17:00", end="18:00"),))
MONDAY = Schedule(shifts=(Shift(weekday="Monday", start="00:00", end="23:59"),))


def book(*rules: AccessMonitoringRule) -> Rulebook:
    return Rulebook.empty().changed(rules)


def matching(*rules: AccessMonitoringRule, **changes: Any) -> list[str]:
    return [one.name for one in book(*rules).matching(REQUEST.model_copy(update=changes)).rules]


def test_the_rules_that_fit_apply_in_the_order_of_their_names() -> None:
    rules = [rule("b", "true"), rule("c", "false"), rule("a", 'access_request.spec.roles.contains("editor")')]
    assert matching(*rules) == ["a", "b"]


@pytest.mark.parametrize(
    ("schedules", "applies"),
    [({}, True), ({"f": FRIDAY}, True), ({"m": MONDAY}, False), ({"m": MONDAY, "f": FRIDAY}, True)],
)
def test_schedules_ask_when_the_request_was_made(schedules: dict[str, Schedule], applies: bool) -> None:  # noqa: FBT001  a column
    scheduled = rule("a", "true").model_copy(update={"schedules": schedules})
    assert matching(scheduled) == (["a"] if applies else [])


def test_a_request_without_a_time_is_in_no_shift() -> None:
    scheduled = rule("a", "true").model_copy(update={"schedules": {"f": FRIDAY}})
    assert matching(scheduled, created=None) == []


def test_a_bad_rule_harms_no_other_and_is_told_once() -> None:
    bad = rule("bad", "true &&")
    late = rule("late", "true").model_copy(update={"schedules": {"x": Schedule(timezone="Mars/Olympus")}})
    first = book(bad, late, rule("good", "true"))
    assert [one.name for one in first.matching(REQUEST).rules] == ["good"]
    assert [(fault.rule, fault.reason) for fault in first.new_faults(Rulebook.empty())] == [
        ("bad", "its condition, line 1, column 8: expected operand, found 'EOF'"),
        ("late", "its schedules: 'Mars/Olympus' is no time zone; write one like Europe/Berlin"),
    ]
    again = first.changed([bad, late, rule("good", "false"), rule("new", "true")])
    assert again.new_faults(first) == []
    worse = again.changed([rule("bad", "foo()")])
    assert [fault.reason for fault in worse.new_faults(again)] == [
        "its condition, line 1, column 1: unsupported function: foo"
    ]


def test_a_rule_that_has_no_answer_does_not_apply_and_harms_no_other() -> None:
    asking = book(rule("asks", 'newer_than(access_request.spec.user, "1.0.0")'), rule("good", "true"))
    matches = asking.matching(REQUEST)
    assert [one.name for one in matches.rules] == ["good"]
    assert [(fault.rule, fault.reason) for fault in matches.faults] == [("asks", "no semantic version: 'alice'")]


def test_a_rule_that_has_not_changed_is_not_compiled_again() -> None:
    before = book(rule("a", "true"), rule("b", "true"))
    after = before.changed([rule("a", "true"), rule("b", "false")])
    assert after.rules["a"] is before.rules["a"]
    assert after.rules["b"] is not before.rules["b"]


# -- who is told


def told(*rules: AccessMonitoringRule, effect: RuleEffect = RuleEffect.REPLACE) -> list[tuple[str, Why, str]]:
    found = audience(REQUEST, ROLE_MAP, rules, effect)
    return [(person.address, person.why, person.rule or person.role) for person in found.recipients]


BY_ROLE_MAP = [("ann@example.com", Why.ROLE, "editor"), ("sue@example.com", Why.SUGGESTED_REVIEWER, "")]


def test_without_rules_that_apply_the_role_map_and_the_suggested_reviewers_are_told() -> None:
    assert told() == BY_ROLE_MAP


def test_rules_that_apply_replace_the_role_map_and_the_suggested_reviewers() -> None:
    rules = [
        rule("one", "", "Ops@EXAMPLE.com", "sec@example.com"),
        rule("two", "", "ops@example.com", "Ops@example.com"),
    ]
    assert told(*rules) == [
        ("Ops@example.com", Why.RULE, "one"),
        ("sec@example.com", Why.RULE, "one"),
        ("ops@example.com", Why.RULE, "two"),
    ]


def test_rules_that_apply_can_add_to_them() -> None:
    added = told(rule("one", "", "ops@example.com", "ann@example.com"), effect=RuleEffect.ADD)
    assert sorted(added) == sorted(
        [("ops@example.com", Why.RULE, "one"), ("ann@example.com", Why.RULE, "one"), BY_ROLE_MAP[1]]
    )


def test_rules_that_name_nobody_who_can_be_told_silence_nobody_else() -> None:
    assert told(rule("one", "")) == BY_ROLE_MAP
    assert told(rule("two", "", "team-channel")) == BY_ROLE_MAP


def test_names_that_are_no_addresses_are_counted() -> None:
    found = audience(REQUEST, ROLE_MAP, [rule("one", "", "ops@example.com", "channel", "Ops <o@example.com>")])
    assert (found.unaddressable_by_rules, found.unaddressable) == (2, 0)
    assert audience(REQUEST, ROLE_MAP).unaddressable == 1
