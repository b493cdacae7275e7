"""Renewal keeps a mail in the hands that hold it, and tells those that have lost it."""

import pytest
from redis import Redis

from shared import keys
from shared.mail import Mail
from shared.mail_queue.mailer_end import CLAIM_SECONDS, MailerEnd
from tests.mails import ANN, BOB, mail, put
from tests.queueing import claim, claim_one, reached, status

LOOKING_FOR_LONG = 0


def over(redis: Redis, of: Mail, execution: str) -> None:
    """Let the claim have ended a moment ago, before anybody has looked."""
    redis.zadd(keys.CLAIMS, {f"{of.id}:{execution}": redis.time()[0] - 1}, xx=True)


async def test_a_claim_that_is_renewed_lives_for_another_life_and_nobody_recovers_its_mail(
    redis: Redis, end: MailerEnd
) -> None:
    put(redis, [mail("requested", ANN), mail("requested", BOB)])
    kept, left = await claim(end)
    for job in (kept, left):
        over(redis, job.mail, job.execution)
    assert await end.renew([(kept.mail.id, kept.execution)]) == set()
    score = redis.zscore(keys.CLAIMS, f"{kept.mail.id}:{kept.execution}")
    assert score == pytest.approx(redis.time()[0] + CLAIM_SECONDS, abs=5)
    reached(redis, since=LOOKING_FOR_LONG)
    assert await end.recover() == 1
    assert (status(redis, kept.mail), status(redis, left.mail)) == ("started", "queued")


async def test_what_rq_shows_of_a_job_lives_as_long_as_its_claim(redis: Redis, end: MailerEnd) -> None:
    put(redis, [mail("requested")])
    job = await claim_one(end, mail("requested"))
    shown = [f"rq:execution:{job.mail.id}:{job.execution}", f"rq:executions:{job.mail.id}"]
    begun = redis.hget(shown[0], "last_heartbeat")
    for key in shown:
        redis.expire(key, 1)
    await end.renew([(job.mail.id, job.execution)])
    assert all(redis.ttl(key) > CLAIM_SECONDS for key in shown)
    assert redis.hget(shown[0], "last_heartbeat") != begun


async def test_a_claim_that_another_worker_has_now_is_told_as_lost_and_stays_that_workers(
    redis: Redis, end: MailerEnd
) -> None:
    put(redis, [mail("requested")])
    lost = await claim_one(end, mail("requested"))
    over(redis, lost.mail, lost.execution)
    reached(redis, since=LOOKING_FOR_LONG)
    await end.recover()
    job = await claim_one(end, mail("requested"))
    assert await end.renew([(lost.mail.id, lost.execution), (job.mail.id, job.execution)]) == {lost.execution}
    assert redis.zrange(keys.CLAIMS, 0, -1) == [f"{job.mail.id}:{job.execution}".encode()]
