"""A relay and the transport that sends to it, for tests of the SMTP transport."""

from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any, Protocol, TypeVar

import pytest

from services.mailer.errors import DeliveryError
from services.mailer.transports import Envelope
from services.mailer.transports.smtp import SmtpTransport
from services.mailer.transports.smtp_login import Patience
from shared.settings import SmtpSettings
from simulators.mailbox import Mailbox
from tests.waiting import wait_until

SENDER, BOB = "access@example.com", "bob@example.com"
CONTENT = b"Subject: Hello\r\n\r\n.\r\n..dots\r\nbye\r\n"
MAIL = Envelope(SENDER, BOB, CONTENT)
IMPATIENT = Patience(connect=5, command=0.2, content=0.2, idle=30)
PATIENT = Patience(connect=5, command=5, content=5, idle=30)

Error = TypeVar("Error", bound=DeliveryError)


class Listening(Protocol):
    """A server at localhost."""

    port: int


def held() -> bool:
    """The claim on a mail that nobody contests."""
    return True


def to(name: str) -> Envelope:
    """A mail to somebody at example.com, which says so."""
    return Envelope(SENDER, f"{name}@example.com", b"Subject: for %s\r\n\r\n%b" % (name.encode(), CONTENT))


def smtp_settings(relay: Listening, **options: Any) -> SmtpSettings:
    """Of a relay in the clear, unless the options say otherwise."""
    values = {"host": "localhost", "port": relay.port, "starttls_policy": "disabled"}
    return SmtpSettings.model_validate(values | options)


def unused_transport(
    relay: Listening, patience: Patience = PATIENT, connections: int = 4, **options: Any
) -> SmtpTransport:
    """One that somebody else closes."""
    return SmtpTransport(smtp_settings(relay, **options), "example.com", connections, patience)


@asynccontextmanager
async def transport(
    relay: Listening, patience: Patience = PATIENT, connections: int = 4, **options: Any
) -> AsyncIterator[SmtpTransport]:
    """A way to the relay, and nothing open there after it."""
    transport = unused_transport(relay, patience, connections, **options)
    try:
        yield transport
    finally:
        await transport.close()
        if isinstance(relay, Mailbox):
            await wait_until(lambda: not relay.open, "the relay is left")


async def error_of(
    kind: type[Error], relay: Listening, mail: Envelope = MAIL, patience: Patience = PATIENT, **options: Any
) -> Error:
    """What a mail meets that is not delivered."""
    async with transport(relay, patience, **options) as smtp:
        return await failure(kind, smtp.send(mail, held))


async def failure(kind: type[Error], sending: Awaitable[str]) -> Error:
    """The error of exactly this kind that sending raises."""
    with pytest.raises(kind) as caught:
        await sending
    return caught.value
