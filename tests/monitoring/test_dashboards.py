"""The committed boards are those of the code, hold together, and name only what the services tell."""

import json
from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from monitoring.dashboards import FOLDER, boards
from monitoring.metrics_page import PAGE, full_name, page, services
from monitoring.panels import TAG, WIDTH
from tests.monitoring.queries import dashboard_queries, names, panels, variables

BOARDS = sorted(FOLDER.glob("*.json"))


def test_the_files_are_those_that_make_dashboards_writes() -> None:
    assert {path.name: path.read_text() for path in BOARDS} == boards(), "make dashboards"


def test_the_page_of_metrics_is_the_one_that_make_docs_writes() -> None:
    assert PAGE.read_text() == page(), "make docs"


def test_boards_can_be_told_apart_and_lead_to_each_other() -> None:
    loaded = [json.loads(path.read_text()) for path in BOARDS]
    assert len({board["uid"] for board in loaded}) == len({board["title"] for board in loaded}) == len(BOARDS) > 1
    for path, board in zip(BOARDS, loaded, strict=True):
        assert path.stem == board["uid"]
        assert board["tags"] == [TAG]
        assert [(link["type"], link["tags"]) for link in board["links"]] == [("dashboards", [TAG])]


@pytest.mark.parametrize("path", BOARDS, ids=lambda path: path.stem)
def test_panels_have_their_own_id_and_place_and_say_what_to_do(path: Path) -> None:
    all_ = list(panels(json.loads(path.read_text())))
    assert len({panel["id"] for panel in all_}) == len(all_)
    for panel in all_:
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= WIDTH, panel["title"]
        if panel["type"] != "row":
            assert panel["description"].endswith((".", "?")), panel["title"]
            assert panel["datasource"]["uid"] == "${datasource}"
    overlapping = [(one["title"], other["title"]) for one, other in combinations(all_, 2) if overlap(one, other)]
    assert overlapping == []


def overlap(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Do the panels share a place?"""
    a, b = one["gridPos"], other["gridPos"]
    beside = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
    return not beside and a["y"] < b["y"] + b["h"] and b["y"] < a["y"] + a["h"]


@pytest.mark.parametrize("path", BOARDS, ids=lambda path: path.stem)
def test_queries_name_only_metrics_that_there_are(path: Path) -> None:
    asked = {name for query in dashboard_queries(path) for name in query.metrics()}
    asked |= {metric for metric, _ in variables(path)}
    assert asked
    assert asked <= names()


def test_every_metric_of_a_hop_is_on_a_board_or_known_to_be_on_none() -> None:
    asked = {name for path in BOARDS for query in dashboard_queries(path) for name in query.metrics()}
    on_none = {
        "access_mail_watcher_last_event_timestamp_seconds",  # a quiet Teleport is no news
        "access_mail_watcher_listed_requests",
        "access_mail_mailer_relay_changed_timestamp_seconds",  # the graph of the hold shows when
    }
    told = {full_name(metric) for metrics in services().values() for metric in metrics}
    assert told - {name.removesuffix("_bucket") for name in asked} == on_none
