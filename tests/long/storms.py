"""Twenty thousand mails, and two hundred threads, through mailers that are killed every second."""

from pathlib import Path

from simulators.mailbox import Mailbox
from tests.faults.mailers import mailers_in
from tests.faults.storms import storm, storm_of_threads
from tests.faults.valkey import Valkey

HOUR = 3600


async def test_no_mail_of_twenty_thousand_is_lost(valkey: Valkey, folder: Path) -> None:
    async with Mailbox() as mailbox:
        with mailers_in(valkey, mailbox, folder) as mailers:
            await storm(mailers, 20_000, kills=50, seconds=HOUR, seed=7)


async def test_everyone_reads_two_hundred_threads_in_order(valkey: Valkey, folder: Path) -> None:
    async with Mailbox() as mailbox:
        with mailers_in(valkey, mailbox, folder) as mailers:
            await storm_of_threads(mailers, 200, kills=20, seconds=HOUR, seed=7)
