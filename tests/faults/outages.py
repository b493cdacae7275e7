"""A relay that is down for many probes, with as many mails in the queue as the test wants."""

import time

from shared import keys
from tests.faults.mailers import Mailers, ids, put_mails
from tests.waiting import wait_until

PACE = 200
CONNECTIONS = 20
"""Of each mailer, as by default."""


async def outage(mailers: Mailers, number: int, probes: int) -> None:
    """Two mailers find the relay down; after so many probes it is back: nothing was spent, and all comes in order."""
    mails = put_mails(mailers.redis, number)
    await mailers.mailbox.stop()
    both = [await mailers.start({"ACCESS_MAIL__MAILER__MAILS_PER_SECOND": str(PACE)}) for _ in range(2)]

    async def probed() -> float:
        name = "access_mail_mailer_relay_probes_total "
        pages = [(await mailer.probe("/metrics"))[1] for mailer in both]
        return sum(float(page.partition(f"\n{name}")[2].split()[0]) for page in pages)

    async def is_probed_enough() -> bool:
        return await probed() >= probes

    # Mailers that were turned away themselves let others go first, which makes 0.3 s from one probe to the next.
    await wait_until(is_probed_enough, "the relay was tried often", 60 + probes * 0.3)
    assert mailers.dead() == mailers.redis.zcard("rq:scheduled:mail") == 0
    await mailers.mailbox.start()
    began = time.monotonic()
    await wait_until(lambda: not mailers.unfinished(), "all mails are gone", 60 + number / PACE)
    assert time.monotonic() - began >= (number - PACE / 10) / PACE, "no faster than the pace"

    received = mailers.received()
    assert set(received) == ids(mails)
    assert set(received.values()) == {1}
    assert not mailers.dead()
    place = {one.id: index for index, one in enumerate(mails)}
    arrived = [place[one.message_id.strip("<>").partition("@")[0]] for one in mailers.mailbox.mails]
    assert all(abs(index - there) <= 2 * 2 * CONNECTIONS for index, there in enumerate(arrived)), "in order"
    assert all(mailers.redis.hget(keys.receipt(one.id), "attempts") == b"1" for one in mails), "no attempt was burnt"
