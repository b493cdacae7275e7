"""A worker at work in a thread, and a mailroom that finishes mails when a test lets it."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from prometheus_client import CollectorRegistry
from redis import Redis
from redis.asyncio import Redis as AsyncRedis

from services.mailer.mailroom import Mailroom
from services.mailer.metrics import Metrics
from services.mailer.seam import Delivery
from services.mailer.settings import MailerConfiguration
from services.mailer.worker import MailWorker
from shared import keys
from shared.claimed import Claimed
from shared.mail import Dead, Delivered, Dropped, Recipient, Verdict
from shared.relay import RelayTerms
from shared.settings import Settings
from simulators.mailbox import Mailbox
from tests.counting import CountingMetrics
from tests.mails import ANN, mail, put
from tests.queueing import RELAY, known_relay
from tests.waiting import wait_for

GRACE = 10.0
"""Seconds that a worker has to end."""


class Gate:
    """A mailroom that takes mails in hand and finishes them when it is opened."""

    def __init__(self) -> None:
        self.in_hand: list[str] = []
        self.held: list[Callable[[], bool]] = []
        self._open = threading.Event()

    def open(self) -> None:
        self._open.set()

    async def deliver(self, claimed: Claimed, still_held: Callable[[], bool], /) -> Verdict:
        self.in_hand.append(claimed.mail.id)
        self.held.append(still_held)
        await asyncio.to_thread(self._open.wait, 20)
        return Delivered("250")

    def unwanted(self, _claimed: Claimed, /) -> Dropped | Dead | None:
        return None

    async def close(self) -> None:
        self.open()


class Running:
    """A worker in a thread of its own."""

    def __init__(
        self, url: str, delivery: Delivery, capacity: int, relay: RelayTerms = RELAY, grace: float = GRACE
    ) -> None:
        self.redis = Redis.from_url(url)
        self.metrics = CountingMetrics()
        mails = AsyncRedis.from_url(url)
        self.worker = MailWorker(self.redis, mails, delivery, self.metrics, relay=relay, capacity=capacity, grace=grace)
        self.error: Exception | None = None
        """What has ended it."""
        self.thread = threading.Thread(target=self._work)

    def _work(self) -> None:
        try:
            self.worker.work()
        except Exception as error:  # noqa: BLE001  # the test looks at it
            self.error = error

    def end(self) -> None:
        self.worker.stop()
        self.thread.join(timeout=20)
        assert not self.thread.is_alive()
        self.redis.close()


@contextmanager
def working(
    url: str, delivery: Delivery, capacity: int = 10, relay: RelayTerms = RELAY, grace: float = GRACE
) -> Iterator[Running]:
    running = Running(url, delivery, capacity, relay, grace)
    running.thread.start()
    try:
        wait_for(lambda: running.worker.trouble is None, "the worker is ready")
        yield running
    finally:
        if isinstance(delivery, Gate):
            delivery.open()
        running.end()


def mailroom(mailbox: Mailbox, **mailer: Any) -> Mailroom:
    """One that sends to this mailbox; `mailer`: of its section in the settings."""
    sections = {
        "smtp": {"host": "localhost", "port": mailbox.port, "starttls_policy": "disabled"},
        "delivery": {"sender": "access@example.com"},
        "mailer": mailer,
    }
    configuration = MailerConfiguration.of(Settings.model_validate(sections))
    return Mailroom.from_settings(configuration, Metrics(CollectorRegistry()))


def people(number: int) -> list[Recipient]:
    return [ANN.model_copy(update={"address": f"p{n}@example.com"}) for n in range(number)]


def put_many(redis: Redis, number: int) -> None:
    """A mail to each of so many people, by way of a relay that has taken mails for long."""
    known_relay(redis)
    put(redis, [mail("requested", person) for person in people(number)])


def delivered(redis: Any) -> int:
    return sum(redis.hget(key, "outcome") == b"delivered" for key in redis.scan_iter(f"{keys.RECEIPT_PREFIX}*"))
