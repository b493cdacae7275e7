"""What has been measured, beside what it should be: one line a budget, as the design states them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

ROUND_TRIP_SECONDS = 0.02
"""To the relay that is far away."""

RULES = 1_000

OURS = "MailWorker"
PLAIN, FAR = "plaintext", "20 ms away, STARTTLS + AUTH"


@dataclass(frozen=True)
class Budget:
    """A figure that must reach its floor and may reach its aim."""

    name: str
    found: float
    floor: float
    aim: float | None
    less_is_better: bool = False

    def __str__(self) -> str:
        aim = "" if self.aim is None else f"{self.aim:>10.2f}  {self._reached(self.aim)}"
        return f"{self.name:<52}{self.found:>10.2f}{self.floor:>10.2f}  {self._reached(self.floor)}{aim}"

    def _reached(self, wanted: float) -> str:
        return "met " if (self.found <= wanted if self.less_is_better else self.found >= wanted) else "MISS"


def budgets(found: Mapping[str, Any]) -> Iterator[Budget]:
    """Those of all benchmarks that were run."""
    if "mails" in found:
        yield from _of_mails(found["mails"])
    if "events" in found:
        yield Budget("events a second, one router", _median(found["events"], "events_per_second"), 1500, 3000)
        yield Budget("router, MB", _median(found["events"], "memory_megabytes"), 60, None, less_is_better=True)
    if "rules" in found:
        yield from _of_rules(found["rules"])
    if "snapshot" in found:
        seconds = _median(found["snapshot"], "snapshot_seconds")
        yield Budget("snapshot of 10,000 known requests, s", seconds, 2, None, less_is_better=True)
    if "latency" in found:
        rows = found["latency"]
        yield Budget("request to 250, p50, ms", _median(rows, "p50_milliseconds"), 15, 7.5, less_is_better=True)
        yield Budget("request to 250, p99, ms", _median(rows, "p99_milliseconds"), 60, 30, less_is_better=True)
        yield Budget("watcher, MB", _median(rows, "watcher_megabytes"), 90, None, less_is_better=True)
    if "endurance" in found:
        row = found["endurance"]
        sizes = row["mailer_megabytes"]
        yield Budget("Redis octets a queued mail", row["redis_octets_while_queued"], 2048, None, less_is_better=True)
        yield Budget("Redis octets a sent mail", row["redis_octets_after"], 512, None, less_is_better=True)
        yield Budget("mailer after 100,000 mails, MB", sizes[-1], 80, None, less_is_better=True)


def _of_mails(rows: Sequence[Mapping[str, Any]]) -> Iterator[Budget]:
    ours = _race(rows, OURS, PLAIN, 20)
    ours_a_second = ours["mails_per_second"]
    for contender, floor, aim in (("RQ SimpleWorker", 15, 40), ("taskiq", 3, 6), ("aiosmtplib alone", 0.8, 1.5)):
        theirs = _race(rows, contender, PLAIN, 1 if contender == "RQ SimpleWorker" else 20)["mails_per_second"]
        yield Budget(f"mails a second, by those of {contender}", ours_a_second / theirs, floor, aim)
    yield Budget("CPU a mail in the mailer, µs", 1000 * ours["cpu_milliseconds"], 350, 150, less_is_better=True)
    yield Budget("round trips to Redis a mail", ours["round_trips"], 0.1, None, less_is_better=True)
    for connections in (1, 10, 50):
        most = connections / ROUND_TRIP_SECONDS
        a_second = _race(rows, OURS, FAR, connections)["mails_per_second"]
        yield Budget(f"20 ms away, {connections} connections, by 1 mail a round trip", a_second / most, 0.45, 0.9)


def _of_rules(rows: Sequence[Mapping[str, Any]]) -> Iterator[Budget]:
    """By the kind of condition that does worst, among as many rules as the budget speaks of."""
    costs = {(row["condition"], row["rules"]): row["rule_microseconds"] for row in rows}
    worst, cost = max(((kind, cost) for (kind, n), cost in costs.items() if n == RULES), key=lambda one: one[1])
    yield Budget(f"one of {RULES:,} rules ({worst}), µs", cost, 10, None, less_is_better=True)
    growth = max(costs[kind, 10 * RULES] / cost for (kind, n), cost in costs.items() if n == RULES)
    yield Budget(f"one of {10 * RULES:,} rules, by that", growth, 1.5, None, less_is_better=True)


def _race(rows: Sequence[Mapping[str, Any]], contender: str, relay: str, connections: int) -> Mapping[str, Any]:
    wanted = (contender, relay, connections, 1)
    return next(row for row in rows if (row["contender"], row["relay"], row["connections"], row["processes"]) == wanted)


def _median(rows: Sequence[Mapping[str, Any]], name: str) -> float:
    return float(median(row[name] for row in rows))
