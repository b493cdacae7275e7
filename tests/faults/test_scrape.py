"""A scrape is answered whatever Redis does, and tells when the figures that only Redis has are missing."""

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

from tests.faults.pipeline import SERVICES, Pipeline, Service
from tests.faults.valkey import Valkey

FIGURES = {"stream": r"(?m)^access_mail_stream_events \d", "queue": r"(?m)^access_mail_queue_jobs\{"}
READABLE = r"(?m)^access_mail_{}_readable 1\.0$"
TOLD_BY = [("stream", "watcher"), ("stream", "router"), ("queue", "router"), ("queue", "mailer")]


@contextmanager
def away(valkey: Valkey) -> Iterator[None]:
    valkey.stop()
    yield
    valkey.start()


async def told(services: list[Service]) -> list[tuple[bool, bool]]:
    """For each subject and service: does it claim to know, and does it tell?"""
    texts: dict[str, str] = {}
    for name, service in zip(SERVICES, services, strict=True):
        status, texts[name] = await service.probe("/metrics")
        assert status == 200
        assert f'service="{name}"' in texts[name]
    return [
        (bool(re.search(READABLE.format(subject), texts[name])), bool(re.search(FIGURES[subject], texts[name])))
        for subject, name in TOLD_BY
    ]


@pytest.mark.parametrize("trouble", [away, Valkey.hanging])
async def test_a_redis_that_is_away_or_hangs_costs_the_scrape_only_what_redis_alone_knows(
    pipeline: Pipeline, trouble: Callable[[Valkey], AbstractContextManager[None]]
) -> None:
    services = [service for name in SERVICES for service in await pipeline.start(name)]
    assert await told(services) == [(True, True)] * 4
    with trouble(pipeline.valkey):
        assert await told(services) == [(False, False)] * 4
    assert await told(services) == [(True, True)] * 4
