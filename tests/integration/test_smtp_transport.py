"""The SMTP transport against a relay that secures, refuses, dawdles and breaks off."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from services.mailer.errors import ClaimLost, Refusal, Refused, Trouble, Unavailable
from services.mailer.transports import Envelope
from services.mailer.transports.smtp import SmtpTransport
from services.mailer.transports.smtp_connection import Patience
from shared.settings import SettingsError, SmtpSettings
from simulators.certificates import ClusterAuthority
from simulators.mailbox import Encryption, Login, Mailbox, Rule
from tests.waiting import wait_until

SENDER, BOB = "access@example.com", "bob@example.com"
CONTENT = b"Subject: Hello\r\n\r\n.\r\n..dots\r\nbye\r\n"
MAIL = Envelope(SENDER, BOB, CONTENT)
IMPATIENT = Patience(connect=5, command=0.2, content=0.2, idle=30)
PATIENT = Patience(connect=5, command=5, content=5, idle=30)


def held() -> bool:
    return True


@pytest.fixture(scope="module")
def relay_ca(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, Path]:
    """The TLS of a relay at localhost, and the file with the certificate that signed it."""
    cluster = ClusterAuthority.create("relay")
    pair, folder = cluster.web_certificate(), tmp_path_factory.mktemp("tls")
    key_file, ca_file = folder / "relay.pem", folder / "ca.pem"
    key_file.write_bytes(pair.key + pair.certificate)
    ca_file.write_bytes(cluster.web_ca.pem)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(key_file)
    return server, ca_file


@pytest.fixture
async def mailbox() -> AsyncIterator[Mailbox]:
    """A relay that takes everything, in the clear."""
    async with Mailbox() as mailbox:
        yield mailbox


def settings(mailbox: Mailbox, **options: Any) -> SmtpSettings:
    values = {"host": "localhost", "port": mailbox.port, "starttls_policy": "disabled"}
    return SmtpSettings.model_validate(values | options)


@asynccontextmanager
async def transport(mailbox: Mailbox, patience: Patience = PATIENT, **options: Any) -> AsyncIterator[SmtpTransport]:
    transport = SmtpTransport(settings(mailbox, **options), "example.com", patience)
    try:
        yield transport
    finally:
        await transport.close()
        await wait_until(lambda: not mailbox.open, "the relay is left")


async def unavailable(mailbox: Mailbox, patience: Patience = PATIENT, **options: Any) -> Unavailable:
    """The trouble that a mail meets."""
    async with transport(mailbox, patience, **options) as smtp:
        with pytest.raises(Unavailable) as caught:
            await smtp.send(MAIL, held)
    return caught.value


async def refused(mailbox: Mailbox, mail: Envelope = MAIL) -> Refused:
    """The refusal that a mail meets."""
    async with transport(mailbox) as smtp:
        with pytest.raises(Refused) as caught:
            await smtp.send(mail, held)
    return caught.value


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


async def test_mails_at_once_have_a_connection_each_and_leave_them_for_the_next(mailbox: Mailbox) -> None:
    async with transport(mailbox) as smtp:
        for _ in range(2):
            await asyncio.gather(*(smtp.send(MAIL, held) for _ in range(4)))
    assert (len(mailbox.mails), mailbox.connections) == (8, 4)


async def test_a_connection_that_nobody_needs_is_left(mailbox: Mailbox) -> None:
    async with transport(mailbox, Patience(idle=0.05)) as smtp:
        await smtp.send(MAIL, held)
        await wait_until(lambda: not mailbox.open, "the connection is left")
        await smtp.send(MAIL, held)
    assert mailbox.connections == 2


async def test_connections_that_the_relay_has_cut_meanwhile_cost_no_mail(mailbox: Mailbox) -> None:
    async with transport(mailbox) as smtp:
        await asyncio.gather(*(smtp.send(MAIL, held) for _ in range(3)))
        await mailbox.stop()
        await mailbox.start()
        await smtp.send(MAIL, held)
    assert len(mailbox.mails) == 4


@pytest.mark.parametrize("rule", [Rule("mail", drop=True, times=1), Rule("mail", "421 4.4.2 idle too long", times=1)])
async def test_a_kept_connection_that_breaks_off_at_mail_is_replaced_at_once(mailbox: Mailbox, rule: Rule) -> None:
    async with transport(mailbox) as smtp:
        await smtp.send(MAIL, held)
        mailbox.rules = [rule]
        await smtp.send(MAIL, held)
    assert (len(mailbox.mails), mailbox.connections) == (2, 2)


async def test_a_fresh_connection_that_breaks_off_is_not_tried_again(mailbox: Mailbox) -> None:
    mailbox.rules = [Rule("mail", drop=True, times=1)]
    trouble = await unavailable(mailbox)
    assert (trouble.reason, trouble.perhaps, mailbox.connections) == (Trouble.CONNECTION_LOST, False, 1)


async def test_a_refused_recipient_does_not_cost_the_others_their_connection(mailbox: Mailbox) -> None:
    mailbox.rules = [Rule("rcpt", "550 5.1.1 no such user", recipient="nobody@example.com")]
    async with transport(mailbox) as smtp:
        with pytest.raises(Refused):
            await smtp.send(Envelope(SENDER, "nobody@example.com", CONTENT), held)
        await smtp.send(MAIL, held)
    assert [received.recipient for received in mailbox.mails] == [BOB]
    assert mailbox.connections == 1


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
    error = await refused(mailbox)
    assert (error.reason, error.detail, error.code) == (reason, rule.reply, int(rule.reply[:3]))


@pytest.mark.parametrize(
    ("rule", "reason", "hint"),
    [
        (Rule("connect", "554 5.3.2 go away"), Trouble.CONNECT, None),
        (Rule("connect", "421 4.7.0 too many connections, wait 5 minutes"), Trouble.BUSY, 300),
        (Rule("ehlo", "550 5.7.1 not you"), Trouble.CONNECT, None),
        (Rule("mail", "451 4.3.0 disk full"), Trouble.TEMPORARY, None),
        (Rule("mail", "530 5.7.0 log in first"), Trouble.CREDENTIALS, None),
        (Rule("rcpt", "450 4.2.0 greylisted, try again in 300 seconds"), Trouble.TEMPORARY, 300),
        (Rule("rcpt", "421 4.3.2 shutting down"), Trouble.BUSY, None),
        (Rule("data", "452 4.3.1 disk full"), Trouble.TEMPORARY, None),
        (Rule("data", "421 4.3.2 shutting down"), Trouble.BUSY, None),
        (Rule("rcpt", "354 what?"), Trouble.PROTOCOL, None),
    ],
)
async def test_what_the_relay_says_for_now_is_trouble(
    mailbox: Mailbox, rule: Rule, reason: Trouble, hint: float | None
) -> None:
    mailbox.rules = [rule]
    trouble = await unavailable(mailbox)
    assert (trouble.reason, trouble.detail, trouble.code) == (reason, rule.reply, int(rule.reply[:3]))
    assert (trouble.retry_after, trouble.perhaps, mailbox.mails) == (hint, False, [])


@pytest.mark.parametrize(
    ("rule", "reason", "perhaps"),
    [
        (Rule("connect", drop=True), Trouble.CONNECT, False),
        (Rule("ehlo", delay=60), Trouble.CONNECT, False),
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
    trouble = await unavailable(mailbox, IMPATIENT)
    assert (trouble.reason, trouble.perhaps) == (reason, perhaps)


async def test_a_relay_that_is_down_is_trouble(mailbox: Mailbox) -> None:
    await mailbox.stop()
    trouble = await unavailable(mailbox)
    await mailbox.start()
    assert (trouble.reason, trouble.code) == (Trouble.CONNECT, None)


async def test_a_host_name_that_cannot_be_is_trouble(mailbox: Mailbox) -> None:
    trouble = await unavailable(mailbox, host="mail..example.com")
    assert trouble.reason is Trouble.CONNECT


async def test_a_sender_whose_claim_was_lost_stops_before_data(mailbox: Mailbox) -> None:
    async with transport(mailbox) as smtp:
        with pytest.raises(ClaimLost):
            await smtp.send(MAIL, lambda: False)
        assert mailbox.mails == []
        await smtp.send(MAIL, held)
    assert (len(mailbox.mails), mailbox.connections) == (1, 1)


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


async def test_a_cancelled_mail_takes_its_connection_along(mailbox: Mailbox) -> None:
    rule = Rule("rcpt", delay=60)
    mailbox.rules = [rule]
    async with transport(mailbox) as smtp:
        sending = asyncio.create_task(smtp.send(MAIL, held))
        await wait_until(lambda: rule.obeyed, "the relay dawdles")
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        await wait_until(lambda: not mailbox.open, "the connection is gone")
        mailbox.rules = []
        await smtp.send(MAIL, held)
    assert len(mailbox.mails) == 1


# -- addresses beyond ASCII


async def test_a_local_part_beyond_ascii_travels_where_the_relay_takes_it(mailbox: Mailbox) -> None:
    async with transport(mailbox) as smtp:
        await smtp.send(Envelope(SENDER, "jürgen@example.com", CONTENT), held)
    assert mailbox.mails[0].recipient == "jürgen@example.com"


async def test_a_local_part_beyond_ascii_is_refused_where_it_does_not() -> None:
    async with Mailbox(extensions=("8BITMIME",)) as mailbox:
        error = await refused(mailbox, Envelope(SENDER, "jürgen@example.com", CONTENT))
        assert error.reason is Refusal.NO_SMTPUTF8
        assert mailbox.mails == []


# -- TLS and AUTH

RelayTls = tuple[ssl.SSLContext, Path]


@pytest.mark.parametrize(
    ("encryption", "options"),
    [
        ("offered", {"starttls_policy": "mandatory"}),
        ("required", {"starttls_policy": "mandatory"}),
        ("offered", {"starttls_policy": "opportunistic"}),
        ("implicit", {"implicit_tls": True, "starttls_policy": "mandatory"}),
    ],
)
async def test_mails_travel_encrypted(relay_ca: RelayTls, encryption: Encryption, options: dict[str, Any]) -> None:
    tls, ca_file = relay_ca
    async with (
        Mailbox(tls=tls, encryption=encryption) as mailbox,
        transport(mailbox, ca_file=ca_file, **options) as smtp,
    ):
        await smtp.send(MAIL, held)
        assert [received.tls for received in mailbox.mails] == [True]


@pytest.mark.parametrize(
    ("encryption", "options"),
    [
        ("offered", {"starttls_policy": "mandatory"}),
        ("offered", {"starttls_policy": "opportunistic"}),
        ("implicit", {"implicit_tls": True}),
    ],
)
async def test_a_relay_whose_certificate_nobody_vouches_for_gets_nothing(
    relay_ca: RelayTls, encryption: Encryption, options: dict[str, Any]
) -> None:
    async with Mailbox(tls=relay_ca[0], encryption=encryption) as mailbox:
        trouble = await unavailable(mailbox, **options)
        assert trouble.reason is Trouble.TLS
        assert "certificate" in trouble.detail
        assert mailbox.mails == []


async def test_a_relay_under_another_name_than_its_certificate_gets_nothing(relay_ca: RelayTls) -> None:
    tls, ca_file = relay_ca
    async with Mailbox(tls=tls, host="127.0.0.2") as mailbox:
        trouble = await unavailable(mailbox, host="127.0.0.2", starttls_policy="mandatory", ca_file=ca_file)
        assert (trouble.reason, mailbox.mails) == (Trouble.TLS, [])


async def test_mandatory_means_that_a_relay_without_tls_gets_nothing(mailbox: Mailbox) -> None:
    trouble = await unavailable(mailbox, starttls_policy="mandatory")
    assert (trouble.reason, mailbox.mails) == (Trouble.TLS, [])


async def test_opportunistic_goes_in_the_clear_where_no_tls_is_offered(mailbox: Mailbox) -> None:
    async with transport(mailbox, starttls_policy="opportunistic") as smtp:
        await smtp.send(MAIL, held)
    assert [received.tls for received in mailbox.mails] == [False]


ALICE: dict[str, Any] = {"username": "alice", "password": "secret"}


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
async def test_it_logs_in_by_what_the_relay_offers(mechanism: str) -> None:
    async with Mailbox(users={"alice": "secret"}, mechanisms=(mechanism,)) as mailbox:
        async with transport(mailbox, **ALICE) as smtp:
            await smtp.send(MAIL, held)
        assert mailbox.logins == [Login("alice", mechanism, accepted=True, tls=False)]
        assert mailbox.mails[0].user == "alice"


async def test_a_password_never_goes_in_the_clear_unless_tls_is_disabled() -> None:
    async with Mailbox(users={"alice": "secret"}) as mailbox:
        trouble = await unavailable(mailbox, starttls_policy="opportunistic", **ALICE)
        assert (trouble.reason, mailbox.logins) == (Trouble.TLS, [])


async def test_a_refused_password_is_trouble_and_stands_in_no_error(relay_ca: RelayTls) -> None:
    tls, ca_file = relay_ca
    async with Mailbox(tls=tls, users={"alice": "other"}) as mailbox:
        options = ALICE | {"starttls_policy": "mandatory", "ca_file": ca_file}
        trouble = await unavailable(mailbox, **options)
        assert (trouble.reason, trouble.code) == (Trouble.CREDENTIALS, 535)
        assert "secret" not in repr(trouble)
        assert mailbox.logins == [Login("alice", "PLAIN", accepted=False, tls=True)]


async def test_a_relay_that_knows_no_login_of_ours_is_trouble(mailbox: Mailbox) -> None:
    trouble = await unavailable(mailbox, **ALICE)
    assert trouble.reason is Trouble.CREDENTIALS


async def test_the_password_file_is_read_at_each_login(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("old\n")
    async with Mailbox(users={"alice": "new"}) as mailbox:
        async with transport(mailbox, username="alice", password_file=file) as smtp:
            with pytest.raises(Unavailable):
                await smtp.send(MAIL, held)
            file.write_text(" new \n")
            await smtp.send(MAIL, held)
        assert [login.accepted for login in mailbox.logins] == [False, True]


async def test_a_password_file_that_is_gone_is_trouble(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("secret")
    async with Mailbox(users={"alice": "secret"}) as mailbox:
        async with transport(mailbox, username="alice", password_file=file) as smtp:
            file.unlink()
            with pytest.raises(Unavailable) as caught:
                await smtp.send(MAIL, held)
        assert caught.value.reason is Trouble.CREDENTIALS


async def test_a_reload_logs_in_anew(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("secret")
    async with Mailbox(users={"alice": "secret"}) as mailbox:
        async with transport(mailbox, username="alice", password_file=file) as smtp:
            await smtp.send(MAIL, held)
            smtp.reload()
            await smtp.send(MAIL, held)
        assert len(mailbox.logins) == 2


async def test_a_reload_comes_from_another_thread_and_touches_nothing_of_the_loop(mailbox: Mailbox) -> None:
    asyncio.get_running_loop().set_debug(True)  # then the loop refuses what another thread must not do
    async with transport(mailbox) as smtp:
        await smtp.send(MAIL, held)
        await asyncio.to_thread(smtp.reload)
        await smtp.send(MAIL, held)
    assert mailbox.connections == 2


async def test_a_reload_leaves_mails_under_way_alone_and_then_drops_their_connection(mailbox: Mailbox) -> None:
    rule = Rule("accepted", delay=0.05, times=1)
    mailbox.rules = [rule]
    async with transport(mailbox) as smtp:
        sending = asyncio.create_task(smtp.send(MAIL, held))
        await wait_until(lambda: rule.obeyed, "the mail is under way")
        smtp.reload()
        await sending
        await wait_until(lambda: not mailbox.open, "the connection is left")


def broken(file: Path) -> Path:
    file.write_text("no certificate")
    return file


@pytest.mark.parametrize("make", [lambda file: file, broken], ids=["missing", "broken"])
async def test_a_ca_file_that_cannot_be_used_stops_the_start(
    mailbox: Mailbox, tmp_path: Path, make: Callable[[Path], Path]
) -> None:
    with pytest.raises(SettingsError, match=r"smtp\.ca_file: cannot use"):
        SmtpTransport(settings(mailbox, ca_file=make(tmp_path / "ca.pem")), "example.com", PATIENT)


async def test_a_reload_that_fails_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("secret")
    async with Mailbox(users={"alice": "secret"}) as mailbox:
        async with transport(mailbox, username="alice", password_file=file) as smtp:
            await smtp.send(MAIL, held)
            file.write_text("")
            with pytest.raises(SettingsError):
                smtp.reload()
            await smtp.send(MAIL, held)
        assert (len(mailbox.mails), mailbox.connections) == (2, 1)


async def test_check_goes_as_far_as_the_login(mailbox: Mailbox) -> None:
    async with transport(mailbox) as smtp:
        assert (await smtp.check()).startswith("220 mailbox.test")
    mailbox.users = {"alice": "other"}
    async with transport(mailbox, **ALICE) as smtp:
        with pytest.raises(Unavailable):
            await smtp.check()
