"""Mails through mailers that are killed every second; `make long` does the same with very many."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from simulators.mailbox import Mailbox
from tests.faults.mailers import Mailers, mailers_in
from tests.faults.storms import storm, storm_of_threads
from tests.faults.valkey import Valkey


@pytest.fixture
async def mailers(valkey: Valkey, folder: Path) -> AsyncIterator[Mailers]:
    async with Mailbox() as mailbox:
        with mailers_in(valkey, mailbox, folder) as mailers:
            yield mailers


async def test_no_mail_is_lost_and_only_mails_in_flight_come_twice(mailers: Mailers) -> None:
    await storm(mailers, 2000, kills=3, seconds=180, seed=1)


async def test_everyone_reads_in_order_and_nothing_is_stuck(mailers: Mailers) -> None:
    await storm_of_threads(mailers, 80, kills=3, seconds=180, seed=1)
