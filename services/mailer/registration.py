"""RQ's own bookkeeping of workers for one that takes its jobs in another way: birth, heartbeat, death, commands.

All of it is RQ's code on RQ's synchronous connection: call it in a thread. Every method raises `RedisError`.
"""

import os
import socket
import time
import uuid
from typing import Any, cast

from redis import Redis
from redis.client import PubSubWorkerThread
from redis.connection import ConnectionInterface
from redis.exceptions import RedisError
from rq.registry import StartedJobRegistry
from rq.serializers import JSONSerializer
from rq.worker import BaseWorker, WorkerStatus
from rq.worker_registration import clean_worker_registry

from shared.mail_queue.layout import rq_queue

COMMANDS_RETRY_SECONDS = 1.0
WORKER_TTL_SECONDS = 60


class RegisteredWorker(BaseWorker):
    """A worker of the mail queue, as `rq info` and dashboards see it."""

    def __init__(self, redis: Redis) -> None:
        super().__init__(
            [rq_queue(redis)],
            name=f"mailer-{socket.gethostname()}-{uuid.uuid4().hex[:8]}",
            connection=redis,
            serializer=JSONSerializer,
            worker_ttl=WORKER_TTL_SECONDS,
            prepare_for_work=False,  # it would ask Redis, which may be away: `register` asks
        )
        self.hostname, self.pid = socket.gethostname(), os.getpid()
        self._is_leaving = False

    def register(self) -> None:
        """Tell RQ of this worker, and listen to its commands."""
        self._set_ip_address(self.connection)
        self.connection.delete(self.key)  # what an earlier try, or a lost Redis, has left would pass for another worker
        self.register_birth()  # type: ignore[no-untyped-call]  # of RQ
        self.set_state(WorkerStatus.STARTED)
        if self.pubsub_thread is None:
            self.subscribe()  # type: ignore[no-untyped-call]  # of RQ

    def beat(self) -> None:
        """Say that this worker lives."""
        if self._is_registered():
            self.heartbeat(WORKER_TTL_SECONDS)
        else:
            self.register()

    def rest(self) -> None:
        """Say that it has nothing to do."""
        if self._is_registered():  # otherwise the state would be a key without a lifetime
            self.set_state(WorkerStatus.IDLE)

    def _is_registered(self) -> bool:
        """Not so if Redis has lost its data, or this process was stopped for long."""
        return bool(self.connection.hexists(self.key, "birth"))

    def unsubscribe(self) -> None:
        """Listen to commands no more. RQ's own way closes the connection, which its thread may be closing just then."""
        self._is_leaving = True
        pubsub, listener = self.pubsub, cast("PubSubWorkerThread | None", self.pubsub_thread)
        if pubsub is None or listener is None:
            return
        try:
            pubsub.unsubscribe()  # type: ignore[no-untyped-call]  # of redis-py; the answer wakes the thread
        finally:
            listener.stop()
        listener.join(timeout=1)
        connection = cast("ConnectionInterface | None", pubsub.connection)
        if listener.is_alive() and connection is not None:
            connection.disconnect()  # type: ignore[no-untyped-call]  # likewise; where no answer has come this does

    def _pubsub_exception_handler(self, exc: Exception, _: Any, thread: PubSubWorkerThread) -> None:
        """RQ's own complains every two seconds, and ends its thread for ever where a connection is slow to die."""
        if self._is_leaving:
            # Its connection was taken from under it, or there is none: nobody waits for it any more.
            thread.stop()
            return
        if not isinstance(exc, RedisError):
            raise exc
        time.sleep(COMMANDS_RETRY_SECONDS)

    def _set_connection(self, connection: Redis) -> Redis:
        """RQ makes its connection patient enough for blocking pops: a minute. Ours never pops, and must not hang."""
        return connection

    def clean_up_after_stock_workers(self) -> None:
        """What a stock worker that died has left; of ours only their names, which have no lifetime in RQ's sets."""
        queue = self.queues[0]
        StartedJobRegistry(queue=queue).cleanup()
        queue.intermediate_queue.cleanup(self, queue)
        clean_worker_registry(queue)  # each mailer that is killed would stand in `rq:workers` for ever
