"""What mailers have sent stands in Teleport's record, whoever else writes there, and whatever goes wrong."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from grpc import StatusCode
from prometheus_client import CollectorRegistry
from redis import Redis
from redis.asyncio import Redis as AsyncRedis

from services.watcher import witness as witness_module
from services.watcher.metrics import WatcherMetrics
from services.watcher.teleport.connect import connect
from services.watcher.teleport.identity import Identity
from services.watcher.teleport.pb import types_pb2
from services.watcher.witness import Witness
from shared import keys
from shared.event_log import GROUP as ROUTERS
from shared.event_log import EventReader
from shared.events import RequestState
from shared.mail import Notice, Recipient, parse_mail_id
from shared.mail_queue.router_end import Commit, RouterEnd
from shared.memory import RequestMemory
from shared.receipts import GROUP, ReceiptReader
from shared.tasks import end
from simulators.teleport import AuthService
from tests.integration.watching import AUTHORITY, settings
from tests.mails import ANN, BOB, mail, memory
from tests.waiting import wait_until

PEOPLE = (ANN, BOB)


@pytest.fixture
async def auth() -> AsyncIterator[AuthService]:
    async with AuthService(AUTHORITY) as service:
        yield service


class Witnesses:
    """One or several witnesses at work, and what they count."""

    def __init__(self, redis_url: str, auth: AuthService, folder: Path) -> None:
        self.registry = CollectorRegistry()
        self._metrics = WatcherMetrics(self.registry)
        self._url = redis_url
        self._auth = auth
        self._folder = folder

    @asynccontextmanager
    async def at_work(self, name: str = "one") -> AsyncIterator[None]:
        teleport = settings(self._auth.address, self._folder)
        connection = await connect(teleport.address, Identity.load(teleport))
        async with connection.client, AsyncRedis.from_url(self._url) as client:
            work = asyncio.create_task(Witness(ReceiptReader(client, name), self._metrics).run(connection.client))
            try:
                yield
            finally:
                await end([work])
        assert work.cancelled()

    def counted(self, outcome: str) -> float:
        return self.registry.get_sample_value("access_mail_watcher_receipts_total", {"outcome": outcome}) or 0


@pytest.fixture
def witnesses(redis_url: str, auth: AuthService, tmp_path: Path) -> Witnesses:
    return Witnesses(redis_url, auth, tmp_path)


def remember(redis: Redis, remembered: RequestMemory, request_id: str) -> None:
    """Note a request as the router does."""
    EventReader(redis, "test").open()
    committed = RouterEnd(redis, ROUTERS, "test").commit([Commit("1-1", request_id, "", remembered, [])])
    assert None not in committed


def settle(
    redis: Redis, request_id: str, notice: str, people: Sequence[Recipient] = PEOPLE, outcome: str = "delivered"
) -> None:
    """Leave receipts as the mailers' scripts do."""
    for person in people:
        mail_id = mail(notice, person, request_id).id
        redis.hset(keys.receipt(mail_id), mapping={"v": 1, "outcome": outcome, "perhaps": "0"})
        redis.expire(keys.receipt(mail_id), 1000)
        redis.xadd(keys.RECEIPTS, {"mail": mail_id, "outcome": outcome, "perhaps": "0"})


def created(redis: Redis, auth: AuthService, state: RequestState = RequestState.PENDING) -> str:
    request_id = auth.create_request()
    remember(redis, memory(state, request_id), request_id)
    return request_id


def threads(auth: AuthService, request_id: str) -> list[list[str]]:
    text = auth.plugin_entry(request_id).get("email_threads", "")
    return sorted(part.split("/") for part in text.split(",") if part)


async def all_done(redis: Redis) -> None:
    await wait_until(
        lambda: redis.exists(keys.RECEIPTS) and not redis.xlen(keys.RECEIPTS), "all receipts are done with"
    )


async def test_who_was_told_stands_in_the_record_with_the_message(
    redis: Redis, auth: AuthService, witnesses: Witnesses
) -> None:
    request_id = created(redis, auth)
    settle(redis, request_id, "requested")
    async with witnesses.at_work():
        await wait_until(lambda: witnesses.counted("written") == 2, "both receipts are witnessed")
    assert [(address, message_id) for address, _, message_id in threads(auth, request_id)] == [
        (person.address, f"{mail('requested', person, request_id).id}@example.com") for person in PEOPLE
    ]
    entry = auth.plugin_entry(request_id)
    assert (entry["user"], entry["roles"], entry["request_reason"]) == ("alice", "editor", "because")
    assert "reviews_count" not in entry
    assert auth.faults.calls["UpdatePluginData"] == 1, "the receipts of one request are written together"
    assert redis.xlen(keys.RECEIPTS) == 0
    assert redis.xpending(keys.RECEIPTS, GROUP)["pending"] == 0


async def test_only_those_whom_a_mail_may_have_reached_are_in_it(
    redis: Redis, auth: AuthService, witnesses: Witnesses
) -> None:
    request_id = created(redis, auth)
    settle(redis, request_id, "requested", [ANN], "dead")
    settle(redis, request_id, "requested", [BOB])
    nobody = created(redis, auth)
    settle(redis, nobody, "requested", outcome="dropped")
    async with witnesses.at_work():
        await all_done(redis)
    assert [address for address, *_ in threads(auth, request_id)] == [BOB.address]
    assert auth.plugin_entry(nobody) == {}


async def test_a_notice_is_told_once_nobody_is_still_to_hear_of_it(
    redis: Redis, auth: AuthService, witnesses: Witnesses
) -> None:
    request_id = created(redis, auth, RequestState.APPROVED)
    async with witnesses.at_work():
        settle(redis, request_id, "requested")
        for notice in ("reviewed-1", "approved"):
            settle(redis, request_id, notice, [ANN])
        await all_done(redis)
        assert not {"reviews_count", "resolution"} & set(auth.plugin_entry(request_id))
        settle(redis, request_id, "reviewed-1", [BOB])
        await wait_until(lambda: auth.plugin_entry(request_id).get("reviews_count") == "1", "the review is told")
        settle(redis, request_id, "approved", [BOB], "dead")
        await wait_until(lambda: auth.plugin_entry(request_id).get("resolution") == "APPROVED", "the decision is told")


async def test_the_go_plugins_record_is_added_to(redis: Redis, auth: AuthService, witnesses: Witnesses) -> None:
    request_id = created(redis, auth)
    go = {"user": "alice", "email_threads": "carol@example.com/2026 m=+1/X.Y@host,strange", "other": "key"}
    auth.update_plugin_data(
        types_pb2.PluginDataUpdateParams(Kind="access_request", Resource=request_id, Plugin="email", Set=go)
    )
    settle(redis, request_id, "requested", [ANN])
    async with witnesses.at_work():
        await all_done(redis)
    entry = auth.plugin_entry(request_id)
    assert entry["email_threads"].startswith(go["email_threads"] + ",ann@example.com/")
    assert entry["other"] == "key"


@pytest.mark.parametrize("storm", [1, 4])
async def test_a_storm_of_conflicts_is_outlasted(
    redis: Redis, auth: AuthService, witnesses: Witnesses, storm: int
) -> None:
    request_id = created(redis, auth)
    auth.faults.fail_compare(storm)
    settle(redis, request_id, "requested")
    async with witnesses.at_work():
        await all_done(redis)
    assert len(threads(auth, request_id)) == 2
    assert auth.faults.calls["GetPluginData"] == storm + 1, "each try has read anew"


async def test_what_another_writes_meanwhile_is_kept(redis: Redis, auth: AuthService, witnesses: Witnesses) -> None:
    request_id = created(redis, auth)
    auth.faults.delays["UpdatePluginData"] = 0.3
    settle(redis, request_id, "requested")
    async with witnesses.at_work():
        await wait_until(lambda: auth.faults.calls["UpdatePluginData"], "it is about to write")
        go = {"email_threads": "carol@example.com/t/m@h", "reviews_count": "3"}
        auth.update_plugin_data(
            types_pb2.PluginDataUpdateParams(Kind="access_request", Resource=request_id, Plugin="email", Set=go)
        )
        await all_done(redis)
    assert [address for address, *_ in threads(auth, request_id)] == sorted(
        [ANN.address, BOB.address, "carol@example.com"]
    )
    assert auth.plugin_entry(request_id)["reviews_count"] == "3"


@pytest.mark.parametrize("trouble", ["contended", "full"])
async def test_a_record_that_cannot_be_written_is_left_for_later_and_delays_no_other(
    redis: Redis, auth: AuthService, witnesses: Witnesses, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    monkeypatch.setattr(witness_module, "LEFT_MILLISECONDS", 300)
    monkeypatch.setattr(witness_module, "UPKEEP_SECONDS", 0.1)
    request_id = created(redis, auth)
    if trouble == "full":
        auth.plugin_data.size_limit = 10
    else:
        auth.faults.fail_compare(5)
    async with witnesses.at_work():
        settle(redis, request_id, "requested")
        await wait_until(lambda: witnesses.counted(trouble) >= 2, "it could not be written")
        assert redis.xlen(keys.RECEIPTS) == 2, "they are kept"
        auth.plugin_data.size_limit = 1_000_000
        other = created(redis, auth)
        settle(redis, other, "requested")
        await wait_until(lambda: len(threads(auth, other)) == 2, "the other is written")
        await wait_until(lambda: len(threads(auth, request_id)) == 2, "and in the end the first one, too")
        await all_done(redis)


async def test_without_permission_it_warns_once_and_writes_all_when_it_is_granted(
    redis: Redis,
    auth: AuthService,
    witnesses: Witnesses,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(witness_module, "REFUSED_SECONDS", 0.1)
    monkeypatch.setattr(witness_module, "LEFT_MILLISECONDS", 50)
    monkeypatch.setattr(witness_module, "UPKEEP_SECONDS", 0.01)
    auth.faults.denied.add("UpdatePluginData")
    ids = [created(redis, auth) for _ in range(3)]
    async with witnesses.at_work():
        for request_id in ids:
            settle(redis, request_id, "requested")
        await wait_until(lambda: witnesses.counted("refused") > 4, "it is refused again and again")
        assert redis.xlen(keys.RECEIPTS) == 6, "they are kept"
        auth.faults.denied.clear()
        await all_done(redis)
    assert all(len(threads(auth, request_id)) == 2 for request_id in ids)
    warnings = [record for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == 1
    assert "`update` on `access_plugin_data`" in warnings[0].getMessage()


async def test_receipts_of_what_teleport_or_redis_no_longer_knows_are_done_with(
    redis: Redis, auth: AuthService, witnesses: Witnesses, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(witness_module, "LEFT_MILLISECONDS", 100)
    monkeypatch.setattr(witness_module, "UPKEEP_SECONDS", 0.05)
    gone = created(redis, auth)
    auth.delete(gone)
    settle(redis, gone, "requested")
    settle(redis, "never-heard-of", "requested", [ANN])
    redis.xadd(keys.RECEIPTS, {"what": "ever"})
    redis.xadd(keys.RECEIPTS, {"mail": "no-mail-id", "outcome": "delivered", "perhaps": "0"})
    expected = {"gone": 2, "forgotten": 1, "unreadable": 2, "written": 0}
    async with witnesses.at_work():
        await wait_until(lambda: {name: witnesses.counted(name) for name in expected} == expected, "all are done with")
    assert redis.xlen(keys.RECEIPTS) == 0


async def test_a_receipt_of_a_request_that_redis_is_about_to_know_again_is_kept(
    redis: Redis, auth: AuthService, witnesses: Witnesses, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(witness_module, "UPKEEP_SECONDS", 0.05)
    request_id = auth.create_request()
    settle(redis, request_id, "requested", [ANN])
    async with witnesses.at_work():
        await wait_until(lambda: redis.exists(keys.RECEIPTS) and pending(redis), "it was looked at")
        remember(redis, memory(request_id=request_id), request_id)
        monkeypatch.setattr(witness_module, "LEFT_MILLISECONDS", 0)
        await all_done(redis)
    assert [address for address, *_ in threads(auth, request_id)] == [ANN.address]


def pending(redis: Redis) -> int:
    groups = redis.xinfo_groups(keys.RECEIPTS)
    return int(groups[0]["pending"]) if groups else 0


async def test_a_record_outlives_its_request_and_hears_of_its_end(
    redis: Redis, auth: AuthService, witnesses: Witnesses
) -> None:
    request_id = created(redis, auth)
    async with witnesses.at_work():
        settle(redis, request_id, "requested")
        await all_done(redis)
        auth.expire(request_id)
        settle(redis, request_id, "expired")
        await all_done(redis)
    assert auth.plugin_entry(request_id)["resolution"] == "EXPIRED"


async def test_what_a_dead_watcher_held_is_taken_over_and_two_share_the_work(
    redis: Redis, redis_url: str, auth: AuthService, witnesses: Witnesses, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(witness_module, "LEFT_MILLISECONDS", 100)
    monkeypatch.setattr(witness_module, "UPKEEP_SECONDS", 0.05)
    ids = [created(redis, auth) for _ in range(20)]
    for request_id in ids[:10]:
        settle(redis, request_id, "requested")
    async with AsyncRedis.from_url(redis_url) as client:
        dead = ReceiptReader(client, "a watcher that died")
        await dead.open()
        assert len(await dead.new(100, None)) == 20
    async with witnesses.at_work("one"), witnesses.at_work("two"):
        for request_id in ids[10:]:
            settle(redis, request_id, "requested")
        await all_done(redis)
    assert all(len(threads(auth, request_id)) == 2 for request_id in ids)


async def test_a_redis_that_lost_all_is_followed_again(redis: Redis, auth: AuthService, witnesses: Witnesses) -> None:
    async with witnesses.at_work():
        await wait_until(lambda: redis.exists(keys.RECEIPTS), "it is at work")
        redis.flushall()
        request_id = created(redis, auth)
        settle(redis, request_id, "requested")
        await all_done(redis)
    assert len(threads(auth, request_id)) == 2


async def test_teleport_that_does_not_answer_is_waited_for(
    redis: Redis, auth: AuthService, witnesses: Witnesses, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(witness_module, "LEFT_MILLISECONDS", 50)
    monkeypatch.setattr(witness_module, "UPKEEP_SECONDS", 0.01)
    auth.faults.fail("GetPluginData", StatusCode.UNAVAILABLE, times=3)
    request_id = created(redis, auth)
    settle(redis, request_id, "requested")
    async with witnesses.at_work():
        await all_done(redis)
    assert len(threads(auth, request_id)) == 2
    assert witnesses.counted("unavailable") >= 4


def test_a_mail_id_tells_what_it_is_of() -> None:
    for request_id in ("r1", "5a6b-reviewed-1", "requested", "a-requested-b"):
        for notice in ("requested", "reviewed-12", "promoted"):
            parsed = parse_mail_id(mail(notice, ANN, request_id).id)
            assert parsed == (request_id, Notice.parse(notice), ANN.hash)
