"""The probes answer over HTTP what the service says of itself."""

import socket
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry, Counter

from shared.probes import Probes
from shared.settings import ProbeSettings, SettingsError


class Health:
    """What a service would say."""

    live: str | None = None
    ready: str | None = None


@pytest.fixture
def health() -> Health:
    return Health()


@pytest.fixture
def probes(health: Health) -> Iterator[Probes]:
    registry = CollectorRegistry()
    Counter("access_mail_example", "An example.", registry=registry).inc(3)
    with Probes(ProbeSettings(port=0), registry, lambda: health.live, lambda: health.ready) as probes:
        yield probes


def get(url: str, **headers: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as response:  # noqa: S310 - http alone
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_metrics_are_those_of_the_registry(probes: Probes) -> None:
    status, text = get(f"{probes.url}/metrics")
    assert status == 200
    assert "access_mail_example_total 3.0" in text


def test_openmetrics_is_given_to_who_asks_for_it(probes: Probes) -> None:
    assert get(f"{probes.url}/metrics", Accept="application/openmetrics-text; version=1.0.0")[1].endswith("# EOF\n")


def test_health_and_readiness_are_told_apart_with_their_reason_in_one_line(probes: Probes, health: Health) -> None:
    assert get(f"{probes.url}/healthz") == (200, "ok\n")
    health.ready = "Redis does not answer\r\nX: y"
    assert get(f"{probes.url}/readyz") == (503, "Redis does not answer X: y\n")
    assert get(f"{probes.url}/healthz?verbose") == (200, "ok\n")
    health.live = "the loop stands still"
    assert get(f"{probes.url}/healthz") == (503, "the loop stands still\n")


def test_other_paths_name_those_that_there_are(probes: Probes) -> None:
    assert get(f"{probes.url}/") == (404, "here are /metrics, /healthz and /readyz\n")


def test_a_client_that_says_nothing_or_nonsense_hinders_no_other(probes: Probes) -> None:
    with (
        socket.create_connection(("127.0.0.1", probes.port)),
        socket.create_connection(("127.0.0.1", probes.port)) as nonsense,
    ):
        nonsense.sendall(b"\x16\x03\x01\r\n\r\n")
        assert get(f"{probes.url}/healthz") == (200, "ok\n")


def test_a_port_that_is_taken_is_a_fault_that_says_so(probes: Probes) -> None:
    with pytest.raises(SettingsError, match=rf"port {probes.port} \(Address already in use\); choose another"):
        Probes(ProbeSettings(port=probes.port), CollectorRegistry(), lambda: None, lambda: None)


def test_the_port_is_free_after_close(health: Health) -> None:
    first = Probes(ProbeSettings(port=0), CollectorRegistry(), lambda: health.live, lambda: health.ready)
    first.close()
    Probes(ProbeSettings(port=first.port), CollectorRegistry(), lambda: None, lambda: None).close()
