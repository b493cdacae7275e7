"""A relay that is away for longer than some requests last: their mails alone are dead letters, all others arrive."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from redis import Redis

from services.mailer.wanted import GRACE
from shared.mail import Mail
from shared.memory import RequestMemory
from simulators.mailbox import Mailbox
from tests.faults.mailers import Mailers, ids, mailers_in
from tests.faults.valkey import Valkey
from tests.mails import mail, memory, put
from tests.queueing import receipt
from tests.waiting import wait_until

REQUESTS = 50
SOON = timedelta(seconds=5)
IN_TIME = 90


@pytest.fixture
async def mailers(valkey: Valkey, folder: Path) -> AsyncIterator[Mailers]:
    async with Mailbox() as mailbox:
        with mailers_in(valkey, mailbox, folder) as mailers:
            yield mailers


def worthless_at(end: datetime, request_id: str) -> RequestMemory:
    """A pending request of which nobody needs to be told any more after this."""
    remembered = memory(request_id=request_id)
    assert remembered.facts.request is not None
    request = remembered.facts.request.model_copy(update={"request_expires": end - GRACE})
    return remembered.model_copy(update={"facts": remembered.facts.model_copy(update={"request": request})})


def put_requests(redis: Redis, end: datetime, first: int) -> list[Mail]:
    """Requests with one recipient each, in the queue."""
    mails = [mail("requested", request_id=f"r{number}") for number in range(first, first + REQUESTS)]
    for one in mails:
        put(redis, [one], worthless_at(end, one.request_id))
    return mails


async def test_only_mails_of_requests_that_end_meanwhile_are_dead_and_say_why(mailers: Mailers) -> None:
    redis = mailers.redis
    await mailers.mailbox.stop()
    (first, *lasting) = put_requests(redis, datetime.now(UTC) + timedelta(hours=1), first=0)
    mailer = await mailers.start()

    async def is_held() -> bool:
        return 'relay_held{reason="connect"} 1.0' in (await mailer.probe("/metrics"))[1]

    await wait_until(is_held, "the mailer has met the relay", IN_TIME)
    end = datetime.now(UTC) + SOON
    ending = put_requests(redis, end, first=REQUESTS)
    await wait_until(lambda: redis.time()[0] > end.timestamp() + 1, "half of the requests have ended")
    assert not mailers.mailbox.mails
    await mailers.mailbox.start()
    await wait_until(lambda: not mailers.unfinished(), "nothing is left", IN_TIME)

    assert mailers.received() == dict.fromkeys(ids([first, *lasting]), 1)
    told = [receipt(redis, one) for one in ending]
    assert {(one["outcome"], one["reason"], one["perhaps"]) for one in told} == {("dead", "expired_unsent", "0")}
    assert mailers.dead() == REQUESTS
    page = (await mailer.probe("/metrics"))[1]
    assert f'access_mail_mailer_mails_total{{outcome="dead",reason="expired_unsent"}} {REQUESTS}.0' in page
    assert f'access_mail_mailer_mails_total{{outcome="delivered",reason="accepted"}} {REQUESTS}.0' in page
