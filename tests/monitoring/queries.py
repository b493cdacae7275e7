"""The queries of dashboards, as Grafana sends them, and of alerts, for any Prometheus that scrapes the services."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from monitoring.metrics_page import full_name, services

RULES = Path(__file__).parents[2] / "k8s/monitoring/rules/access-mail.yml"

FOR_SCRAPES_EACH_SECOND = "20s"
RANGE = "5m"

METRIC = re.compile(r"\baccess_mail_[a-z_]+")
NAMES = re.compile(r'__name__=~"\(([^)]*)\)([^"]*)"')
LABEL_VALUES = re.compile(r"label_values\((\w+), (\w+)\)")


SELECTOR = re.compile(r"\baccess_mail_[a-z_]+(?:\{[^}]*\})?|\{__name__[^}]*\}")
HISTOGRAM_SUFFIXES = ("", "_bucket", "_sum", "_count")


def names() -> set[str]:
    """All metrics as queries write them."""
    told = [metric for metrics in services().values() for metric in metrics]
    return {
        full_name(metric) + suffix
        for metric in told
        for suffix in (HISTOGRAM_SUFFIXES if metric.type == "histogram" else ("",))
    }


@dataclass(frozen=True)
class PanelQuery:
    """One query of one panel."""

    panel: str
    expr: str

    def metrics(self) -> set[str]:
        """The names of our metrics in it."""
        spelled_out = NAMES.sub(lambda found: " ".join(one + found[2] for one in found[1].split("|")), self.expr)
        return set(METRIC.findall(spelled_out))

    def selectors(self) -> list[str]:
        """What it asks Prometheus for, each of which must be there for the query to mean anything."""
        return SELECTOR.findall(self.expr)


@dataclass(frozen=True)
class Alert:
    """One rule."""

    query: PanelQuery
    severity: str
    summary: str
    description: str


def alerts() -> dict[str, Alert]:
    """All rules by name."""
    rules = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
    return {
        rule["alert"]: Alert(PanelQuery(rule["alert"], rule["expr"]), rule["labels"]["severity"], **rule["annotations"])
        for rule in rules
    }


def dashboard_queries(path: Path, rate_interval: str = FOR_SCRAPES_EACH_SECOND) -> list[PanelQuery]:
    """All of the file, their variables filled in: of a variable of the board's own, all that there is.

    `rate_interval`: Grafana takes four times the interval of scrapes.
    """
    return [
        PanelQuery(panel["title"], _filled_in(target["expr"], rate_interval))
        for panel in panels(json.loads(path.read_text()))
        for target in panel.get("targets", [])
    ]


def panels(dashboard: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """All panels, rows too, and those inside of closed rows."""
    for panel in dashboard["panels"]:
        yield panel
        yield from panel.get("panels") or []


def variables(path: Path) -> list[tuple[str, str]]:
    """(metric, label) whose values the reader of the board may choose from."""
    listed = json.loads(path.read_text())["templating"]["list"]
    found = [LABEL_VALUES.fullmatch(one["query"]) for one in listed if one["type"] == "query"]
    assert all(found), "a variable that is no list of a label's values"
    return [(one[1], one[2]) for one in found if one]


def _filled_in(expr: str, rate_interval: str) -> str:
    expr = expr.replace("$__rate_interval", rate_interval).replace("$__range", RANGE)
    return re.sub(r"\$\{?(\w+)\}?", ".*", expr)
