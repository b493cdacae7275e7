"""Every fault that smtp-sink knows, as a real server makes it: what becomes of the mail, and of the next one."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from services.mailer.errors import DeliveryError, Held, Refusal, Refused, Trouble, Unavailable
from services.mailer.transports.smtp_login import Patience
from tests.relaying import BOB, CONTENT, MAIL, PATIENT, SENDER, failure, held, transport
from tests.smtp_sink import COMMAND, smtp_sink

pytestmark = pytest.mark.skipif(
    COMMAND is None, reason="smtp-sink is not installed; it comes with Debian's postfix (make tools)"
)

IMPATIENT = Patience(connect=5, command=0.3, content=0.3)

SLOW_DOWN = ("-b", "421 4.7.0 slow down")
FULL = ("-B", "552 5.2.2 mailbox full")

REFUSALS = [
    (("-f", "MAIL"), Refusal.SENDER_REFUSED, 500),
    (("-f", "RCPT"), Refusal.RECIPIENT_REFUSED, 500),
    (("-f", "DATA"), Refusal.MESSAGE_REFUSED, 500),
    (("-f", "."), Refusal.MESSAGE_REFUSED, 500),
    ((*FULL, "-f", "RCPT"), Refusal.RECIPIENT_REFUSED, 552),
    ((*FULL, "-f", "."), Refusal.RECIPIENT_REFUSED, 552),
]

TROUBLES = [
    (("-r", "MAIL"), Trouble.TEMPORARY, 450, False),
    (("-r", "RCPT"), Trouble.TEMPORARY, 450, False),
    (("-r", "DATA"), Trouble.TEMPORARY, 450, False),
    (("-r", "."), Trouble.TEMPORARY, 450, False),
    ((*SLOW_DOWN, "-r", "RCPT"), Trouble.BUSY, 421, False),
    ((*SLOW_DOWN, "-r", "."), Trouble.BUSY, 421, False),
    (("-q", "MAIL"), Trouble.CONNECTION_LOST, None, False),
    (("-q", "RCPT"), Trouble.CONNECTION_LOST, None, False),
    (("-q", "DATA"), Trouble.CONNECTION_LOST, None, False),
    (("-q", "."), Trouble.CONNECTION_LOST, None, True),
    (("-Q", "MAIL"), Trouble.BUSY, 421, False),
    (("-Q", "RCPT"), Trouble.BUSY, 421, False),
    (("-Q", "DATA"), Trouble.BUSY, 421, False),
    (("-Q", "."), Trouble.BUSY, 421, False),
    (("-w", "2"), Trouble.TIMEOUT, None, False),
    (("-W", "DATA:2"), Trouble.TIMEOUT, None, False),
    (("-W", ".:2"), Trouble.TIMEOUT, None, True),
    (("-p", "-W", "MAIL:2"), Trouble.TIMEOUT, None, False),
    (("-p", "-W", "RCPT:2"), Trouble.TIMEOUT, None, False),
]

HOLDS = [
    (("-f", "CONNECT"), Trouble.CONNECT, 500),
    (("-r", "CONNECT"), Trouble.CONNECT, 450),
    (("-r", "EHLO"), Trouble.CONNECT, 450),
    (("-q", "CONNECT"), Trouble.CONNECT, None),
    (("-q", "EHLO"), Trouble.CONNECT, None),
    (("-Q", "CONNECT"), Trouble.BUSY, 421),
    (("-Q", "EHLO"), Trouble.BUSY, 421),
    (("-W", "EHLO:2"), Trouble.CONNECT, None),
]


async def twice(kind: type[DeliveryError], *options: str) -> DeliveryError:
    """The error that a mail meets, and the next one, too: nothing of the first is left that would change that."""
    with smtp_sink(*options) as sink:
        async with transport(sink, IMPATIENT, connections=1) as smtp:
            first = await failure(kind, smtp.send(MAIL, held))
            second = await failure(kind, smtp.send(MAIL, held))
    assert (second.code, type(second)) == (first.code, type(first))
    return first


@pytest.mark.parametrize("lockstep", [(), ("-p",)], ids=["pipelining", "lockstep"])
@pytest.mark.parametrize(("options", "reason", "code"), REFUSALS, ids=str)
async def test_a_refusal_is_for_ever(
    options: tuple[str, ...], reason: Refusal, code: int, lockstep: tuple[str, ...]
) -> None:
    error = await twice(Refused, *options, *lockstep)
    assert isinstance(error, Refused)
    assert (error.reason, error.code) == (reason, code)


@pytest.mark.parametrize("lockstep", [(), ("-p",)], ids=["pipelining", "lockstep"])
@pytest.mark.parametrize(("options", "reason", "code", "perhaps"), TROUBLES, ids=str)
async def test_trouble_is_for_now(
    options: tuple[str, ...], reason: Trouble, code: int | None, lockstep: tuple[str, ...], *, perhaps: bool
) -> None:
    error = await twice(Unavailable, *options, *lockstep)
    assert isinstance(error, Unavailable)
    assert (error.reason, error.code, error.perhaps) == (reason, code, perhaps)


@pytest.mark.parametrize(("options", "reason", "code"), HOLDS, ids=str)
async def test_what_precedes_mail_holds_all(options: tuple[str, ...], reason: Trouble, code: int | None) -> None:
    error = await twice(Held, *options)
    assert isinstance(error, Held)
    assert (error.reason, error.code) == (reason, code)


@pytest.mark.parametrize("command", ["MAIL", "RCPT"])
async def test_a_relay_whose_delays_mix_up_its_answers_hears_commands_one_by_one_from_then_on(command: str) -> None:
    with smtp_sink("-W", f"{command}:1") as sink:
        async with transport(sink, PATIENT, connections=1) as smtp:
            error = await failure(Unavailable, smtp.send(MAIL, held))
            assert (error.reason, error.perhaps) == (Trouble.PROTOCOL, False)
            assert (await smtp.send(MAIL, held)).startswith("250 ")


@pytest.fixture
def drop() -> Iterator[Path]:
    """A directory that anybody may write to: as root, smtp-sink runs as nobody."""
    with TemporaryDirectory(dir="/tmp") as name:
        Path(name).chmod(0o777)
        yield Path(name)


def dumped(drop: Path) -> list[bytes]:
    """The mails that smtp-sink has put there, with what it knows of them."""
    return [file.read_bytes() for file in drop.iterdir()]


@pytest.mark.parametrize(
    "options",
    [(), ("-e",), ("-p",), ("-8",), ("-E",), ("-N",), ("-a",), ("-h", "relay.test"), ("-e", "-p", "-8", "-E", "-N")],
    ids=str,
)
async def test_whatever_it_announces_mails_arrive_whole(options: tuple[str, ...], drop: Path) -> None:
    with smtp_sink(*options, "-d", f"{drop}/mail.") as sink:
        async with transport(sink, PATIENT, connections=1) as smtp:
            for _ in range(3):
                await smtp.send(MAIL, held)
    files = dumped(drop)
    assert len(files) == 3
    for text in files:
        assert CONTENT.replace(b"\r\n", b"\n") in text
        assert f"X-Rcpt-Args: <{BOB}>".encode() in text
        assert f"X-Mail-Args: <{SENDER}>".encode() in text


async def test_a_refusal_in_the_middle_of_the_content_is_one() -> None:
    with smtp_sink("-A", "1") as sink:
        async with transport(sink, PATIENT, connections=1) as smtp:
            error = await failure(Refused, smtp.send(MAIL, held))
    assert (error.reason, error.code) == (Refusal.MESSAGE_REFUSED, 550)


async def test_a_refusal_before_any_content_has_left_is_trouble_without_doubt() -> None:
    with smtp_sink("-A", "0") as sink:
        async with transport(sink, PATIENT, connections=1) as smtp:
            error = await failure(DeliveryError, smtp.send(MAIL, held))
    assert isinstance(error, Refused) or (isinstance(error, Unavailable) and not error.perhaps)
