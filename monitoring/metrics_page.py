"""`make docs`: writes docs/metrics.md, the page of all metrics, from the metrics themselves."""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from prometheus_client import CollectorRegistry, Metric

from services.mailer.metrics import Metrics as MailerMetrics
from services.router.metrics import RouterMetrics
from services.watcher.metrics import WatcherMetrics
from shared import stream_backlog
from shared.at_scrape import readable
from shared.build import register_build, this_build
from shared.mail_queue import depth

PAGE = Path(__file__).parents[1] / "docs/metrics.md"

HEAD = """\
# Metrics

Written by `make docs` from the code; do not edit.

Each service answers `/metrics` on its probe port. All names begin with `access_mail_`, units are seconds and plain
counts, all label values exist from the start, and no label holds an id or an address. Times are seconds since the epoch
by the clock of the host that tells them; one of 0 means: not since this process has started. Beside these, each service
tells Prometheus's usual `process_*` figures of CPU, memory and file descriptors.

Grafana's boards in `k8s/monitoring/dashboards` show what matters of it, and say what to do.
"""

FREE = {"access_mail_build_info"}
"""Metrics whose label values are not known beforehand."""


def services() -> Mapping[str, Sequence[Metric]]:
    """Heading → the metrics that are told there."""
    watcher, router, mailer, all_ = (CollectorRegistry() for _ in range(4))
    WatcherMetrics(watcher)
    RouterMetrics(router)
    MailerMetrics(mailer)
    register_build(all_, this_build(os.environ), "watcher")
    return {
        "Every service": list(all_.collect()),
        "Watcher": list(watcher.collect()),
        "Router": list(router.collect()),
        "Mailer": list(mailer.collect()),
        "Watcher and router, read from Redis at each scrape": [
            readable(stream_backlog.SUBJECT, answered=True),
            *stream_backlog.as_metrics(stream_backlog.Backlog(events=0, oldest_age=0.0, dead=0)),
        ],
        "Router and mailer, read from Redis at each scrape": [
            readable(depth.SUBJECT, answered=True),
            *depth.as_metrics(depth.Depth(dict.fromkeys(depth.State, 0), oldest=None, suspended=False)),
        ],
    }


def page() -> str:
    """As Markdown."""
    parts = [HEAD]
    for heading, metrics in services().items():
        rows = "\n".join(_row(metric) for metric in metrics)
        parts.append(f"## {heading}\n\n| metric | type | labels | meaning |\n|---|---|---|---|\n{rows}\n")
    return "\n".join(parts)


def full_name(metric: Metric) -> str:
    """As queries write it: a histogram's without `_bucket`."""
    suffix = {"counter": "_total", "info": "_info"}.get(metric.type, "")
    return metric.name + suffix


def _row(metric: Metric) -> str:
    name = full_name(metric)
    return f"| `{name}` | {metric.type} | {_labels(metric, name)} | {metric.documentation} |"


def _labels(metric: Metric, name: str) -> str:
    """Each label with its values; of two labels, the second one's for each value of the first."""
    sets = [{label: value for label, value in sample.labels.items() if label != "le"} for sample in metric.samples]
    names = list(sets[0])
    if name in FREE:
        return ", ".join(f"`{label}`" for label in names)
    if len(names) < 2:  # noqa: PLR2004 - a pair
        return "".join(f"`{label}`: {_listed(one[label] for one in sets)}" for label in names)
    first, second = names
    pairs = [
        f"`{first}` {value}: {_listed(one[second] for one in sets if one[first] == value)}"
        for value in dict.fromkeys(one[first] for one in sets)
    ]
    return f"`{second}` by {'; '.join(pairs)}"


def _listed(values: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(values))


if __name__ == "__main__":
    PAGE.write_text(page())
