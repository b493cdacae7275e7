"""How a worker ends: at once when it is told twice, and for certain when one of its loops does."""

import asyncio
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from services.mailer.in_hand import Hands
from shared import keys
from shared.events import RequestState
from shared.mail_queue.mailer_end import Claims, MailerEnd
from simulators.mailbox import Mailbox, Rule
from tests.faults.valkey import Valkey
from tests.mails import mail, memory, put
from tests.queueing import known_relay, receipt
from tests.waiting import wait_for, wait_until
from tests.working import Gate, Running, mailroom, put_many, working


@pytest.mark.parametrize("loop", ["claim", "settle", "renew", "recover"])
def test_a_worker_ends_with_the_first_of_its_loops(
    redis: Redis, redis_url: str, loop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault of ours, not of Redis's: nothing of it may go on, or nobody would ever start a better one."""

    async def breaks(*_: Any) -> Any:
        raise ZeroDivisionError

    monkeypatch.setattr("services.mailer.upkeep.RENEW_SECONDS", 0.1)
    monkeypatch.setattr("services.mailer.upkeep.RECOVER_SECONDS", 0.1)
    put_many(redis, 5)
    running = Running(redis_url, gate := Gate(), capacity=3)
    running.thread.start()
    wait_for(lambda: len(gate.in_hand) == 3, "mails are in hand")
    monkeypatch.setattr(MailerEnd, loop, breaks)
    if loop in ("claim", "settle"):  # which have something to do when mails are done
        gate.open()
    running.thread.join(timeout=10)
    assert isinstance(running.error, ZeroDivisionError)
    running.end()


def test_a_burst_ends_only_when_nothing_was_in_hand_while_redis_was_asked(
    redis: Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is settled after Redis has answered that there is nothing, and before the answer is read, brings more."""
    gate, let_go = Gate(), list[str]()
    really_claim, really_let_go = MailerEnd.claim, Hands.let_go

    async def claim(end: MailerEnd, executions: Sequence[str]) -> Claims:
        claims = await really_claim(end, executions)
        if gate.in_hand and not let_go:
            gate.open()
            await wait_until(lambda: let_go, "what is in hand is settled", 20)
        return claims

    def note(hands: Hands, executions: Collection[str]) -> None:
        really_let_go(hands, executions)
        let_go.extend(executions)

    monkeypatch.setattr(MailerEnd, "claim", claim)
    monkeypatch.setattr(Hands, "let_go", note)
    known_relay(redis)
    put(redis, [mail("requested"), mail("approved")])
    running = Running(redis_url, gate, capacity=3)
    running.worker.work(burst=True)
    assert running.metrics.verdicts == {"delivered": 2}
    running.redis.close()


def test_what_is_settled_while_a_worker_asks_for_its_claims_is_no_stray(
    redis: Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    gate, settled, given_back = Gate(), list[str](), list[int]()
    really_held, really_let_go, really_release = MailerEnd.held, Hands.let_go, MailerEnd.release

    async def held(end: MailerEnd) -> list[tuple[str, str]]:
        answer = await really_held(end)
        if gate.in_hand and not settled:
            gate.open()
            await wait_until(lambda: settled, "the mail in hand is settled", 20)
        return answer

    def let_go(hands: Hands, executions: Collection[str]) -> None:
        really_let_go(hands, executions)
        settled.extend(executions)

    async def release(end: MailerEnd, jobs: Sequence[tuple[str, str, bool]]) -> tuple[int, int]:
        released, canceled = await really_release(end, jobs)
        given_back.append(released)
        return released, canceled

    monkeypatch.setattr("services.mailer.upkeep.STRAYS_SECONDS", 0.1)
    monkeypatch.setattr(MailerEnd, "held", held)
    monkeypatch.setattr(MailerEnd, "release", release)
    monkeypatch.setattr(Hands, "let_go", let_go)
    put_many(redis, 1)
    with working(redis_url, gate):
        wait_for(lambda: given_back, "what it took for a stray is given back", 20)
    assert given_back == [0]
    assert "go back into the queue" not in caplog.text


def test_a_worker_that_is_stuck_is_not_alive(redis: Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its timers turn on."""

    async def hangs(*_: Any) -> Any:
        await asyncio.Event().wait()

    monkeypatch.setattr("shared.pulse.STALLED_SECONDS", 0.5)
    monkeypatch.setattr("services.mailer.upkeep.DUE_SECONDS", 0.1)
    put_many(redis, 1)
    gate = Gate()
    with working(redis_url, gate) as running:
        wait_for(lambda: gate.in_hand, "a mail is in hand")
        monkeypatch.setattr(MailerEnd, "settle", hangs)
        gate.open()
        wait_for(lambda: "settle" in (running.worker.pulse.stalled() or ""), "it is not alive")
        running.worker.stop()


def test_stopping_twice_needs_no_answer_of_the_relay(redis: Redis, redis_url: str) -> None:
    put_many(redis, 5)
    with Mailbox().run_in_thread() as mailbox:
        mailbox.rules.append(slow := Rule("rcpt", delay=60))
        with working(redis_url, mailroom(mailbox)) as running:
            wait_for(lambda: slow.obeyed == 5, "five mails are at the relay")
            began = time.monotonic()
            running.worker.stop()
            running.worker.stop()
            running.thread.join(timeout=20)
            assert time.monotonic() - began < 5, "it did not wait for them"
    assert redis.llen("rq:queue:mail") == 5
    assert redis.zcard(keys.CLAIMS) == 0


def test_a_worker_ends_within_its_ten_seconds_although_the_relay_is_slow(redis: Redis, redis_url: str) -> None:
    put_many(redis, 5)
    with Mailbox().run_in_thread() as mailbox:
        mailbox.rules.append(slow := Rule("data", delay=60))
        with working(redis_url, mailroom(mailbox)) as running:
            wait_for(lambda: slow.obeyed == 5, "the relay has five mails")
            began = time.monotonic()
            running.worker.stop()
            running.thread.join(timeout=20)
            assert time.monotonic() - began < 10
    assert redis.llen("rq:queue:mail") == 5
    assert all(redis.hget(key, "perhaps") == b"1" for key in redis.scan_iter("rq:job:*"))


def test_a_mail_at_a_slow_relay_finishes_within_a_longer_grace(redis: Redis, redis_url: str) -> None:
    put_many(redis, 3)
    with Mailbox().run_in_thread() as mailbox:
        mailbox.rules.append(slow := Rule("accepted", delay=8))
        with working(redis_url, mailroom(mailbox), grace=30) as running:
            wait_for(lambda: slow.obeyed == 3, "the relay has three mails")
            running.worker.stop()
            running.thread.join(timeout=30)
    assert running.metrics.verdicts == {"delivered": 3}
    assert redis.llen("rq:queue:mail") == 0


def test_a_worker_ends_although_redis_has_gone(tmp_path: Path) -> None:
    valkey = Valkey(tmp_path)
    valkey.start()
    try:
        put_many(valkey.redis, 5)
        with working(valkey.url, gate := Gate()) as running:
            wait_for(lambda: len(gate.in_hand) == 5, "five mails are in hand")
            valkey.stop()
            gate.open()
            began = time.monotonic()
            running.worker.stop()
            running.thread.join(timeout=20)
            assert time.monotonic() - began < 10
        valkey.start()
    finally:
        valkey.close()


def test_a_mail_that_takes_long_is_looked_at_again_before_its_content_leaves(redis: Redis, redis_url: str) -> None:
    put(redis, [mail("requested")])
    with Mailbox().run_in_thread() as mailbox:
        mailbox.rules.append(slow := Rule("rcpt", delay=3))
        with working(redis_url, mailroom(mailbox)) as running:
            wait_for(lambda: slow.obeyed == 1, "the relay thinks about it")
            put(redis, [mail("approved")], memory(RequestState.APPROVED))
            wait_for(lambda: receipt(redis, mail("approved")), "both are done with")
            assert mailbox.mails == []
    told = receipt(redis, mail("requested"))
    assert (told["outcome"], told["reason"], told["perhaps"]) == ("dropped", "settled", "0")
    assert receipt(redis, mail("approved"))["reason"] == "never_announced"
    assert running.metrics.verdicts == {"dropped": 2}
