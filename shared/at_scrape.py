"""Figures that no service counts: Redis is asked for them each time that Prometheus scrapes a service.

Both ends of a buffer report it, so that its depth is seen while either of them lives. Any number of copies say the
same, so that queries take the maximum.
"""

from collections.abc import Callable, Iterator, Sequence

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from redis.exceptions import RedisError

TIMEOUT_SECONDS = 1.0
"""For each step of a connection of their own. Prometheus waits ten seconds for all metrics together."""

Read = Callable[[], Sequence[Metric]]
"""Asks in one round trip. Raises `redis.exceptions.RedisError`."""


class AtScrape(Collector):
    """What Redis says at the scrape, and whether it said anything: a Redis that is away leaves the figures out."""

    def __init__(self, subject: str, read: Read) -> None:
        """`subject` is a word in the name of the metric that tells whether Redis answered."""
        self._subject = subject
        self._read = read

    def collect(self) -> Iterator[Metric]:
        """Called in the threads of the probes' server, perhaps in several at once."""
        try:
            figures = self._read()
        except RedisError:
            figures = ()
        yield readable(self._subject, answered=bool(figures))
        yield from figures


def readable(subject: str, *, answered: bool) -> Metric:
    """Tells whether Redis answered."""
    return GaugeMetricFamily(
        f"access_mail_{subject}_readable",
        f"1 if Redis told at this scrape how the {subject} stands; 0: what it would tell is left out",
        value=float(answered),
    )
