"""How much waits on the stream between watcher and router, and for how long: what both of them tell Prometheus."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from redis import Redis

from shared import keys
from shared.at_scrape import TIMEOUT_SECONDS, AtScrape
from shared.event_log import position_of
from shared.redis import connect
from shared.settings import RedisSettings

SUBJECT = "stream"


@dataclass(frozen=True)
class Backlog:
    """The stream at one moment. It is trimmed each second to what is still to be routed."""

    events: int
    oldest_age: float
    """Seconds by Redis's clock, which also wrote the entry's id; 0 for an empty stream."""
    dead: int


def stream_backlog(settings: RedisSettings, service: str) -> AtScrape:
    """To be registered by this service. Raises `SettingsError`."""
    redis = connect(settings, service, TIMEOUT_SECONDS)
    return AtScrape(SUBJECT, lambda: as_metrics(read_backlog(redis)))


def read_backlog(redis: Redis) -> Backlog:
    """In one round trip. Raises `redis.exceptions.RedisError`."""
    with redis.pipeline(transaction=False) as pipeline:
        pipeline.time()
        pipeline.xlen(keys.EVENTS)
        pipeline.xrange(keys.EVENTS, count=1)
        pipeline.xlen(keys.DEAD)
        (seconds, microseconds), events, first, dead = pipeline.execute()
    if not first:
        return Backlog(events, 0.0, dead)
    milliseconds, _ = position_of(first[0][0].decode())
    return Backlog(events, max(0.0, seconds + microseconds / 1e6 - milliseconds / 1e3), dead)


def as_metrics(backlog: Backlog) -> Sequence[Metric]:
    """As Prometheus gets it. An age by Redis's clock becomes a time by this host's, as in all metrics of ours."""
    return (
        GaugeMetricFamily(
            "access_mail_stream_events",
            "Events on the stream that are still to be routed, and those of the last second; the same from every copy",
            value=backlog.events,
        ),
        GaugeMetricFamily(
            "access_mail_oldest_event_timestamp_seconds",
            "When the oldest event on the stream was put there; the time of the scrape if there is none",
            value=time.time() - backlog.oldest_age,
        ),
        GaugeMetricFamily(
            "access_mail_dead_events",
            "Events that could not be routed and are kept as dead letters",
            value=backlog.dead,
        ),
    )
