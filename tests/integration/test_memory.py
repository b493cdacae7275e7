"""What a mail costs Redis, by the server's own word: all keys, each measured whole."""

import asyncio
from typing import Any

from redis import Redis
from redis.asyncio import Redis as AsyncRedis

from shared import keys
from shared.mail import Delivered, Recipient, Why
from shared.mail_queue.mailer_end import Settlement
from tests.mails import mail, put
from tests.queueing import claim, known_relay, mailer_end

RECIPIENTS, REQUESTS = 100, 10
MAILS = RECIPIENTS * REQUESTS
QUEUED, SETTLED = 2048, 512
"""Octets a mail that are allowed."""


def used(redis: Any) -> int:
    """Octets of all keys, but for what is there once for all mails, or once for a request."""
    ours = [key for key in redis.scan_iter(count=1000) if not key.startswith(keys.REQUEST_PREFIX.encode())]
    return sum(int(redis.memory_usage(key, samples=0)) for key in ours)


def test_a_queued_mail_takes_two_kilobytes_and_a_settled_one_half(redis: Redis, redis_url: str) -> None:
    known_relay(redis)
    before = used(redis)
    people = [Recipient(address=f"somebody.{n}@example.com", why=Why.ROLE, role="editor") for n in range(RECIPIENTS)]
    for number in range(REQUESTS):
        request_id = f"0195b3c8-7d1e-7f0a-9c55-{number:012}"
        put(redis, [mail("requested", person, request_id) for person in people])
    assert redis.llen("rq:queue:mail") == MAILS
    assert 0 < (used(redis) - before) / MAILS <= QUEUED

    async def settle_all() -> None:
        async with AsyncRedis.from_url(redis_url) as connection:
            end = mailer_end(connection, redis, "w1")
            while jobs := await claim(end, 100):
                settlements = [
                    Settlement(job.mail.id, job.execution, job.now, Delivered("250 2.0.0 Ok: queued as 4XyZ1234"))
                    for job in jobs
                ]
                await end.settle(settlements)

    asyncio.run(settle_all())
    assert len(list(redis.scan_iter(f"{keys.RECEIPT_PREFIX}*"))) == MAILS
    assert 0 < (used(redis) - before) / MAILS <= SETTLED
