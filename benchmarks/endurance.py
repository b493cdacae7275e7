"""Is memory flat over 100,000 mails, and what does a mail cost in Redis while it waits and after it is sent?

Receipts are taken off their stream at the end, by the watcher's own reader: a watcher does so within seconds.
"""

import asyncio
from functools import partial
from pathlib import Path
from typing import Any

from redis.asyncio import Redis as AsyncRedis

from benchmarks.machine import Certificates, memory, module, running, sink, url_of, valkey, wait
from benchmarks.mails import PLAIN, Race, environ_of, fill_ours
from benchmarks.sink import Tally
from shared.receipts import ReceiptReader

MAILS = 100_000
SAMPLES = 5
BATCH = 500
"""Receipts that are taken at once."""
PATIENCE_SECONDS = 300.0


def measure(folder: Path) -> dict[str, Any]:
    """Octets in Redis for each mail, and the mailer's memory after each fifth of the mails."""
    race = Race("MailWorker", PLAIN, 20, MAILS)
    with valkey(folder) as redis, sink(folder, 1, 0.0, None) as target:
        empty = int(redis.info("memory")["used_memory"])
        environ = environ_of(race, url_of(redis), target.port, Certificates(folder, folder))
        fill_ours(redis, race, environ)
        full = int(redis.info("memory")["used_memory"])
        sizes = []
        with running([module("services.mailer")], environ) as pids:
            for sample in range(1, SAMPLES + 1):
                due = MAILS * sample // SAMPLES
                wait(partial(_has_come, target.tally, due), f"{due} mails", PATIENCE_SECONDS)
                sizes.append(memory(pids) / 1e6)
            wait(lambda: redis.zcard("access-mail:claims") == 0, "all is settled", PATIENCE_SECONDS)
        asyncio.run(_witness(url_of(redis)))
        after = int(redis.info("memory")["used_memory"])
    return {
        "redis_octets_while_queued": (full - empty) / MAILS,
        "redis_octets_after": (after - empty) / MAILS,
        "mailer_megabytes": sizes,
    }


async def _witness(redis_url: str) -> None:
    """Take all receipts, and let Redis forget them, as a watcher does that has written them into Teleport's records."""
    async with AsyncRedis.from_url(redis_url) as redis:
        reader, taken = ReceiptReader(redis, "benchmark"), 0
        await reader.open()
        while receipts := await reader.new(BATCH, None):
            await reader.done([receipt.entry for receipt in receipts])
            taken += len(receipts)
    assert taken >= MAILS, "each mail has one"


def _has_come(tally: Tally, mails: int) -> bool:
    return tally.read()[0] >= mails
