"""The Mailgun transport against Mailgun's calls on a real socket."""

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from services.mailer.errors import ClaimLost, Held, Refusal, Refused, Trouble, Unavailable
from services.mailer.transports import Envelope
from services.mailer.transports.mailgun import MailgunTransport
from shared.settings import MailgunSettings, SettingsError
from simulators.certificates import ClusterAuthority
from simulators.mailgun import Answer, Mailgun
from tests.waiting import wait_until

CONTENT = b"From: access@example.com\r\nMessage-ID: <1@example.com>\r\nSubject: Hello\r\n\r\n.\r\nbye\r\n"
MAIL = Envelope("access@example.com", "bob@example.com", CONTENT)
PATIENT, IMPATIENT = 5.0, 0.2


def held() -> bool:
    return True


@pytest.fixture
def mailgun() -> Iterator[Mailgun]:
    with Mailgun(domain="mg.example.com", key="secret") as mailgun:
        yield mailgun


@asynccontextmanager
async def transport(mailgun: Mailgun, patience: float = PATIENT, **options: Any) -> AsyncIterator[MailgunTransport]:
    values = {"domain": mailgun.domain, "base_url": mailgun.url, "private_key": "secret"}
    transport = MailgunTransport(MailgunSettings.model_validate(values | options), connections=4, timeout=patience)
    try:
        yield transport
    finally:
        await transport.close()


async def unavailable(mailgun: Mailgun, patience: float = PATIENT, **options: Any) -> Unavailable:
    """The trouble that a mail meets."""
    async with transport(mailgun, patience, **options) as http:
        with pytest.raises(Unavailable) as caught:
            await http.send(MAIL, held)
    return caught.value


async def turned_away(mailgun: Mailgun, **options: Any) -> Held:
    """The trouble that all mails meet."""
    async with transport(mailgun, **options) as http:
        with pytest.raises(Held) as caught:
            await http.send(MAIL, held)
    return caught.value


async def test_a_mail_arrives_as_it_was_written(mailgun: Mailgun) -> None:
    async with transport(mailgun) as http:
        answer = await http.send(MAIL, held)
    assert "<1@example.com>" in answer
    assert [(received.recipient, received.raw) for received in mailgun.mails] == [("bob@example.com", CONTENT)]


async def test_mails_share_kept_connections(mailgun: Mailgun) -> None:
    async with transport(mailgun) as http:
        for _ in range(3):
            await http.send(MAIL, held)
    assert (len(mailgun.mails), mailgun.connections) == (3, 1)


async def test_a_sender_whose_claim_was_lost_posts_nothing(mailgun: Mailgun) -> None:
    async with transport(mailgun) as http:
        with pytest.raises(ClaimLost):
            await http.send(MAIL, lambda: False)
    assert mailgun.requests == 0


@pytest.mark.parametrize("status", [400, 413, 422])
async def test_what_mailgun_finds_wrong_with_a_mail_is_a_refusal(mailgun: Mailgun, status: int) -> None:
    mailgun.answers = [Answer(status, "not this")]
    async with transport(mailgun) as http:
        with pytest.raises(Refused) as caught:
            await http.send(MAIL, held)
    assert (caught.value.reason, caught.value.code) == (Refusal.MESSAGE_REFUSED, status)
    assert "not this" in caught.value.detail


@pytest.mark.parametrize(
    ("answer", "reason", "hint", "perhaps"),
    [
        (Answer(408), Trouble.TEMPORARY, None, False),
        (Answer(429, retry_after="120"), Trouble.BUSY, 120, False),
        (Answer(429, retry_after="soon"), Trouble.BUSY, None, False),
        (Answer(500), Trouble.TEMPORARY, None, False),
        (Answer(503, retry_after="30"), Trouble.TEMPORARY, 30, False),
        (Answer(502), Trouble.TEMPORARY, None, True),
        (Answer(504), Trouble.TEMPORARY, None, True),
        (Answer(302), Trouble.PROTOCOL, None, False),
    ],
)
async def test_what_is_no_fault_of_the_mail_is_trouble(
    mailgun: Mailgun, answer: Answer, reason: Trouble, hint: float | None, *, perhaps: bool
) -> None:
    mailgun.answers = [answer]
    trouble = await unavailable(mailgun)
    assert (trouble.reason, trouble.code) == (reason, answer.status)
    assert (trouble.retry_after, trouble.perhaps) == (hint, perhaps)


@pytest.mark.parametrize("status", [401, 402, 403, 404])
async def test_what_is_wrong_with_key_account_or_domain_holds_all_mails(mailgun: Mailgun, status: int) -> None:
    mailgun.answers = [Answer(status)]
    trouble = await turned_away(mailgun)
    assert (trouble.reason, trouble.code) == (Trouble.CREDENTIALS, status)


async def test_in_test_mode_mails_are_taken_and_not_delivered(mailgun: Mailgun) -> None:
    async with transport(mailgun, test_mode=True) as http:
        await http.send(MAIL, held)
    assert (len(mailgun.test_mails), mailgun.mails) == (1, [])


async def test_a_date_to_come_back_at_counts_from_the_answers_own(mailgun: Mailgun) -> None:
    mailgun.answers = [Answer(429, retry_after="Fri, 01 Jan 2100 00:00:00 GMT")]
    trouble = await unavailable(mailgun)
    assert trouble.retry_after is not None
    assert trouble.retry_after > 86_400


async def test_a_mailgun_that_is_busy_gets_half_as_many_mails_at_once(mailgun: Mailgun) -> None:
    mailgun.answers = [Answer(429, recipient="busy@*"), Answer(200, delay=60, times=3), Answer(200, delay=0.2)]
    async with transport(mailgun) as http:
        slow = [asyncio.create_task(http.send(MAIL, held)) for _ in range(3)]
        await wait_until(lambda: mailgun.requests == 3, "three mails are under way")
        with pytest.raises(Unavailable):
            await http.send(replace(MAIL, recipient="busy@example.com"), held)
        for sending in slow:
            sending.cancel()
        await asyncio.wait(slow)
        before = mailgun.connections
        await asyncio.gather(*(http.send(MAIL, held) for _ in range(4)))
    assert mailgun.connections - before <= 2


async def test_complaints_about_mails_of_one_burst_are_one_complaint(
    mailgun: Mailgun, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "services")
    mailgun.answers = [Answer(429)]
    async with transport(mailgun) as http:
        await asyncio.gather(*(http.send(MAIL, held) for _ in range(4)), return_exceptions=True)
        assert mailgun.requests == 4
        assert caplog.messages == ["the relay gets 2 connections at once for now, not 4: it is busy"]
        with pytest.raises(Unavailable):
            await http.send(MAIL, held)
    assert caplog.messages[1:] == ["the relay gets 1 connections at once for now, not 2: it is busy"]


async def test_a_mailgun_that_asks_for_a_pause_gets_it(mailgun: Mailgun) -> None:
    mailgun.answers = [Answer(429, retry_after="120", times=1), Answer(429, times=1)]
    async with transport(mailgun) as http:
        with pytest.raises(Unavailable):
            await http.send(MAIL, held)
        with pytest.raises(Unavailable) as caught:
            await http.send(MAIL, held)
    assert mailgun.requests == 1
    assert caught.value.retry_after is not None
    assert 60 < caught.value.retry_after <= 120


@pytest.mark.parametrize("status", [200, 500])
async def test_a_lost_answer_leaves_the_mail_in_doubt(mailgun: Mailgun, status: int) -> None:
    mailgun.answers = [Answer(status, drop=True)]
    trouble = await unavailable(mailgun)
    assert (trouble.reason, trouble.perhaps, trouble.code) == (Trouble.CONNECTION_LOST, True, None)


async def test_a_late_answer_leaves_the_mail_in_doubt(mailgun: Mailgun) -> None:
    mailgun.answers = [Answer(200, delay=60)]
    trouble = await unavailable(mailgun, IMPATIENT)
    assert (trouble.reason, trouble.perhaps) == (Trouble.TIMEOUT, True)


async def test_nobody_there_is_trouble_without_doubt(mailgun: Mailgun) -> None:
    trouble = await turned_away(mailgun, base_url="http://127.0.0.1:1")
    assert trouble.reason is Trouble.CONNECT


async def test_a_certificate_that_nobody_vouches_for_is_trouble(tmp_path: Path) -> None:
    pair = ClusterAuthority.create("mailgun").web_certificate()
    file = tmp_path / "mailgun.pem"
    file.write_bytes(pair.key + pair.certificate)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(file)
    with Mailgun(domain="mg.example.com", key="secret", tls=tls) as mailgun:
        trouble = await turned_away(mailgun)
    assert (trouble.reason, mailgun.mails) == (Trouble.TLS, [])


async def test_a_refused_key_is_trouble_and_stands_in_no_error(mailgun: Mailgun) -> None:
    trouble = await turned_away(mailgun, private_key="hidden")
    assert trouble.reason is Trouble.CREDENTIALS
    assert "hidden" not in repr(trouble)


async def test_the_key_file_is_read_at_each_mail(mailgun: Mailgun, tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("old\n")
    async with transport(mailgun, private_key=None, private_key_file=file) as http:
        with pytest.raises(Held):
            await http.send(MAIL, held)
        file.write_text(" secret \n")
        await http.send(MAIL, held)
        file.unlink()
        with pytest.raises(Held) as caught:
            await http.send(MAIL, held)
        with pytest.raises(SettingsError):
            http.reload()
    assert caught.value.reason is Trouble.CREDENTIALS
    assert len(mailgun.mails) == 1


async def test_a_key_file_that_is_missing_stops_the_start(mailgun: Mailgun, tmp_path: Path) -> None:
    with pytest.raises(SettingsError):
        async with transport(mailgun, private_key=None, private_key_file=tmp_path / "key"):
            pass


async def test_check_asks_about_the_key_and_sends_nothing(mailgun: Mailgun) -> None:
    async with transport(mailgun) as http:
        assert "the key is accepted" in await http.check()
    async with transport(mailgun, private_key="other") as http:
        with pytest.raises(Held):
            await http.check()
    assert mailgun.mails == []


async def test_a_cancelled_mail_is_given_up_at_once(mailgun: Mailgun) -> None:
    mailgun.answers = [Answer(200, delay=60)]
    async with transport(mailgun) as http:
        sending = asyncio.create_task(http.send(MAIL, held))
        await wait_until(lambda: mailgun.requests, "Mailgun dawdles")
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
