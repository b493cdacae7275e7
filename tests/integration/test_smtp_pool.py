"""The pool of connections: as many as are needed and allowed, and no more than the relay bears."""

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest

from services.mailer.errors import Held, Trouble, Unavailable
from services.mailer.transports.smtp_connection import MOST_MAILS
from simulators.mailbox import Mailbox, Rule
from simulators.rules import Stage
from tests.relaying import IMPATIENT, MAIL, failure, held, to, transport
from tests.waiting import wait_until

NAMES = [f"person-{number}" for number in range(12)]


@pytest.fixture
async def mailbox() -> AsyncIterator[Mailbox]:
    """A relay that takes everything, in the clear."""
    async with Mailbox() as mailbox:
        yield mailbox


async def test_mails_at_once_have_a_connection_each_and_leave_them_for_the_next(mailbox: Mailbox) -> None:
    slow = Rule("accepted", delay=0.2)
    mailbox.rules = [slow]
    async with transport(mailbox, connections=10) as smtp:
        for _ in range(2):
            await asyncio.gather(*(smtp.send(MAIL, held) for _ in range(4)))
    assert (len(mailbox.mails), mailbox.connections) == (8, 4)


async def test_there_are_never_more_connections_than_allowed(mailbox: Mailbox) -> None:
    mailbox.rules = [Rule("accepted", delay=0.01)]
    async with transport(mailbox, connections=3) as smtp:
        await asyncio.gather(*(smtp.send(MAIL, held) for _ in range(40)))
    assert (len(mailbox.mails), mailbox.connections) == (40, 3)


async def test_a_slow_recipient_delays_nobody_while_connections_may_be_added(mailbox: Mailbox) -> None:
    mailbox.rules = [Rule("data", "550 5.7.1 no", recipient="slow@example.com", delay=60)]
    async with transport(mailbox, connections=4) as smtp:
        slow = asyncio.create_task(smtp.send(to("slow"), held))
        await wait_until(lambda: mailbox.rules[0].obeyed, "the slow one is under way")
        await asyncio.gather(*(smtp.send(to(name), held) for name in NAMES))
        assert not slow.done()
        slow.cancel()
    assert {mail.recipient for mail in mailbox.mails} == {f"{name}@example.com" for name in NAMES}


async def test_no_connection_is_made_for_mails_that_nobody_waits_for_any_more(mailbox: Mailbox) -> None:
    mailbox.rules = [slow := Rule("rcpt", delay=60)]
    async with transport(mailbox, connections=2) as smtp:
        sending = [asyncio.create_task(smtp.send(MAIL, held)) for _ in range(6)]
        await wait_until(lambda: slow.obeyed == 2, "each connection has its mail")
        for one in sending:
            one.cancel()
        await asyncio.wait(sending)
        await smtp.close()
        carriers = [task for task in asyncio.all_tasks() if "SmtpTransport" in repr(task.get_coro())]
        assert not carriers, "all connections have ended"
    assert mailbox.connections == 2


async def test_connections_that_the_relay_has_cut_meanwhile_cost_no_mail(mailbox: Mailbox) -> None:
    slow = Rule("accepted", delay=0.1)
    mailbox.rules = [slow]
    async with transport(mailbox) as smtp:
        await asyncio.gather(*(smtp.send(MAIL, held) for _ in range(3)))
        await mailbox.stop()
        await mailbox.start()
        await asyncio.gather(*(smtp.send(MAIL, held) for _ in range(3)))
    assert (len(mailbox.mails), mailbox.connections) == (6, 6)


async def test_a_connection_is_left_after_so_many_mails(mailbox: Mailbox) -> None:
    async with transport(mailbox, connections=1) as smtp:
        await asyncio.gather(*(smtp.send(MAIL, held) for _ in range(MOST_MAILS + 1)))
    assert (len(mailbox.mails), mailbox.connections) == (MOST_MAILS + 1, 2)


async def test_a_wrong_password_is_tried_once_for_all_mails_that_wait() -> None:
    async with Mailbox(users={"alice": "other"}) as mailbox:
        async with transport(mailbox, connections=10, username="alice", password="wrong") as smtp:
            errors = await asyncio.gather(*(smtp.send(to(name), held) for name in NAMES), return_exceptions=True)
        assert [error.reason for error in errors if isinstance(error, Held)] == [Trouble.CREDENTIALS] * len(NAMES)
        assert len(mailbox.logins) == 1


async def test_a_relay_that_bears_few_connections_gets_few_and_no_mail_minds(
    mailbox: Mailbox, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    slow, full = Rule("accepted", delay=0.05), Rule("connect", "421 4.7.0 too many connections of ann@example.com")
    mailbox.rules = [slow]
    async with transport(mailbox, connections=10) as smtp:
        await asyncio.gather(*(smtp.send(MAIL, held) for _ in range(2)))
        mailbox.rules = [slow, full]
        await asyncio.gather(*(smtp.send(to(name), held) for name in NAMES))
        refused = full.obeyed
        assert refused > 0
        await asyncio.gather(*(smtp.send(to(name), held) for name in NAMES))
        assert full.obeyed == refused  # it has learned
    assert "connections at once for now" in caplog.text
    assert "ann@" not in caplog.text
    assert len(mailbox.mails) == 2 + 2 * len(NAMES)


async def test_a_relay_that_is_busy_gets_fewer_connections(mailbox: Mailbox) -> None:
    slow, busy = Rule("accepted", delay=0.05), Rule("rcpt", "421 4.3.2 too much", times=1, recipient="busy@*")
    mailbox.rules = [slow, busy]
    async with transport(mailbox, connections=8) as smtp:
        await asyncio.gather(*(smtp.send(to(name), held) for name in NAMES))
        wide = len(mailbox.open)
        trouble = await failure(Unavailable, smtp.send(to("busy"), held))
        await asyncio.gather(*(smtp.send(to(name), held) for name in NAMES))
        assert trouble.reason is Trouble.BUSY
        await wait_until(lambda: len(mailbox.open) <= wide // 2, "half of the connections are left")


async def test_complaints_about_mails_of_one_burst_are_one_complaint(
    mailbox: Mailbox, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "services")
    mailbox.rules = [Rule("accepted", delay=0.2)]
    async with transport(mailbox, connections=8) as smtp:
        await asyncio.gather(*(smtp.send(MAIL, held) for _ in range(8)))
        await wait_until(lambda: len(smtp.resting) == 8, "all connections rest")
        busy = "421 4.3.2 too much"
        mailbox.rules = [Rule("rcpt", busy, recipient="late@*", delay=0.5), Rule("rcpt", busy)]
        sending = [smtp.send(to(name), held) for name in ["late"] * 4 + ["early"] * 4]
        errors = await asyncio.gather(*sending, return_exceptions=True)
        assert [error.reason for error in errors if isinstance(error, Unavailable)] == [Trouble.BUSY] * 8
    assert caplog.messages == ["the relay gets 4 connections at once for now, not 8: it is busy"]


async def test_a_connection_that_cannot_be_made_fails_nobody_while_there_are_others(mailbox: Mailbox) -> None:
    slow, broken = Rule("accepted", delay=0.05), Rule("ehlo", "550 5.7.1 not you any more")
    mailbox.rules = [slow]
    async with transport(mailbox, connections=5) as smtp:
        await smtp.send(MAIL, held)
        mailbox.rules = [slow, broken]
        await asyncio.gather(*(smtp.send(to(name), held) for name in NAMES))
        assert broken.obeyed > 0
    assert len(mailbox.mails) == 1 + len(NAMES)


async def test_a_relay_that_does_not_answer_holds_all_that_wait(mailbox: Mailbox) -> None:
    mailbox.rules = [Rule("ehlo", delay=60)]
    async with transport(mailbox, IMPATIENT) as smtp:
        errors = await asyncio.gather(*(smtp.send(to(name), held) for name in NAMES), return_exceptions=True)
    assert {type(error) for error in errors} == {Held}
    assert mailbox.connections == 1


async def test_nothing_is_left_of_a_connection_that_was_being_made(mailbox: Mailbox) -> None:
    silent = Rule("ehlo", delay=60)
    mailbox.rules = [silent]
    async with transport(mailbox) as smtp:
        sending = asyncio.create_task(smtp.send(MAIL, held))
        await wait_until(lambda: silent.obeyed, "the relay is silent")
        sending.cancel()
    assert mailbox.mails == []


async def test_a_fault_of_ours_reaches_whoever_waits_and_nobody_else(mailbox: Mailbox) -> None:
    def broken() -> bool:
        raise RuntimeError("a fault")

    async with transport(mailbox, connections=1) as smtp:
        first, faulty, last = await asyncio.gather(
            smtp.send(to("ann"), held), smtp.send(MAIL, broken), smtp.send(to("eve"), held), return_exceptions=True
        )
    assert isinstance(faulty, RuntimeError)
    assert (first, last) == ("250 2.0.0 OK: mail 1", "250 2.0.0 OK: mail 2")


@pytest.mark.parametrize(
    ("stage", "reply"),
    [
        ("mail", "450 4.7.1 Error: too much mail from 192.0.2.1"),
        ("mail", "432 4.3.2 Concurrent connections limit exceeded"),
        ("mail", "432 too many connections"),
        ("rcpt", "451 4.4.5 mail system congested"),
    ],
)
async def test_a_rate_limit_narrows_the_pool_which_grows_again(
    mailbox: Mailbox, monkeypatch: pytest.MonkeyPatch, stage: Stage, reply: str
) -> None:
    """As Postfix and Exchange Online say it: the connection stays open, but there are to be fewer."""
    slow = Rule("accepted", delay=0.05)
    mailbox.rules = [slow]
    async with transport(mailbox, connections=8) as smtp:

        async def send_all() -> None:
            await asyncio.gather(*(smtp.send(to(name), held) for name in NAMES))

        await send_all()
        wide = len(mailbox.open)
        assert wide > 2
        mailbox.rules = [slow, Rule(stage, reply, times=1)]
        assert (await failure(Unavailable, smtp.send(MAIL, held))).reason is Trouble.BUSY
        await send_all()
        await wait_until(lambda: len(mailbox.open) <= wide // 2, "half of the connections are left")

        made = mailbox.connections
        monkeypatch.setattr("services.mailer.transports.width.GROW_SECONDS", 0.001)

        async def has_grown() -> bool:
            await send_all()
            return mailbox.connections > made

        await wait_until(has_grown, "there are more again")
