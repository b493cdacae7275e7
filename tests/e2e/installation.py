"""Access Mail as its user runs it: `access-mail start` with an embedded Valkey, what it says, and what it leaves."""

import asyncio
import re
import signal
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from redis import Redis

from shared.mail_queue.layout import rq_queue
from simulators.world import Product, product
from tests.conftest import immortal_keys
from tests.waiting import wait_until

BIN = Path(sys.executable).parent
"""Where the project's commands are installed."""

SERVICES = ("watcher", "router", "mailer")


@dataclass(frozen=True)
class Installation:
    """The running product."""

    config: Path
    product: Product
    url: str
    """Of its Redis."""
    redis: Redis

    @property
    def log(self) -> str:
        """All that it has said."""
        return self.product.log.read_text()

    def dead(self) -> list[str]:
        """Ids of the mails that are dead letters."""
        return list(rq_queue(self.redis).failed_job_registry.get_job_ids(cleanup=False))

    def waiting(self) -> int:
        """How many mails wait for another attempt."""
        return int(rq_queue(self.redis).scheduled_job_registry.get_job_count(cleanup=False))

    def is_idle(self) -> bool:
        """Is no mail in the queue or in a mailer's hands, and none waiting for its turn?"""
        queue = rq_queue(self.redis)
        registries = (queue.started_job_registry, queue.deferred_job_registry)
        return queue.count == 0 and all(one.get_job_count(cleanup=False) == 0 for one in registries)

    async def said(self, pattern: str, timeout: float = 10) -> None:  # noqa: ASYNC109 - as `wait_until`
        """Wait until a line holds the pattern."""
        await wait_until(lambda: re.search(pattern, self.log), f"a line with {pattern!r}", timeout)

    async def reload(self) -> None:
        """Send SIGHUP, and wait until each service has said that it follows the file as it now is."""
        before = {name: self.log.count(f"{name}: configuration read again") for name in SERVICES}
        self.product.process.send_signal(signal.SIGHUP)
        await wait_until(
            lambda: all(self.log.count(f"{name}: configuration read again") > before[name] for name in SERVICES),
            "every service has read its configuration again",
        )


@asynccontextmanager
async def installed(
    directory: Path, configuration: str, environ: Mapping[str, str] | None = None
) -> AsyncIterator[Installation]:
    """Run the product on this configuration. At the end nothing may be stuck, immortal or unwilling to stop."""
    config = directory / "teleport-email.toml"
    config.write_text(configuration)
    async with product(config, directory / "data", directory / "log", environ) as running:
        places = await running.ready()
        with Redis.from_url(places.redis) as redis:
            installation = Installation(config, running, places.redis, redis)
            yield installation
            await wait_until(installation.is_idle, "no mail is in the queue, in hand or stuck behind another")
            assert immortal_keys(redis) == []
        assert await running.stop() == 0


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    code: int
    out: str
    error: str


async def command(
    program: Path, *arguments: str, directory: Path | None = None, environ: Mapping[str, str] | None = None
) -> Done:
    """Run a command in this directory and environment, while the test's loop goes on."""
    process = await asyncio.create_subprocess_exec(
        program, *arguments, stdout=PIPE, stderr=PIPE, cwd=directory, env=environ
    )
    out, error = await process.communicate()
    assert process.returncode is not None
    return Done(process.returncode, out.decode(), error.decode())
