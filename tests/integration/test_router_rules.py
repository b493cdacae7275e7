"""The router and the rules: known before any request, the same for all routers, and never at another's expense."""

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from redis import Redis

from services.router import turns
from services.router.conditions import Condition, patterns
from services.router.service import BATCH, Router
from services.router.settings import RouterConfiguration
from shared import keys
from shared.event_log import GROUP, EventReader
from shared.events import Event, RequestState, RuleChanged, RuleDeleted, RulesEvent, RulesListed, RulesUnavailable
from shared.mail_queue.router_end import RouterEnd
from tests.integration.test_router import changed, running, wait_until_routed
from tests.rules import know_rules, rule
from tests.waiting import wait_for

CONFIGURATION = RouterConfiguration(role_map={"*": ("all@example.com",)}, message_id_domain="example.com")
OPS = rule("ops", 'access_request.spec.roles.contains("editor")', "ops@example.com")
SEC = rule("sec", 'access_request.spec.roles.contains("editor")', "sec@example.com")


@pytest.fixture
def new_router(redis_url: str) -> Iterator[Callable[..., Router]]:
    clients = []

    def make(registry: CollectorRegistry | None = None) -> Router:
        clients.append(Redis.from_url(redis_url, socket_timeout=5))
        return Router(clients[-1], CONFIGURATION, registry or CollectorRegistry())

    yield make
    for client in clients:
        client.close()


def append(redis: Redis, *events: Event) -> None:
    for event in events:
        redis.xadd(keys.EVENTS, {"data": event.model_dump_json()})


def told(redis: Redis, request_id: str) -> set[str]:
    """Whom the memory names."""
    rows = redis.hget(keys.request(request_id), "told")
    return {person["address"] for person in json.loads(rows)} if rows else set()


def notices(redis: Redis, request_id: str) -> list[str]:
    """What people are told, by the memory."""
    return [notice["kind"] for notice in json.loads(redis.hget(keys.request(request_id), "notices") or "[]")]


def test_nothing_is_routed_before_the_rules_are_known(redis: Redis, new_router: Callable[..., Router]) -> None:
    with running(router := new_router()):
        append(redis, changed("r1"))
        wait_for(lambda: "rules are not known yet" in (router.ready() or "").lower(), "it says what is missing")
        assert not told(redis, "r1")
        append(redis, RulesListed(rules=(OPS,)))
        wait_until_routed(redis)
        wait_for(lambda: router.ready() is None, "it is ready")
    assert told(redis, "r1") == {"ops@example.com"}


def test_rules_behind_a_long_backlog_are_found_and_nothing_is_in_hand_before(
    redis: Redis, new_router: Callable[..., Router]
) -> None:
    append(redis, *(changed(f"r{number}") for number in range(250)))
    redis.xadd(keys.EVENTS, {"data": "{no json"})
    redis.xadd(keys.EVENTS, {"data": '{"v": 2, "type": "rules_listed", "rules": 7}'})
    append(redis, RuleChanged(rule=SEC))
    with running(router := new_router()):
        wait_for(lambda: "this version can read" in (router.ready() or ""), "it has come to the end of the backlog")
        assert redis.xpending(keys.EVENTS, GROUP)["pending"] == 0
        append(redis, changed("r250"), RulesListed(rules=(OPS,)), RuleChanged(rule=SEC), changed("r251"))
        wait_until_routed(redis)
    assert all(told(redis, f"r{number}") == {"ops@example.com"} for number in range(250))
    assert told(redis, "r251") == {"ops@example.com", "sec@example.com"}
    assert redis.xlen(keys.DEAD) == 2


def test_rules_that_a_dead_router_held_are_known_at_once(redis: Redis, new_router: Callable[..., Router]) -> None:
    append(redis, changed("r1"), RulesListed(rules=(OPS,)))
    dead = EventReader(redis, "a router that died")
    dead.open()
    assert len(dead.new(10, block_milliseconds=10)) == 2
    with running(router := new_router()):
        wait_for(lambda: router.ready() is None, "it is ready", timeout=4)
        append(redis, changed("r2"))
        wait_for(lambda: told(redis, "r2") == {"ops@example.com"}, "it routes")
        wait_until_routed(redis)
    assert told(redis, "r1") == {"ops@example.com"}


def test_a_router_keeps_only_so_much_that_waits(
    redis: Redis, new_router: Callable[..., Router], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "MOST_POSTPONED", 100)
    know_rules(redis)
    other = EventReader(redis, "another router")
    other.open()
    append(redis, RuleChanged(rule=OPS))
    (held,) = other.new(1, block_milliseconds=10)
    append(redis, *(changed(f"r{number}") for number in range(1000)))
    registry = CollectorRegistry()
    redis.config_resetstat()
    with running(new_router(registry)):
        wait_for(lambda: looks(redis) > 7, "it has looked often whether their turn has come")
        in_hand = redis.xpending(keys.EVENTS, GROUP)["pending"] - 1
        assert 100 <= in_hand <= 100 + BATCH
        assert registry.get_sample_value("access_mail_router_postponed_total") == in_hand
        RouterEnd(redis, GROUP, "another router").commit_rules(held.entry, RuleChanged(rule=OPS))
        wait_until_routed(redis)
    assert all(told(redis, f"r{number}") == {"ops@example.com"} for number in range(1000))


def looks(redis: Redis) -> int:
    """How often routers have asked who holds what."""
    stats: Any = redis.info("commandstats")
    return int(stats.get("cmdstat_xpending", {}).get("calls", 0))


class FailsOnce(dict[str, tuple[str, ...]]):
    """A role map that cannot be read the first time."""

    failures = 0

    def get(self, role: str, default: Any = None) -> Any:
        """Fail once."""
        self.failures += 1
        if self.failures == 1:
            raise RuntimeError("not this time")
        return super().get(role, default)


def test_what_could_not_be_routed_is_not_overtaken_across_an_event_of_the_rules(redis: Redis, redis_url: str) -> None:
    know_rules(redis)
    append(redis, changed("r1"), changed("r2"), RuleChanged(rule=SEC), changed("r1", RequestState.APPROVED))
    configuration = RouterConfiguration(FailsOnce({"*": ("all@example.com",)}), message_id_domain="example.com")
    with (
        Redis.from_url(redis_url, socket_timeout=5) as client,
        running(Router(client, configuration, CollectorRegistry())),
    ):
        wait_until_routed(redis)
    assert notices(redis, "r1") == ["requested", "approved"]
    assert notices(redis, "r2") == ["requested"]


def test_a_request_that_waits_for_the_rules_is_not_overtaken_by_its_own_end(
    redis: Redis, new_router: Callable[..., Router]
) -> None:
    append(redis, changed("r1"), RulesListed(rules=(OPS,)), changed("r1", RequestState.APPROVED))
    with running(new_router()):
        wait_until_routed(redis)
    assert notices(redis, "r1") == ["requested", "approved"]


def test_after_a_reconnect_nothing_overtakes_what_was_in_hand(redis: Redis, new_router: Callable[..., Router]) -> None:
    waiting = 250
    know_rules(redis)
    other = EventReader(redis, "another router")
    other.open()
    append(redis, RuleChanged(rule=OPS))
    (held,) = other.new(1, block_milliseconds=10)
    append(redis, *(changed(f"r{number}") for number in range(waiting)))
    with running(router := new_router()):
        wait_for(lambda: redis.xpending(keys.EVENTS, GROUP)["pending"] == waiting + 1, "all are in hand, and wait")
        redis.client_kill_filter(_type="normal", skipme=True)
        append(redis, changed(f"r{waiting - 1}", RequestState.APPROVED))
        RouterEnd(redis, GROUP, "another router").commit_rules(held.entry, RuleChanged(rule=OPS))
        wait_until_routed(redis)
        assert router.ready() is None
    assert notices(redis, f"r{waiting - 1}") == ["requested", "approved"]


def test_no_rules_and_none_to_be_had_are_both_known(redis: Redis, new_router: Callable[..., Router]) -> None:
    with running(new_router()):
        append(redis, RulesUnavailable(reason="not allowed"), RuleChanged(rule=OPS), changed("r1"))
        append(redis, RulesListed(), changed("r2"))
        wait_until_routed(redis)
    assert told(redis, "r1") == told(redis, "r2") == {"all@example.com"}


def test_each_request_is_routed_by_the_rules_that_stand_before_it(
    redis: Redis, new_router: Callable[..., Router]
) -> None:
    append(
        redis,
        RulesListed(rules=(OPS,)),
        changed("r1"),
        RuleChanged(rule=SEC),
        changed("r2"),
        RuleDeleted(name="ops"),
        changed("r3"),
        RuleChanged(rule=SEC.model_copy(update={"recipients": ("new@example.com",)})),
        changed("r4"),
        RulesUnavailable(reason="not allowed any more"),
        RuleChanged(rule=OPS),
        changed("r5"),
        RulesListed(rules=(OPS, SEC)),
        changed("r6"),
        RulesListed(rules=()),
        changed("r7"),
    )
    with running(new_router()):
        wait_until_routed(redis)
    assert [told(redis, f"r{n}") for n in range(1, 8)] == [
        {"ops@example.com"},
        {"ops@example.com", "sec@example.com"},
        {"sec@example.com"},
        {"new@example.com"},
        {"new@example.com", "ops@example.com"},
        {"ops@example.com", "sec@example.com"},
        {"all@example.com"},
    ]


@pytest.mark.parametrize("routers", [1, 3])
def test_many_routers_route_by_the_same_rules_as_one(
    redis: Redis, new_router: Callable[..., Router], routers: int
) -> None:
    know_rules(redis)
    rounds = 60
    with running(*(new_router() for _ in range(routers))):
        for n in range(rounds):
            recipient = f"p{n}@example.com"
            append(redis, RuleChanged(rule=OPS.model_copy(update={"recipients": (recipient,)})), changed(f"r{n}"))
        wait_until_routed(redis)
    # A later rule may be in force already, an earlier one never.
    for n in range(rounds):
        (address,) = told(redis, f"r{n}")
        assert int(address.removeprefix("p").partition("@")[0]) >= n


def test_a_request_waits_for_rules_that_a_dead_router_held(redis: Redis, new_router: Callable[..., Router]) -> None:
    know_rules(redis)
    dead = EventReader(redis, "a router that died")
    dead.open()
    append(redis, RuleChanged(rule=OPS))
    assert len(dead.new(10, block_milliseconds=10)) == 1
    with running(new_router()):
        append(redis, changed("r1"))
        wait_until_routed(redis)
    assert told(redis, "r1") == {"ops@example.com"}


def test_after_a_loss_of_redis_the_rules_are_waited_for_again(redis: Redis, new_router: Callable[..., Router]) -> None:
    with running(router := new_router()):
        append(redis, RulesListed(rules=(OPS,)), changed("r1"))
        wait_until_routed(redis)
        redis.flushall()
        append(redis, changed("r2"))
        wait_for(lambda: "rules are not known yet" in (router.ready() or "").lower(), "the loss is noticed")
        assert not told(redis, "r2")
        append(redis, RulesListed(rules=(SEC,)))
        wait_until_routed(redis)
    assert told(redis, "r2") == {"sec@example.com"}


def test_a_bad_rule_is_said_once_counted_and_harms_nobody(
    redis: Redis, new_router: Callable[..., Router], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    bad = rule("bad\nrule", "access_request.spec.rolls", "bad@example.com")
    asks = rule("asks", 'newer_than(access_request.spec.user, "1.0.0")', "asks@example.com")
    registry = CollectorRegistry()
    with running(new_router(registry)):
        append(redis, RulesListed(rules=(OPS, bad, asks)), changed("r1"), changed("r2"))
        append(redis, RuleChanged(rule=SEC), changed("r3"))
        wait_until_routed(redis)
    assert told(redis, "r1") == told(redis, "r2") == {"ops@example.com"}
    assert told(redis, "r3") == {"ops@example.com", "sec@example.com"}
    said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    bad_rule, asking_rule = said
    assert bad_rule == (
        "Access Monitoring Rule bad rule is not used, all others are: its condition, line 1, column 1:"
        ' unknown identifier: "access_request.spec.rolls"'
    )
    assert asking_rule == (
        "Access Monitoring Rule asks has no answer for a request, and does not apply to it:"
        " no semantic version: 'alice'"
    )
    counted = generate_latest(registry).decode()
    assert "access_mail_router_rules 3.0" in counted
    assert "access_mail_router_rules_refused 1.0" in counted
    assert "access_mail_router_rule_failures_total 3.0" in counted
    assert "access_mail_router_rule_changes_total 2.0" in counted


def test_rules_that_a_later_version_wrote_are_said_and_waited_for(
    redis: Redis, new_router: Callable[..., Router]
) -> None:
    know_rules(redis)
    redis.hset(keys.RULES, "rule:x", '{"nothing": "known"}')
    with running(router := new_router()):
        wait_for(lambda: "this version can read" in (router.ready() or ""), "it says what is wrong")
        append(redis, RulesListed(), changed("r1"))
        wait_until_routed(redis)
        assert told(redis, "r1") == {"all@example.com"}


EVENTS = st.lists(
    st.one_of(
        st.lists(st.sampled_from("abc"), unique=True).map(
            lambda names: RulesListed(rules=tuple(rule(name, "listed") for name in names))
        ),
        st.just(RulesUnavailable(reason="no")),
        st.tuples(st.sampled_from("abc"), st.sampled_from(["true", "false"])).map(
            lambda pair: RuleChanged(rule=rule(*pair))
        ),
        st.sampled_from("abc").map(lambda name: RuleDeleted(name=name)),
    ),
    min_size=1,
    max_size=8,
)


@given(events=EVENTS, data=st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_an_event_that_comes_again_changes_nothing(
    redis: Redis, events: Sequence[RulesEvent], data: st.DataObject
) -> None:
    """In order, each perhaps again at any time later: as a router that was taken for dead may do."""
    redis.delete(keys.RULES)
    end = RouterEnd(redis, GROUP, "test")
    for number, event in enumerate(events):
        end.commit_rules(f"9-{number + 7}", event)
        expected = redis.hgetall(keys.RULES)
        again = data.draw(st.integers(0, number))
        assert not end.commit_rules(f"9-{again + 7}", events[again])
        assert redis.hgetall(keys.RULES) == expected


def test_conditions_are_compiled_once_and_not_for_each_event(
    redis: Redis, new_router: Callable[..., Router], monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[str] = []
    parse, read = Condition.parse, patterns.Whole.__init__

    def parse_and_note(text: str) -> Condition:
        compiled.append(text)
        return parse(text)

    def read_and_note(whole: patterns.Whole, expression: str) -> None:
        compiled.append(expression)
        read(whole, expression)

    monkeypatch.setattr(Condition, "parse", parse_and_note)
    monkeypatch.setattr(patterns.Whole, "__init__", read_and_note)
    some = [rule(f"r{n}", f'regexp.match(access_request.spec.roles, "edit*{n}")', "ops@example.com") for n in range(20)]
    with running(new_router()):
        append(redis, RulesListed(rules=tuple(some)))
        append(redis, *(changed(f"r{number}") for number in range(2 * BATCH)))
        wait_until_routed(redis)
        append(redis, RuleChanged(rule=SEC), *(changed(f"r{number}") for number in range(2 * BATCH, 3 * BATCH)))
        wait_until_routed(redis)
    assert told(redis, "r0") == {"all@example.com"}
    assert told(redis, f"r{3 * BATCH - 1}") == {"sec@example.com"}
    expressions = [f"edit*{n}" for n in range(20)]
    assert sorted(compiled) == sorted([one.condition for one in some] + expressions + [SEC.condition])
