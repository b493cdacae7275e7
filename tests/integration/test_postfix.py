"""The SMTP transport against a real Postfix: its TLS and logins, its limits, and its many ways to say no."""

import asyncio
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from services.mailer.errors import Held, Refusal, Refused, Trouble, Unavailable
from services.mailer.transports import Envelope
from tests.postfix import DOMAIN, PASSWORD, SIZE_LIMIT, USER, WHY_NOT, Greylist, Postfix, postfix
from tests.relaying import error_of, failure, held, transport
from tests.waiting import wait_until

pytestmark = pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)

RATE, CONNECTIONS = 5, 2

OUTCOMES = [
    ("busy", Unavailable, Trouble.TEMPORARY, 450),
    ("full", Unavailable, Trouble.TEMPORARY, 452),
    ("drop", Unavailable, Trouble.BUSY, 421),
    ("overfull", Refused, Refusal.RECIPIENT_REFUSED, 552),
    ("unknown", Refused, Refusal.RECIPIENT_REFUSED, 550),
]


@pytest.fixture(scope="module")
def policy_port() -> int:
    """Where the greylist is asked for."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture(scope="module")
def server(policy_port: int) -> Iterator[Postfix]:
    """One server for all tests, with a door for each kind of trouble."""
    greylisted = f"check_policy_service inet:127.0.0.1:{policy_port}, permit_sasl_authenticated, reject"
    doors = {
        "open": {},
        "greylist": {"smtpd_recipient_restrictions": greylisted},
        "few-mails": {"smtpd_client_message_rate_limit": str(RATE)},
        "few-connections": {"smtpd_client_connection_count_limit": str(CONNECTIONS)},
        "no-size": {"smtpd_discard_ehlo_keywords": "size"},
        "lockstep": {"smtpd_discard_ehlo_keywords": "pipelining"},
    }
    with postfix(doors) as server:
        yield server


def login(server: Postfix) -> dict[str, Any]:
    return {"starttls_policy": "mandatory", "ca_file": server.ca_file, "username": USER, "password": PASSWORD}


def to(name: str, size: int = 0) -> Envelope:
    """A mail to this person, of at least this size."""
    recipient = f"{name}@{DOMAIN}"
    content = f"From: access@example.com\r\nTo: {recipient}\r\nSubject: for {name}\r\n\r\n.\r\n..\r\nbye\r\n"
    return Envelope("access@example.com", recipient, content.encode() + b"x" * 70 + b"\r\n" * (size // 2))


def arrived(server: Postfix, name: str) -> int:
    """How many mails this person has, every byte of the body as it was written."""
    subject = f"\nSubject: for {name}\n".encode()
    return sum(subject in mail and b"\n\n.\n..\nbye\n" in mail for mail in server.delivered())


async def has(server: Postfix, name: str, mails: int = 1) -> None:
    await wait_until(lambda: arrived(server, name) == mails, f"{name} has {mails} mails")


@pytest.mark.parametrize("door", ["open", "lockstep"])
async def test_mails_travel_over_starttls_after_a_login(server: Postfix, door: str) -> None:
    async with transport(server.doors[door], connections=5, **login(server)) as smtp:
        answers = await asyncio.gather(*(smtp.send(to(f"{door}-{number}"), held) for number in range(50)))
    assert all(answer.startswith("250 2.0.0 Ok: queued as ") for answer in answers)
    for number in range(50):
        await has(server, f"{door}-{number}")


async def test_without_tls_it_takes_no_mail(server: Postfix) -> None:
    error = await error_of(Held, server.doors["open"], to("clear"))
    assert (error.reason, error.code) == (Trouble.CREDENTIALS, 530)


async def test_a_certificate_that_nobody_vouches_for_ends_it(server: Postfix) -> None:
    error = await error_of(Held, server.doors["open"], to("unsafe"), starttls_policy="mandatory")
    assert error.reason is Trouble.TLS


async def test_a_wrong_password_is_no_fault_of_a_mail(server: Postfix) -> None:
    error = await error_of(Held, server.doors["open"], to("wrong"), **login(server) | {"password": "wrong"})
    assert (error.reason, error.code) == (Trouble.CREDENTIALS, 535)


@pytest.mark.parametrize(("name", "kind", "reason", "code"), OUTCOMES)
async def test_what_it_says_of_a_recipient_concerns_that_one_alone(
    server: Postfix,
    name: str,
    kind: type[Refused] | type[Unavailable],
    reason: Trouble | Refusal,
    code: int,
) -> None:
    async with transport(server.doors["open"], connections=1, **login(server)) as smtp:
        sending = [
            smtp.send(to(f"{name}-before"), held),
            smtp.send(to(name), held),
            smtp.send(to(f"{name}-after"), held),
        ]
        before, error, after = await asyncio.gather(*sending, return_exceptions=True)
    assert isinstance(error, kind)
    assert (error.reason, error.code) == (reason, code)
    assert isinstance(before, str)
    assert isinstance(after, str)
    for neighbour in ("before", "after"):
        await has(server, f"{name}-{neighbour}")


async def test_greylisting_lets_the_second_try_through(server: Postfix, policy_port: int) -> None:
    async with Greylist(policy_port), transport(server.doors["greylist"], **login(server)) as smtp:
        error = await failure(Unavailable, smtp.send(to("grey"), held))
        assert (error.reason, error.code, error.retry_after) == (Trouble.TEMPORARY, 451, 3)
        await smtp.send(to("grey"), held)
    await has(server, "grey")


async def test_too_many_mails_a_minute_are_the_relays_matter(server: Postfix) -> None:
    async with transport(server.doors["few-mails"], connections=1, **login(server)) as smtp:
        for _ in range(RATE):
            await smtp.send(to("rate"), held)
        error = await failure(Unavailable, smtp.send(to("rate"), held))
    assert (error.reason, error.code) == (Trouble.BUSY, 450)
    await has(server, "rate", RATE)


async def test_too_many_connections_cost_no_mail(server: Postfix) -> None:
    async with transport(server.doors["few-connections"], connections=8, **login(server)) as smtp:
        await asyncio.gather(*(smtp.send(to("crowd", size=20_000), held) for _ in range(60)))
    await has(server, "crowd", 60)
    assert "Connection concurrency limit exceeded" in server.log  # some were turned away


async def test_a_mail_that_is_too_large_is_refused(server: Postfix) -> None:
    for door, code in (("open", None), ("no-size", 552)):  # before and after it has travelled
        error = await error_of(Refused, server.doors[door], to("large", SIZE_LIMIT), **login(server))
        assert (error.reason, error.code) == (Refusal.MESSAGE_REFUSED, code)
