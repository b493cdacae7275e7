"""One installation for a promise: Teleport, Access Mail and a mailbox, all real but for their size."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from simulators.world import World, world
from tests.e2e.installation import Installation, installed

ANN, BOB = "ann@example.com", "bob@example.com"

QUICK = """
[mailer]
first_pause = "200ms"
longest_pause = "1s"
"""
"""A test need not wait a quarter of a minute for a second try."""


@pytest.fixture
async def outside(tmp_path: Path) -> AsyncIterator[World]:
    """Teleport, its proxy and a mailbox."""
    async with world(tmp_path) as outside:
        yield outside


@pytest.fixture
async def access_mail(outside: World, tmp_path: Path) -> AsyncIterator[Installation]:
    """Access Mail between them, which tells Ann and Bob of every request."""
    async with installed(tmp_path, outside.configuration({"*": [ANN, BOB]}) + QUICK) as installation:
        yield installation
