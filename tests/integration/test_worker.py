"""The mail worker: concurrent, an RQ worker to everyone who looks, gentle when it ends."""

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from redis import Redis
from rq import Worker

from services.mailer.mailroom import Mailroom
from services.mailer.metrics import Metrics
from services.mailer.service import Mailer
from services.mailer.settings import MailerConfiguration
from shared import keys
from shared.claimed import Claimed
from shared.mail import Dead, Delivered, Verdict
from shared.mail_queue.layout import rq_queue
from shared.settings import Settings
from simulators.mailbox import Mailbox, Rule
from tests.mails import ANN, mail, put
from tests.waiting import wait_for
from tests.working import Gate, Running, delivered, put_many, working

RQ = Path(sys.executable).with_name("rq")


def test_mails_are_sent_side_by_side_up_to_the_capacity(redis: Redis, redis_url: str) -> None:
    put_many(redis, 25)
    with working(redis_url, gate := Gate(), capacity=10):
        wait_for(lambda: len(gate.in_hand) == 10, "ten mails are in hand")
        assert redis.llen("rq:queue:mail") == 15
        gate.open()
        wait_for(lambda: delivered(redis) == 25, "all are delivered")


def test_what_ends_within_one_turn_of_the_loop_is_settled_in_one_go(redis: Redis, redis_url: str) -> None:
    class InTurns(Gate):
        """The second mail ends in the turn in which the end of the first one is heard of."""

        def __init__(self) -> None:
            super().__init__()
            self._both_are_here = asyncio.Event()

        async def deliver(self, claimed: Claimed, _still_held: Callable[[], bool], /) -> Verdict:
            self.in_hand.append(claimed.mail.id)
            if len(self.in_hand) == 1:
                await self._both_are_here.wait()
            else:
                self._both_are_here.set()
                await asyncio.sleep(0)  # the first one ends
                await asyncio.sleep(0)
            return Delivered("250")

    def settlements() -> int:
        """Runs of the one script that notes how long a worker has worked."""
        stats: Any = redis.info("commandstats")
        return int(stats.get("cmdstat_hincrbyfloat", {"calls": 0})["calls"])

    before = settlements()
    put_many(redis, 2)
    with working(redis_url, InTurns()):
        wait_for(lambda: delivered(redis) == 2, "both are delivered")
    assert settlements() - before == 1


def test_a_new_mail_is_sent_at_once(redis: Redis, redis_url: str) -> None:
    gate = Gate()
    gate.open()
    with working(redis_url, gate):
        wait_for(lambda: redis.hget(next(redis.scan_iter("rq:worker:mailer-*")), "state") == b"idle", "it is idle")
        put_many(redis, 1)
        wait_for(lambda: delivered(redis) == 1, "the mail is delivered", timeout=0.9)


def test_stopping_finishes_what_is_in_hand_and_leaves_the_rest(redis: Redis, redis_url: str) -> None:
    put_many(redis, 25)
    with working(redis_url, gate := Gate(), capacity=10) as running:
        wait_for(lambda: len(gate.in_hand) == 10, "ten mails are in hand")
        running.worker.stop()
        gate.open()
        running.thread.join(timeout=20)
    assert delivered(redis) == 10
    assert redis.llen("rq:queue:mail") == 15
    assert redis.zcard(keys.CLAIMS) == 0
    assert not list(redis.scan_iter("rq:worker:*:executions"))


def test_stopping_twice_puts_back_what_is_in_hand(redis: Redis, redis_url: str) -> None:
    put_many(redis, 5)
    with working(redis_url, gate := Gate()) as running:
        wait_for(lambda: len(gate.in_hand) == 5, "five mails are in hand")
        running.worker.stop()
        running.worker.stop()
        wait_for(lambda: redis.llen("rq:queue:mail") == 5, "all are queued again")
    assert delivered(redis) == 0


def test_rq_sees_a_worker_like_its_own(redis: Redis, redis_url: str) -> None:
    put_many(redis, 3)
    with working(redis_url, gate := Gate()):
        wait_for(lambda: len(gate.in_hand) == 3, "three mails are in hand")
        (worker,) = Worker.all(queue=rq_queue(redis))
        assert worker.get_state() == "busy"
        assert worker.current_execution_count == 3
        assert {execution.job_id for execution in worker.get_current_executions()} == set(gate.in_hand)
        assert rq_queue(redis).started_job_registry.count == 3
        gate.open()
        wait_for(lambda: Worker.all(queue=rq_queue(redis))[0].get_state() == "idle", "it is idle again")
    assert Worker.all(queue=rq_queue(redis)) == []


def test_a_worker_registers_again_after_redis_has_lost_its_data(
    redis: Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.mailer.worker.HEARTBEAT_SECONDS", 0.1)
    gate = Gate()
    gate.open()
    with working(redis_url, gate):
        redis.flushall()
        wait_for(lambda: len(Worker.all(queue=rq_queue(redis))) == 1, "the worker is registered again")
        put_many(redis, 1)
        wait_for(lambda: delivered(redis) == 1, "it works")


def test_a_registration_that_was_cut_off_is_made_again(redis: Redis, redis_url: str) -> None:
    running = Running(redis_url, Gate(), capacity=1)
    redis.hset(running.worker.key, "state", "started")
    running.thread.start()
    try:
        wait_for(lambda: running.worker.trouble is None, "the worker is ready")
        assert [worker.pid for worker in Worker.all(queue=rq_queue(redis))] == [os.getpid()]
    finally:
        running.end()


def test_a_worker_without_redis_is_alive(tmp_path: Path) -> None:
    running = Running(f"unix://{tmp_path}/none", Gate(), capacity=1)
    running.thread.start()
    try:
        wait_for(lambda: "No such file" in (running.worker.trouble or ""), "it says what is missing")
        assert running.worker.pulse.stalled() is None
    finally:
        running.end()


def test_a_lost_claim_is_not_sent(redis: Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.mailer.upkeep.RENEW_SECONDS", 0.1)
    monkeypatch.setattr("services.mailer.in_hand.KNOWN_SECONDS", 60)
    put_many(redis, 1)
    with working(redis_url, gate := Gate()):
        wait_for(lambda: gate.held, "the mail is in hand")
        assert gate.held[0]()
        redis.delete(keys.CLAIMS)
        wait_for(lambda: not gate.held[0](), "the worker knows that it has lost the claim")


def test_a_fault_of_ours_is_a_dead_letter_and_stops_nobody(redis: Redis, redis_url: str) -> None:
    class Faulty(Gate):
        async def deliver(self, claimed: Claimed, still_held: Callable[[], bool], /) -> Verdict:
            if claimed.mail == mail("requested", ANN):
                raise ZeroDivisionError
            return await super().deliver(claimed, still_held)

    put(redis, [mail("requested", ANN)])
    put_many(redis, 3)
    gate = Faulty()
    gate.open()
    with working(redis_url, gate):
        wait_for(lambda: delivered(redis) == 3, "the others are delivered")
        wait_for(
            lambda: redis.hget(keys.receipt(mail("requested", ANN).id), "reason") == b"internal_error", "it is dead"
        )


def test_a_dead_letter_is_named_in_the_log_without_the_relays_words(
    redis: Redis, redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """They often hold the address."""

    class Refusing(Gate):
        async def deliver(self, claimed: Claimed, _still_held: Callable[[], bool], /) -> Verdict:
            return Dead("recipient_refused", f"550 5.1.1 <{claimed.mail.recipient.address}>: no such user")

    put(redis, [mail("requested", ANN)])
    with working(redis_url, Refusing()):
        wait_for(lambda: redis.exists(keys.receipt(mail("requested", ANN).id)), "it is dead")
    warned = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warned == [f"mail {mail('requested', ANN).id} is a dead letter: recipient_refused"]


def test_a_busy_relay_burns_no_attempt(redis: Redis, redis_url: str) -> None:
    put_many(redis, 1)
    with Mailbox().run_in_thread() as mailbox:  # its loop goes on while the worker leaves
        mailbox.rules = [Rule("mail", "421 4.3.2 too much", times=2)]
        smtp = {"host": "localhost", "port": mailbox.port, "starttls_policy": "disabled"}
        pauses = {"first_pause": "10ms", "longest_pause": "20ms"}
        sections = {"smtp": smtp, "mailer": pauses, "delivery": {"sender": "access@example.com"}}
        configuration = MailerConfiguration.of(Settings.model_validate(sections))
        room = Mailroom.from_settings(configuration, Metrics(CollectorRegistry()))
        with working(redis_url, room) as running:
            wait_for(lambda: delivered(redis) == 1, "it is delivered", 20)
            assert running.metrics.verdicts == {"later": 2, "delivered": 1}
    (key,) = redis.scan_iter(f"{keys.RECEIPT_PREFIX}*")
    assert redis.hget(key, "attempts") == b"1"


@pytest.mark.parametrize("serializer", ["json", "pickle"])
def test_a_stock_worker_loses_nothing_and_says_what_to_run(
    redis: Redis, redis_url: str, serializer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.mailer.upkeep.SWEEP_SECONDS", 0.1)
    put_many(redis, 3)
    command = [str(RQ), "worker", "--burst", "--serializer", serializer, "--url", redis_url, "mail"]
    stock = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ), check=False)
    assert "access-mail start --service mailer" in stock.stdout + stock.stderr
    assert rq_queue(redis).failed_job_registry.count == 3
    gate = Gate()
    gate.open()
    with working(redis_url, gate) as running:
        wait_for(lambda: delivered(redis) == 3, "all are delivered by the mailer")
        wait_for(lambda: running.metrics.left_by_the_dead == 3, "they are counted")


def test_a_mail_that_redis_cannot_handle_is_said_once_and_holds_up_no_other(
    redis: Redis, redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    put(redis, [mail("requested", ANN)])
    key = keys.receipt(mail("requested", ANN).id)
    redis.set(key, "somebody else's", ex=60)
    gate = Gate()
    gate.open()
    with working(redis_url, gate):
        wait_for(lambda: "cannot handle" in caplog.text, "it is said")
        put_many(redis, 25)
        wait_for(lambda: len(gate.in_hand) == 25, "all others are sent")
        said = [text for record in caplog.records if "cannot handle" in (text := record.getMessage())]
        assert len(said) == 1
        assert said[0].startswith(f"Redis cannot handle job {mail('requested', ANN).id}: WRONGTYPE ")
        redis.delete(key)
        wait_for(lambda: redis.hget(key, "outcome") == b"delivered", "it is delivered once the key is gone")


def test_the_names_of_killed_mailers_are_forgotten(
    redis: Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.mailer.upkeep.SWEEP_SECONDS", 0.1)
    places, killed = ("rq:workers", "rq:workers:mail"), "rq:worker:mailer-killed"
    for place in places:
        redis.sadd(place, killed)
    with working(redis_url, Gate()):
        wait_for(lambda: not any(redis.sismember(place, killed) for place in places), "RQ does not list it any more")


@pytest.mark.parametrize(("on_ambiguous", "in_hand"), [("retry", 6), ("dead", 2)])
def test_where_none_may_come_twice_only_mails_that_can_be_sent_at_once_are_taken(
    redis: Redis, redis_url: str, on_ambiguous: str, in_hand: int
) -> None:
    """The others in hand would be dead letters, too, if the mailer died: nobody would know that they were not sent."""
    with Mailbox().run_in_thread() as mailbox:
        mailbox.rules.append(slow := Rule("rcpt", delay=60))
        sections = {
            "smtp": {"host": "localhost", "port": mailbox.port, "starttls_policy": "disabled"},
            "delivery": {"sender": "access@example.com"},
            "mailer": {"connections": 2, "on_ambiguous": on_ambiguous},
            "redis": {"url": redis_url},
        }
        mailer = Mailer.from_settings(Settings.model_validate(sections), CollectorRegistry())
        redis.hset(keys.relay(f"localhost:{mailbox.port}"), mapping={"state": "closed", "changed": 0})
        redis.expire(keys.relay(f"localhost:{mailbox.port}"), 60)
        put_many(redis, 10)
        thread = threading.Thread(target=mailer.run)
        thread.start()
        try:
            wait_for(lambda: slow.obeyed == 2, "each connection has its mail")
            wait_for(lambda: redis.zcard(keys.CLAIMS) >= in_hand, "so many mails are in hand")
            assert redis.zcard(keys.CLAIMS) == in_hand
        finally:
            mailer.stop()
            mailer.stop()
            thread.join(timeout=20)
    assert not thread.is_alive()
