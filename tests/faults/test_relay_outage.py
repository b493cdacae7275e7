"""A relay that is down, or refuses our password: all mails wait, none dies, and it is tried no more than it must be."""

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shared import keys
from simulators.mailbox import Mailbox
from tests.faults.mailers import Mailers, ids, mailers_in, put_mails
from tests.faults.outages import outage
from tests.faults.valkey import Valkey
from tests.waiting import wait_until

PROBE_SECONDS = 0.2
"""As in the mailers' configuration."""


@pytest.fixture
async def mailers(valkey: Valkey, folder: Path) -> AsyncIterator[Mailers]:
    async with Mailbox() as mailbox:
        with mailers_in(valkey, mailbox, folder) as mailers:
            yield mailers


async def test_a_backlog_waits_and_drains_in_order_at_the_pace(mailers: Mailers) -> None:
    await outage(mailers, 400, probes=8)


async def test_a_wrong_password_is_tried_once_for_each_probe_whatever_waits(mailers: Mailers, folder: Path) -> None:
    mailers.mailbox.users["access"] = "the right secret"
    secret = folder / "password"
    secret.write_text("the wrong secret")
    login = {"ACCESS_MAIL__SMTP__USERNAME": "access", "ACCESS_MAIL__SMTP__PASSWORD_FILE": str(secret)}
    mails = put_mails(mailers.redis, 300)
    began = time.monotonic()
    both = [await mailers.start(login) for _ in range(2)]
    await wait_until(lambda: len(mailers.mailbox.logins) >= 5, "the relay has refused the password", 60)
    tries = len(mailers.mailbox.logins)
    assert tries <= 1 + (time.monotonic() - began) / PROBE_SECONDS

    for mailer in both:
        assert await mailer.is_ready()
        assert 'access_mail_mailer_relay_held{reason="credentials"} 1.0' in (await mailer.probe("/metrics"))[1]
        assert mailer.says("the relay is held (credentials") == 1
    assert int(mailers.redis.llen("rq:queue:mail")) + int(mailers.redis.zcard(keys.CLAIMS)) == len(mails)

    secret.write_text("the right secret")
    await wait_until(lambda: not mailers.unfinished(), "all mails are gone", 60)
    assert set(mailers.received()) == ids(mails)
    assert not mailers.dead()
    refused = [login for login in mailers.mailbox.logins if not login.accepted]
    assert not any(login.accepted for login in mailers.mailbox.logins[: len(refused)]), "no other was refused later"
    for mailer in both:
        await wait_until(lambda mailer=mailer: mailer.says("the relay lets us in again") == 1, "it is said")
        assert "the wrong secret" not in mailer.log
