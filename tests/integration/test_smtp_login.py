"""How the SMTP transport connects, secures and logs in, and reads its files again."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from services.mailer.errors import Held, Trouble
from shared.settings import SettingsError
from simulators.certificates import ClusterAuthority
from simulators.mailbox import Encryption, Login, Mailbox, Rule
from tests.relay_tls import relay_certificate
from tests.relaying import MAIL, error_of, failure, held, transport, unused_transport
from tests.waiting import wait_until

RelayTls = tuple[ssl.SSLContext, Path]


@pytest.fixture(scope="module")
def relay_ca(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, Path]:
    """The TLS of a relay at localhost, and the file with the certificate that signed it."""
    return relay_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture
async def mailbox() -> AsyncIterator[Mailbox]:
    """A relay that takes everything, in the clear."""
    async with Mailbox() as mailbox:
        yield mailbox


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
        trouble = await error_of(Held, mailbox, **options)
        assert trouble.reason is Trouble.TLS
        assert "certificate" in trouble.detail
        assert mailbox.mails == []


async def test_a_relay_under_another_name_than_its_certificate_gets_nothing(relay_ca: RelayTls) -> None:
    tls, ca_file = relay_ca
    async with Mailbox(tls=tls, host="127.0.0.2") as mailbox:
        trouble = await error_of(Held, mailbox, host="127.0.0.2", starttls_policy="mandatory", ca_file=ca_file)
        assert (trouble.reason, mailbox.mails) == (Trouble.TLS, [])


async def test_mandatory_means_that_a_relay_without_tls_gets_nothing(mailbox: Mailbox) -> None:
    trouble = await error_of(Held, mailbox, starttls_policy="mandatory")
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
        trouble = await error_of(Held, mailbox, starttls_policy="opportunistic", **ALICE)
        assert (trouble.reason, mailbox.logins) == (Trouble.TLS, [])


async def test_a_refused_password_is_trouble_and_stands_in_no_error(relay_ca: RelayTls) -> None:
    tls, ca_file = relay_ca
    async with Mailbox(tls=tls, users={"alice": "other"}) as mailbox:
        options = ALICE | {"starttls_policy": "mandatory", "ca_file": ca_file}
        trouble = await error_of(Held, mailbox, **options)
        assert (trouble.reason, trouble.code) == (Trouble.CREDENTIALS, 535)
        assert "secret" not in repr(trouble)
        assert mailbox.logins == [Login("alice", "PLAIN", accepted=False, tls=True)]


async def test_a_relay_that_knows_no_login_of_ours_is_trouble(mailbox: Mailbox) -> None:
    trouble = await error_of(Held, mailbox, **ALICE)
    assert trouble.reason is Trouble.CREDENTIALS


async def test_the_password_file_is_read_at_each_login(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("old\n")
    async with Mailbox(users={"alice": "new"}) as mailbox:
        async with transport(mailbox, username="alice", password_file=file) as smtp:
            await failure(Held, smtp.send(MAIL, held))
            file.write_text(" new \n")
            await smtp.send(MAIL, held)
        assert [login.accepted for login in mailbox.logins] == [False, True]


async def test_a_password_file_that_is_gone_is_trouble(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("secret")
    async with Mailbox(users={"alice": "secret"}) as mailbox:
        async with transport(mailbox, username="alice", password_file=file) as smtp:
            file.unlink()
            trouble = await failure(Held, smtp.send(MAIL, held))
        assert trouble.reason is Trouble.CREDENTIALS


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
    with pytest.raises(SettingsError, match=r"smtp\.ca_file: .*/ca.pem: (does not exist|holds no PEM certificate); "):
        unused_transport(mailbox, ca_file=make(tmp_path / "ca.pem"))


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
        await failure(Held, smtp.check())


async def test_a_token_logs_in_and_is_read_at_each_login(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("expired\n")
    async with Mailbox(users={"alice": "fresh"}, mechanisms=("PLAIN", "XOAUTH2")) as mailbox:
        async with transport(mailbox, username="alice", oauth_token_file=file) as smtp:
            trouble = await failure(Held, smtp.send(MAIL, held))
            assert (trouble.reason, trouble.code) == (Trouble.CREDENTIALS, 535)
            assert "expired" not in repr(trouble)
            file.write_text("fresh\n")
            await smtp.send(MAIL, held)
        assert mailbox.logins == [
            Login("alice", "XOAUTH2", accepted=False, tls=False),
            Login("alice", "XOAUTH2", accepted=True, tls=False),
        ]


async def test_a_token_never_goes_out_as_a_password(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("fresh")
    async with Mailbox(users={"alice": "fresh"}) as mailbox:
        trouble = await error_of(Held, mailbox, username="alice", oauth_token_file=file)
        assert (trouble.reason, mailbox.logins) == (Trouble.CREDENTIALS, [])


async def test_a_relay_that_asks_for_a_certificate_gets_ours(tmp_path: Path) -> None:
    authority = ClusterAuthority.create("relay")
    server, client = authority.web_certificate(), authority.web_certificate()
    files = {"server": server.key + server.certificate, "cert": client.certificate, "key": client.key}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    ca_file = tmp_path / "ca"
    ca_file.write_bytes(authority.web_ca.pem)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(tmp_path / "server")
    tls.load_verify_locations(ca_file)
    tls.verify_mode = ssl.CERT_REQUIRED
    async with Mailbox(tls=tls, encryption="required") as mailbox:
        options: dict[str, Any] = {"starttls_policy": "mandatory", "ca_file": ca_file}
        trouble = await error_of(Held, mailbox, **options)
        assert trouble.reason in (Trouble.TLS, Trouble.CONNECT)  # TLS 1.3 tells after the handshake
        options |= {"client_cert_file": tmp_path / "cert", "client_key_file": tmp_path / "key"}
        async with transport(mailbox, **options) as smtp:
            await smtp.send(MAIL, held)
        assert len(mailbox.mails) == 1


@pytest.mark.parametrize("make", [lambda file: file, broken], ids=["missing", "broken"])
async def test_a_client_certificate_that_cannot_be_used_stops_the_start(
    mailbox: Mailbox, tmp_path: Path, make: Callable[[Path], Path]
) -> None:
    with pytest.raises(SettingsError, match=r"client_cert_file: .*/client.pem: (does not exist|no PEM certificate)"):
        unused_transport(mailbox, client_cert_file=make(tmp_path / "client.pem"))
