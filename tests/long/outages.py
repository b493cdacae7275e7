"""Five thousand mails wait for a relay that is down for hundreds of probes."""

from pathlib import Path

from simulators.mailbox import Mailbox
from tests.faults.mailers import mailers_in
from tests.faults.outages import outage
from tests.faults.valkey import Valkey


async def test_five_thousand_mails_wait_and_drain_in_order_at_the_pace(valkey: Valkey, folder: Path) -> None:
    async with Mailbox() as mailbox:
        with mailers_in(valkey, mailbox, folder) as mailers:
            await outage(mailers, 5000, probes=200)
