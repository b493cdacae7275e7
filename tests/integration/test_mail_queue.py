"""The scripts of the mail queue, one rule a test, on a real Valkey."""

import json
import pickle
import uuid
import zlib
from typing import Any

import pytest
from redis import Redis
from rq.registry import FailedJobRegistry

from shared import keys
from shared.claimed import Claimed, Malformed
from shared.event_log import GROUP, EventReader
from shared.events import RequestState
from shared.mail import Dead, Delivered, Dropped, Held, Later, Mail, Met, Notice, NoticeKind, Outcome, Verdict
from shared.mail_queue.layout import job_data, rq_queue
from shared.mail_queue.mailer_end import DEATHS_SURVIVED, MailerEnd, Settled, Settlement, Swept
from shared.mail_queue.router_end import Commit, Remembered, RouterEnd
from shared.memory import RequestMemory
from tests.mails import ANN, BOB, mail, memory, put
from tests.queueing import claim, claim_one, end_claims, is_perhaps_sent, reached, receipt, settle, status
from tests.waiting import wait_for


def queued(redis: Any) -> list[str]:
    return [id_.decode() for id_ in redis.lrange("rq:queue:mail", 0, -1)]


def recalled(redis: Redis) -> RequestMemory | None:
    """What a router reads of the one request."""
    remembered = RouterEnd(redis, GROUP, "test").recall(["r1"])["r1"]
    assert isinstance(remembered, Remembered)
    return remembered.memory


ODD = '550 „niemand“ \\ "x" \0 \U0001f600'
"""A relay may answer anything."""


class TestPut:
    async def test_a_mail_is_put_once(self, redis: Redis, end: MailerEnd) -> None:
        assert put(redis, [mail("requested")]).created == 1
        assert put(redis, [mail("requested")]).existed == 1
        await claim_one(end, mail("requested"))

    async def test_a_settled_mail_is_not_put_again(self, redis: Redis, end: MailerEnd) -> None:
        put(redis, [mail("requested")])
        await settle(end, (await claim(end))[0], Delivered("250"))
        assert put(redis, [mail("requested")]).existed == 1
        assert await claim(end) == []

    def test_an_outdated_revision_writes_nothing(self, redis: Redis) -> None:
        put(redis, [mail("requested")])
        stale = Commit("1-999", "r1", "not the revision", memory(RequestState.DENIED), [mail("denied")])
        assert RouterEnd(redis, GROUP, "test").commit([stale]) == [None]
        assert status(redis, mail("denied")) is None
        remembered = recalled(redis)
        assert remembered == memory().model_copy(update={"facts": remembered.facts if remembered else None})
        assert remembered.facts.is_pending

    @pytest.mark.parametrize("gone", [False, True])
    def test_what_readers_assume_by_themselves_is_not_stored(self, redis: Redis, *, gone: bool) -> None:
        remembered = memory(gone=gone).model_copy(update={"notices": (Notice(kind=NoticeKind.REQUESTED),)})
        put(redis, [mail("requested")], remembered)
        fields: Any = redis.hgetall(keys.request("r1"))
        facts, request = json.loads(fields[b"facts"]), remembered.facts.request
        assert set(facts) == {"v", "request", "cluster", "message_id_domain"} | ({"gone"} if gone else set())
        assert request is not None
        assert set(facts["request"]) == request.model_fields_set
        assert json.loads(fields[b"told"])[0] == {"address": ANN.address, "why": "default"}
        assert json.loads(fields[b"notices"]) == [{"kind": "requested"}]
        assert (b"gone" in fields) == gone
        assert recalled(redis) == remembered

    def test_a_memory_with_everything_in_it_can_be_read(self, redis: Redis) -> None:
        """As the first routers have written it."""
        remembered = memory().model_copy(update={"notices": (Notice(kind=NoticeKind.REQUESTED),)})
        put(redis, [mail("requested")], remembered)
        whole = remembered.model_dump(mode="json")
        redis.hset(keys.request("r1"), mapping={name: json.dumps(whole[name]) for name in ("facts", "told", "notices")})
        assert recalled(redis) == remembered

    def test_two_routers_that_decide_differently_cannot_take_each_others_revision(self, redis: Redis) -> None:
        one, other = (RouterEnd(redis, GROUP, consumer) for consumer in ("one", "other"))
        assert one.commit([Commit("1-1", "r1", "", memory(), [mail("requested", ANN)])]) != [None]
        # The other one had decided the same event otherwise, and the next one upon that.
        follows = Commit("1-2", "r1", other.revision("1-1"), memory(RequestState.APPROVED), [mail("approved", BOB)])
        assert other.commit([follows]) == [None]

    def test_an_event_is_acknowledged_with_its_commit(self, redis: Redis) -> None:
        reader = EventReader(redis, "c1")
        reader.open()
        entry = redis.xadd(keys.EVENTS, {"data": "{}"})
        assert isinstance(entry, bytes)
        assert len(reader.new(10, block_milliseconds=10)) == 1
        RouterEnd(redis, GROUP, "test").commit([Commit(entry.decode(), "r1", "", memory(), [])])
        assert reader.own(10) == []

    async def test_three_hundred_recipients_fit_into_one_commit(self, redis: Redis) -> None:
        people = [ANN.model_copy(update={"address": f"p{n}@example.com"}) for n in range(300)]
        assert put(redis, [mail("requested", person) for person in people]).created == 300
        assert redis.llen("rq:queue:mail") == 300

    def test_pending_requests_are_listed_until_they_end(self, redis: Redis) -> None:
        put(redis, [mail("requested")])
        assert redis.zrange(keys.OPEN, 0, -1) == [b"r1"]
        put(redis, [mail("approved")], memory(RequestState.APPROVED))
        assert redis.zrange(keys.OPEN, 0, -1) == []


class TestThread:
    async def test_a_later_mail_waits_for_the_one_before(self, redis: Redis, end: MailerEnd) -> None:
        put(redis, [mail("requested"), mail("reviewed-1"), mail("approved")])
        for notice in ("requested", "reviewed-1", "approved"):
            job = await claim_one(end, mail(notice))
            assert await claim(end) == []
            await settle(end, job, Delivered("250"))
        assert await claim(end) == []

    @pytest.mark.parametrize("verdict", [Dead("refused", "550"), Dropped("settled"), Delivered("250")])
    async def test_whatever_becomes_of_the_head_the_next_one_comes(
        self, redis: Redis, end: MailerEnd, verdict: Verdict
    ) -> None:
        put(redis, [mail("requested"), mail("approved")])
        await settle(end, (await claim(end))[0], verdict)
        await claim_one(end, mail("approved"))

    async def test_threads_of_two_people_do_not_wait_for_each_other(self, redis: Redis, end: MailerEnd) -> None:
        put(redis, [mail("requested", ANN), mail("requested", BOB), mail("approved", ANN)])
        assert [job.mail for job in await claim(end)] == [mail("requested", ANN), mail("requested", BOB)]

    async def test_a_mail_knows_whether_its_thread_was_announced(self, redis: Redis, end: MailerEnd) -> None:
        put(redis, [mail("requested", ANN), mail("approved", ANN), mail("requested", BOB), mail("approved", BOB)])
        ann, bob = await claim(end)
        await settle(end, ann, Delivered("250"))
        await settle(end, bob, Dead("refused", "550"))
        assert {job.mail.recipient: job.announced for job in await claim(end)} == {ANN: True, BOB: False}

    async def test_a_thread_whose_head_was_deleted_is_freed_by_the_sweep(self, redis: Redis, end: MailerEnd) -> None:
        put(redis, [mail("requested"), mail("approved")])
        redis.delete(f"rq:job:{mail('requested').id}")
        assert await claim(end) == []
        assert await end.sweep() == Swept(freed=1)
        await claim_one(end, mail("approved"))


class TestClaim:
    async def test_a_claimed_mail_brings_its_facts(self, redis: Redis, end: MailerEnd) -> None:
        put(redis, [mail("requested")])
        job = await claim_one(end, mail("requested"))
        assert job.facts is not None
        assert job.facts.request is not None
        assert job.facts.request.request_reason == "because"
        assert (job.attempts, job.revived, job.receipt, job.announced) == (0, False, None, False)

    async def test_a_memory_of_a_later_version_concerns_its_own_mails_alone(self, redis: Redis, end: MailerEnd) -> None:
        put(redis, [mail("requested", request_id="r2")], memory(request_id="r2"))
        put(redis, [mail("requested")])
        redis.hset(keys.request("r2"), "facts", '{"v": 2}')
        bad, good = (await end.claim([uuid.uuid4().hex, uuid.uuid4().hex])).jobs
        assert isinstance(bad, Malformed)
        assert "cannot be read" in bad.error
        assert isinstance(good, Claimed)
        await end.settle([Settlement(bad.id, bad.execution, bad.now, Dead("malformed", bad.error))])

    async def test_suspended_workers_take_nothing(self, redis: Redis, end: MailerEnd) -> None:
        put(redis, [mail("requested")])
        redis.set("rq:suspended", 1)
        assert await claim(end) == []
        redis.delete("rq:suspended")
        await claim_one(end, mail("requested"))

    async def test_a_renewed_claim_is_held_and_a_lost_one_is_told(self, redis: Redis, end: MailerEnd) -> None:
        put(redis, [mail("requested", ANN), mail("requested", BOB)])
        ann, bob = await claim(end)
        redis.zrem(keys.CLAIMS, f"{bob.mail.id}:{bob.execution}")
        lost = await end.renew([(ann.mail.id, ann.execution), (bob.mail.id, bob.execution)])
        assert lost == {bob.execution}

    async def test_a_pickled_job_is_refused_unread(self, redis: Redis, end: MailerEnd) -> None:
        bomb = pickle.dumps(("services.mailer.jobs.send_mail", None, [Explosive()], {}))
        redis.hset("rq:job:bomb", mapping={"status": "queued", "origin": "mail", "data": zlib.compress(bomb)})
        redis.rpush("rq:queue:mail", "bomb")
        (job,) = (await end.claim([uuid.uuid4().hex])).jobs
        assert isinstance(job, Malformed)
        assert "no mail in JSON" in job.error
        await end.settle([Settlement(job.id, job.execution, job.now, Dead("malformed", job.error))])
        assert FailedJobRegistry(queue=rq_queue(redis)).get_job_ids() == ["bomb"]

    async def test_a_job_that_unpacks_to_gigabytes_is_refused(self, redis: Redis, end: MailerEnd) -> None:
        redis.hset(
            "rq:job:big", mapping={"status": "queued", "origin": "mail", "data": zlib.compress(b" " * 50_000_000)}
        )
        redis.rpush("rq:queue:mail", "big")
        (job,) = (await end.claim([uuid.uuid4().hex])).jobs
        assert isinstance(job, Malformed)
        await end.settle([Settlement(job.id, job.execution, job.now, Dead("malformed", job.error))])


class Explosive:
    """Unpickling it would fail the test."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (pytest.fail, ("was unpickled",))


class TestSettle:
    async def test_a_receipt_tells_what_became_of_it(self, redis: Redis, end: MailerEnd) -> None:
        put(redis, [mail("requested")])
        await settle(end, await claim_one(end, mail("requested")), Delivered("250 queued as 1"))
        told = receipt(redis, mail("requested"))
        assert (told["outcome"], told["detail"], told["attempts"], told["perhaps"]) == (
            "delivered",
            "250 queued as 1",
            "1",
            "0",
        )
        assert status(redis, mail("requested")) is None

    async def test_later_is_counted_and_comes_due(self, redis: Redis, end: MailerEnd) -> None:
        put(redis, [mail("requested")])
        await settle(end, await claim_one(end, mail("requested")), Later(0, "deferred"))
        assert status(redis, mail("requested")) == "scheduled"
        wait_for(lambda: redis.zrangebyscore("rq:scheduled:mail", "-inf", redis.time()[0]), "the pause is over")
        assert await end.queue_due() == 1
        assert (await claim_one(end, mail("requested"))).attempts == 1

    async def test_a_busy_relay_costs_no_attempt_and_yet_the_mail_was_tried(self, redis: Redis, end: MailerEnd) -> None:
        put(redis, [mail("requested")])
        job = await claim_one(end, mail("requested"))
        await settle(end, job, Later(0, "busy", met=Met.BUSY))
        redis.zadd("rq:scheduled:mail", {mail("requested").id: 1})
        await end.queue_due()
        again = await claim_one(end, mail("requested"))
        assert (again.attempts, again.first_tried) == (0, job.now)

    async def test_a_pause_is_kept(self, redis: Redis, end: MailerEnd) -> None:
        put(redis, [mail("requested")])
        await settle(end, await claim_one(end, mail("requested")), Later(60, "deferred"))
        assert await end.queue_due() == 0

    async def test_a_lost_claim_writes_the_receipt_and_nothing_else(self, redis: Redis, end: MailerEnd) -> None:
        put(redis, [mail("requested")])
        late = await claim_one(end, mail("requested"))
        await end_claims(redis)
        await end.recover()
        again = await claim_one(end, mail("requested"))
        assert await settle(end, late, Later(60, "deferred")) == (1, 0)
        assert status(redis, mail("requested")) == "started"
        assert await settle(end, late, Delivered("250")) == (1, 0)
        assert status(redis, mail("requested")) == "started"
        assert await settle(end, again, Dead("refused", "550")) == (0, 0)
        assert receipt(redis, mail("requested"))["outcome"] == "delivered"
        assert status(redis, mail("requested")) is None

    async def test_what_is_settled_at_once_is_settled_each_by_itself(self, redis: Redis, end: MailerEnd) -> None:
        people = [ANN.model_copy(update={"address": f"p{n}@example.com"}) for n in range(6)]
        put(redis, [mail(notice, person) for notice in ("requested", "approved") for person in people])
        jobs = await claim(end)
        lost = jobs[5]
        redis.hset(f"rq:job:{lost.mail.id}", "claim", "another")
        verdicts: list[Verdict] = [
            Delivered("250"),
            Later(60, "busy"),
            Held("connect"),
            Dropped("settled"),
            Dead("refused", ODD),
        ]
        settled = [
            Settlement(job.mail.id, job.execution, job.now, verdict)
            for job, verdict in zip(jobs, [*verdicts, Delivered("250")], strict=True)
        ]
        assert await end.settle(settled) == Settled(lost=1, canceled=0, faults=[])
        states = [status(redis, job.mail) for job in jobs]
        assert states == [None, "scheduled", "queued", None, "failed", "started"]
        outcomes = [receipt(redis, job.mail).get("outcome") for job in jobs]
        assert outcomes == ["delivered", None, None, "dropped", "dead", "delivered"]
        assert receipt(redis, jobs[4].mail)["detail"] == ODD
        following = [status(redis, mail("approved", person)) for person in people]
        assert following == ["queued", "deferred", "deferred", "queued", "queued", "deferred"]
        left: Any = [*redis.scan_iter("rq:execution*"), *redis.scan_iter("rq:worker:*:executions")]
        assert left == [], "nobody has any of them in hand"
        assert [redis.zcard(key) for key in (keys.CLAIMS, "rq:wip:mail")] == [0, 0]

    async def test_a_late_delivery_takes_its_mail_out_of_the_dead_letters(self, redis: Redis, end: MailerEnd) -> None:
        put(redis, [mail("requested")])
        late = await claim_one(end, mail("requested"))
        await end_claims(redis)
        await end.recover()
        await settle(end, await claim_one(end, mail("requested")), Dead("refused", "550"))
        await settle(end, late, Delivered("250"))
        assert redis.zcard("rq:failed:mail") == 0
        assert receipt(redis, mail("requested"))["outcome"] == "delivered"


class TestFaults:
    """Somebody has written a value of another type under a key of one mail."""

    async def test_a_job_that_cannot_be_claimed_waits_behind_all_others(self, redis: Redis, end: MailerEnd) -> None:
        mails = [mail("requested", ANN.model_copy(update={"address": f"p{n}@example.com"})) for n in range(3)]
        put(redis, mails)
        redis.set(keys.receipt(mails[1].id), "a text", ex=60)
        claims = await end.claim(["e1", "e2", "e3", "e4"])
        assert [job.execution for job in claims.jobs] == ["e1", "e3"]
        assert [fault.partition(": ")[0] for fault in claims.faults] == [mails[1].id]
        assert "WRONGTYPE" in claims.faults[0]
        assert queued(redis) == [mails[1].id]
        assert not list(redis.scan_iter(f"rq:execution*{mails[1].id}*")), (
            "it is tried often, and leaves nothing each time"
        )
        redis.delete(keys.receipt(mails[1].id))
        assert not (await claim_one(end, mails[1])).perhaps

    async def test_a_death_is_counted_once_however_often_its_job_cannot_be_claimed(
        self, redis: Redis, end: MailerEnd
    ) -> None:
        put(redis, [mail("requested")])
        await claim_one(end, mail("requested"))
        await end_claims(redis)
        await end.recover()
        redis.set(keys.request("r1"), "a text", ex=60)
        for _ in range(DEATHS_SURVIVED + 1):
            claims = await end.claim(["e1"])
            assert (claims.poison, len(claims.faults)) == ([], 1)
        redis.delete(keys.request("r1"))
        assert (await claim_one(end, mail("requested"))).perhaps
        assert redis.hget(f"rq:job:{mail('requested').id}", "deaths") == b"1"

    async def test_a_job_whose_list_of_executions_is_foreign_leaves_none_each_time(
        self, redis: Redis, end: MailerEnd
    ) -> None:
        put(redis, [mail("requested")])
        redis.set(f"rq:executions:{mail('requested').id}", "a text", ex=60)
        assert len((await end.claim(["e1"])).faults) == 1
        assert not list(redis.scan_iter("rq:execution:*"))
        assert (status(redis, mail("requested")), queued(redis)) == ("queued", [mail("requested").id])
        redis.delete(f"rq:executions:{mail('requested').id}")
        assert not (await claim_one(end, mail("requested"))).perhaps

    async def test_a_job_that_cannot_be_settled_comes_back_and_the_others_are_settled(
        self, redis: Redis, end: MailerEnd
    ) -> None:
        mails = [mail("requested", ANN.model_copy(update={"address": f"p{n}@example.com"})) for n in range(3)]
        put(redis, mails)
        jobs = await claim(end)
        redis.set(keys.receipt(mails[1].id), "a text", ex=60)
        settled = await end.settle([Settlement(job.mail.id, job.execution, job.now, Delivered("250")) for job in jobs])
        assert [fault.partition(": ")[0] for fault in settled.faults] == [mails[1].id]
        assert [status(redis, one) for one in mails] == [None, "started", None]
        redis.delete(keys.receipt(mails[1].id))
        reached(redis, since=0)
        assert await end.recover() == 1
        assert (await claim_one(end, mails[1])).perhaps

    async def test_a_held_job_that_cannot_be_put_back_comes_back_later(self, redis: Redis, end: MailerEnd) -> None:
        put(redis, [mail("requested")])
        job = await claim_one(end, mail("requested"))
        redis.set(keys.receipt(job.mail.id), "a text", ex=60)
        settled = await end.settle([Settlement(job.mail.id, job.execution, job.now, Held("connect"))])
        assert len(settled.faults) == 1
        redis.delete(keys.receipt(job.mail.id))
        reached(redis, since=0)
        assert await end.recover() == 1
        assert queued(redis) == [job.mail.id]


class TestDeath:
    async def test_what_a_dead_worker_held_is_queued_again_and_perhaps_sent(self, redis: Redis, end: MailerEnd) -> None:
        put(redis, [mail("requested")])
        await claim_one(end, mail("requested"))
        assert await end.recover() == 0, "the claim still lives"
        await end_claims(redis)
        assert await end.recover() == 1
        await claim_one(end, mail("requested"))
        assert is_perhaps_sent(redis, mail("requested"))

    async def test_a_mail_survives_three_deaths_in_a_row(self, redis: Redis, end: MailerEnd) -> None:
        put(redis, [mail("requested"), mail("approved")])
        for _ in range(DEATHS_SURVIVED + 1):
            await claim_one(end, mail("requested"))
            await end_claims(redis)
            await end.recover()
        claims = await end.claim([uuid.uuid4().hex])
        assert (claims.jobs, claims.poison) == ([], [mail("requested").id])
        assert receipt(redis, mail("requested"))["reason"] == "poison"
        await claim_one(end, mail("approved"))

    async def test_a_suspect_and_what_is_behind_it_keep_their_places(self, redis: Redis, end: MailerEnd) -> None:
        people = [ANN.model_copy(update={"address": f"p{n}@example.com"}) for n in range(5)]
        mails = [mail("requested", person) for person in people]
        put(redis, mails)
        redis.hset(f"rq:job:{mails[1].id}", "deaths", "2")
        (first,) = await claim(end)
        assert first.mail == mails[0]
        assert queued(redis) == [one.id for one in mails[1:]]
        await settle(end, first, Delivered("250"))
        suspect = await claim_one(end, mails[1])
        assert suspect.is_suspect
        assert queued(redis) == [one.id for one in mails[2:]]
        await settle(end, suspect, Delivered("250"))
        assert [job.mail for job in await claim(end)] == mails[2:]

    async def test_only_deaths_in_a_row_count(self, redis: Redis, end: MailerEnd) -> None:
        put(redis, [mail("requested")])
        for _ in range(DEATHS_SURVIVED * 2):
            await claim_one(end, mail("requested"))
            await end_claims(redis)
            await end.recover()
            job = await claim_one(end, mail("requested"))
            await end.release([(job.mail.id, job.execution, False)])
        await claim_one(end, mail("requested"))

    async def test_released_mails_go_back_to_the_head_in_their_order(self, redis: Redis, end: MailerEnd) -> None:
        people = [ANN.model_copy(update={"address": f"p{n}@example.com"}) for n in range(4)]
        put(redis, [mail("requested", person) for person in people])
        first = await claim(end, 2)
        assert await end.release([(job.mail.id, job.execution, False) for job in first]) == (2, 0)
        again = await claim(end)
        assert [job.mail.recipient for job in again] == people
        assert not any(is_perhaps_sent(redis, job.mail) or job.attempts for job in again)

    async def test_a_released_mail_that_was_leaving_is_perhaps_sent(self, redis: Redis, end: MailerEnd) -> None:
        put(redis, [mail("requested")])
        job = await claim_one(end, mail("requested"))
        await end.release([(job.mail.id, job.execution, True)])
        await claim_one(end, mail("requested"))
        assert is_perhaps_sent(redis, mail("requested"))

    async def test_rq_info_after_a_death_fails_nothing(self, redis: Redis, end: MailerEnd) -> None:
        put(redis, [mail("requested")])
        await claim_one(end, mail("requested"))
        await end_claims(redis)
        queue = rq_queue(redis)
        assert queue.started_job_registry.count == 1
        assert queue.failed_job_registry.count == 0
        await end.recover()
        await claim_one(end, mail("requested"))


class TestDeadLetters:
    async def test_a_requeued_dead_letter_starts_afresh(self, redis: Redis, end: MailerEnd) -> None:
        put(redis, [mail("requested")])
        await settle(end, await claim_one(end, mail("requested")), Later(0, "deferred"))
        redis.zadd("rq:scheduled:mail", {mail("requested").id: 1})
        await end.queue_due()
        await settle(end, await claim_one(end, mail("requested")), Dead("refused", "550 no such user"))
        assert receipt(redis, mail("requested"))["attempts"] == "2"
        rq_queue(redis).failed_job_registry.requeue(mail("requested").id)
        job = await claim_one(end, mail("requested"))
        assert (job.revived, job.attempts) == (True, 0)
        assert job.receipt is not None
        assert job.receipt.outcome is Outcome.DEAD
        await settle(end, job, Later(0, "deferred"))
        redis.zadd("rq:scheduled:mail", {mail("requested").id: 1})
        await end.queue_due()
        job = await claim_one(end, mail("requested"))
        assert (job.revived, job.attempts) == (True, 1)
        await settle(end, job, Delivered("250"))
        assert receipt(redis, mail("requested"))["outcome"] == "delivered"

    async def test_the_receipt_of_a_letter_that_is_delivered_after_all_says_nothing_of_its_death(
        self, redis: Redis, end: MailerEnd
    ) -> None:
        put(redis, [mail("requested")])
        await settle(end, await claim_one(end, mail("requested")), Dead("refused", "550"))
        assert receipt(redis, mail("requested"))["reason"] == "refused"
        rq_queue(redis).failed_job_registry.requeue(mail("requested").id)
        job = await claim_one(end, mail("requested"))
        assert receipt(redis, mail("requested"))["perhaps"] == "1", "its mailer might die now"
        await settle(end, job, Delivered("250 taken"))
        fields: Any = redis.hgetall(keys.receipt(job.mail.id))
        assert set(fields) == {b"v", b"outcome", b"at", b"attempts", b"detail"}, "and holds no empty field"
        assert 0 <= redis.time()[0] - int(fields[b"at"]) < 60
        assert 0 < redis.ttl(keys.receipt(job.mail.id)) <= 30 * 24 * 3600

    @pytest.mark.parametrize("back", [Held("connect"), Later(0, "temporary"), None])
    async def test_a_replayed_letter_that_never_left_was_not_perhaps_sent(
        self, redis: Redis, end: MailerEnd, back: Verdict | None
    ) -> None:
        put(redis, [mail("requested")])
        await settle(end, await claim_one(end, mail("requested")), Dead("refused", "550"))
        rq_queue(redis).failed_job_registry.requeue(mail("requested").id)
        job = await claim_one(end, mail("requested"))
        assert receipt(redis, mail("requested"))["perhaps"] == "1", "its mailer might die now"
        if back is None:
            await end.release([(job.mail.id, job.execution, False)])
        else:
            await settle(end, job, back)
        assert receipt(redis, mail("requested"))["perhaps"] == "0"

    async def test_a_replayed_letter_that_was_perhaps_sent_before_still_was(self, redis: Redis, end: MailerEnd) -> None:
        put(redis, [mail("requested")])
        await settle(end, await claim_one(end, mail("requested")), Dead("ambiguous", perhaps=True))
        rq_queue(redis).failed_job_registry.requeue(mail("requested").id)
        await settle(end, await claim_one(end, mail("requested")), Held("connect"))
        assert receipt(redis, mail("requested"))["perhaps"] == "1"

    async def test_who_replays_a_letter_agrees_to_what_was_perhaps_sent_before_and_to_no_more(
        self, redis: Redis, end: MailerEnd
    ) -> None:
        put(redis, [mail("requested")])
        await settle(end, await claim_one(end, mail("requested")), Dead("ambiguous", perhaps=True))
        rq_queue(redis).failed_job_registry.requeue(mail("requested").id)
        job = await claim_one(end, mail("requested"))
        assert not job.perhaps
        await end.release([(job.mail.id, job.execution, False)])
        job = await claim_one(end, mail("requested"))
        assert not job.perhaps, "it has not left again"
        await end.release([(job.mail.id, job.execution, True)])
        assert (await claim_one(end, mail("requested"))).perhaps

    async def test_who_replays_a_letter_agrees_to_nothing_that_dies_with_a_worker(
        self, redis: Redis, end: MailerEnd
    ) -> None:
        put(redis, [mail("requested")])
        await settle(end, await claim_one(end, mail("requested")), Dead("ambiguous", perhaps=True))
        rq_queue(redis).failed_job_registry.requeue(mail("requested").id)
        await claim_one(end, mail("requested"))
        await end_claims(redis)
        await end.recover()
        job = await claim_one(end, mail("requested"))
        assert (job.revived, job.perhaps) == (True, True)

    async def test_a_replayed_letter_waits_for_its_turn(self, redis: Redis, end: MailerEnd) -> None:
        put(redis, [mail("requested"), mail("approved")])
        await settle(end, await claim_one(end, mail("requested")), Dead("refused", "550"))
        approved = await claim_one(end, mail("approved"))
        rq_queue(redis).failed_job_registry.requeue(mail("requested").id)
        assert await claim(end) == []
        assert status(redis, mail("requested")) == "deferred"
        await settle(end, approved, Dropped("never_announced"))
        assert (await claim_one(end, mail("requested"))).revived

    async def test_what_a_stock_worker_failed_is_put_back(self, redis: Redis, end: MailerEnd) -> None:
        put(redis, [mail("requested")])
        queue = rq_queue(redis)
        job = queue.fetch_job(mail("requested").id)
        assert job is not None
        redis.lpop("rq:queue:mail")
        queue.failed_job_registry.add(job, ttl=1000, exc_string="by a stock worker")
        redis.hset(f"rq:job:{job.id}", "status", "failed")
        assert await end.sweep() == Swept(adopted=1)
        again = await claim_one(end, mail("requested"))
        assert not again.revived

    async def test_our_own_dead_letters_stay_dead(self, redis: Redis, end: MailerEnd) -> None:
        put(redis, [mail("requested")])
        await settle(end, await claim_one(end, mail("requested")), Dead("refused", "550"))
        assert await end.sweep() == Swept()
        assert status(redis, mail("requested")) == "failed"


def test_job_data_is_what_rq_reads() -> None:
    function, instance, arguments, keywords = json.loads(job_data(mail("requested")))
    assert (function, instance, keywords) == ("services.mailer.jobs.send_mail", None, {})
    assert Mail.model_validate(arguments[0]) == mail("requested")
