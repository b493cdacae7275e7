"""Runs the benchmarks, prints their tables, and writes the figures to `benchmarks/latest.json`."""

import json
import os
import platform
import tempfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from benchmarks import endurance, events, latency, mails, rules, snapshot
from benchmarks.budgets import budgets
from benchmarks.machine import bytecode_in

LATEST = Path(__file__).parent / "latest.json"
NAMES = ("mails", "events", "rules", "snapshot", "latency", "endurance")
BASELINE = "RQ SimpleWorker"


@click.command(help=__doc__)
@click.argument("names", nargs=-1, type=click.Choice(NAMES))
@click.option("--rounds", default=3, show_default=True, help="How often each is run; the medians are told.")
def main(names: tuple[str, ...], rounds: int) -> None:
    """Run those that are named, or all."""
    found: dict[str, Any] = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
    }
    click.echo(found["machine"])
    with tempfile.TemporaryDirectory(prefix="access-mail-bench-") as name:
        folder = Path(name)
        os.environ |= bytecode_in(folder)  # for whatever is measured
        latency.start_once(folder)
        if not names or "mails" in names:
            found["mails"] = mails.measure(folder, rounds)
            _print_mails(found["mails"])
        if not names or "events" in names:
            found["events"] = events.measure(folder, rounds)
            _print(found["events"])
        if not names or "rules" in names:
            found["rules"] = rules.measure()
            _print_rules(found["rules"])
        if not names or "snapshot" in names:
            found["snapshot"] = snapshot.measure(folder, rounds)
            _print(found["snapshot"])
        if not names or "latency" in names:
            found["latency"] = latency.measure(folder, rounds)
            _print(found["latency"])
            click.echo("start to ready: of code that has been compiled before, as an installation's is")
        if not names or "endurance" in names:
            found["endurance"] = endurance.measure(folder)
            click.echo(f"\n{json.dumps(found['endurance'], indent=2)}")
    _print_budgets(found)
    LATEST.write_text(json.dumps(found, indent=2) + "\n")
    click.echo(f"\nwritten to {LATEST}")


def _print_mails(rows: Sequence[dict[str, Any]]) -> None:
    baseline = next(row["mails_per_second"] for row in rows if row["contender"] == BASELINE)
    click.echo(
        f"\n{'contender':<18}{'relay':<29}{'conn':>5}{'proc':>5}"
        f"{'mails/s':>10}{'x':>7}{'CPU ms':>8}{'Redis ms':>10}{'sink ms':>9}{'trips':>8}{'MB':>6}"
    )
    for row in rows:
        click.echo(
            f"{row['contender']:<18}{row['relay']:<29}{row['connections']:>5}{row['processes']:>5}"
            f"{row['mails_per_second']:>10.0f}{row['mails_per_second'] / baseline:>7.1f}"
            f"{row['cpu_milliseconds']:>8.3f}{row['redis_milliseconds']:>10.3f}{row['sink_milliseconds']:>9.3f}"
            f"{row['round_trips']:>8.2f}{row['memory_megabytes']:>6.0f}"
        )
    click.echo(
        f"x: mails a second, by those of {BASELINE} over plaintext; for each mail, ms: CPU of the contender, of Redis\n"
        "and of the sink, which share the machine; trips: round trips to Redis"
    )


def _print_rules(rows: Sequence[dict[str, Any]]) -> None:
    click.echo(
        f"\n{'condition':<15}{'rules':>8}{'compile ms':>12}{'a request ms':>14}{'µs a rule':>11}{'a change ms':>13}"
    )
    for row in rows:
        click.echo(
            f"{row['condition']:<15}{row['rules']:>8}{row['compile_milliseconds']:>12.1f}"
            f"{row['request_milliseconds']:>14.3f}{row['rule_microseconds']:>11.2f}{row['change_milliseconds']:>13.2f}"
        )


def _print_budgets(found: Mapping[str, Any]) -> None:
    click.echo(f"\n{'budget':<52}{'found':>10}{'floor':>10}{'aim':>16}")
    for budget in budgets(found):
        click.echo(str(budget))


def _print(rows: Sequence[dict[str, Any]]) -> None:
    click.echo()
    for name in rows[0]:
        click.echo(f"{name:<28}" + "".join(f"{row[name]:>12.1f}" for row in rows))


if __name__ == "__main__":
    main()
