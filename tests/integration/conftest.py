"""What several of these tests start from."""

from collections.abc import AsyncIterator

import pytest
from redis import Redis
from redis.asyncio import Redis as AsyncRedis

from shared.mail_queue.mailer_end import MailerEnd
from tests.queueing import known_relay, mailer_end


@pytest.fixture
async def end(redis: Redis, redis_url: str) -> AsyncIterator[MailerEnd]:
    """A mailer's end of the queue."""
    async with AsyncRedis.from_url(redis_url) as connection:
        known_relay(redis)
        yield mailer_end(connection, redis, "w1")
