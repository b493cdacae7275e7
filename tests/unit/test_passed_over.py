"""What cannot be passed on is counted and said once, and what was said is forgotten some time."""

import pytest
from prometheus_client import CollectorRegistry

from services.watcher import passed_over
from services.watcher.metrics import WatcherMetrics
from services.watcher.passed_over import PassedOver
from services.watcher.teleport.undecodable import Fault, Undecodable


def test_only_so_many_are_remembered(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(passed_over, "REMEMBERED", 2)
    registry = CollectorRegistry()
    passed = PassedOver(WatcherMetrics(registry))
    for name in ("r1", "r2", "r1", "r3", "r1", "r2"):
        passed.note(Undecodable(name, Fault.STATE))
    said = [record.getMessage().split("'")[1] for record in caplog.records]
    assert said == ["r1", "r2", "r3", "r2"], "r2 was heard of last longest ago when r3 came"
    assert registry.get_sample_value("access_mail_watcher_undecodable_total", {"fault": "state"}) == 4
