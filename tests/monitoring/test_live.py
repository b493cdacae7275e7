"""A real Prometheus scrapes the running product: its metrics are well formed, and every panel has something to show."""

import asyncio
import math
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from monitoring.dashboards import FOLDER
from monitoring.metrics_page import full_name, services
from services.watcher.teleport.pb import types_pb2
from simulators.rules import Rule
from simulators.world import World, world
from tests.e2e.installation import Installation, installed
from tests.monitoring.prometheus import Prometheus, lint, needs_prometheus, prometheus
from tests.monitoring.queries import alerts, dashboard_queries, variables
from tests.processes import probe
from tests.waiting import wait_until

BOARDS = sorted(FOLDER.glob("*.json"))
ANN, NOBODY, LATER = "ann@example.com", "nobody@example.com", "later@example.com"
SCRAPES = 4
"""Enough for rates."""

pytestmark = needs_prometheus


@dataclass(frozen=True)
class Watched:
    """The product, and the Prometheus that scrapes it."""

    outside: World
    access_mail: Installation
    urls: dict[str, str]
    prometheus: Prometheus


@pytest.fixture
async def watched(tmp_path: Path) -> AsyncIterator[Watched]:
    async with (
        world(tmp_path) as outside,
        installed(tmp_path, outside.configuration({"*": [ANN, NOBODY], "auditor": [LATER]})) as access_mail,
    ):
        places = await access_mail.product.ready()
        urls = {"watcher": places.watcher, "router": places.router, "mailer": places.mailer}
        with prometheus(tmp_path, {f"access-mail-{name}": url for name, url in urls.items()}) as scraping:
            yield Watched(outside, access_mail, urls, scraping)


async def scraped_anew(watched: Watched) -> None:
    """Wait until what is so now has been scraped."""
    targets = len(watched.urls)
    before = watched.prometheus.value("min(sum_over_time(up[5m]))") if watched.prometheus.series("up") else 0
    await wait_until(
        lambda: watched.prometheus.has_scraped(targets, int(before) + SCRAPES), "Prometheus has scraped", timeout=60
    )


def empty(scraping: Prometheus) -> list[str]:
    """Panels with a query that gives no series."""
    return [
        f"{path.stem}: {query.panel}: {query.expr}"
        for path in BOARDS
        for query in dashboard_queries(path)
        if not scraping.series(query.expr)
    ]


def missing(scraping: Prometheus) -> list[str]:
    """What alerts ask for that no service tells."""
    asked = {selector for alert in alerts().values() for selector in alert.query.selectors()}
    return [selector for selector in sorted(asked) if not scraping.series(selector)]


async def test_metrics_are_well_formed_and_those_of_the_page(watched: Watched) -> None:
    told: dict[str, set[str]] = {}
    for name, url in watched.urls.items():
        _, text = await asyncio.to_thread(probe, f"{url}/metrics")
        assert lint(text) == "", name
        told[name] = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE access_mail_")}
    for heading, metrics in services().items():
        documented = {full_name(metric) for metric in metrics}
        for name, names in told.items():
            if heading == "Every service" or name in heading.lower():
                assert documented <= names
    everywhere = {full_name(metric) for metrics in services().values() for metric in metrics}
    assert {name for names in told.values() for name in names if not name.endswith("_created")} == everywhere


async def test_every_panel_has_something_to_show_while_nothing_happens_and_afterwards(watched: Watched) -> None:
    await scraped_anew(watched)
    assert empty(watched.prometheus) == []
    assert missing(watched.prometheus) == []
    for path in BOARDS:
        for metric, label in variables(path):
            assert watched.prometheus.values(metric, label)

    watched.outside.mailbox.rules += [
        Rule("rcpt", "550 5.1.1 no such user", recipient=NOBODY),
        Rule("rcpt", "451 4.7.1 later", recipient=LATER),
    ]
    request_id = watched.outside.auth.create_request("alice", approvals=2)
    await wait_until(lambda: watched.outside.mailbox.thread(request_id, ANN), "ann has been asked")
    await wait_until(watched.access_mail.dead, "the other has been refused")
    watched.outside.auth.review(request_id, "erin", types_pb2.APPROVED)
    watched.outside.auth.approve(request_id)
    watched.outside.auth.create_request("eve", ["auditor"])
    await wait_until(lambda: len(watched.outside.mailbox.thread(request_id, ANN)) == 3, "ann has read it all")
    await wait_until(lambda: watched.access_mail.dead() and watched.access_mail.waiting(), "the others have not")
    await scraped_anew(watched)
    assert empty(watched.prometheus) == []
    shown = figures(watched.prometheus)
    assert shown["Teleport"] == [1]
    assert shown["Processes that live"] == [1, 1, 1]
    assert shown["Dead letters"] == [1, 0]
    assert shown["Mails that are tried again"] == [1]
    assert shown["Mails that wait for a mailer"] == [0]
    assert all(0 < seconds < 60 for seconds in shown["From request to relay"])
    assert shown["Oldest event"] == shown["Oldest mail"] == [0]


def figures(scraping: Prometheus) -> dict[str, list[float]]:
    """Panel of the first board → its values, rounded to what a reader sees."""
    shown: dict[str, list[float]] = {}
    for query in dashboard_queries(FOLDER / "access-mail-pipeline.json"):
        for series in scraping.series(query.expr):
            value = float(series["value"][1])
            shown.setdefault(query.panel, []).append(value if math.isnan(value) else round(value, 2))
    return shown
