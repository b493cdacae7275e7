"""What dead mailers leave, at the pace and with the patience of production: who gets it back, when, and how often."""

import re
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shared.mail import Recipient, Why
from simulators.mailbox import Mailbox
from simulators.rules import Rule
from tests.faults.mailers import Mailers, mailers_in
from tests.faults.pipeline import Service
from tests.faults.threads import COURSE, Threads
from tests.faults.valkey import Valkey
from tests.mails import ANN, BOB, mail, put
from tests.queueing import receipt, status
from tests.waiting import wait_until

PROMISED_SECONDS = 40
"""From the death of a mailer until another has its mails: a claim's life, and the pause between two looks."""

ON_A_LOADED_MACHINE = 30
"""Seconds more: the processes share it with other tests."""

SOON = PROMISED_SECONDS + ON_A_LOADED_MACHINE


@pytest.fixture
async def mailers(valkey: Valkey, folder: Path) -> AsyncIterator[Mailers]:
    async with Mailbox() as mailbox:
        with mailers_in(valkey, mailbox, folder) as mailers:
            yield mailers


async def metric(mailer: Service, sample: str) -> float:
    """What it tells Prometheus; `sample`: name and labels as they are written there."""
    _, page = await mailer.probe("/metrics")
    found = re.search(rf"(?m)^{re.escape(sample)} (\S+)$", page)
    assert found, page
    return float(found[1])


async def test_a_dead_mailers_mail_is_sent_within_forty_seconds_and_a_living_ones_is_left_to_it(
    mailers: Mailers,
) -> None:
    left, kept = mail("requested", BOB), mail("requested", ANN)
    never = Rule("data", recipient=BOB.address, delay=600, times=1)
    slow = Rule("data", recipient=ANN.address, delay=50)
    mailers.mailbox.rules += [never, slow]
    put(mailers.redis, [left])
    doomed = await mailers.start()
    await wait_until(lambda: never.obeyed == 1, "the relay thinks about the first mail", SOON)
    living = [await mailers.start() for _ in range(2)]
    await doomed.kill()
    died_at = time.monotonic()

    put(mailers.redis, [kept])
    await wait_until(lambda: slow.obeyed == 1, "the relay thinks about the other mail", SOON)
    await wait_until(
        lambda: status(mailers.redis, left) is None,
        "what the dead one had in hand is sent",
        died_at + SOON - time.monotonic(),
    )
    assert not receipt(mailers.redis, kept), "the other mail has been at the relay all the time"
    await wait_until(lambda: not mailers.unfinished(), "all mails are gone", SOON)
    assert mailers.received() == {left.id: 1, kept.id: 1}
    assert {receipt(mailers.redis, one)["outcome"] for one in (left, kept)} == {"delivered"}
    recovered = [await metric(mailer, "access_mail_mailer_recovered_jobs_total") for mailer in living]
    assert sum(recovered) == 1, "a claim that is renewed does not end, however long the mail takes"


async def test_a_mail_that_ends_four_mailers_in_a_row_is_a_dead_letter_and_its_thread_goes_on(mailers: Mailers) -> None:
    Threads(mailers.redis, 1).open()
    person = Recipient(address="p0@example.com", why=Why.DEFAULT)
    poison, following = (mail(notice, person, "r0") for notice in COURSE[:2])
    never = Rule("data", recipient=person.address, delay=600, times=4)
    mailers.mailbox.rules.append(never)
    for death in range(1, 5):
        mailer = await mailers.start()
        await wait_until(lambda death=death: never.obeyed == death, f"mailer {death} has it at the relay", SOON)
        assert status(mailers.redis, following) == "deferred"
        assert await mailers.kill(mailer) == [poison.id]
        assert not mailers.dead()

    last = await mailers.start()
    await wait_until(lambda: not mailers.unfinished(), "nothing is left", SOON)
    told = receipt(mailers.redis, poison)
    assert (told["outcome"], told["reason"], told["perhaps"]) == ("dead", "poison", "1")
    assert status(mailers.redis, poison) == "failed"
    assert mailers.dead() == 1
    assert Threads.told(mailers.mailbox.mails) == {person.address: [*COURSE[1:5]]}, "as if it had perhaps been told"
    assert await metric(last, 'access_mail_mailer_mails_total{outcome="dead",reason="poison"}') == 1
    assert await metric(last, "access_mail_mailer_recovered_jobs_total") == 1
    assert last.says(f"mail {poison.id} is a dead letter: its workers died too often in a row") == 1
