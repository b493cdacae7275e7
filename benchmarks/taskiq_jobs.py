"""The same mail as a task of taskiq, the fastest of the other Python queues for Redis that we know."""

import os
from functools import cache

from taskiq_redis import RedisStreamBroker

from benchmarks.kept_connections import KeptConnections
from shared.mail import Mail
from shared.memory import RequestFacts

broker = RedisStreamBroker(os.environ["BENCHMARK_REDIS"], consumer_id="0")


@broker.task
async def send(mail: str, facts: str) -> None:
    """Send one mail."""
    await _relay().send(Mail.model_validate_json(mail), RequestFacts.model_validate_json(facts))


@cache
def _relay() -> KeptConnections:
    return KeptConnections(int(os.environ["BENCHMARK_CONNECTIONS"]))
