"""A mail as a relay is sent it: whatever its bytes are, it ends where it ends, and nowhere else."""

import asyncio
import re

import pytest
from aiosmtplib import SMTP
from hypothesis import given, settings
from hypothesis import strategies as st

from services.mailer.errors import Refusal, Refused
from services.mailer.transports import Envelope
from services.mailer.transports.smtp_commands import data, mail_command, rcpt_command
from simulators.mailbox import Mailbox
from tests.relaying import BOB, SENDER, held, transport
from tests.scripted_relay import OPENED, Line, ScriptedRelay

pieces = st.sampled_from([b".", b"..", b"\r", b"\n", b"\r\n", b"\r\n.\r\n", b"\n.\n", b"\r.\r", b"MAIL FROM:<>", b"x"])
contents = st.lists(pieces | st.binary(max_size=8), max_size=30).map(b"".join)


def with_crlf(content: bytes) -> bytes:
    """The content as a standard-conforming reader has it."""
    lines = re.sub(rb"\r\n|\r|\n", b"\r\n", content)
    return lines if not lines or lines.endswith(b"\r\n") else lines + b"\r\n"


@given(contents, contents)
def test_no_bare_line_end_leaves_and_the_end_is_at_the_end(own: bytes, shared: bytes) -> None:
    wire = data(Envelope(SENDER, BOB, own, shared))
    assert not re.search(rb"\r(?!\n)|(?<!\r)\n", wire)
    assert (b"\r\n" + wire).index(b"\r\n.\r\n") == len(wire) - 3


@given(contents, contents)
def test_who_takes_the_dots_away_has_the_content(own: bytes, shared: bytes) -> None:
    lines = data(Envelope(SENDER, BOB, own, shared)).removesuffix(b".\r\n").split(b"\r\n")
    assert b"\r\n".join(line.removeprefix(b".") for line in lines) == with_crlf(own) + with_crlf(shared)


@settings(max_examples=20)
@given(st.lists(contents, min_size=1, max_size=20))
def test_a_relay_receives_what_was_sent(bodies: list[bytes]) -> None:
    async def received() -> list[bytes]:
        async with Mailbox() as mailbox:
            async with transport(mailbox, connections=1) as smtp:
                await asyncio.gather(*(smtp.send(Envelope(SENDER, BOB, body), held) for body in bodies))
            assert mailbox.connections == 1
            return [mail.raw for mail in mailbox.mails]

    assert asyncio.run(received()) == [with_crlf(body) for body in bodies]


@settings(max_examples=20)
@given(st.lists(contents.filter(bool), min_size=1, max_size=20))
def test_the_octets_after_data_are_those_that_the_library_sends(bodies: list[bytes]) -> None:
    """For a message without a single octet they differ: RFC 5321 wants no line in it."""

    async def by_the_library() -> list[bytes]:
        sent: list[bytes] = []

        async def script(line: Line) -> None:
            await line.greet()
            for _ in bodies:
                for answer in OPENED:
                    await line.hear()
                    line.say(answer)
                sent.append(await line.content())
                line.say("250 taken")
            await line.until_left()

        async with (
            ScriptedRelay(script) as relay,
            SMTP(hostname="localhost", port=relay.port, start_tls=False) as library,
        ):
            for body in bodies:
                await library.sendmail(SENDER, [BOB], body)
        return sent

    assert [data(Envelope(SENDER, BOB, body)) for body in bodies] == asyncio.run(by_the_library())


ALL = {"size": "1000", "8bitmime": "", "smtputf8": ""}


@pytest.mark.parametrize(
    ("recipient", "content", "extensions", "command"),
    [
        (BOB, b"x\r\n", {}, b"MAIL FROM:<access@example.com>\r\n"),
        (BOB, b"x\r\n", ALL, b"MAIL FROM:<access@example.com> SIZE=3\r\n"),
        (BOB, b"x\r\n", {"size": ""}, b"MAIL FROM:<access@example.com> SIZE=3\r\n"),
        (BOB, b"x\r\n", {"size": "9" * 5000}, b"MAIL FROM:<access@example.com> SIZE=3\r\n"),
        (BOB, b"x" * 2000, {"size": "0"}, b"MAIL FROM:<access@example.com> SIZE=2000\r\n"),
        (BOB, "ü\r\n".encode(), ALL, b"MAIL FROM:<access@example.com> SIZE=4 BODY=8BITMIME\r\n"),
        (BOB, "ü\r\n".encode(), {}, b"MAIL FROM:<access@example.com>\r\n"),
        ("bü@example.com", b"x\r\n", {"smtputf8": ""}, b"MAIL FROM:<access@example.com> SMTPUTF8\r\n"),
    ],
)
def test_only_what_the_relay_announces_is_used(
    recipient: str, content: bytes, extensions: dict[str, str], command: bytes
) -> None:
    assert mail_command(Envelope(SENDER, recipient, content), extensions) == command


@pytest.mark.parametrize("address", ["bob@example.com>\r\nDATA", "bob\n@example.com", "<bob@example.com", "b b@x.org"])
def test_no_address_ends_its_command(address: str) -> None:
    with pytest.raises(Refused) as caught:
        rcpt_command(Envelope(SENDER, address, b""))
    assert caught.value.reason is Refusal.ADDRESS_INVALID
    with pytest.raises(Refused):
        mail_command(Envelope(address, BOB, b""), {})
