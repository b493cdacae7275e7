"""The alert rules: well formed, each fires for its trouble and says what to do, and they name only what is told."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.monitoring.prometheus import PROMTOOL, needs_prometheus
from tests.monitoring.queries import RULES, alerts, names

HERE = Path(__file__).parent
CASES = sorted(HERE.glob("alerts*.yml"))


def promtool(*arguments: str | Path) -> str:
    """What it objects to; empty: nothing."""
    assert PROMTOOL is not None
    done = subprocess.run([PROMTOOL, *arguments], capture_output=True, text=True, check=False)
    return done.stdout + done.stderr if done.returncode else ""


@needs_prometheus
def test_the_rules_are_well_formed() -> None:
    assert promtool("check", "rules", "--lint=all", "--lint-fatal", RULES) == ""


@needs_prometheus
@pytest.mark.parametrize("cases", CASES, ids=lambda path: path.stem)
def test_each_alert_fires_for_its_trouble_and_a_well_installation_is_silent(cases: Path) -> None:
    assert promtool("test", "rules", cases) == ""


def test_each_alert_is_seen_to_fire() -> None:
    seen = "".join(str(sample) for path in CASES for sample in samples(yaml.safe_load(path.read_text())))
    assert [name for name in alerts() if f'alertname="{name}"' not in seen] == []


def samples(cases: Any) -> list[Any]:
    """What the queries of these cases are to give."""
    queries = [query for case in cases["tests"] for query in case["promql_expr_test"]]
    return [sample for query in queries for sample in query.get("exp_samples", [])]


@pytest.mark.parametrize("name", alerts())
def test_an_alert_names_metrics_that_exist_and_says_what_to_do(name: str) -> None:
    alert = alerts()[name]
    metrics = alert.query.metrics()
    assert metrics
    assert metrics <= names()
    assert alert.severity in ("critical", "warning")
    assert alert.summary
    assert alert.description.endswith(".")
