"""The seam to aiosmtplib: it makes the connection ready, then its transport becomes ours. Guards a change of either."""

import asyncio
import ssl
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import aiosmtplib
import pytest
import uvloop

from services.mailer.transports import Envelope
from simulators.mailbox import Encryption, Mailbox
from tests.relay_tls import relay_certificate
from tests.relaying import BOB, CONTENT, SENDER, held, transport

RUNNERS: list[Callable[[Coroutine[Any, Any, None]], None]] = [asyncio.run, uvloop.run]
POLICIES: dict[Encryption, dict[str, Any]] = {
    "offered": {"starttls_policy": "mandatory"},
    "implicit": {"implicit_tls": True, "starttls_policy": "mandatory"},
}


@pytest.fixture(scope="module")
def relay_ca(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, Path]:
    """The TLS of a relay at localhost, and the file with the certificate that signed it."""
    return relay_certificate(tmp_path_factory.mktemp("tls"))


@pytest.mark.parametrize("run", RUNNERS, ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("encryption", [None, "offered", "implicit"])
def test_a_connection_is_ours_after_the_login_on_either_loop(
    relay_ca: tuple[ssl.SSLContext, Path],
    encryption: Encryption | None,
    run: Callable[[Coroutine[Any, Any, None]], None],
) -> None:
    tls, ca_file = relay_ca
    options = {} if encryption is None else POLICIES[encryption] | {"ca_file": ca_file}
    large = Envelope(SENDER, BOB, b"Subject: Large\r\n\r\n" + b"x" * 70 + b"\r\n" * 100_000)

    async def mails() -> None:
        server = None if encryption is None else tls
        async with (
            Mailbox(tls=server, encryption=encryption or "offered", users={"alice": "secret"}) as mailbox,
            transport(mailbox, connections=1, username="alice", password="secret", **options) as smtp,
        ):
            sent = [Envelope(SENDER, BOB, CONTENT), large, Envelope(SENDER, BOB, CONTENT)]
            await asyncio.gather(*(smtp.send(mail, held) for mail in sent))
            assert [mail.raw for mail in mailbox.mails] == [mail.content for mail in sent]
            assert {mail.user for mail in mailbox.mails} == {"alice"}
            assert mailbox.connections == 1

    run(mails())


async def test_our_transaction_delivers_what_the_librarys_own_does() -> None:
    async with Mailbox() as mailbox:
        async with transport(mailbox) as smtp:
            await smtp.send(Envelope(SENDER, BOB, CONTENT), held)
        async with aiosmtplib.SMTP(hostname="localhost", port=mailbox.port, start_tls=False) as library:
            await library.sendmail(SENDER, [BOB], CONTENT)
        ours, theirs = mailbox.mails
        assert (ours.raw, ours.sender, ours.recipient) == (theirs.raw, theirs.sender, theirs.recipient)
