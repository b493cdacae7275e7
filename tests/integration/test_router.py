"""The router on a real Valkey: events in, mail jobs out, whatever order routers take them in."""

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from redis import Redis

from services.router import service
from services.router.service import Router
from services.router.settings import RouterConfiguration
from shared import keys
from shared.event_log import GROUP, EventReader
from shared.events import (
    AccessRequest,
    Announced,
    AnnouncedThread,
    Cluster,
    RequestChanged,
    RequestGone,
    RequestState,
    Review,
)
from shared.mail import Mail, Notice, Recipient, Why, mail_id
from shared.mail_queue.layout import mail_of
from shared.memory import RequestFacts
from shared.pulse import Pulse
from tests.processes import run
from tests.rules import know_rules
from tests.waiting import wait_for

CONFIGURATION = RouterConfiguration(
    role_map={"editor": ("ann@example.com", "Bob@Example.COM"), "*": ("all@example.com",)},
    message_id_domain="example.com",
)
Event = RequestChanged | RequestGone


def changed(
    request_id: str,
    state: RequestState = RequestState.PENDING,
    *,
    reviews: int = 0,
    roles: tuple[str, ...] = ("editor",),
    suggested: tuple[str, ...] = (),
) -> RequestChanged:
    now = datetime.now(UTC)
    return RequestChanged(
        cluster=Cluster(name="c"),
        request=AccessRequest(
            id=request_id,
            user="alice",
            roles=roles,
            state=state,
            created=now,
            request_expires=now + timedelta(hours=1),
            reviews=tuple(Review(position=n, author="r", proposed_state=None) for n in range(1, reviews + 1)),
            review_count=reviews,
            suggested_reviewers=suggested,
        ),
    )


def append(redis: Redis, events: Sequence[Event]) -> None:
    with redis.pipeline() as pipeline:
        for event in events:
            pipeline.xadd(keys.EVENTS, {"data": event.model_dump_json()})
        pipeline.execute()


@contextmanager
def running(*routers: Router) -> Iterator[None]:
    threads = [threading.Thread(target=router.run) for router in routers]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for router in routers:
            router.stop()
        for thread in threads:
            thread.join(timeout=10)
            assert not thread.is_alive()


@pytest.fixture
def new_router(redis: Redis, redis_url: str) -> Iterator[Callable[[], Router]]:
    know_rules(redis)
    clients = []

    def make() -> Router:
        clients.append(Redis.from_url(redis_url, socket_timeout=5))
        return Router(clients[-1], CONFIGURATION, CollectorRegistry())

    yield make
    for client in clients:
        client.close()


def jobs(redis: Any) -> set[str]:
    return {key.decode().removeprefix("rq:job:") for key in redis.scan_iter("rq:job:*", count=10_000)}


def notices(redis: Any) -> list[str]:
    """What the jobs tell, without ids."""
    return sorted(job.split("-", 1)[1].rpartition("-")[0] for job in jobs(redis))


def routed(redis: Any) -> bool:
    """Has every entry been read and acknowledged?"""
    groups = redis.xinfo_groups(keys.EVENTS)
    last = redis.xinfo_stream(keys.EVENTS)["last-generated-id"]
    return all(group["last-delivered-id"] == last and group["pending"] == 0 for group in groups) and bool(groups)


def wait_until_routed(redis: Redis) -> None:
    wait_for(lambda: redis.exists(keys.EVENTS) and routed(redis), "all events are routed")


def test_a_request_becomes_one_mail_for_each_recipient(redis: Redis, new_router: Callable[[], Router]) -> None:
    with running(new_router()):
        append(
            redis, [changed("r1", roles=("editor", "dba"), suggested=("ann@example.com", "eve@example.com", "dave"))]
        )
        wait_until_routed(redis)
    assert notices(redis) == ["requested"] * 4  # ann and bob for editor, all for dba, eve; ann is not told twice


def test_the_whole_story_is_told_to_those_who_heard_its_beginning(
    redis: Redis, new_router: Callable[[], Router]
) -> None:
    with running(new_router()):
        append(
            redis,
            [
                changed("r1"),
                changed("r1", reviews=1),
                changed("r1", RequestState.APPROVED, reviews=2, roles=("something-else",)),
                RequestGone(request_id="r1"),
            ],
        )
        wait_until_routed(redis)
    assert notices(redis) == sorted(["requested", "reviewed-1", "reviewed-2", "approved"] * 2)


def test_events_of_before_the_router_are_routed(redis: Redis, new_router: Callable[[], Router]) -> None:
    append(redis, [changed("r1")])
    with running(new_router()):
        wait_until_routed(redis)
    assert notices(redis) == ["requested"] * 2


def test_an_undecodable_entry_is_a_dead_letter_and_blocks_nobody(
    redis: Redis, new_router: Callable[[], Router]
) -> None:
    redis.xadd(keys.EVENTS, {"data": "{no json"})
    redis.xadd(keys.EVENTS, {"data": '{"v": 2, "type": "request_gone", "request_id": "r0"}'})
    append(redis, [changed("r1")])
    with running(new_router()):
        wait_until_routed(redis)
    assert notices(redis) == ["requested"] * 2
    assert redis.xlen(keys.DEAD) == 2


def test_a_memory_that_cannot_be_read_blocks_no_other_request(redis: Redis, new_router: Callable[[], Router]) -> None:
    redis.hset(keys.request("r1"), mapping={"revision": "1-1", "facts": '{"v": 2}', "told": "[]", "notices": "[]"})
    redis.expire(keys.request("r1"), 1000)
    append(redis, [changed("r1"), changed("r2")])
    with running(new_router()):
        wait_until_routed(redis)
    assert notices(redis) == ["requested"] * 2
    assert redis.xlen(keys.DEAD) == 1


def test_what_a_dead_router_held_is_taken_over(redis: Redis, new_router: Callable[[], Router]) -> None:
    dead = EventReader(redis, "a router that died")
    dead.open()
    append(redis, [changed("r1"), changed("r2")])
    assert len(dead.new(10, block_milliseconds=10)) == 2
    with running(new_router()):
        append(redis, [changed("r1", RequestState.APPROVED), changed("r3")])
        wait_for(lambda: "requested" in "".join(notices(redis)), "requests that nobody held are routed at once")
        wait_until_routed(redis)
    assert notices(redis) == sorted(["approved"] * 2 + ["requested"] * 6)


def test_redis_lost_is_started_again_from_nothing(redis: Redis, new_router: Callable[[], Router]) -> None:
    with running(router := new_router()):
        append(redis, [changed("r1")])
        wait_until_routed(redis)
        redis.flushall()
        know_rules(redis)
        append(redis, [changed("r2")])
        wait_for(lambda: jobs(redis), "the group exists again and events are routed")
        wait_for(lambda: router.ready() is None, "the router is ready again")


@pytest.mark.parametrize("routers", [1, 3])
def test_many_routers_make_the_same_mails_as_one(redis: Redis, new_router: Callable[[], Router], routers: int) -> None:
    requests = 150
    with running(*(new_router() for _ in range(routers))):
        for n in range(requests):
            append(redis, [changed(f"r{n}")])
            append(redis, [changed(f"r{n}", reviews=1), changed(f"r{n}", reviews=2)])
            append(redis, [changed(f"r{n}", RequestState.APPROVED, reviews=2)])
        wait_until_routed(redis)
    expected = ["requested", "reviewed-1", "reviewed-2", "approved"] * 2 * requests
    assert notices(redis) == sorted(expected)
    for n in range(requests):
        for thread in redis.scan_iter(f"{keys.THREAD_PREFIX}r{n}-*", count=10_000):
            order = [entry.decode().split("-", 1)[1].rpartition("-")[0] for entry in redis.lrange(thread, 0, -1)]  # type: ignore[union-attr]  # redis-py's replies
            assert order == ["requested", "reviewed-1", "reviewed-2", "approved"]


def test_many_signals_at_once_end_it_as_one_does(redis: Redis, redis_url: str, tmp_path: Path) -> None:
    know_rules(redis)
    config = tmp_path / "teleport-email.toml"
    config.write_text('[delivery]\nsender = "a@example.com"\n[role_to_recipients]\n"*" = "a@example.com"\n')
    environ = {"ACCESS_MAIL__REDIS__URL": redis_url, "ACCESS_MAIL__ROUTER__PORT": "0"}
    with run(["services.router", "-c", str(config)], tmp_path / "log", environ) as router:
        router.says("ready")
        for _ in range(200):
            router.process.send_signal(signal.SIGTERM)
        assert router.ends() == 0


def test_what_all_have_read_is_trimmed(redis: Redis, new_router: Callable[[], Router]) -> None:
    with running(new_router()):
        append(redis, [changed(f"r{n}") for n in range(300)])
        wait_until_routed(redis)
        wait_for(lambda: redis.xlen(keys.EVENTS) == 0, "the stream is trimmed")


def test_a_hostile_request_does_not_swell_redis(redis: Redis, new_router: Callable[[], Router]) -> None:
    reviewers = tuple(f"p{n}@example.com" for n in range(300))
    with running(new_router()):
        append(redis, [changed("r1", suggested=reviewers)])
        wait_until_routed(redis)
    assert redis.llen("rq:queue:mail") == 302
    # All fields are measured: of a sample, chosen by the server's hash seed, the largest may be one or not.
    used: Any = [redis.memory_usage(key, samples=0) for key in redis.scan_iter("rq:job:*", count=1000)]
    assert sum(used) / len(used) <= 2048


def test_a_router_without_redis_is_alive_but_not_ready(tmp_path: Path) -> None:
    with Redis(unix_socket_path=str(tmp_path / "none")) as nowhere:
        router = Router(nowhere, CONFIGURATION, CollectorRegistry())
        with running(router):
            wait_for(lambda: "No such file" in (router.ready() or ""), "it says what is missing")
            router._pulse = stopped = Pulse()
            wait_for(lambda: stopped._turned, "the loop turns")


def told_by_record(event: Event, *threads: AnnouncedThread, **more: Any) -> Event:
    return event.model_copy(update={"announced": Announced(threads=threads, **more)})


ANN = AnnouncedThread(address="ann@example.com", message_id="X.1@host")
BOB = AnnouncedThread(address="Bob@Example.COM", message_id="X.2@host")


def mails(redis: Any) -> list[Mail]:
    return [mail_of(redis.hget(f"rq:job:{job}", "data"), job) for job in sorted(jobs(redis))]


def test_whom_a_record_names_is_not_told_again_and_keeps_the_thread(
    redis: Redis, new_router: Callable[[], Router]
) -> None:
    with running(new_router()):
        append(redis, [told_by_record(changed("r1"), ANN), changed("r1", RequestState.APPROVED, reviews=1)])
        wait_until_routed(redis)
    assert notices(redis) == ["approved"] * 2 + ["requested"] + ["reviewed-1"] * 2
    in_thread = {(mail.recipient.address, mail.recipient.announced_in) for mail in mails(redis)}
    assert in_thread == {("ann@example.com", "X.1@host"), ("Bob@example.com", None)}
    assert {mail.recipient.why for mail in mails(redis)} == {Why.ROLE}


def test_a_request_first_seen_when_settled_is_told_to_those_whom_its_record_names(
    redis: Redis, new_router: Callable[[], Router]
) -> None:
    stranger = AnnouncedThread(address="gone@example.com")
    with running(new_router()):
        approved = changed("r1", RequestState.APPROVED, reviews=2)
        append(redis, [told_by_record(approved, BOB, stranger, AnnouncedThread(address="no address"), review_count=1)])
        wait_until_routed(redis)
    assert notices(redis) == ["approved"] * 2 + ["reviewed-2"] * 2
    assert {(mail.recipient.address, mail.recipient.announced_in, mail.recipient.why) for mail in mails(redis)} == {
        ("Bob@example.com", "X.2@host", Why.ANNOUNCED),
        ("gone@example.com", "", Why.ANNOUNCED),
    }


def test_a_request_first_seen_when_settled_whose_record_names_nobody_is_counted(redis: Redis, redis_url: str) -> None:
    know_rules(redis)
    registry = CollectorRegistry()
    with Redis.from_url(redis_url, socket_timeout=5) as client, running(Router(client, CONFIGURATION, registry)):
        append(redis, [changed("r1", RequestState.APPROVED), told_by_record(changed("r2", RequestState.DENIED))])
        append(redis, [told_by_record(changed("r3", RequestState.DENIED), ANN, resolution="denied")])
        wait_until_routed(redis)
    assert notices(redis) == []
    labels = {"outcome": "settled_unannounced"}
    assert registry.get_sample_value("access_mail_router_events_total", labels) == 2


def test_a_thread_keeps_the_domain_that_its_record_knows(redis: Redis, new_router: Callable[[], Router]) -> None:
    ann = Recipient(address="ann@example.com", why=Why.ROLE)
    first = f"{mail_id('r1', Notice.parse('requested'), ann)}@old.example.com"
    with running(new_router()):
        append(redis, [told_by_record(changed("r1"), AnnouncedThread(address=ann.address, message_id=first))])
        append(redis, [told_by_record(changed("r2"), ANN)])
        wait_until_routed(redis)
    domains = [RequestFacts.model_validate_json(fact(redis, one)).message_id_domain for one in ("r1", "r2")]
    assert domains == ["old.example.com", "example.com"]


def fact(redis: Any, request_id: str) -> bytes:
    facts: bytes = redis.hget(keys.request(request_id), "facts")
    return facts


def test_what_was_handed_out_often_is_tried_as_often_as_anything_else(
    redis: Redis,
    new_router: Callable[[], Router],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Whoever waits behind another's event, or for Redis, is handed out again and again: that is no failure."""
    monkeypatch.setattr(service, "DEAD_ROUTER_MILLISECONDS", 50)
    waiting = EventReader(redis, "a router in which it has waited for long")
    waiting.open()
    append(redis, [changed("r1"), changed("r2")])
    waiting.new(10, block_milliseconds=10)
    for _ in range(2 * service.ROUTING_TRIES):
        waiting.own(10)
    pending: Any = redis.xpending_range(keys.EVENTS, GROUP, "-", "+", 10)
    assert pending[0]["times_delivered"] > service.ROUTING_TRIES
    redis.hset(keys.request("r1"), mapping={"revision": "1-1", "facts": '{"v": 2}', "told": "[]", "notices": "[]"})
    redis.expire(keys.request("r1"), 1000)
    with running(new_router()):
        wait_until_routed(redis)
    assert notices(redis) == ["requested"] * 2, "the other one is routed"
    assert caplog.text.count("r1: routing failed, will be tried again") == service.ROUTING_TRIES - 1
    letters: Any = redis.xrange(keys.DEAD)
    assert letters[0][1][b"error"].startswith(f"routing failed {service.ROUTING_TRIES} times: ".encode())
    assert list(redis.scan_iter(keys.begun("*"))) == [], "no router has died of it"


def allow(redis: Redis, *commands: str) -> None:
    redis.acl_setuser("router", enabled=True, passwords=["+secret"], keys=["*"], commands=commands)


def test_a_router_that_loses_redis_over_what_another_left_has_not_died_of_it(redis: Redis, redis_url: str) -> None:
    know_rules(redis)
    dead = EventReader(redis, "a router that died")
    dead.open()
    append(redis, [changed("r1")])
    [delivery] = dead.new(10, block_milliseconds=10)
    redis.xclaim(keys.EVENTS, GROUP, "a router that died", 0, [delivery.entry], idle=60_000)
    registry = CollectorRegistry()
    allow(redis, "+@all", "-@scripting")  # nothing can be committed
    try:
        with (
            Redis.from_url(redis_url, username="router", password="secret", socket_timeout=5) as client,
            running(Router(client, CONFIGURATION, registry)),
        ):
            errors = "access_mail_router_redis_errors_total"
            wait_for(lambda: (registry.get_sample_value(errors) or 0) >= 2, "Redis is lost and lost again")
            assert list(redis.scan_iter(keys.begun("*"))) == []
            allow(redis, "+@all")
            wait_until_routed(redis)
    finally:
        redis.acl_deluser("router")
    assert notices(redis) == ["requested"] * 2
