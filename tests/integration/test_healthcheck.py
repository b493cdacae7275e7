"""What a container's health check makes of the services' answers."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from prometheus_client import CollectorRegistry

from console import healthcheck
from shared.probes import Probes
from shared.settings import MailerSettings, ProbeSettings, RouterSettings, WatcherSettings

Serve = Callable[[str | None, str | None], str]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start probes that give these reasons for not being live and ready; gives their URL."""
    with ExitStack() as servers:

        def started(live: str | None, ready: str | None) -> str:
            settings = ProbeSettings(host="127.0.0.1", port=0)
            return servers.enter_context(Probes(settings, CollectorRegistry(), lambda: live, lambda: ready)).url

        yield started


def checked(*urls: str) -> tuple[int, str]:
    """Exit code of the check, and what it says."""
    command = [sys.executable, "-P", "-m", "console.healthcheck", *urls]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stderr.strip()


def test_all_that_are_asked_must_be_well(serve: Serve) -> None:
    well, stalled = serve(None, "no connection to Teleport"), serve("the loop has not turned for 31 s", None)
    assert checked(f"{well}/healthz", f"{stalled}/readyz") == (0, "")
    assert checked(f"{well}/healthz", f"{stalled}/healthz") == (
        1,
        f"{stalled}/healthz: the loop has not turned for 31 s",
    )
    assert checked(f"{well}/readyz") == (1, f"{well}/readyz: no connection to Teleport")


def test_whoever_does_not_listen_is_not_well_where_he_was_asked_for() -> None:
    assert checked("http://127.0.0.1:1/healthz") == (1, "nobody listens")


def test_of_the_usual_ports_those_count_where_a_service_runs(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    nobody, well, stalled = "http://127.0.0.1:1/healthz", f"{serve(None, None)}/healthz", f"{serve('no', None)}/healthz"
    for usual, faults in {
        (nobody, well): [],
        (nobody, stalled): [f"{stalled}: no"],
        (well, stalled): [f"{stalled}: no"],
        (nobody, nobody): ["no service answers at its usual port"],
    }.items():
        monkeypatch.setattr(healthcheck, "USUAL", usual)
        assert healthcheck.check([]) == faults


def test_the_usual_ports_are_the_services_own() -> None:
    ports = [settings().port for settings in (WatcherSettings, RouterSettings, MailerSettings)]
    assert [f"http://127.0.0.1:{port}/healthz" for port in ports] == list(healthcheck.USUAL)
