"""A real Prometheus that scrapes what a test runs."""

import json
import re
import shutil
import subprocess
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.processes import probe
from tests.waiting import wait_for

PROMETHEUS, PROMTOOL = shutil.which("prometheus"), shutil.which("promtool")

needs_prometheus = pytest.mark.skipif(
    PROMETHEUS is None or PROMTOOL is None,
    reason="NOT TESTED: prometheus or promtool is not installed, `make tools` does it",
)

SCRAPE_SECONDS = 1


class Prometheus:
    """Its API."""

    def __init__(self, url: str) -> None:
        self.url = url

    def ask(self, path: str, **parameters: str) -> Any:
        """The data of its answer. Fails the test if it has none."""
        status, text = probe(f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}")
        assert status == 200, f"{path} {parameters}: {text}"
        return json.loads(text)["data"]

    def series(self, expr: str) -> list[Any]:
        """What an instant query gives: `metric` and `value` each."""
        result: list[Any] = self.ask("query", query=expr)["result"]
        return result

    def value(self, expr: str) -> float:
        """The value of the only series."""
        (one,) = self.series(expr)
        return float(one["value"][1])

    def values(self, metric: str, label: str) -> Sequence[str]:
        """The values of a label, as a board's variable offers them."""
        found: list[str] = self.ask(f"label/{label}/values", **{"match[]": metric})
        return found

    def has_scraped(self, targets: int, times: int) -> bool:
        """Has each of so many targets been scraped so often?"""
        found = self.series(f"sum_over_time(up[5m]) >= {times}")
        return len(found) == targets


@contextmanager
def prometheus(folder: Path, jobs: Mapping[str, str]) -> Iterator[Prometheus]:
    """Run it on a free port as long as the block lasts. `jobs`: name → URL of the one target."""
    scraped = [
        {"job_name": name, "static_configs": [{"targets": [urllib.parse.urlsplit(url).netloc]}]}
        for name, url in jobs.items()
    ]
    seconds = f"{SCRAPE_SECONDS}s"
    config = {"global": {"scrape_interval": seconds, "scrape_timeout": seconds}, "scrape_configs": scraped}
    file, log = folder / "prometheus.yml", folder / "prometheus.log"
    file.write_text(json.dumps(config))  # which is YAML, too
    options = [f"--config.file={file}", f"--storage.tsdb.path={folder / 'tsdb'}", "--web.listen-address=127.0.0.1:0"]
    assert PROMETHEUS is not None
    with log.open("wb") as output, subprocess.Popen([PROMETHEUS, *options], stderr=output) as process:
        try:
            wait_for(lambda: _address(log) or process.poll() is not None, "Prometheus listens")
            address = _address(log)
            assert address, log.read_text()
            wait_for(lambda: "Server is ready" in log.read_text(), "Prometheus is ready")
            yield Prometheus(f"http://{address}")
        finally:
            process.terminate()
            process.wait()


def _address(log: Path) -> str | None:
    found = re.search(r'msg="Listening on" address=(\S+)', log.read_text())
    return found[1] if found else None


def lint(exposition: str) -> str:
    """What `promtool check metrics` objects to; empty: nothing."""
    assert PROMTOOL is not None
    done = subprocess.run([PROMTOOL, "check", "metrics"], input=exposition, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr if done.returncode or done.stderr else ""
