"""Every script survives a Redis that is busy, loading, full, gone or silent, and a `kill -9` before and after it."""

import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from shared import keys
from shared.claimed import Claimed
from shared.mail import Delivered, Later, Verdict
from shared.mail_queue.layout import script_source
from simulators.mailbox import Mailbox
from simulators.rules import Rule
from tests.faults.mailers import Mailers, mailers_in
from tests.faults.redis_proxy import Call, Fault, RedisProxy
from tests.faults.threads import COURSE, Threads
from tests.faults.valkey import Valkey
from tests.mails import ANN, BOB, mail, put
from tests.queueing import end_claims, is_perhaps_sent, known_relay, receipt
from tests.waiting import wait_for, wait_until
from tests.working import Gate, Running, delivered, people, put_many, working

SCRIPTS = ("claim", "renew", "settle", "due", "recover", "sweep")
ERRORS = (
    "BUSY Redis is busy running a script.",
    "LOADING Redis is loading the dataset in memory",
    "OOM command not allowed when used memory > 'maxmemory'.",
)


def answers(error: str) -> Fault:
    return lambda call: call.answer(error)


async def hangs_up(call: Call) -> None:
    await call.hang_up()


async def does_and_hangs_up(call: Call) -> None:
    await call.do_and_hang_up()


async def does_in_silence(call: Call) -> None:
    await call.do_in_secret()


async def falls_silent(call: Call) -> None:
    await call.fall_silent()


def before(pid: int) -> Fault:
    """The process dies, and Redis never hears of it."""

    async def kill(call: Call) -> None:
        os.kill(pid, signal.SIGKILL)
        await call.hang_up()

    return kill


def after(pid: int) -> Fault:
    """Redis has done it, and the process never hears of it."""

    async def kill(call: Call) -> None:
        await call.do_in_secret()
        os.kill(pid, signal.SIGKILL)
        await call.hang_up()

    return kill


class Moody(Gate):
    """Puts each mail off once, has it in hand until the test lets it go, and knows how often each was sent."""

    def __init__(self, lets_go: Callable[[], bool]) -> None:
        super().__init__()
        self._lets_go = lets_go
        self.sent: list[str] = []
        self._put_off: set[str] = set()

    async def deliver(self, claimed: Claimed, may_leave: Callable[[], bool], /) -> Verdict:
        if claimed.mail.id not in self._put_off:
            self._put_off.add(claimed.mail.id)
            return Later(0.05, "temporary")
        await wait_until(self._lets_go, "it may be sent", 20)
        if not may_leave():
            return Later(0, "claim_lost")
        self.sent.append(claimed.mail.id)
        return Delivered("250")


@pytest.fixture
def proxy(valkey: Valkey, folder: Path) -> Iterator[RedisProxy]:
    with RedisProxy(Path(valkey.url.removeprefix("unix://")), folder) as proxy:
        yield proxy


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """All clocks of a claim run fifteen times faster."""
    monkeypatch.setattr("shared.mail_queue.mailer_end.CLAIM_SECONDS", 2)
    monkeypatch.setattr("shared.mail_queue.mailer_end.GAP_SECONDS", 1)
    monkeypatch.setattr("services.mailer.in_hand.STILL_HELD_SECONDS", 1.5)
    monkeypatch.setattr("services.mailer.persistence.RETRY_SECONDS", (0.01, 0.1))
    for name, seconds in (("RENEW", 0.2), ("DUE", 0.1), ("RECOVER", 0.3), ("SWEEP", 0.2)):
        monkeypatch.setattr(f"services.mailer.upkeep.{name}_SECONDS", seconds)


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.usefixtures("soon")
def test_a_script_that_fails_loses_nothing_and_tells_nothing_twice(
    valkey: Valkey, proxy: RedisProxy, script: str
) -> None:
    known_relay(valkey.redis)
    put(valkey.redis, [mail(notice, person) for person in (ANN, BOB) for notice in ("requested", "reviewed-1")])
    proxy.fault(script, *map(answers, ERRORS), hangs_up, does_and_hangs_up)
    is_for_mails_in_hand = script == "renew"
    moody = Moody(lambda: proxy.is_through or not is_for_mails_in_hand)
    running = Running(proxy.url, moody, capacity=3)
    running.thread.start()
    try:
        wait_for(lambda: proxy.is_through, "all faults were met", 30)
        wait_for(lambda: delivered(valkey.redis) >= 4, "all are delivered", 30)
    finally:
        running.end()
    assert running.error is None
    assert sorted(set(moody.sent)) == sorted(moody.sent), "none was sent twice"
    assert valkey.redis.zcard("rq:failed:mail") == 0
    assert valkey.redis.llen("rq:queue:mail") == 0


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("fault", [*map(answers, ERRORS), hangs_up, does_and_hangs_up])
def test_what_is_in_hand_goes_back_at_the_end_although_redis_fails_at_first(
    valkey: Valkey, proxy: RedisProxy, fault: Fault
) -> None:
    put_many(valkey.redis, 3)
    with working(proxy.url, gate := Gate()) as running:
        wait_for(lambda: len(gate.in_hand) == 3, "three mails are in hand")
        proxy.fault("release", fault)
        running.worker.stop()
        running.worker.stop()
        running.thread.join(timeout=20)
    assert proxy.is_through
    assert valkey.redis.llen("rq:queue:mail") == 3
    assert valkey.redis.zcard(keys.CLAIMS) == 0
    assert not any(is_perhaps_sent(valkey.redis, mail("requested", person)) for person in people(3))


@pytest.fixture
def claimed_in_vain(valkey: Valkey, proxy: RedisProxy) -> Callable[[Fault], None]:
    """Three mails, whose first claim meets this fault: no `NOSCRIPT` comes before it."""

    def prepare(fault: Fault) -> None:
        put_many(valkey.redis, 3)
        valkey.redis.script_load(script_source("claim"))
        proxy.fault("claim", fault)

    return prepare


def test_what_a_claim_took_whose_answer_was_lost_goes_back_unsent(
    valkey: Valkey, proxy: RedisProxy, claimed_in_vain: Callable[[Fault], None]
) -> None:
    claimed_in_vain(does_and_hangs_up)
    gate = Gate()
    gate.open()
    with working(proxy.url, gate) as running:
        wait_for(lambda: delivered(valkey.redis) == 3, "all are delivered, long before the claims' end")
    assert running.metrics.left_by_the_dead == 0
    assert not any(receipt(valkey.redis, mail("requested", person))["perhaps"] == "1" for person in people(3))


def test_what_a_claim_took_while_the_worker_was_to_stop_goes_back_unsent(
    valkey: Valkey, proxy: RedisProxy, claimed_in_vain: Callable[[Fault], None]
) -> None:
    claimed_in_vain(does_in_silence)
    with working(proxy.url, Gate()) as running:
        wait_for(lambda: valkey.redis.zcard(keys.CLAIMS) == 3, "Redis has given it three mails")
        running.worker.stop()
        running.thread.join(timeout=20)
    assert valkey.redis.llen("rq:queue:mail") == 3
    assert valkey.redis.zcard(keys.CLAIMS) == 0
    assert not any(is_perhaps_sent(valkey.redis, mail("requested", person)) for person in people(3))


def is_stopped(proxy: RedisProxy, pid: int) -> bool:
    """Told again and again, for two signals at once may come as one."""
    if not proxy.is_through:
        os.kill(pid, signal.SIGTERM)
    return proxy.is_through


@pytest.fixture
async def mailers(valkey: Valkey, folder: Path) -> AsyncIterator[Mailers]:
    async with Mailbox() as mailbox:
        with mailers_in(valkey, mailbox, folder) as mailers:
            yield mailers


@pytest.mark.parametrize("script", [*SCRIPTS, "release"])
async def test_a_mailer_that_is_killed_before_or_after_a_script_loses_nothing(
    mailers: Mailers, proxy: RedisProxy, script: str
) -> None:
    threads = Threads(mailers.redis, 10)
    threads.open()
    slow = Rule("data", delay=2 if script in ("renew", "release") else 0)
    mailers.mailbox.rules += [Rule("rcpt", "450 4.2.0 later", times=5), slow]
    in_flight = 0
    for kill in (before, after):
        mailer = mailers.launch(url=proxy.url)
        proxy.fault(script, kill(mailer.pid))
        if script == "release":
            await wait_until(lambda sent=slow.obeyed: slow.obeyed > sent, "a mail is at the relay", 60)
            await wait_until(lambda pid=mailer.pid: is_stopped(proxy, pid), "it puts back what it has in hand", 60)
        await wait_until(lambda: proxy.is_through, f"it is killed at {script}", 60)
        in_flight += int(mailers.redis.zcard(keys.CLAIMS))
        await mailer.kill()
        await end_claims(mailers.redis)
    mailers.mailbox.rules.clear()
    await mailers.start()
    await wait_until(lambda: not mailers.unfinished(), "request and reviews are told", 60)
    threads.settle()
    await wait_until(lambda: not mailers.unfinished(), "nothing is left", 60)
    told = threads.told(mailers.mailbox.mails)
    assert len(told) == 10
    for notices in told.values():
        once = list(dict.fromkeys(notices))
        assert once == [notice for notice in COURSE if notice in once]
        assert (once[0], once[-1]) == ("requested", "approved")
    assert sum(len(notices) - len(set(notices)) for notices in told.values()) <= in_flight
    assert not mailers.dead()


@pytest.mark.parametrize("script", SCRIPTS)
async def test_a_script_that_is_never_answered_is_given_up_and_run_again(
    mailers: Mailers, proxy: RedisProxy, script: str
) -> None:
    """Once it never came to be run, once only its answer did not come; a mailer's own patience ends the wait."""
    threads = Threads(mailers.redis, 3)
    threads.open()
    until_then = Rule("rcpt", "450 4.2.0 later", delay=2 if script == "renew" else 0)
    mailers.mailbox.rules.append(until_then)
    proxy.fault(script, falls_silent, does_in_silence)
    mailer = await mailers.start(url=proxy.url)
    await wait_until(lambda: proxy.is_through, f"{script} was met twice by silence", 90)
    mailers.mailbox.rules.clear()
    await wait_until(lambda: not mailers.unfinished(), "request and reviews are told", 120)
    told = threads.told(mailers.mailbox.mails)
    assert told == {f"p{n}@example.com": [*COURSE[:5]] for n in range(3)}, "in order, and each once"
    assert not mailers.dead()
    await wait_until(mailer.is_ready, "it is well again", 30)
    assert mailer.says("Redis does not do its part") >= 1
