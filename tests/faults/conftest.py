"""A pipeline for each test, with a Redis of its own that the test may take away."""

import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from simulators.world import world
from tests.conftest import immortal_keys
from tests.faults.pipeline import Pipeline, pipeline_in
from tests.faults.valkey import Valkey


@pytest.fixture
def folder() -> Iterator[Path]:
    """A place with a name short enough for a Unix socket."""
    with tempfile.TemporaryDirectory(prefix="access-mail-") as folder:
        yield Path(folder)


@pytest.fixture
def valkey(folder: Path) -> Iterator[Valkey]:
    """An empty Valkey. The test fails if it leaves a key that would live for ever."""
    valkey = Valkey(folder)
    valkey.start()
    try:
        yield valkey
        immortal = immortal_keys(valkey.redis)
    finally:
        valkey.close()
    assert not immortal, f"keys without a lifetime: {immortal}"


@pytest.fixture
async def pipeline(folder: Path, valkey: Valkey) -> AsyncIterator[Pipeline]:
    """Simulators that run, services that do not yet."""
    async with world(folder) as outside:
        with pipeline_in(outside, valkey, folder) as pipeline:
            yield pipeline
