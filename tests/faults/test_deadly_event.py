"""An event that kills every router that routes it: it is buried, and all others are routed."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from services.router.service import DEATHS_SURVIVED
from shared import keys
from shared.event_log import GROUP
from shared.events import AccessRequest, Cluster, RequestChanged, RequestState
from tests.processes import Running, probe, run
from tests.rules import know_rules
from tests.waiting import wait_for

FILE = """
[redis]
url = "{url}"
[router]
port = 0
[delivery]
sender = "access@example.com"
[role_to_recipients]
"*" = "all@example.com"
"""


class Routers:
    """Processes that die of a request whose id begins with `deadly`."""

    def __init__(self, folder: Path, redis_url: str) -> None:
        self._folder = folder
        self._file = folder / "access-mail.toml"
        self._file.write_text(FILE.format(url=redis_url))
        self._started = 0

    @contextmanager
    def another(self) -> Iterator[Running]:
        """One more."""
        self._started += 1
        with run(["tests.faults.deadly_router", "-c", str(self._file)], self._folder / f"log {self._started}") as one:
            yield one

    def die(self, number: int) -> None:
        """So many, one after another."""
        for _ in range(number):
            with self.another() as router:
                assert router.ends() == -signal.SIGKILL, router.text()


@pytest.fixture
def routers(redis: Redis, redis_url: str, tmp_path: Path) -> Routers:
    know_rules(redis)
    return Routers(tmp_path, redis_url)


def ask(redis: Redis, *request_ids: str) -> None:
    now = datetime.now(UTC)
    with redis.pipeline(transaction=True) as pipeline:  # one batch of a router
        for id_ in request_ids:
            request = AccessRequest(
                id=id_,
                user="alice",
                roles=("editor",),
                state=RequestState.PENDING,
                created=now,
                request_expires=now + timedelta(hours=1),
            )
            event = RequestChanged(cluster=Cluster(name="c"), request=request)
            pipeline.xadd(keys.EVENTS, {"data": event.model_dump_json()})
        pipeline.execute()


def asked(redis: Any) -> set[str]:
    """Requests that somebody is told of."""
    return {key.decode().removeprefix("rq:job:").split("-")[0] for key in redis.scan_iter("rq:job:*")}


def begun(redis: Any) -> list[bytes]:
    return list(redis.scan_iter(keys.begun("*")))


def nothing_waits(redis: Any) -> bool:
    return not redis.xpending(keys.EVENTS, GROUP)["pending"]


def test_what_kills_every_router_is_a_dead_letter_and_all_else_is_routed(redis: Any, routers: Routers) -> None:
    ask(redis, "r1", "r2", "deadly", "r3", "r4")
    routers.die(1)
    assert asked(redis) == set(), "none of the batch is routed"
    routers.die(1)
    assert asked(redis) == {"r1", "r2"}, "what stands before it is"
    routers.die(DEATHS_SURVIVED - 1)
    assert len(begun(redis)) == 1
    assert redis.scard(begun(redis)[0]) == DEATHS_SURVIVED
    assert redis.xlen(keys.DEAD) == 0
    with routers.another() as router:
        url = router.says(r"ready, probes on (http://127\.0\.0\.1:\d+)\n")[1]
        router.says(rf"event \d+-\d+ is a dead letter: routing it has killed {DEATHS_SURVIVED} routers: [^ ]+, ")
        wait_for(lambda: nothing_waits(redis), "all is routed")
        assert 'access_mail_router_events_total{outcome="dead"} 1.0' in probe(f"{url}/metrics")[1]
        ask(redis, "r5")
        wait_for(lambda: "r5" in asked(redis), "what comes later is routed")
    assert asked(redis) == {"r1", "r2", "r3", "r4", "r5"}
    [(_, letter)] = redis.xrange(keys.DEAD)
    assert b'"deadly"' in letter[b"data"]


def test_what_kills_every_router_that_reads_it_is_a_dead_letter(redis: Any, routers: Routers) -> None:
    ask(redis, "r1", "unreadable", "r2")
    routers.die(1 + DEATHS_SURVIVED)
    with routers.another() as router:
        router.says(rf"event \d+-\d+ is a dead letter: routing it has killed {DEATHS_SURVIVED} routers: [^ ]+, ")
        wait_for(lambda: nothing_waits(redis), "all is routed")
    assert asked(redis) == {"r1", "r2"}
    [(_, letter)] = redis.xrange(keys.DEAD)
    assert b'"unreadable"' in letter[b"data"]


def test_two_deadly_events_do_not_hide_each_other(redis: Any, routers: Routers) -> None:
    ask(redis, "deadly1", "r1", "deadly2")
    routers.die(1 + 2 * DEATHS_SURVIVED)
    with routers.another():
        wait_for(lambda: redis.xlen(keys.DEAD) == 2 and nothing_waits(redis), "both are buried", timeout=45)
    assert asked(redis) == {"r1"}
