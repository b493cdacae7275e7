"""What would otherwise be stuck or forgotten: canceled mails, lost threads, mails that others failed, dead workers'."""

import asyncio
import uuid

import pytest
from redis import Redis
from redis.asyncio import Redis as AsyncRedis
from rq.job import Job
from rq.registry import CanceledJobRegistry

from shared import keys
from shared.claimed import Claimed, Malformed
from shared.mail import Dead, Delivered, Dropped, Held, Later, Mail, Verdict
from shared.mail_queue import mailer_end as module
from shared.mail_queue.layout import rq_queue
from shared.mail_queue.mailer_end import (
    CLAIM_SECONDS,
    DEATHS_SURVIVED,
    GAP_SECONDS,
    MailerEnd,
    Settlement,
    Swept,
)
from tests.mails import ANN, BOB, mail, put
from tests.queueing import claim, claim_one, end_claims, known_relay, mailer_end, reached, receipt, settle, status
from tests.waiting import wait_until
from tests.working import Gate, working


def job_of(redis: Redis, of: Mail) -> Job:
    job = rq_queue(redis).fetch_job(of.id)
    assert job is not None
    return job


def fail_by_stock_worker(redis: Redis, of: Mail) -> None:
    job = job_of(redis, of)
    redis.lrem("rq:queue:mail", 0, of.id)
    rq_queue(redis).failed_job_registry.add(job, ttl=1000, exc_string="by a stock worker")
    redis.hset(f"rq:job:{job.id}", "status", "failed")


class TestCanceled:
    async def test_a_mail_that_waits_is_dropped_with_that_reason_and_leaves_nothing(
        self, redis: Redis, end: MailerEnd
    ) -> None:
        put(redis, [mail("requested"), mail("reviewed-1"), mail("approved")])
        job_of(redis, mail("requested")).cancel()
        job_of(redis, mail("reviewed-1")).cancel()
        assert await end.sweep() == Swept(freed=1, canceled=2)
        for notice in ("requested", "reviewed-1"):
            told = receipt(redis, mail(notice))
            assert (told["outcome"], told["reason"], told["perhaps"]) == ("dropped", "canceled", "0")
            assert status(redis, mail(notice)) is None
        assert CanceledJobRegistry(queue=rq_queue(redis)).get_job_ids() == []
        await claim_one(end, mail("approved"))

    async def test_a_mail_in_flight_keeps_its_thread_until_it_is_settled(self, redis: Redis, end: MailerEnd) -> None:
        put(redis, [mail("requested"), mail("approved")])
        job = await claim_one(end, mail("requested"))
        job_of(redis, mail("requested")).cancel()
        await end.sweep()
        assert await claim(end) == []
        await settle(end, job, Delivered("250"))
        assert receipt(redis, mail("requested"))["outcome"] == "delivered"
        assert (await claim_one(end, mail("approved"))).announced
        assert redis.zcard("rq:canceled:mail") == 0

    @pytest.mark.parametrize(
        ("verdict", "counted"),
        [
            (Later(5, "connection_lost", perhaps=True), 1),
            (Held("connect"), 1),
            (Dead("refused", "550"), 0),
            (Dropped("settled"), 0),
        ],
    )
    async def test_a_mail_in_flight_is_dropped_by_its_settlement_and_counted_once(
        self, redis: Redis, end: MailerEnd, verdict: Verdict, counted: int
    ) -> None:
        put(redis, [mail("requested"), mail("approved")])
        job = await claim_one(end, mail("requested"))
        job_of(redis, mail("requested")).cancel()
        assert await settle(end, job, verdict) == (0, counted), "a final verdict counts by itself"
        told = receipt(redis, mail("requested"))
        assert (told["reason"], told["detail"]) == ("canceled", "")
        assert told["perhaps"] == ("1" if isinstance(verdict, Later) else "0")
        assert status(redis, mail("requested")) is None
        known_relay(redis)
        await claim_one(end, mail("approved"))

    async def test_one_that_is_met_by_a_claim_is_dropped_and_counted(self, redis: Redis, end: MailerEnd) -> None:
        put(redis, [mail("requested"), mail("reviewed-1"), mail("approved")])
        for notice in ("requested", "reviewed-1"):
            job_of(redis, mail(notice)).cancel()
        redis.rpush("rq:queue:mail", mail("requested").id)  # canceled between RQ's steps
        claims = await end.claim([uuid.uuid4().hex, uuid.uuid4().hex])
        assert (claims.canceled, len(claims.jobs)) == (2, 1)

    async def test_a_mail_whose_mailer_died_was_perhaps_sent(self, redis: Redis, end: MailerEnd) -> None:
        put(redis, [mail("requested"), mail("approved")])
        await claim_one(end, mail("requested"))
        job_of(redis, mail("requested")).cancel()
        await end_claims(redis)
        await end.recover()
        await end.sweep()
        assert receipt(redis, mail("requested"))["perhaps"] == "1"
        assert (await claim_one(end, mail("approved"))).announced

    async def test_a_mail_that_is_put_back_is_dropped(self, redis: Redis, end: MailerEnd) -> None:
        put(redis, [mail("requested"), mail("approved")])
        job = await claim_one(end, mail("requested"))
        job_of(redis, mail("requested")).cancel()
        assert await end.release([(job.mail.id, job.execution, True)]) == (0, 1)
        assert receipt(redis, mail("requested"))["perhaps"] == "1"
        await claim_one(end, mail("approved"))


class TestLostThread:
    async def test_mails_whose_thread_was_lost_come_in_their_order(self, redis: Redis, end: MailerEnd) -> None:
        put(redis, [mail("requested"), mail("reviewed-1"), mail("approved")])
        await settle(end, await claim_one(end, mail("requested")), Delivered("250"))
        redis.delete(keys.THREAD_PREFIX + mail("requested").thread)
        await settle(end, await claim_one(end, mail("reviewed-1")), Delivered("250"))
        assert await claim(end) == []
        assert await end.sweep() == Swept(freed=1)
        await claim_one(end, mail("approved"))

    async def test_a_whole_thread_that_was_lost_keeps_its_order(self, redis: Redis, end: MailerEnd) -> None:
        put(redis, [mail(notice) for notice in ("requested", "reviewed-1", "reviewed-2", "approved")])
        redis.delete(keys.THREAD_PREFIX + mail("requested").thread, f"rq:job:{mail('requested').id}")
        await end.sweep()
        for notice in ("reviewed-1", "reviewed-2", "approved"):
            await settle(end, await claim_one(end, mail(notice)), Delivered("250"))

    async def test_a_sweep_reads_no_key_but_those_of_mails_that_wait(self, redis: Redis, end: MailerEnd) -> None:
        put(redis, [mail("requested"), mail("approved")])
        redis.config_resetstat()
        await end.sweep()
        assert "cmdstat_scan" not in redis.info("commandstats")


class TestFailedByOthers:
    async def test_a_replayed_letter_that_a_stock_worker_fails_again_comes_back(
        self, redis: Redis, end: MailerEnd
    ) -> None:
        put(redis, [mail("requested")])
        await settle(end, await claim_one(end, mail("requested")), Dead("refused", "550"))
        rq_queue(redis).failed_job_registry.requeue(mail("requested").id)
        await settle(end, await claim_one(end, mail("requested")), Later(0, "deferred"))
        put(redis, [mail("approved")])
        redis.zadd("rq:scheduled:mail", {mail("requested").id: 1})
        await end.queue_due()
        fail_by_stock_worker(redis, mail("requested"))
        assert await end.sweep() == Swept(adopted=1)
        job = await claim_one(end, mail("requested"))
        assert job.revived
        await settle(end, job, Delivered("250"))
        await claim_one(end, mail("approved"))


class TestRecovery:
    async def test_nobody_recovers_until_redis_was_reached_for_one_claims_life(
        self, redis: Redis, end: MailerEnd
    ) -> None:
        put(redis, [mail("requested")])
        await claim_one(end, mail("requested"))
        await end_claims(redis)
        redis.delete(keys.RECOVERY)
        assert await end.recover() == 0, "the first contact"
        now = redis.time()[0]
        reached(redis, since=now - CLAIM_SECONDS + 5)
        assert await end.recover() == 0, "not long enough"
        reached(redis, since=now - 1000, last=now - GAP_SECONDS - 1)
        assert await end.recover() == 0, "there was an outage"
        assert await end.recover() == 0, "which is not forgotten"
        reached(redis, since=now - CLAIM_SECONDS - 1)
        assert await end.recover() == 1

    async def test_what_stands_behind_many_started_jobs_is_found(
        self, redis: Redis, end: MailerEnd, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "BATCH", 10)
        people = [ANN.model_copy(update={"address": f"p{n}@example.com"}) for n in range(300)]
        put(redis, [mail("requested", person) for person in people])
        lost = max(await claim(end, 300), key=lambda job: job.mail.id)
        redis.zrem(keys.CLAIMS, f"{lost.mail.id}:{lost.execution}")
        reached(redis, since=0)
        assert sum([await end.recover() for _ in range(100)]) == 1


class TestPoison:
    async def test_a_mail_that_was_delivered_after_all_is_no_poison(self, redis: Redis, redis_url: str) -> None:
        async with AsyncRedis.from_url(redis_url) as connection:
            end = mailer_end(connection, redis, "w1")
            put(redis, [mail("requested")])
            late = await claim_one(end, mail("requested"))
            for death in range(DEATHS_SURVIVED + 1):
                await end_claims(redis)
                await end.recover()
                if death < DEATHS_SURVIVED:
                    await claim_one(end, mail("requested"))
            await settle(end, late, Delivered("250"))
            assert (await end.claim([uuid.uuid4().hex])).poison == []
        assert receipt(redis, mail("requested"))["outcome"] == "delivered"
        assert redis.zcard("rq:failed:mail") == 0

    async def test_a_mail_whose_workers_died_twice_is_handled_alone(self, redis: Redis, end: MailerEnd) -> None:
        bad, good, more = (mail("requested", ANN.model_copy(update={"address": f"p{n}@example.com"})) for n in range(3))
        put(redis, [bad])
        for _ in range(2):
            await claim_one(end, bad)
            await end_claims(redis)
            await end.recover()
        redis.lpop("rq:queue:mail")
        put(redis, [good])
        redis.rpush("rq:queue:mail", bad.id)
        put(redis, [more])
        (first,) = await claim(end)
        assert first.mail == good
        assert await claim(end) == [], "it waits until this worker has nothing else in hand"
        await settle(end, first, Delivered("250"))
        suspect = await claim_one(end, bad)
        assert suspect.is_suspect
        await settle(end, suspect, Delivered("250"))
        assert not (await claim_one(end, more)).is_suspect

    async def test_a_job_whose_bookkeeping_is_garbage_harms_no_other(self, redis: Redis, end: MailerEnd) -> None:
        put(redis, [mail("requested", ANN), mail("requested", BOB)])
        redis.hset(f"rq:job:{mail('requested', ANN).id}", "first_tried", "yesterday")
        bad, good = (await end.claim([uuid.uuid4().hex, uuid.uuid4().hex])).jobs
        assert isinstance(bad, Malformed)
        assert isinstance(good, Claimed)


class TestReceipt:
    async def test_a_drop_keeps_nothing_of_an_earlier_death(self, redis: Redis, end: MailerEnd) -> None:
        put(redis, [mail("requested")])
        await settle(end, await claim_one(end, mail("requested")), Dead("refused", "550 no such user"))
        rq_queue(redis).failed_job_registry.requeue(mail("requested").id)
        await settle(end, await claim_one(end, mail("requested")), Dropped("settled"))
        told = receipt(redis, mail("requested"))
        assert (told["outcome"], told["reason"], told["detail"]) == ("dropped", "settled", "")


class TestFirstTry:
    async def test_a_claim_is_no_try_until_the_relay_has_met_the_mail(self, redis: Redis, end: MailerEnd) -> None:
        put(redis, [mail("requested")])
        job = await claim_one(end, mail("requested"))
        assert job.first_tried is None
        await end.release([(job.mail.id, job.execution, False)])
        job = await claim_one(end, mail("requested"))
        assert job.first_tried is None
        await settle(end, job, Later(0, "deferred"))
        for _ in range(2):
            redis.zadd("rq:scheduled:mail", {mail("requested").id: 1})
            await end.queue_due()
            again = await claim_one(end, mail("requested"))
            assert again.first_tried == pytest.approx(job.now, abs=0.001)
            await end.settle([Settlement(again.mail.id, again.execution, again.now, Later(0, "deferred"))])


class TestCounted:
    async def test_every_mail_that_is_dropped_as_canceled_is_counted(
        self, redis: Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("services.mailer.upkeep.SWEEP_SECONDS", 0.1)
        known_relay(redis)
        put(redis, [mail("requested", ANN)])
        with working(redis_url, gate := Gate()) as running:
            await wait_until(lambda: gate.in_hand, "a mail is in hand")
            put(redis, [mail("requested", BOB, "r2"), mail("approved", BOB, "r2")])
            await wait_until(lambda: len(gate.in_hand) == 2, "another is in hand")
            for of in (mail("requested", ANN), mail("requested", BOB, "r2"), mail("approved", BOB, "r2")):
                job_of(redis, of).cancel()
            await wait_until(lambda: running.metrics.dropped_as_canceled == 1, "the sweep has dropped one that waited")
            running.worker.stop()
            running.worker.stop()
            await asyncio.to_thread(running.thread.join, 20)
            assert running.metrics.dropped_as_canceled == 3
