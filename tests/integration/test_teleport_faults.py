"""Whatever Teleport does wrong, requests of before, of meanwhile and of afterwards are told, and the watcher recovers.

What is wrong with single requests and events (size, text, times, states, kinds) stands in `test_watcher`,
`test_watcher_faults` and `test_listing`; with records, in `test_witness`; with look-ups, in `test_enrichment`; with
rules, in `test_watcher_rules`; on the way to Teleport, in `routes`.
"""

from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from grpc import StatusCode
from prometheus_client import CollectorRegistry
from redis import Redis

from services.watcher import following
from services.watcher.teleport import client, listing
from simulators.teleport import AuthService
from simulators.teleport.faults import Faults
from tests.integration.watching import AUTHORITY, changed, settings, until_ready, watching
from tests.waiting import wait_until

SLOW = 60.0
SHORT = 0.5


@pytest.fixture
async def auth() -> AsyncIterator[AuthService]:
    async with AuthService(AUTHORITY) as service:
        yield service


@pytest.fixture
def short_deadlines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "INIT_SECONDS", SHORT)
    monkeypatch.setattr(listing, "CALL_SECONDS", SHORT)
    monkeypatch.setattr(following, "HEARTBEAT_SECONDS", SHORT)
    monkeypatch.setattr(following, "ANSWER_SECONDS", SHORT)


def slow(*methods: str, seconds: float = SLOW) -> Callable[[Faults], None]:
    return lambda faults: faults.delays.update(dict.fromkeys(methods, seconds))


def failing(method: str, code: StatusCode, times: int = 3) -> Callable[[Faults], None]:
    return lambda faults: faults.fail(method, code, times=times)


def ended(code: StatusCode) -> Callable[[Faults], None]:
    return lambda faults: faults.end_streams(code)


FAULTS: dict[str, Callable[[Faults], None]] = {
    "the watch ends": ended(StatusCode.OK),
    "the watch is cut off": ended(StatusCode.UNAVAILABLE),
    "the watcher was too slow": ended(StatusCode.UNKNOWN),
    "the watch is refused": ended(StatusCode.PERMISSION_DENIED),
    "no watch can be opened": failing("WatchEvents", StatusCode.UNAVAILABLE),
    "watching is refused for a while": failing("WatchEvents", StatusCode.PERMISSION_DENIED, times=1),
    "INIT is late": slow("WatchEvents"),
    "the listing fails": failing("ListAccessRequests", StatusCode.UNAVAILABLE),
    "the listing is refused for a while": failing("ListAccessRequests", StatusCode.PERMISSION_DENIED, times=1),
    "there are too many calls": failing("ListAccessRequests", StatusCode.RESOURCE_EXHAUSTED),
    "the listing is slow": slow("ListAccessRequests"),
    "the ping fails": failing("Ping", StatusCode.UNAVAILABLE),
    "the ping is slow": slow("Ping", seconds=2 * SHORT),
    "records are slow": slow("GetPluginData", seconds=SHORT),
    "records cannot be read for a moment": failing("GetPluginData", StatusCode.UNAVAILABLE),
    "events of newer servers come": lambda faults: faults.send_unknown_event(),
}


@pytest.mark.usefixtures("short_deadlines")
@pytest.mark.parametrize("fault", FAULTS)
async def test_after_each_fault_all_requests_are_told(
    auth: AuthService, redis: Redis, redis_url: str, tmp_path: Path, fault: str
) -> None:
    async with watching(redis_url, settings(auth.address, tmp_path)) as watcher:
        await until_ready(watcher)
        before = auth.create_request()
        await wait_until(lambda: changed(redis), "what was before is told")
        calls = auth.faults.calls.copy()
        FAULTS[fault](auth.faults)
        met = {"WatchEvents", *auth.faults.delays}
        auth.faults.end_streams(StatusCode.UNAVAILABLE)  # so that it is met at the next connection at the latest
        meanwhile = auth.create_request()
        await wait_until(
            lambda: all(auth.faults.calls[name] > calls[name] for name in met), "the fault is met", timeout=30
        )
        auth.faults.delays.clear()
        afterwards = auth.create_request()
        wanted = {before, meanwhile, afterwards}
        await wait_until(lambda: {request.id for request in changed(redis)} == wanted, "all are told", timeout=30)
        await wait_until(lambda: watcher.ready() is None, "the watcher has recovered", timeout=30)


async def test_a_listing_that_breaks_off_is_begun_again_and_tells_nothing_twice(
    auth: AuthService, redis: Redis, redis_url: str, tmp_path: Path
) -> None:
    ids = [auth.create_request() for _ in range(250)]
    auth.faults.delays["ListAccessRequests"] = SHORT / 3
    registry = CollectorRegistry()
    async with watching(redis_url, settings(auth.address, tmp_path), registry) as watcher:
        await wait_until(lambda: changed(redis), "its first page is told")
        auth.faults.fail("ListAccessRequests", StatusCode.UNAVAILABLE)
        await wait_until(lambda: watcher.ready() is None, "the watcher has recovered", timeout=30)
        told = Counter(request.id for request in changed(redis))
    assert registry.get_sample_value("access_mail_watcher_snapshots_total", {"outcome": "failed"}) == 1
    assert told == Counter(ids)
