"""From a request's creation in Teleport to the relay's 250, idle: the whole product on one machine, no look-ups."""

import asyncio
import os
import time
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from statistics import quantiles
from typing import Any

from benchmarks.machine import memory
from simulators.world import Product, World, product, world

REQUESTS = 200
PAUSE_SECONDS = 0.05
"""Between two requests, so that each finds the product idle."""

LOOK_SECONDS = 0.0002
PATIENCE_SECONDS = 10.0


def measure(folder: Path, rounds: int) -> list[dict[str, Any]]:
    """One row a round."""
    rows = []
    for number in range(rounds):
        place = folder / f"latency-{number}"
        place.mkdir()
        rows.append(asyncio.run(_run(place)))
    return rows


def start_once(folder: Path) -> None:
    """Bring the product up and down, so that what it loads has been compiled."""
    place = folder / "first-start"
    place.mkdir()
    asyncio.run(_start(place))


async def _start(folder: Path) -> None:
    async with world(folder) as outside, _installed(outside, folder) as running:
        await running.ready()


def _installed(outside: World, folder: Path) -> AbstractAsyncContextManager[Product]:
    config = folder / "teleport-email.toml"
    config.write_text(outside.configuration({"*": ["ann@example.com"]}))
    return product(config, folder / "data", folder / "log")


async def _run(folder: Path) -> dict[str, Any]:
    async with world(folder) as outside:
        began = time.monotonic()
        async with _installed(outside, folder) as running:
            places = await running.ready()
            ready = time.monotonic() - began
            took = []
            for number in range(1, REQUESTS + 1):
                at = time.monotonic()
                outside.auth.create_request("alice")
                async with asyncio.timeout(PATIENCE_SECONDS):
                    while len(outside.mailbox.mails) < number:  # noqa: ASYNC110 - what is measured must not tell us
                        await asyncio.sleep(LOOK_SECONDS)
                took.append(1000 * (time.monotonic() - at))
                await asyncio.sleep(PAUSE_SECONDS)
            sizes = {name: memory([pid]) / 1e6 for name, pid in _services(running.process.pid).items()}
    assert places.redis
    hundredths = quantiles(took, n=100)
    return {
        "p50_milliseconds": hundredths[49],
        "p99_milliseconds": hundredths[98],
        "start_to_ready_seconds": ready,
        **{f"{name}_megabytes": size for name, size in sizes.items()},
    }


def _services(pid: int) -> dict[str, int]:
    """Process ids of the product's services, by name."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    found = {}
    for child in children:
        words = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
        module = next((word for word in words if word.startswith(b"services.")), b"")
        if module and int(child) != os.getpid():
            found[module.decode().removeprefix("services.")] = int(child)
    return found
