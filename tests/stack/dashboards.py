"""The queries of Grafana's dashboards, as Prometheus can be asked them without a Grafana."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DASHBOARDS = Path(__file__).parents[2] / "k8s/monitoring/dashboards"

_TIMES = re.compile(r"\$\{?__(?:rate_interval|interval|range)\}?")
_VARIABLE = re.compile(r"\$\{(\w+)(?::\w+)?\}|\$(\w+)|\[\[(\w+)\]\]")


def queries(file: Path) -> list[str]:
    """Each query of the dashboard, its times a minute and its variables anything."""
    return [
        _VARIABLE.sub(".+", _TIMES.sub("1m", expression)) for expression in _expressions(json.loads(file.read_text()))
    ]


def _expressions(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("expr"), str):
            yield node["expr"]
        for child in node.values():
            yield from _expressions(child)
    elif isinstance(node, list):
        for child in node:
            yield from _expressions(child)
