"""One mail after another over SMTP, with a relay that refuses, dawdles and breaks off."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from services.mailer.errors import ClaimLost, Held, Refusal, Refused, Trouble, Unavailable
from services.mailer.transports import Envelope
from services.mailer.transports.smtp_login import Patience
from simulators.mailbox import EXTENSIONS, Mailbox, Rule
from tests.relaying import BOB, CONTENT, IMPATIENT, MAIL, SENDER, error_of, failure, held, to, transport
from tests.waiting import wait_until

LOCKSTEP = tuple(name for name in EXTENSIONS if name != "PIPELINING")


@pytest.fixture(params=[EXTENSIONS, LOCKSTEP], ids=["pipelining", "lockstep"])
async def mailbox(request: pytest.FixtureRequest) -> AsyncIterator[Mailbox]:
    """A relay that takes everything, in the clear; whatever is promised here holds with and without PIPELINING."""
    async with Mailbox(extensions=request.param) as mailbox:
        yield mailbox


async def test_a_mail_arrives_as_it_was_written(mailbox: Mailbox) -> None:
    async with transport(mailbox) as smtp:
        answer = await smtp.send(MAIL, held)
    assert answer == "250 2.0.0 OK: mail 1"
    received = mailbox.mails[0]
    assert (received.sender, received.recipient, received.raw) == (SENDER, BOB, CONTENT)


async def test_mails_share_a_kept_connection(mailbox: Mailbox) -> None:
    async with transport(mailbox) as smtp:
        for _ in range(5):
            await smtp.send(MAIL, held)
    assert (len(mailbox.mails), mailbox.connections) == (5, 1)


async def test_a_connection_that_nobody_needs_is_left(mailbox: Mailbox) -> None:
    async with transport(mailbox, Patience(idle=0.05)) as smtp:
        await smtp.send(MAIL, held)
        await wait_until(lambda: not mailbox.open, "the connection is left")
        await smtp.send(MAIL, held)
    assert mailbox.connections == 2


@pytest.mark.parametrize("rule", [Rule("mail", drop=True, times=1), Rule("mail", "421 4.4.2 idle too long", times=1)])
async def test_a_kept_connection_that_breaks_off_at_mail_is_replaced_at_once(mailbox: Mailbox, rule: Rule) -> None:
    rule = Rule(rule.stage, rule.reply, drop=rule.drop, times=1)
    async with transport(mailbox) as smtp:
        await smtp.send(MAIL, held)
        mailbox.rules = [rule]
        await smtp.send(MAIL, held)
    assert (len(mailbox.mails), mailbox.connections, rule.obeyed) == (2, 2, 1)


async def test_a_fresh_connection_that_breaks_off_is_not_tried_again(mailbox: Mailbox) -> None:
    mailbox.rules = [Rule("mail", drop=True, times=1)]
    trouble = await error_of(Unavailable, mailbox)
    assert (trouble.reason, trouble.perhaps, mailbox.connections) == (Trouble.CONNECTION_LOST, False, 1)


async def test_a_refused_recipient_does_not_cost_the_others_their_connection(mailbox: Mailbox) -> None:
    mailbox.rules = [Rule("rcpt", "550 5.1.1 no such user", recipient="nobody@example.com")]
    async with transport(mailbox) as smtp:
        for _ in range(3):
            await failure(Refused, smtp.send(to("nobody"), held))
            await smtp.send(MAIL, held)
    assert [received.recipient for received in mailbox.mails] == [BOB] * 3
    assert mailbox.connections == 1


async def test_a_refused_content_does_not_cost_the_others_their_connection(mailbox: Mailbox) -> None:
    mailbox.rules = [Rule("data", "550 5.7.1 spam", recipient="nobody@example.com")]
    async with transport(mailbox) as smtp:
        await failure(Refused, smtp.send(to("nobody"), held))
        await smtp.send(MAIL, held)
    assert ([received.recipient for received in mailbox.mails], mailbox.connections) == ([BOB], 1)


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        (Rule("mail", "550 5.7.1 not you"), Refusal.SENDER_REFUSED),
        (Rule("rcpt", "550 5.1.1 no such user"), Refusal.RECIPIENT_REFUSED),
        (Rule("data", "554 5.6.0 not this"), Refusal.MESSAGE_REFUSED),
    ],
)
async def test_5xx_is_a_refusal_with_the_relays_answer(mailbox: Mailbox, rule: Rule, reason: Refusal) -> None:
    mailbox.rules = [rule]
    error = await error_of(Refused, mailbox)
    assert (error.reason, error.detail, error.code) == (reason, rule.reply, int(rule.reply[:3]))


@pytest.mark.parametrize(
    ("rule", "reason", "hint"),
    [
        (Rule("connect", "554 5.3.2 go away"), Trouble.CONNECT, None),
        (Rule("connect", "421 4.7.0 too many connections, wait 5 minutes"), Trouble.BUSY, 300),
        (Rule("ehlo", "550 5.7.1 not you"), Trouble.CONNECT, None),
        (Rule("mail", "530 5.7.0 log in first"), Trouble.CREDENTIALS, None),
    ],
)
async def test_what_turns_everybody_away_is_no_fault_of_a_mail(
    mailbox: Mailbox, rule: Rule, reason: Trouble, hint: float | None
) -> None:
    mailbox.rules = [rule]
    trouble = await error_of(Held, mailbox)
    assert (trouble.reason, trouble.detail, trouble.code) == (reason, rule.reply, int(rule.reply[:3]))
    assert (trouble.retry_after, mailbox.mails) == (hint, [])


@pytest.mark.parametrize(
    ("rule", "reason", "hint"),
    [
        (Rule("mail", "451 4.3.0 disk full"), Trouble.TEMPORARY, None),
        (Rule("mail", "450 4.7.1 too much mail"), Trouble.BUSY, None),
        (Rule("rcpt", "450 4.2.0 greylisted, try again in 300 seconds"), Trouble.TEMPORARY, 300),
        (Rule("rcpt", "421 4.3.2 shutting down"), Trouble.BUSY, None),
        (Rule("data", "452 4.3.1 disk full"), Trouble.TEMPORARY, None),
        (Rule("data", "421 4.3.2 shutting down"), Trouble.BUSY, None),
        (Rule("rcpt", "354 what?"), Trouble.PROTOCOL, None),
        (Rule("rcpt", "535 5.7.8 log in again"), Trouble.CREDENTIALS, None),
    ],
)
async def test_what_the_relay_says_for_now_is_trouble(
    mailbox: Mailbox, rule: Rule, reason: Trouble, hint: float | None
) -> None:
    mailbox.rules = [rule]
    trouble = await error_of(Unavailable, mailbox)
    assert (trouble.reason, trouble.detail, trouble.code) == (reason, rule.reply, int(rule.reply[:3]))
    assert (trouble.retry_after, trouble.perhaps, mailbox.mails) == (hint, False, [])


@pytest.mark.parametrize(
    ("rule", "reason", "perhaps"),
    [
        (Rule("mail", delay=60), Trouble.TIMEOUT, False),
        (Rule("rcpt", drop=True), Trouble.CONNECTION_LOST, False),
        (Rule("rcpt", delay=60), Trouble.TIMEOUT, False),
        (Rule("data", drop=True), Trouble.CONNECTION_LOST, True),
        (Rule("accepted", drop=True), Trouble.CONNECTION_LOST, True),
        (Rule("accepted", delay=60), Trouble.TIMEOUT, True),
        (Rule("accepted", "999 nonsense"), Trouble.PROTOCOL, True),
    ],
)
async def test_silence_after_the_final_dot_leaves_the_mail_in_doubt_and_none_before(
    mailbox: Mailbox, rule: Rule, reason: Trouble, *, perhaps: bool
) -> None:
    mailbox.rules = [rule]
    trouble = await error_of(Unavailable, mailbox, patience=IMPATIENT)
    assert (trouble.reason, trouble.perhaps) == (reason, perhaps)


@pytest.mark.parametrize("rule", [Rule("connect", drop=True), Rule("ehlo", delay=60)], ids=str)
async def test_silence_before_mail_is_no_fault_of_a_mail(mailbox: Mailbox, rule: Rule) -> None:
    mailbox.rules = [rule]
    trouble = await error_of(Held, mailbox, patience=IMPATIENT)
    assert (trouble.reason, trouble.code) == (Trouble.CONNECT, None)


async def test_a_relay_that_is_down_is_trouble(mailbox: Mailbox) -> None:
    await mailbox.stop()
    trouble = await error_of(Held, mailbox)
    await mailbox.start()
    assert (trouble.reason, trouble.code) == (Trouble.CONNECT, None)


async def test_a_host_name_that_cannot_be_is_trouble(mailbox: Mailbox) -> None:
    trouble = await error_of(Held, mailbox, host="mail..example.com")
    assert trouble.reason is Trouble.CONNECT


async def test_a_mail_whose_claim_was_lost_stops_before_its_content(mailbox: Mailbox) -> None:
    async with transport(mailbox) as smtp:
        await failure(ClaimLost, smtp.send(MAIL, lambda: False))
        await smtp.send(MAIL, held)
    assert len(mailbox.mails) == 1


async def test_the_claim_is_looked_at_after_the_recipient_was_taken(mailbox: Mailbox) -> None:
    rule = Rule("rcpt")
    mailbox.rules = [rule]
    looks: list[int] = []

    def look() -> bool:
        looks.append(rule.obeyed)
        return True

    async with transport(mailbox) as smtp:
        await smtp.send(MAIL, look)
    assert looks == [1]


async def test_a_cancelled_mail_is_not_sent_and_its_connection_goes_when_the_relay_is_left(mailbox: Mailbox) -> None:
    rule = Rule("rcpt", delay=60)
    mailbox.rules = [rule]
    async with transport(mailbox) as smtp:
        sending = asyncio.create_task(smtp.send(MAIL, held))
        await wait_until(lambda: rule.obeyed, "the relay dawdles")
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
    assert mailbox.mails == []


async def test_a_mail_that_is_cancelled_before_its_content_is_not_sent(mailbox: Mailbox) -> None:
    rule = Rule("rcpt", delay=0.05)
    mailbox.rules = [rule]
    async with transport(mailbox) as smtp:
        sending = asyncio.create_task(smtp.send(to("ann"), held))
        await wait_until(lambda: rule.obeyed, "the relay dawdles")
        sending.cancel()
        await smtp.send(MAIL, held)
    assert [received.recipient for received in mailbox.mails] == [BOB]


async def test_mails_that_somebody_waits_for_are_done_when_the_relay_is_left(mailbox: Mailbox) -> None:
    rule = Rule("accepted", delay=0.05)
    mailbox.rules = [rule]
    async with transport(mailbox, connections=1) as smtp:
        sending = [asyncio.create_task(smtp.send(MAIL, held)) for _ in range(3)]
        await wait_until(lambda: rule.obeyed, "the first is under way")
        await smtp.close()
        await asyncio.gather(*sending)
    assert len(mailbox.mails) == 3


# -- addresses beyond ASCII, and size


async def test_a_local_part_beyond_ascii_travels_where_the_relay_takes_it(mailbox: Mailbox) -> None:
    content = "To: jürgen@example.com\r\n\r\nbye\r\n".encode()
    async with transport(mailbox) as smtp:
        await smtp.send(Envelope(SENDER, "jürgen@example.com", content), held)
    assert (mailbox.mails[0].recipient, mailbox.mails[0].raw) == ("jürgen@example.com", content)


async def test_a_local_part_beyond_ascii_is_refused_where_it_does_not() -> None:
    async with Mailbox(extensions=("8BITMIME",)) as mailbox:
        error = await error_of(Refused, mailbox, Envelope(SENDER, "jürgen@example.com", CONTENT))
        assert (error.reason, mailbox.mails) == (Refusal.NO_SMTPUTF8, [])


async def test_a_mail_that_is_larger_than_the_relay_takes_is_refused_without_being_sent() -> None:
    rule = Rule("mail")
    async with Mailbox(size_limit=1000) as mailbox:
        mailbox.rules = [rule]
        async with transport(mailbox) as smtp:
            error = await failure(Refused, smtp.send(Envelope(SENDER, BOB, CONTENT + b"x" * 1000), held))
            assert rule.obeyed == 0
            await smtp.send(MAIL, held)
        assert error.reason is Refusal.MESSAGE_REFUSED
        assert "no more than" in error.detail
