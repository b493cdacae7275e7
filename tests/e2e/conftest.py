"""What every end-to-end test begins with: a Teleport cluster, its proxy and a mailbox, on the test's own loop."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from simulators.world import World, world


@pytest.fixture
async def outside(tmp_path: Path) -> AsyncIterator[World]:
    """The outside world; its identity file lies in the test's directory."""
    async with world(tmp_path) as outside:
        yield outside
