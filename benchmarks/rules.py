"""What Access Monitoring Rules cost: `python -m benchmarks.rules` prints a table.

For each kind of condition and each number of rules: the time to compile them once, and the time to ask all of them
for one request, in all and per rule. Cost must be linear in rules, and at most 10 µs a rule.
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial

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


def main() -> None:
    """Measure and print."""
    print(f"{'condition':<15}{'rules':>8}{'compile ms':>12}{'a request ms':>14}{'µs a rule':>11}{'one change ms':>15}")  # noqa: T201  the table is the product
    for kind in CONDITIONS:
        for number in NUMBERS:
            some = rules(kind, number)
            began = time.process_time()
            book = Rulebook.empty().changed(some)
            compiled = time.process_time() - began
            assert len(book.rules) == number, book.refused
            asked = seconds_for(partial(book.matching, REQUEST))
            other = [some[0].model_copy(update={"condition": "false"}), *some[1:]]
            change = seconds_for(partial(book.changed, other))
            print(  # noqa: T201  see above
                f"{kind:<15}{number:>8}{compiled * 1e3:>12.1f}{asked * 1e3:>14.3f}"
                f"{asked / number * 1e6:>11.2f}{change * 1e3:>15.2f}"
            )


if __name__ == "__main__":
    main()
