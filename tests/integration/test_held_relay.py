"""The breaker and the pace that all mailers share through Redis, one rule a test."""

import uuid
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from redis import Redis
from redis.asyncio import Redis as AsyncRedis

from shared import keys
from shared.claimed import Claimed
from shared.mail import Dead, Delivered, Dropped, Held, Later, Mail, Met, Verdict
from shared.mail_queue.mailer_end import Claims, MailerEnd, Settlement
from tests.mails import ANN, mail, put
from tests.queueing import RELAY, claim, claim_one, end_claims, known_relay, mailer_end, settle, status
from tests.waiting import wait_until

AWAY = Held("connect", "refused")
SENDER_REFUSED = Later(10, "sender_refused", "550 5.7.1", met=Met.REFUSED_US)


def mails(number: int) -> list[Mail]:
    people = [ANN.model_copy(update={"address": f"p{n}@example.com"}) for n in range(number)]
    return [mail("requested", person) for person in people]


async def ask(end: MailerEnd, most: int = 100) -> Claims:
    return await end.claim([uuid.uuid4().hex for _ in range(most)])


async def only(claims: Claims) -> Claimed:
    (job,) = claims.jobs
    assert isinstance(job, Claimed)
    return job


async def probe(end: MailerEnd) -> Claimed:
    """Wait until a probe may go."""
    found: list[Claims] = []

    async def is_given() -> bool:
        found.append(await ask(end))
        return bool(found[-1].jobs)

    await wait_until(is_given, "a probe may go")
    assert found[-1].is_probe
    return await only(found[-1])


async def hold(end: MailerEnd) -> None:
    """Let the relay turn a mail away."""
    (job,) = await claim(end, 1)
    await settle(end, job, AWAY)


@pytest.fixture
async def other(redis: Redis, redis_url: str) -> AsyncIterator[MailerEnd]:
    """Another mailer's end."""
    async with AsyncRedis.from_url(redis_url) as connection:
        yield mailer_end(connection, redis, "w2")


def age(redis: Redis, seconds: float) -> None:
    """Let the relay have been as it is for longer."""
    redis.hincrbyfloat(keys.relay(RELAY.name), "changed", -seconds)


class TestOpens:
    async def test_a_mail_that_met_it_goes_back_untouched_and_nobody_claims(
        self, redis: Redis, end: MailerEnd, other: MailerEnd
    ) -> None:
        put(redis, mails(5))
        first, second = await claim(end, 2)
        await settle(end, second, AWAY)
        await settle(end, first, AWAY)
        order = [one.id.encode() for one in mails(5)]
        assert redis.lrange("rq:queue:mail", 0, -1) == order
        assert status(redis, first.mail) == "queued"
        for one, longest in ((other, RELAY.first_probe), (end, 1.5 * RELAY.first_probe)):
            claims = await ask(one)
            assert (claims.jobs, claims.relay.held, claims.relay.detail) == ([], "connect", "refused")
            assert 0 < claims.pause <= longest
        assert redis.zcard("rq:failed:mail") == redis.zcard("rq:scheduled:mail") == 0
        job = await probe(end)
        assert (job.mail, job.attempts, job.first_tried) == (first.mail, 0, None)

    async def test_mails_that_met_it_together_keep_their_order(self, redis: Redis, end: MailerEnd) -> None:
        put(redis, mails(5))
        jobs = await claim(end, 3)
        await end.settle([Settlement(job.mail.id, job.execution, job.now, AWAY) for job in jobs])
        assert redis.lrange("rq:queue:mail", 0, -1) == [one.id.encode() for one in mails(5)]

    async def test_three_refused_senders_in_a_row_open_it(self, redis: Redis, end: MailerEnd) -> None:
        put(redis, mails(6))
        first, second, third, *_ = await claim(end, 3)
        await settle(end, first, SENDER_REFUSED)
        await settle(end, second, SENDER_REFUSED)
        assert (await ask(end, 1)).relay.held is None
        await settle(end, third, SENDER_REFUSED)
        assert (await ask(end)).relay.held == "sender_refused"
        assert status(redis, first.mail) == "scheduled"
        assert status(redis, third.mail) == "queued", "it is no mail's fault any more"
        job = await probe(end)
        await settle(end, job, SENDER_REFUSED)
        claims = await ask(end)
        assert (claims.relay.held, claims.jobs) == ("sender_refused", [])
        assert status(redis, job.mail) == "queued"

    @pytest.mark.parametrize(
        "between",
        [Delivered("250"), Later(10, "temporary"), Later(10, "busy", met=Met.BUSY), Dead("refused", met=Met.LET_IN)],
    )
    async def test_any_other_answer_between_breaks_the_row(
        self, redis: Redis, end: MailerEnd, between: Verdict
    ) -> None:
        put(redis, mails(8))
        jobs = await claim(end, 4)
        for job, verdict in zip(jobs, [SENDER_REFUSED, SENDER_REFUSED, between, SENDER_REFUSED], strict=True):
            await settle(end, job, verdict)
        assert (await ask(end)).relay.held is None

    @pytest.mark.parametrize(
        "another",
        [
            replace(SENDER_REFUSED, detail="550 5.7.23 SPF"),
            replace(SENDER_REFUSED, detail="553 5.7.1"),
            replace(SENDER_REFUSED, reason="credentials"),
        ],
    )
    async def test_another_refusal_begins_a_row_of_its_own(
        self, redis: Redis, end: MailerEnd, another: Verdict
    ) -> None:
        put(redis, mails(9))
        jobs = await claim(end, 6)
        for job, verdict in zip(jobs, [SENDER_REFUSED, SENDER_REFUSED, another, another], strict=False):
            await settle(end, job, verdict)
        assert (await ask(end, 1)).relay.held is None
        await settle(end, jobs[4], another)
        assert (await ask(end)).relay.held is not None

    async def test_words_of_the_relay_make_no_other_refusal(self, redis: Redis, end: MailerEnd) -> None:
        put(redis, mails(3))
        for number, job in enumerate(await claim(end, 3)):
            await settle(end, job, replace(SENDER_REFUSED, detail=f"550 5.7.1 refused, see ticket {number}"))
        assert (await ask(end)).relay.held == "sender_refused"

    async def test_one_mail_whose_sender_is_refused_again_and_again_does_not(
        self, redis: Redis, end: MailerEnd
    ) -> None:
        put(redis, mails(1))
        for _ in range(4):
            await settle(end, await claim_one(end, mails(1)[0]), replace(SENDER_REFUSED, pause=0))
            redis.zadd("rq:scheduled:mail", {mails(1)[0].id: 1})
            await end.queue_due()
        assert (await ask(end)).relay.held is None


class TestProbe:
    async def test_one_mail_of_one_mailer_probes_at_a_time(
        self, redis: Redis, end: MailerEnd, other: MailerEnd
    ) -> None:
        put(redis, mails(5))
        await hold(end)
        job = await probe(end)
        assert (await ask(other)).jobs == (await ask(end)).jobs == []
        await settle(end, job, Delivered("250"))
        assert (await ask(other)).relay.held is None

    async def test_the_pause_between_probes_doubles_up_to_its_bound(self, redis: Redis, end: MailerEnd) -> None:
        put(redis, mails(5))
        await hold(end)
        waits = [redis.hget(keys.relay(RELAY.name), "wait")]
        for _ in range(4):
            await settle(end, await probe(end), AWAY)
            waits.append(redis.hget(keys.relay(RELAY.name), "wait"))
        assert [float(wait or 0) for wait in waits] == pytest.approx([0.1, 0.2, 0.4, 0.4, 0.4])

    async def test_the_next_probe_is_another_mail(self, redis: Redis, end: MailerEnd) -> None:
        """The relay may turn away one mail alone."""
        put(redis, mails(3))
        await hold(end)
        probes = []
        for _ in range(4):
            job = await probe(end)
            probes.append(job.mail)
            await settle(end, job, AWAY)
        assert probes == [*mails(3), mails(3)[0]]

    async def test_a_mails_own_pause_does_not_put_off_the_probe(
        self, redis: Redis, end: MailerEnd, other: MailerEnd
    ) -> None:
        put(redis, mails(3))
        for job in await claim(end, 3):
            await settle(end, job, replace(SENDER_REFUSED, pause=700))
        assert 0 < (await ask(other)).pause <= RELAY.first_probe

    async def test_a_probe_that_takes_long_opens_the_way_all_the_same(self, redis: Redis, end: MailerEnd) -> None:
        put(redis, mails(3))
        await hold(end)
        slow = await probe(end)
        redis.hset(keys.relay(RELAY.name), "probe_until", 1)
        another = await probe(end)
        await settle(end, slow, Delivered("250"))
        assert (await ask(end)).relay.held is None
        await settle(end, another, AWAY)
        assert (await ask(end)).relay.held is None, "it was begun before the relay let us in"

    async def test_the_relays_own_hint_is_kept(self, redis: Redis, end: MailerEnd, other: MailerEnd) -> None:
        put(redis, mails(1))
        (job,) = await claim(end)
        await settle(end, job, Held("busy", "421", 100))
        assert 99 < (await ask(other)).pause <= 100

    async def test_a_probe_whose_mailer_died_is_followed_by_another(self, redis: Redis, end: MailerEnd) -> None:
        put(redis, mails(5))
        await hold(end)
        await probe(end)
        await end_claims(redis)
        await end.recover()
        assert (await probe(end)).mail == mails(5)[0]

    async def test_a_mail_that_was_not_sent_proves_nothing(self, redis: Redis, end: MailerEnd) -> None:
        put(redis, mails(5))
        await hold(end)
        await settle(end, await probe(end), Dropped("settled"))
        claims = await ask(end)
        assert (claims.relay.held, claims.is_probe) == ("connect", True)
        await settle(end, await only(claims), Dead("expired_unsent"))
        assert (await ask(end)).is_probe

    async def test_only_a_probe_opens_the_way_again(self, redis: Redis, end: MailerEnd) -> None:
        """Kept connections may go on while every new login is refused."""
        put(redis, mails(5))
        first, second, third = await claim(end, 3)
        await settle(end, first, AWAY)
        await settle(end, second, Delivered("250"))
        assert (await ask(end)).relay.held == "connect"
        await settle(end, await probe(end), Later(10, "temporary", "450"))
        assert (await ask(end)).relay.held is None
        await settle(end, third, AWAY)
        assert (await ask(end)).relay.held is None, "it was begun before"

    async def test_a_relay_that_opens_and_closes_is_not_probed_faster(self, redis: Redis, end: MailerEnd) -> None:
        put(redis, mails(9))
        await hold(end)
        await settle(end, await probe(end), AWAY)
        await settle(end, await probe(end), Delivered("250"))
        await hold(end)
        assert float(redis.hget(keys.relay(RELAY.name), "wait") or 0) == pytest.approx(0.4)


class TestAlone:
    """The relay turns one mailer away, and lets others in."""

    async def test_others_probe_first(self, redis: Redis, end: MailerEnd, other: MailerEnd) -> None:
        put(redis, mails(5))
        await hold(end)
        redis.hset(keys.relay(RELAY.name), mapping={"probe_at": redis.time()[0] + 1000, "wait": 1000})
        late = (await ask(end)).pause
        assert (await ask(other)).pause <= late - 0.5

    async def turned_away_again(self, redis: Redis, end: MailerEnd, other: MailerEnd) -> None:
        """One mailer finds the relay broken; another one does not, and then the first one does again."""
        put(redis, mails(9))
        await hold(end)
        await settle(other, await probe(other), Delivered("250"))
        age(redis, 10)
        (job,) = await claim(end)
        await settle(end, job, AWAY)

    async def test_it_holds_up_nobody_else(self, redis: Redis, end: MailerEnd, other: MailerEnd) -> None:
        await self.turned_away_again(redis, end, other)
        claims = await ask(end)
        assert (claims.jobs, claims.relay.held, claims.relay.turns_us_away) == ([], None, "connect")
        assert 0 < claims.pause <= RELAY.first_probe
        claims = await ask(other)
        assert (claims.relay.held, claims.relay.turns_us_away, len(claims.jobs)) == (None, None, 8)

    async def turned_away_once_more(self, end: MailerEnd, verdict: Verdict) -> Claimed:
        """It was turned away before, and tries again."""
        found: list[Claimed] = []

        async def is_given() -> bool:
            found.extend(await claim(end))
            return bool(found)

        await wait_until(is_given, "it may try again")
        await settle(end, found[0], verdict)
        return found[0]

    async def test_what_it_alone_is_refused_does_not_count_against_the_relay(
        self, redis: Redis, end: MailerEnd, other: MailerEnd
    ) -> None:
        await self.turned_away_again(redis, end, other)
        for _ in range(2):
            job = await self.turned_away_once_more(end, SENDER_REFUSED)
            assert status(redis, job.mail) == "queued", "it is no mail's fault"
        (job,) = await claim(other, 1)
        await settle(other, job, SENDER_REFUSED)
        claims = await ask(other, 1)
        assert (claims.relay.held, len(claims.jobs)) == (None, 1), "it is the first that another one has met"

    async def test_it_holds_all_when_those_who_were_let_in_send_no_more(
        self, redis: Redis, end: MailerEnd, other: MailerEnd
    ) -> None:
        await self.turned_away_again(redis, end, other)
        redis.hincrbyfloat(keys.relay(RELAY.name), "in_at", -600)
        await self.turned_away_once_more(end, AWAY)
        claims = await ask(other)
        assert (claims.relay.held, claims.relay.turns_us_away) == ("connect", None)

    async def test_others_that_go_on_sending_keep_it_alone(
        self, redis: Redis, end: MailerEnd, other: MailerEnd
    ) -> None:
        await self.turned_away_again(redis, end, other)
        redis.hincrbyfloat(keys.relay(RELAY.name), "in_at", -600)
        (job,) = await claim(other, 1)
        await settle(other, job, Delivered("250"))
        await self.turned_away_once_more(end, AWAY)
        claims = await ask(end)
        assert (claims.relay.held, claims.relay.turns_us_away) == (None, "connect")

    async def test_a_mailer_without_others_is_never_alone(self, redis: Redis, end: MailerEnd) -> None:
        """Its own slow probe was let in after another one of its own was turned away."""
        put(redis, mails(9))
        await hold(end)
        slow = await probe(end)
        redis.hset(keys.relay(RELAY.name), "probe_until", 1)
        await settle(end, await probe(end), AWAY)
        await settle(end, slow, Delivered("250"))
        assert (await ask(end, 0)).relay.held is None
        await self.turned_away_once_more(end, AWAY)
        claims = await ask(end)
        assert (claims.relay.held, claims.relay.turns_us_away) == ("connect", None)

    async def test_it_tries_one_mail_after_the_other_less_and_less_often_until_one_is_let_in(
        self, redis: Redis, end: MailerEnd, other: MailerEnd
    ) -> None:
        await self.turned_away_again(redis, end, other)
        waits, tried = [], []

        async def one_more() -> Claimed:
            found: list[Claimed] = []

            async def is_given() -> bool:
                found.extend(await claim(end))
                return bool(found)

            await wait_until(is_given, "it may try again")
            waits.append(float(redis.hget(f"{keys.relay(RELAY.name)}:away:w1", "wait") or 0))
            (job,) = found
            assert await claim(end) == [], "one at a time"
            tried.append(job.mail)
            return job

        for _ in range(4):
            await settle(end, await one_more(), AWAY)
        await settle(end, await one_more(), Later(10, "temporary"))
        assert waits == pytest.approx([0.1, 0.2, 0.4, 0.4, 0.4])
        assert len(set(tried)) == len(tried), "it may be one mail alone that is turned away"
        claims = await ask(end)
        assert (claims.relay.reason, len(claims.jobs)) == (None, 7)

    async def test_an_outage_that_others_find_holds_it_too(
        self, redis: Redis, end: MailerEnd, other: MailerEnd
    ) -> None:
        await self.turned_away_again(redis, end, other)
        await hold(other)
        claims = await ask(end)
        assert (claims.relay.held, claims.relay.turns_us_away) == ("connect", None)

    async def test_what_was_sent_before_says_nothing_about_it(
        self, redis: Redis, end: MailerEnd, other: MailerEnd
    ) -> None:
        """Its kept connections may go on while every new login of its own fails."""
        put(redis, mails(9))
        kept, late = await claim(end, 2)
        await hold(end)
        await settle(other, await probe(other), Delivered("250"))
        await settle(end, kept, Delivered("250"))
        await settle(end, late, AWAY)
        age(redis, 10)
        claims = await ask(end)
        assert (claims.relay.reason, len(claims.jobs)) == (None, 1), "one at a time until it is let in"


class TestPace:
    async def test_a_relay_that_nobody_has_met_is_given_one_mail_first_then_twice_as_many(
        self, redis: Redis, end: MailerEnd
    ) -> None:
        redis.delete(keys.relay(RELAY.name))
        put(redis, mails(40))
        taken = []
        for _ in range(5):
            jobs = [job for job in (await ask(end)).jobs if isinstance(job, Claimed)]
            taken.append(len(jobs))
            for job in jobs:
                await settle(end, job, Delivered("250"))
        assert taken == [1, 2, 4, 8, 16]

    async def test_after_a_hold_the_backlog_begins_slowly(self, redis: Redis, end: MailerEnd, other: MailerEnd) -> None:
        put(redis, mails(40))
        await hold(end)
        await settle(end, await probe(end), Delivered("250"))
        claims = await ask(end)
        assert len(claims.jobs) == 2
        assert ((await ask(other)).jobs, (await ask(other)).pause) == ([], 0.1)
        age(redis, 10)
        assert len((await ask(other)).jobs) == 37, "but mails that take long hold up the others for seconds only"

    async def test_all_mailers_together_have_so_many_mails_in_flight(
        self, redis: Redis, redis_url: str, end: MailerEnd
    ) -> None:
        put(redis, mails(40))
        terms = replace(RELAY, connections=10)
        async with AsyncRedis.from_url(redis_url) as connection:
            one, other = (mailer_end(connection, redis, worker, terms) for worker in ("w3", "w4"))
            (first, *_) = (await ask(one, 6)).jobs
            assert len((await ask(other, 6)).jobs) == 4
            assert (await ask(one)).jobs == []
            assert isinstance(first, Claimed)
            await settle(one, first, Delivered("250"))
            assert len((await ask(other)).jobs) == 1
        assert len((await ask(end)).jobs) == 29

    async def test_all_mailers_together_take_so_many_mails_a_second(self, redis: Redis, redis_url: str) -> None:
        known_relay(redis)
        put(redis, mails(200))
        terms = replace(RELAY, mails_per_second=200)
        async with AsyncRedis.from_url(redis_url) as connection:
            one, other = (mailer_end(connection, redis, worker, terms) for worker in ("w3", "w4"))
            began, taken = redis.time(), 0
            while taken < 100:
                taken += len((await ask(one)).jobs) + len((await ask(other)).jobs)
            now = redis.time()
        seconds = now[0] - began[0] + (now[1] - began[1]) / 1e6
        assert taken <= 1 + seconds * 200 + 1

    async def test_a_pace_saves_up_no_more_than_a_tenth_of_a_second(self, redis: Redis, redis_url: str) -> None:
        known_relay(redis)
        put(redis, mails(50))
        async with AsyncRedis.from_url(redis_url) as connection:
            end = mailer_end(connection, redis, "w3", replace(RELAY, mails_per_second=100))
            assert len((await ask(end)).jobs) == 1
            redis.hset(keys.relay(RELAY.name), "filled", 0)
            claims = await ask(end)
            assert len(claims.jobs) == 10
            assert (await ask(end)).pause > 0

    async def test_what_waits_at_a_slow_relay_is_no_more_than_a_second_of_the_pace(
        self, redis: Redis, redis_url: str
    ) -> None:
        known_relay(redis)
        put(redis, mails(50))
        async with AsyncRedis.from_url(redis_url) as connection:
            end = mailer_end(connection, redis, "w3", replace(RELAY, mails_per_second=3))
            taken: list[Claimed] = []
            for _ in range(5):
                redis.hset(keys.relay(RELAY.name), "filled", 0)
                taken += await claim(end)
            assert len(taken) == 3
            await settle(end, taken[0], Delivered("250"))
            redis.hset(keys.relay(RELAY.name), "filled", 0)
            assert len(await claim(end)) == 1

    async def test_an_empty_queue_needs_no_pause(self, redis: Redis, end: MailerEnd) -> None:
        put(redis, mails(1))
        await hold(end)
        redis.delete("rq:queue:mail")
        assert (await ask(end)).pause == 0
        redis.rpush("rq:queue:mail", mails(1)[0].id)
