"""What Access Monitoring Rules cost: compiled and asked for the first time, and then asked all for one request."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any

from services.router.rulebook import Rulebook
from shared.events import AccessMonitoringRule, AccessRequest, RequestState, Resource, Schedule, Shift

NUMBERS = (10, 100, 1_000, 10_000)
SECONDS = 0.5
"""Least time of a measurement."""

CONDITIONS: dict[str, Callable[[int], str]] = {
    "a role": lambda n: f'access_request.spec.roles.contains("role-{n}")',
    "roles, traits": lambda n: (
        f'contains_any(access_request.spec.roles, set("role-{n}", "editor")) &&\n'
        f'  user.traits["team"].contains("team-{n}") && !is_empty(access_request.spec.suggested_reviewers)'
    ),
    "labels, user": lambda n: (
        'access_request.spec.resource_labels_intersection["env"].contains("prod") &&'
        f'  access_request.spec.user == "u{n}"'
    ),
    "of lower case": lambda n: f'regexp.match(strings.lower(access_request.spec.roles), "^(edit|admin-{n}).*$")',
    "a regexp": lambda n: f'regexp.match(access_request.spec.roles, "^(edit|admin-{n}).*$")',
    "with a shift": lambda n: f'access_request.spec.roles.contains("role-{n}")',
}

SCHEDULES = {
    "night": Schedule(
        shifts=tuple(Shift(weekday=day, start="20:00", end="23:59") for day in ("Monday", "Friday", "Sunday")),
        timezone="Europe/Berlin",
    )
}

REQUEST = AccessRequest(
    id="r1",
    user="alice",
    state=RequestState.PENDING,
    roles=("access", "editor"),
    suggested_reviewers=("ann@example.com",),
    created=datetime(2026, 11, 20, 22, tzinfo=UTC),
    user_traits={"team": ("team-1", "team-2"), "level": ("L1",)},
    resources=tuple(
        Resource(cluster="c", kind="node", name=f"n{n}", labels={"env": "prod", "os": "linux"}) for n in range(10)
    ),
    resource_count=10,
)


def rules(kind: str, number: int) -> list[AccessMonitoringRule]:
    """So many rules with different conditions of one kind."""
    return [
        AccessMonitoringRule(
            name=f"rule-{n}",
            condition=CONDITIONS[kind](n),
            recipients=("ops@example.com",),
            schedules=SCHEDULES if kind == "with a shift" else {},
        )
        for n in range(number)
    ]


def seconds_for(action: Callable[[], object]) -> float:
    """The mean time of one call, over at least `SECONDS`."""
    calls, began = 0, time.process_time()
    while True:
        action()
        calls += 1
        spent = time.process_time() - began
        if spent >= SECONDS:
            return spent / calls


def measure() -> list[dict[str, Any]]:
    """One row for each kind of condition and each number of rules."""
    return [_row(kind, number) for kind in CONDITIONS for number in NUMBERS]


def _row(kind: str, number: int) -> dict[str, Any]:
    some = rules(kind, number)
    began = time.process_time()
    book = Rulebook.empty().changed(some)
    book.matching(REQUEST)  # the first time RE2 builds its automata
    compiled = time.process_time() - began
    assert len(book.rules) == number, book.refused
    asked = seconds_for(partial(book.matching, REQUEST))
    other = [some[0].model_copy(update={"condition": "false"}), *some[1:]]
    return {
        "condition": kind,
        "rules": number,
        "compile_milliseconds": compiled * 1e3,
        "request_milliseconds": asked * 1e3,
        "rule_microseconds": asked / number * 1e6,
        "change_milliseconds": seconds_for(partial(book.changed, other)) * 1e3,
    }
