"""How much waits in the mail queue, by RQ's own states, and for how long: what router and mailer tell Prometheus."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from redis import Redis
from rq.suspension import WORKERS_SUSPENDED

from shared.at_scrape import TIMEOUT_SECONDS, AtScrape
from shared.mail_queue.layout import common_arguments, common_keys, script_source
from shared.redis import connect
from shared.settings import RedisSettings

SUBJECT = "queue"


class State(StrEnum):
    """RQ's states of a job that is not over."""

    QUEUED = "queued"
    STARTED = "started"
    SCHEDULED = "scheduled"
    """It waits for its next attempt."""
    DEFERRED = "deferred"
    """It waits for an earlier mail of its thread."""
    FAILED = "failed"
    """A dead letter."""


@dataclass(frozen=True)
class Depth:
    """The queue at one moment."""

    jobs: Mapping[State, int]
    oldest: float | None
    """When the head of the queue was queued, by the clock of the host that did it; None: nothing waits."""
    suspended: bool


class DepthReader:
    """Works on a synchronous connection, in any thread."""

    def __init__(self, redis: Redis) -> None:
        self._script = redis.register_script(script_source("depth"))
        self._keys = [*common_keys(redis), WORKERS_SUSPENDED]
        self._arguments = common_arguments(redis)

    def read(self) -> Depth:
        """In one round trip. Raises `redis.exceptions.RedisError`."""
        *jobs, suspended, enqueued_at = self._script(keys=self._keys, args=self._arguments)
        counts = {state: int(count) for state, count in zip(State, jobs, strict=True)}
        return Depth(counts, _seconds(enqueued_at.decode(errors="replace")), bool(suspended))


def queue_depth(settings: RedisSettings, service: str) -> AtScrape:
    """To be registered by this service. Raises `SettingsError`."""
    reader = DepthReader(connect(settings, service, TIMEOUT_SECONDS))
    return AtScrape(SUBJECT, lambda: as_metrics(reader.read()))


def _seconds(rq_time: str) -> float | None:
    """What RQ wrote, as seconds since the epoch; None: nothing, or nothing that RQ writes."""
    try:
        return datetime.fromisoformat(rq_time).timestamp()
    except ValueError:
        return None


def as_metrics(depth: Depth) -> Sequence[Metric]:
    """As Prometheus gets it.

    Redis's clock is in no field of a queued job. The one that RQ itself keeps up to date, also when an operator
    requeues a letter, is written by a host, as all other times in metrics are.
    """
    jobs = GaugeMetricFamily(
        "access_mail_queue_jobs",
        "Mails in the queue by RQ's state; failed: dead letters; the same from every copy",
        labels=["state"],
    )
    for state, count in depth.jobs.items():
        jobs.add_metric([state.value], count)
    return (
        jobs,
        GaugeMetricFamily(
            "access_mail_oldest_job_timestamp_seconds",
            "When the mail at the head of the queue was queued; the time of the scrape if the queue is empty",
            value=time.time() if depth.oldest is None else depth.oldest,
        ),
        GaugeMetricFamily(
            "access_mail_queue_suspended", "1 while an operator holds all mails by `rq suspend`", value=depth.suspended
        ),
    )
