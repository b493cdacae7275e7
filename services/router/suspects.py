"""What dead routers have left: one of these entries may be what kills whoever takes it on (docs/decisions/0012)."""

from typing import cast

from redis import Redis

from shared import keys

KEPT_SECONDS = 86_400
"""Longer than any pause between two starts of a router that dies and dies again."""


class Suspects:
    """Remembers in Redis, for whom its own death would keep from it, which router has begun with which of them."""

    def __init__(self, redis: Redis, consumer: str) -> None:
        self._redis = redis
        self._consumer = consumer
        self._begun = ""

    def begin(self, entry: str) -> list[str]:
        """Note that this router is about to read or route it; gives those that were so before, and never came back.

        Raises `redis.exceptions.RedisError`.
        """
        key = keys.begun(entry)
        self._begun = entry
        with self._redis.pipeline(transaction=True) as pipeline:
            pipeline.smembers(key)
            pipeline.sadd(key, self._consumer)
            pipeline.expire(key, KEPT_SECONDS)
            begun, *_ = pipeline.execute()
        return sorted(consumer.decode() for consumer in cast("set[bytes]", begun) - {self._consumer.encode()})

    def survived(self) -> None:
        """This router is alive, whatever became of what it has begun with. Raises `redis.exceptions.RedisError`."""
        if self._begun:
            self._redis.srem(keys.begun(self._begun), self._consumer)
            self._begun = ""
