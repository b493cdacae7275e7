"""The watcher tells the router of Access Monitoring Rules: all before any request, then each change."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from grpc import StatusCode
from prometheus_client import CollectorRegistry, generate_latest
from redis import Redis

from services.watcher.teleport import client
from shared.event_log import GROUP
from shared.events import RuleChanged, RulesEvent, RulesListed, RulesUnavailable
from shared.mail_queue.router_end import RouterEnd
from simulators.teleport import AuthService
from simulators.teleport.messages import new_rule
from tests.integration.watching import AUTHORITY, changed, everything, rules_events, settings, until_ready, watching
from tests.waiting import wait_until

METHOD = "ListAccessMonitoringRulesWithFilter"


@pytest.fixture
async def auth() -> AsyncIterator[AuthService]:
    async with AuthService(AUTHORITY) as service:
        yield service


def commit(redis: Redis) -> None:
    """Take what stands on the stream, as a router does."""
    for number, event in enumerate(rules_events(redis), 1):
        RouterEnd(redis, GROUP, "test").commit_rules(f"1-{number}", event)


def often(auth: AuthService, folder: Path) -> Any:
    return settings(auth.address, folder, snapshot_interval=timedelta(milliseconds=100))


def listed(event: RulesEvent) -> list[str]:
    assert isinstance(event, RulesListed)
    return [rule.name for rule in event.rules]


async def test_all_rules_are_told_before_any_request_page_by_page(
    auth: AuthService, redis: Redis, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "RULES_PAGE", 2)
    auth.create_request()
    names = [f"rule-{number}" for number in range(5)]
    for name in names:
        auth.create_rule(name, "true", ["ops@example.com"])
    auth.put_rule(new_rule("chat", "true", ["channel"], notify="slack"))
    async with watching(redis_url, settings(auth.address, tmp_path)) as watcher:
        await until_ready(watcher)
    first, *others = everything(redis)
    assert isinstance(first, RulesListed)
    assert listed(first) == names
    assert not any(isinstance(event, RulesEvent) for event in others)
    assert len(changed(redis)) == 1


async def test_each_change_is_told(auth: AuthService, redis: Redis, redis_url: str, tmp_path: Path) -> None:
    registry = CollectorRegistry()
    async with watching(redis_url, settings(auth.address, tmp_path), registry) as watcher:
        await until_ready(watcher)
        auth.create_rule("ops", "true", ["ops@example.com"])
        auth.put_rule(new_rule("ops", "true", ["channel"], notify="slack"))
        auth.create_rule("ops", "false", ["ops@example.com"])
        auth.delete_rule("ops")
        auth.create_request()
        await wait_until(lambda: changed(redis), "the request is told")
    empty, created, *rest = rules_events(redis)
    assert listed(empty) == []
    assert isinstance(created, RuleChanged)
    assert created.rule.recipients == ("ops@example.com",)
    assert [event.type for event in rest] == ["rule_deleted", "rule_changed", "rule_deleted"]
    assert 'access_mail_watcher_events_received_total{type="rule"} 4.0' in generate_latest(registry).decode()


async def test_a_change_that_nobody_saw_is_found_and_what_is_known_is_not_told_again(
    auth: AuthService, redis: Redis, redis_url: str, tmp_path: Path
) -> None:
    auth.create_rule("ops", "true", ["ops@example.com"])
    async with watching(redis_url, often(auth, tmp_path)) as watcher:
        await until_ready(watcher)
        commit(redis)
        auth.faults.lose_events = True
        auth.create_rule("sec", "true", ["sec@example.com"])
        await wait_until(lambda: listed(rules_events(redis)[-1]) == ["ops", "sec"], "both rules are told")
        commit(redis)
        said = len(rules_events(redis))
        auth.create_request()
        await wait_until(lambda: changed(redis), "another listing is complete")
    # One more may have been on its way when the router committed.
    assert len(rules_events(redis)) <= said + 1


async def test_after_a_loss_of_redis_the_rules_are_told_again(
    auth: AuthService, redis: Redis, redis_url: str, tmp_path: Path
) -> None:
    auth.create_rule("ops", "true", ["ops@example.com"])
    async with watching(redis_url, settings(auth.address, tmp_path)) as watcher:
        await until_ready(watcher)
        redis.flushall()
        auth.create_request()
        await wait_until(lambda: rules_events(redis), "they are told")
        # Perhaps twice, as no router has committed them here.
        assert all(listed(event) == ["ops"] for event in rules_events(redis))


async def test_after_a_loss_the_rules_do_not_wait_for_the_snapshot(
    auth: AuthService, redis: Redis, redis_url: str, tmp_path: Path
) -> None:
    auth.create_rule("ops", "true", ["ops@example.com"])
    async with watching(redis_url, settings(auth.address, tmp_path)) as watcher:
        await until_ready(watcher)
        auth.faults.delays["ListAccessRequests"] = 3600
        for _ in range(2):  # the first loss begins a snapshot, which is under way at the second
            redis.flushall()
            await wait_until(lambda: rules_events(redis), "they are told while the listing hangs", timeout=20)


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        (StatusCode.PERMISSION_DENIED, "to use what Teleport has, allow list of access_monitoring_rule in the role"),
        (StatusCode.UNIMPLEMENTED, "this version of Teleport has no rules that we could read, and no role changes"),
    ],
)
async def test_where_rules_may_not_be_listed_it_is_said_once_and_requests_are_told(
    auth: AuthService,
    redis: Redis,
    redis_url: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    *,
    code: StatusCode,
    advice: str,
) -> None:
    auth.faults.fail(METHOD, code, times=3, text="no rules for you")
    auth.create_request()
    registry = CollectorRegistry()
    async with watching(redis_url, often(auth, tmp_path), registry) as watcher:
        await until_ready(watcher)
        assert "access_mail_watcher_rules_shown 0.0" in generate_latest(registry).decode()
        commit(redis)
        auth.create_rule("ops", "true", ["ops@example.com"])
        await wait_until(lambda: isinstance(rules_events(redis)[-1], RulesListed), "once they may be, they are")
        assert "access_mail_watcher_rules_shown 1.0" in generate_latest(registry).decode()
    first = everything(redis)[0]
    assert isinstance(first, RulesUnavailable)
    assert first.reason == f"{code.name}: no rules for you"
    assert changed(redis)
    assert caplog.text.count("Access Monitoring Rules are not shown, all requests go by role_to_recipients") == 1
    assert caplog.text.count(f"{first.reason}; {advice}") == 1


async def test_where_rules_may_not_be_watched_they_are_not_used(
    auth: AuthService, redis: Redis, redis_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    auth.faults.denied_kinds.add("access_monitoring_rule")
    auth.create_rule("ops", "true", ["ops@example.com"])
    auth.create_request()
    async with watching(redis_url, settings(auth.address, tmp_path)) as watcher:
        await until_ready(watcher)
    (only,) = rules_events(redis)
    assert isinstance(only, RulesUnavailable)
    assert only.reason == "Teleport does not let this role watch access_monitoring_rule"
    assert "allow read of access_monitoring_rule in the role: that counts from the next connection" in caplog.text


async def test_a_role_that_may_watch_rules_alone_is_refused(auth: AuthService, redis_url: str, tmp_path: Path) -> None:
    auth.faults.denied_kinds.add("access_request")
    async with watching(redis_url, settings(auth.address, tmp_path)) as watcher:
        reason = "does not let this role watch access_request"
        await wait_until(lambda: reason in (watcher.ready() or ""), "the refusal is noticed")


async def test_a_listing_that_always_breaks_does_not_keep_requests_for_ever(
    auth: AuthService, redis: Redis, redis_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    auth.faults.fail(METHOD, StatusCode.UNKNOWN, times=1000, text="broken")
    auth.create_request()
    async with watching(redis_url, settings(auth.address, tmp_path)) as watcher:
        await until_ready(watcher)
    first, second = everything(redis)
    assert isinstance(first, RulesUnavailable)
    assert "broken" in first.reason
    assert "broken; they are asked for again at the next snapshot" in caplog.text
    assert "allow" not in caplog.text, "no permission would mend it"
    assert not isinstance(second, RulesEvent)


@pytest.mark.parametrize("code", [StatusCode.UNKNOWN, StatusCode.PERMISSION_DENIED])
@pytest.mark.parametrize("routed", [False, True])
async def test_a_listing_that_fails_undoes_no_rule_that_is_known_or_on_its_way(
    auth: AuthService,
    redis: Redis,
    redis_url: str,
    tmp_path: Path,
    *,
    caplog: pytest.LogCaptureFixture,
    code: StatusCode,
    routed: bool,
) -> None:
    auth.create_rule("ops", "true", ["ops@example.com"])
    async with watching(redis_url, settings(auth.address, tmp_path)) as watcher:
        await until_ready(watcher)
    if routed:
        commit(redis)
    auth.faults.fail(METHOD, code, times=1000, text="broken")
    async with watching(redis_url, often(auth, tmp_path)) as watcher:
        await until_ready(watcher)
        auth.create_request()
        await wait_until(lambda: changed(redis), "another listing is complete")
    commit(redis)
    known = RouterEnd(redis, GROUP, "test").rules()
    assert known is not None
    assert ([rule.name for rule in known.rules], known.unavailable) == (["ops"], "")
    if routed:
        assert len(rules_events(redis)) == 2, "it is told once that they are not shown"
        assert caplog.text.count("those that are known stay in use") == 1


async def test_a_rule_that_is_no_utf_8_is_said_once_and_harms_no_other(
    auth: AuthService, redis: Redis, redis_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    auth.faults.latin_1 |= {"bad", "worse"}
    auth.create_rule("bad", "true", ["café@example.com"])
    auth.create_rule("ops", "true", ["ops@example.com"])
    registry = CollectorRegistry()

    def counted(metric: str, **labels: str) -> float:
        return registry.get_sample_value(f"access_mail_watcher_{metric}_total", labels) or 0

    async with watching(redis_url, often(auth, tmp_path), registry) as watcher:
        await until_ready(watcher)
        auth.create_rule("worse", "true", ["cafe@example.com"])
        auth.create_rule("worse", "true", ["café@example.com"])
        auth.create_rule("sec", "true", ["sec@example.com"])
        await wait_until(lambda: isinstance(rules_events(redis)[-1], RulesListed), "all are listed again")
        before = counted("snapshots", outcome="complete")
        await wait_until(lambda: counted("snapshots", outcome="complete") > before + 1, "and again")
    commit(redis)
    known = RouterEnd(redis, GROUP, "test").rules()
    assert known is not None
    assert [rule.name for rule in known.rules] == ["ops", "sec"]
    assert counted("undecodable", fault="text") == 2
    assert counted("reconnects", reason="unavailable") == 0
    for name in ("bad", "worse"):
        assert caplog.text.count(f"access_monitoring_rule '{name}' is passed over: it holds text that is no UTF-8") == 1
