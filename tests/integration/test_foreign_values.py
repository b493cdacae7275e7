"""What another program has written into a mail's keys concerns that mail alone, and ends as a dead letter at worst."""

from collections.abc import Callable, Iterator

import pytest
from redis import Redis
from redis.exceptions import ResponseError

from services.mailer.mailroom import Mailroom
from shared import keys
from shared.claimed import Claimed, Malformed
from shared.mail import Mail
from shared.mail_queue.depth import DepthReader, State
from shared.mail_queue.mailer_end import MailerEnd
from simulators.mailbox import Mailbox, Rule
from tests.mails import ANN, BOB, mail, put
from tests.queueing import claim, claim_one, end_claims, reached, receipt, status
from tests.waiting import wait_for
from tests.working import Gate, delivered, mailroom, put_many, working

VALUES = (b"", b"many", b"7", b"-70", b"1.5", b"nan", b"-inf", b"0x10", b" 1", b"9" * 5000, b"\xff\x00", b"[" * 5000)
FOREIGN = [f"f{number}@example.com" for number in range(len(VALUES))]
DELIVERED, MALFORMED, POISON, UNKNOWN = "delivered", "dead malformed", "dead poison", "dead request_unknown"
SAID = {
    DELIVERED: "",
    MALFORMED: "job {} is a dead letter: its ",
    POISON: "mail {} is a dead letter: its workers died too often in a row",
    UNKNOWN: "mail {} is a dead letter: request_unknown",
}


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> Iterator[Mailroom]:
    """Its relay puts each of the foreign ones off twice: it is tried again, soon."""
    monkeypatch.setattr("services.mailer.upkeep.DUE_SECONDS", 0.05)
    with Mailbox().run_in_thread() as mailbox:
        mailbox.rules = [Rule("data", "450 4.2.0 later", recipient=address, times=2) for address in FOREIGN]
        yield mailroom(mailbox, first_pause="10ms", longest_pause="20ms")


def outcome(redis: Redis, of: Mail) -> str:
    told = receipt(redis, of)
    return f"{told['outcome']} {told['reason']}".rstrip() if told else ""


@pytest.mark.parametrize(
    ("field", "ends"),
    [
        ("attempts", {DELIVERED, MALFORMED}),
        ("first_tried", {DELIVERED, MALFORMED}),
        ("deaths", {DELIVERED, POISON}),
        ("perhaps", {DELIVERED}),
        ("revived", {DELIVERED}),
        ("consent", {DELIVERED}),
        ("claim", {DELIVERED}),
        ("data", {MALFORMED}),
        ("request", {UNKNOWN}),
    ],
)
def test_whatever_stands_in_a_field_of_a_job_every_mail_comes_to_its_end(
    redis: Redis, redis_url: str, room: Mailroom, caplog: pytest.LogCaptureFixture, *, field: str, ends: set[str]
) -> None:
    put_many(redis, 3)
    foreign = [mail("requested", ANN.model_copy(update={"address": address})) for address in FOREIGN]
    put(redis, foreign)
    for one, value in zip(foreign, VALUES, strict=True):
        redis.hset(f"rq:job:{one.id}", field, value)
    with working(redis_url, room) as running:
        wait_for(lambda: all(receipt(redis, one) for one in foreign), "each has its receipt", 20)
        wait_for(lambda: delivered(redis) >= 3, "so have the others")
    assert running.error is None
    found = {one.id: outcome(redis, one) for one in foreign}
    assert set(found.values()) == ends
    assert all(SAID[end].format(id_) in caplog.text for id_, end in found.items())
    assert redis.llen("rq:queue:mail") == 0


class TestUnreadableKeys:
    """Somebody has written what we cannot read under a key of one mail that is in hand, in the queue, or dead."""

    @pytest.mark.parametrize("key", [keys.receipt(mail("requested").id), keys.request("r1")])
    async def test_a_key_of_another_type_keeps_no_other_mail_from_being_looked_at(
        self, redis: Redis, end: MailerEnd, key: str
    ) -> None:
        put(redis, [mail("requested")])
        put(redis, [mail("requested", request_id="r2")])
        jobs = await claim(end)
        redis.set(key, "a text", ex=60)
        assert [job.mail for job in await end.look_again(jobs)] == [mail("requested", request_id="r2")]

    @pytest.mark.parametrize("outcome", ["postponed", b"\xff"])
    async def test_an_outcome_that_we_do_not_know_keeps_only_its_mail_back(
        self, redis: Redis, end: MailerEnd, outcome: str | bytes
    ) -> None:
        put(redis, [mail("requested", ANN), mail("requested", BOB)])
        jobs = await claim(end)
        redis.hset(keys.receipt(mail("requested", ANN).id), "outcome", outcome)
        redis.expire(keys.receipt(mail("requested", ANN).id), 60)
        assert [job.mail for job in await end.look_again(jobs)] == [mail("requested", BOB)]
        (again,) = [job for job in jobs if job.mail == mail("requested", ANN)]
        await end.release([(again.mail.id, again.execution, False)])
        (bad,) = (await end.claim(["e1"])).jobs
        assert isinstance(bad, Malformed)

    async def test_a_job_of_another_type_is_lost_and_the_claims_of_all_others_are_renewed(
        self, redis: Redis, end: MailerEnd
    ) -> None:
        bad, good = await self._two_of_which_one_is_a_text(redis, end)
        redis.zadd(keys.CLAIMS, {f"{good.mail.id}:{good.execution}": 1.0})
        assert await end.renew([(bad.mail.id, bad.execution), (good.mail.id, good.execution)]) == {bad.execution}
        assert redis.zcount(keys.CLAIMS, redis.time()[0], "+inf") == 2, "the lost one lives until its old end"

    async def test_a_job_of_another_type_keeps_no_other_from_going_back(self, redis: Redis, end: MailerEnd) -> None:
        bad, good = await self._two_of_which_one_is_a_text(redis, end)
        held = [(job.mail.id, job.execution, False) for job in (good, bad)]
        assert await end.release(held) == (1, 0)
        assert status(redis, good.mail) == "queued"

    @pytest.mark.parametrize("key", [keys.receipt(mail("requested").id), f"rq:executions:{mail('requested').id}"])
    async def test_a_mail_that_cannot_go_back_is_not_lost(self, redis: Redis, end: MailerEnd, key: str) -> None:
        put(redis, [mail("requested")])
        job = await claim_one(end, mail("requested"))
        redis.set(key, "a text", ex=60)
        await end.release([(job.mail.id, job.execution, False)])
        redis.delete(key)
        reached(redis, since=0)
        await end.recover()
        assert status(redis, job.mail) == "queued"
        await claim_one(end, job.mail)

    async def test_a_mail_of_a_dead_mailer_whose_list_of_executions_is_foreign_is_not_lost(
        self, redis: Redis, end: MailerEnd
    ) -> None:
        put(redis, [mail("requested")])
        await claim_one(end, mail("requested"))
        redis.set(f"rq:executions:{mail('requested').id}", "a text", ex=60)
        await end_claims(redis)
        assert await end.recover() == 1
        redis.delete(f"rq:executions:{mail('requested').id}")
        await claim_one(end, mail("requested"))

    async def _two_of_which_one_is_a_text(self, redis: Redis, end: MailerEnd) -> list[Claimed]:
        put(redis, [mail("requested", ANN), mail("requested", BOB)])
        bad, good = await claim(end)
        redis.set(f"rq:job:{bad.mail.id}", "a text", ex=60)
        return [bad, good]

    async def test_two_mails_of_a_request_whose_memory_is_of_another_type_wait_both(
        self, redis: Redis, end: MailerEnd
    ) -> None:
        put(redis, [mail("requested", ANN), mail("requested", BOB)])
        redis.set(keys.request("r1"), "a text", ex=60)
        claims = await end.claim(["e1", "e2"])
        assert claims.jobs == []
        assert len(claims.faults) == 2

    async def test_an_id_that_is_no_text_is_never_taken(self, redis: Redis, end: MailerEnd) -> None:
        put(redis, [mail("requested")])
        redis.hset(b"rq:job:\xff", "status", "queued")
        redis.expire(b"rq:job:\xff", 60)
        redis.lpush("rq:queue:mail", b"\xff")
        claims = await end.claim(["e1", "e2"])
        assert [job.execution for job in claims.jobs] == ["e2"]
        assert len(claims.faults) == 1

    def test_a_head_of_the_queue_that_is_no_job_hides_no_count(self, redis: Redis) -> None:
        redis.set("rq:job:text", "a text", ex=60)
        redis.hset("rq:job:odd", "enqueued_at", b"\xff")
        redis.expire("rq:job:odd", 60)
        for queued, head in enumerate(("text", "odd"), start=1):
            redis.lpush("rq:queue:mail", head)
            depth = DepthReader(redis).read()
            assert (depth.jobs[State.QUEUED], depth.oldest) == (queued, None)


@pytest.fixture
def no_writes(redis: Redis) -> Iterator[Callable[[], bool]]:
    """Makes Redis refuse whatever is to be written, as while it fails over."""
    try:
        yield lambda: bool(redis.config_set("min-replicas-to-write", 1))
    finally:
        redis.config_set("min-replicas-to-write", 0)


class TestRefusalOfRedis:
    """What Redis refuses to everybody is the fault of no job."""

    async def test_no_claim_is_lost_by_it(self, redis: Redis, end: MailerEnd, no_writes: Callable[[], bool]) -> None:
        put(redis, [mail("requested")])
        job = await claim_one(end, mail("requested"))
        no_writes()
        with pytest.raises(ResponseError, match="NOREPLICAS"):
            await end.renew([(job.mail.id, job.execution)])

    async def test_nothing_passes_for_given_back(
        self, redis: Redis, end: MailerEnd, no_writes: Callable[[], bool]
    ) -> None:
        put(redis, [mail("requested")])
        job = await claim_one(end, mail("requested"))
        no_writes()
        with pytest.raises(ResponseError, match="NOREPLICAS"):
            await end.release([(job.mail.id, job.execution, False)])

    async def test_a_sweep_accuses_no_job(self, redis: Redis, end: MailerEnd, no_writes: Callable[[], bool]) -> None:
        put(redis, [mail("requested"), mail("approved")])
        redis.delete(f"rq:job:{mail('requested').id}")
        no_writes()
        with pytest.raises(ResponseError, match="NOREPLICAS"):
            await end.sweep()


def test_a_dead_letter_that_cannot_be_looked_at_is_said_once_and_stops_no_sweep(
    redis: Redis, redis_url: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.mailer.upkeep.SWEEP_SECONDS", 0.05)
    put(redis, [mail("requested", ANN), mail("requested", BOB)])
    for person in (ANN, BOB):
        redis.lrem("rq:queue:mail", 0, mail("requested", person).id)
        redis.hset(f"rq:job:{mail('requested', person).id}", "status", "failed")
        redis.zadd("rq:failed:mail", {mail("requested", person).id: 4_000_000_000})
    redis.set(keys.receipt(mail("requested", ANN).id), "a text", ex=60)
    gate = Gate()
    gate.open()
    with working(redis_url, gate) as running:
        wait_for(lambda: outcome(redis, mail("requested", BOB)) == DELIVERED, "the other one is put back and sent")
        wait_for(lambda: "cannot handle" in caplog.text, "it is said")
        assert running.worker.trouble is None
        assert running.metrics.redis_failures == 0
    redis.delete(f"rq:job:{mail('requested', ANN).id}")
