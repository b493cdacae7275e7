"""The mailbox does what real relays do, and what its rules say, to real clients."""

import asyncio
import smtplib
import socket
import ssl
from collections.abc import AsyncIterator
from email.message import EmailMessage

import aiosmtplib
import pytest
import uvloop

from simulators.mailbox import Encryption, Login, Mailbox, Rule
from tests.relay_tls import relay_tls
from tests.waiting import wait_until

ALICE, BOB, CAROL = "alice@example.com", "bob@example.com", "carol@example.com"


@pytest.fixture
async def mailbox() -> AsyncIterator[Mailbox]:
    """A relay that takes everything."""
    async with Mailbox() as mailbox:
        yield mailbox


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    return relay_tls(tmp_path_factory.mktemp("tls"))


def mail(message_id: str = "<1@example.com>", body: str = "Hello\n.dot\n..dots\n") -> bytes:
    message = EmailMessage()
    message["Subject"], message["From"], message["To"], message["Message-ID"] = "Grüße", ALICE, BOB, message_id
    message.set_content(body)
    return message.as_bytes()


def client(mailbox: Mailbox, **options: object) -> aiosmtplib.SMTP:
    return aiosmtplib.SMTP(hostname="localhost", port=mailbox.port, timeout=5, **{"start_tls": False, **options})  # type: ignore[arg-type] # options of many types


async def send(mailbox: Mailbox, *recipients: str, raw: bytes | None = None) -> str:
    """Send on a fresh connection; returns the reply."""
    async with client(mailbox) as smtp:
        _, reply = await smtp.sendmail(ALICE, recipients or (BOB,), raw or mail())
        return reply


async def test_a_mail_is_recorded_as_it_was_sent(mailbox: Mailbox) -> None:
    await send(mailbox, BOB, CAROL)
    first, second = mailbox.mails
    assert (first.sender, first.recipient, second.recipient) == (ALICE, BOB, CAROL)
    assert first.raw == mail().replace(b"\n", b"\r\n")
    assert (first.subject, first.message_id, first.text) == ("Grüße", "<1@example.com>", "Hello\n.dot\n..dots\n")
    assert (first.tls, first.user, first.connection, mailbox.connections) == (False, "", 1, 1)


async def say(mailbox: Mailbox, words: bytes) -> list[bytes]:
    """The last line of each reply to a whole conversation that is sent at once."""
    reader, writer = await asyncio.open_connection("127.0.0.1", mailbox.port)
    writer.write(words)
    lines = (await reader.read()).splitlines()
    writer.close()
    await writer.wait_closed()
    return [line for line in lines if line[3:4] == b" "]


TRANSACTION = b"EHLO c\r\nMAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.com>\r\nDATA\r\n%s\r\n.\r\nQUIT\r\n"


async def test_a_pipelined_transaction_is_answered_in_order(mailbox: Mailbox) -> None:
    replies = await say(mailbox, TRANSACTION % b"hello")
    assert [reply[:3] for reply in replies] == [b"220", b"250", b"250", b"250", b"354", b"250", b"221"]
    assert mailbox.mails[0].raw == b"hello\r\n"


async def test_a_bare_line_feed_neither_ends_a_mail_nor_is_mended(mailbox: Mailbox) -> None:
    await say(mailbox, TRANSACTION % b"a\n.\nb\r\n..c")
    assert [received.raw for received in mailbox.mails] == [b"a\n.\nb\r\n.c\r\n"]


async def test_the_extensions_are_those_that_were_asked_for() -> None:
    async with Mailbox(extensions=["SIZE"], size_limit=1000) as mailbox:
        async with client(mailbox) as smtp:
            await smtp.ehlo()
            assert smtp.esmtp_extensions == {"size": "1000"}
        with pytest.raises(aiosmtplib.SMTPResponseException, match="size"):
            await send(mailbox, raw=mail(body="x" * 70 + "\n" + "y" * 940))
    async with Mailbox(extensions=()) as mailbox, client(mailbox) as smtp:
        await smtp.ehlo()
        assert smtp.esmtp_extensions == {}


@pytest.mark.parametrize(
    ("stage", "reply", "error"),
    [
        ("connect", "421 4.3.2 busy", aiosmtplib.SMTPConnectResponseError),
        ("connect", "554 5.3.2 no mail here", aiosmtplib.SMTPConnectResponseError),
        ("ehlo", "421 4.3.2 busy", aiosmtplib.SMTPHeloError),
        ("mail", "451 4.3.0 try later", aiosmtplib.SMTPSenderRefused),
        ("rcpt", "450 4.2.1 greylisted", aiosmtplib.SMTPRecipientsRefused),
        ("data", "554 5.7.1 spam", aiosmtplib.SMTPDataError),
    ],
)
async def test_a_rule_refuses_at_its_stage_as_often_as_it_says(
    mailbox: Mailbox, stage: str, reply: str, error: type[Exception]
) -> None:
    rule = Rule(stage, reply, times=2)  # type: ignore[arg-type] # the table holds plain strings
    mailbox.rules.append(rule)
    for _ in range(2):
        with pytest.raises(error) as caught:
            await send(mailbox)
        refusal = (
            caught.value.recipients[0] if isinstance(caught.value, aiosmtplib.SMTPRecipientsRefused) else caught.value
        )
        assert isinstance(refusal, aiosmtplib.SMTPResponseException)
        assert f"{refusal.code} {refusal.message}" == reply
    await send(mailbox)
    assert (len(mailbox.mails), rule.obeyed) == (1, 2)


async def test_a_rule_concerns_its_recipient_only(mailbox: Mailbox) -> None:
    mailbox.rules.append(Rule("rcpt", "550 5.1.1 no such user", recipient="*@example.com"))
    mailbox.rules.insert(0, Rule("rcpt", "452 4.2.2 full", recipient=CAROL))
    async with client(mailbox) as smtp:
        refused, _ = await smtp.sendmail(ALICE, [BOB, CAROL, "dan@example.org"], mail())
    assert {address: code for address, (code, _) in refused.items()} == {BOB: 550, CAROL: 452}
    assert [received.recipient for received in mailbox.mails] == ["dan@example.org"]


def test_a_rule_cannot_know_a_recipient_too_early() -> None:
    with pytest.raises(ValueError, match="not known yet at 'mail'"):
        Rule("mail", recipient=BOB)


async def test_421_ends_the_connection(mailbox: Mailbox) -> None:
    mailbox.rules.append(Rule("mail", "421 4.7.0 closing"))
    replies = await say(mailbox, TRANSACTION % b"hello")
    assert [reply[:3] for reply in replies] == [b"220", b"250", b"421"]


@pytest.mark.parametrize("stage", ["connect", "ehlo", "mail", "rcpt", "data", "accepted"])
async def test_the_line_is_cut_at_any_stage(mailbox: Mailbox, stage: str) -> None:
    mailbox.rules.append(Rule(stage, drop=True, times=1))  # type: ignore[arg-type] # the table holds plain strings
    with pytest.raises((aiosmtplib.SMTPException, ConnectionError)):
        await send(mailbox)
    assert not mailbox.open
    assert len(mailbox.mails) == (1 if stage == "accepted" else 0)
    await send(mailbox)


async def test_a_lost_answer_leads_to_a_duplicate_that_is_found(mailbox: Mailbox) -> None:
    mailbox.rules.append(Rule("accepted", drop=True, recipient=BOB, times=1))
    with pytest.raises((aiosmtplib.SMTPException, ConnectionError)):
        await send(mailbox)
    await send(mailbox, BOB, CAROL)
    assert mailbox.duplicates() == {("<1@example.com>", BOB): 2}


@pytest.mark.parametrize(("stage", "taken"), [("data", 0), ("accepted", 1)])
async def test_a_slow_answer_outlasts_the_client(mailbox: Mailbox, stage: str, taken: int) -> None:
    mailbox.rules.append(Rule(stage, delay=60))  # type: ignore[arg-type] # the table holds plain strings
    smtp = client(mailbox)
    await smtp.connect()
    with pytest.raises(aiosmtplib.SMTPTimeoutError):
        await smtp.sendmail(ALICE, [BOB], mail(), timeout=0.1)
    smtp.close()
    await wait_until(lambda: not mailbox.open, "the connection has ended")
    assert len(mailbox.mails) == taken


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
async def test_users_must_log_in(mechanism: str) -> None:
    async with Mailbox(users={"mailer": "right"}, mechanisms=[mechanism]) as mailbox:
        with pytest.raises(aiosmtplib.SMTPSenderRefused) as refused:
            await send(mailbox)
        assert refused.value.code == 530
        async with client(mailbox) as smtp:
            await smtp.ehlo()
            assert smtp.server_auth_methods == [mechanism.lower()]
            with pytest.raises(aiosmtplib.SMTPAuthenticationError) as failed:
                await smtp.login("mailer", "wrong")
            assert failed.value.code == 535
            await smtp.login("mailer", "right")
            await smtp.sendmail(ALICE, [BOB], mail())
        assert mailbox.mails[0].user == "mailer"
        assert mailbox.logins == [
            Login(user="mailer", mechanism=mechanism, accepted=accepted, tls=False) for accepted in (False, True)
        ]


async def test_a_rule_refuses_a_login() -> None:
    async with Mailbox(users={"mailer": "right"}) as mailbox:
        mailbox.rules.append(Rule("auth", "454 4.7.0 directory away"))
        async with client(mailbox) as smtp:
            with pytest.raises(aiosmtplib.SMTPAuthenticationError, match="directory away"):
                await smtp.login("mailer", "right")


async def test_starttls_protects_what_follows(tls: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    server, trusting = tls
    async with Mailbox(tls=server, encryption="required", users={"mailer": "right"}) as mailbox:
        async with client(mailbox) as smtp:
            await smtp.ehlo()
            assert "auth" not in smtp.esmtp_extensions
            code, _ = await smtp.execute_command(b"MAIL", b"FROM:<a@example.com>")
            assert code == 530
        async with client(mailbox, start_tls=True, tls_context=trusting, username="mailer", password="right") as smtp:
            await smtp.sendmail(ALICE, [BOB], mail())
        assert (mailbox.mails[0].tls, mailbox.mails[0].user, mailbox.logins[0].tls) == (True, "mailer", True)


async def test_starttls_may_be_refused_or_fail(tls: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    async with Mailbox(tls=tls[0]) as mailbox:
        with pytest.raises((aiosmtplib.SMTPException, ssl.SSLError)):
            await client(mailbox, start_tls=True, tls_context=ssl.create_default_context()).connect()
        mailbox.rules.append(Rule("starttls", "454 4.7.0 no TLS today"))
        with pytest.raises(aiosmtplib.SMTPResponseException, match="no TLS today"):
            await client(mailbox, start_tls=True, tls_context=tls[1]).connect()
        await wait_until(lambda: not mailbox.open, "the connections have ended")


async def test_tls_may_begin_with_the_connection(tls: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    async with Mailbox(tls=tls[0], encryption="implicit", users={"mailer": "right"}) as mailbox:
        async with client(mailbox, use_tls=True, tls_context=tls[1], username="mailer", password="right") as smtp:
            assert not smtp.supports_extension("starttls")
            await smtp.sendmail(ALICE, [BOB], mail())
        assert mailbox.mails[0].tls


async def test_a_restarted_relay_has_cut_its_connections_and_kept_its_port(mailbox: Mailbox) -> None:
    port = mailbox.port
    smtp = client(mailbox)
    await smtp.connect()
    await mailbox.stop()
    assert not mailbox.open
    with pytest.raises(aiosmtplib.SMTPServerDisconnected):
        await smtp.sendmail(ALICE, [BOB], mail())
    with pytest.raises(aiosmtplib.SMTPConnectError):
        await client(mailbox).connect()
    await mailbox.start()
    assert mailbox.port == port
    await send(mailbox)


@pytest.mark.parametrize("encryption", ["offered", "implicit"])
def test_open_connections_are_cut_on_uvloop_too(
    encryption: Encryption, tls: tuple[ssl.SSLContext, ssl.SSLContext]
) -> None:
    async def cut() -> None:
        mailbox = Mailbox(tls=tls[0], encryption=encryption)
        implicit = encryption == "implicit"
        async with mailbox:
            smtp = client(mailbox, use_tls=implicit, start_tls=not implicit, tls_context=tls[1])
            await smtp.connect()
            await smtp.sendmail(ALICE, [BOB], mail())
        assert not mailbox.open
        assert mailbox.mails[0].tls
        smtp.close()

    uvloop.run(cut())


async def test_many_connections_bring_thousands_of_mails(mailbox: Mailbox) -> None:
    async def bring(sender: int) -> None:
        async with client(mailbox) as smtp:
            for number in range(50):
                await smtp.sendmail(ALICE, [BOB], mail(f"<{sender}-{number}@example.com>"))

    await asyncio.gather(*(bring(sender) for sender in range(60)))
    assert (len(mailbox.mails), mailbox.connections, mailbox.duplicates()) == (3000, 60, {})


def test_it_runs_in_a_thread_for_those_without_a_loop() -> None:
    mailbox = Mailbox()
    for connection in (1, 2):
        with mailbox.run_in_thread(), smtplib.SMTP("127.0.0.1", mailbox.port, timeout=5) as smtp:
            smtp.sendmail(ALICE, [BOB], mail())
            assert mailbox.connections == connection
        with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", mailbox.port)):
            pass
    assert len(mailbox.mails) == 2
