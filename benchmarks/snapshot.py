"""What a periodic snapshot takes when Redis knows all that Teleport holds: listed, compared, and nothing told."""

from pathlib import Path
from typing import Any

from redis import Redis

from benchmarks.machine import memory, module, running, url_of, used, valkey, wait
from shared import keys
from shared.event_log import DATA
from shared.events import RequestState, RulesEvent, parse_event
from simulators.background import in_background
from simulators.certificates import ClusterAuthority
from simulators.teleport import AuthService

REQUESTS = 10_000
PAGES = REQUESTS // 100
PATIENCE_SECONDS = 120.0


def measure(folder: Path, rounds: int) -> list[dict[str, Any]]:
    """One row a round. The simulated cluster works on the same machine, in this process."""
    authority = ClusterAuthority.create("teleport.example.com")
    identity = authority.identity("access-mail", roles=["access-mail"]).write_file(folder / "identity")
    rows = []
    with in_background(AuthService(authority)) as auth:
        ids = [auth.create_request("alice", reason="INC-4711: the nightly job hangs") for _ in range(REQUESTS)]
        for number in range(rounds):
            place = folder / f"snapshot-{number}"
            place.mkdir()
            with valkey(place) as redis:
                _know(redis, ids)
                rows.append(_run(auth, redis, identity))
    return rows


def _know(redis: Redis, ids: list[str]) -> None:
    """Note the requests as the router does."""
    with redis.pipeline(transaction=False) as pipeline:
        for request_id in ids:
            facts = {"revision": 1, "state": RequestState.PENDING.value, "reviews": 0, "gone": 0}
            pipeline.hset(keys.request(request_id), mapping=facts)  # type: ignore[arg-type]  # redis-py's dicts are invariant
        pipeline.execute()


def _run(auth: AuthService, redis: Redis, identity: Path) -> dict[str, Any]:
    environ = {
        "ACCESS_MAIL__TELEPORT__ADDR": auth.address,
        "ACCESS_MAIL__TELEPORT__IDENTITY": str(identity),
        "ACCESS_MAIL__TELEPORT__SNAPSHOT_INTERVAL": "500ms",
        "ACCESS_MAIL__REDIS__URL": url_of(redis),
        "ACCESS_MAIL__WATCHER__PORT": "0",
        "ACCESS_MAIL__LOG__SEVERITY": "warn",
    }
    calls = auth.faults.calls
    calls.clear()
    with running([module("services.watcher")], environ) as pids:
        # The first one is warm-up. From the second one's first page to its last: the pause between is not in it.
        _until_page(auth, PAGES + 1)
        before, began = used(pids, redis), redis.time()
        _until_page(auth, 2 * PAGES)
        spent, ended, size = used(pids, redis) - before, redis.time(), memory(pids)
    told = [fields[DATA] for _, fields in redis.xrange(keys.EVENTS)]  # type: ignore[union-attr, index]  # redis-py's replies
    assert all(isinstance(parse_event(data), RulesEvent) for data in told), "no request is told"
    assert not calls["GetPluginData"], "nothing is looked up"
    return {
        "snapshot_seconds": (ended[0] - began[0]) + (ended[1] - began[1]) / 1e6,
        "watcher_cpu_seconds": spent.cpu,
        "watcher_megabytes": size / 1e6,
    }


def _until_page(auth: AuthService, page: int) -> None:
    calls = auth.faults.calls
    wait(lambda: calls["ListAccessRequests"] >= page, f"page {page} is asked for", PATIENCE_SECONDS)
