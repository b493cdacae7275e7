"""Relays that are old, confused or hostile: no mail is lost, none goes out twice, and nothing hangs."""

import asyncio
from pathlib import Path

import pytest

from services.mailer.errors import Held, Refusal, Refused, Trouble, Unavailable
from tests.relay_tls import relay_certificate
from tests.relaying import IMPATIENT, MAIL, error_of, failure, held, to, transport
from tests.scripted_relay import OPENED, Line, ScriptedRelay, takes_one
from tests.waiting import wait_until


@pytest.mark.parametrize("end", ["554 no valid recipients", "250 taken, for whom?"])
async def test_a_relay_that_wants_content_for_nobody_gets_its_end_alone(end: str) -> None:
    async def script(line: Line) -> None:
        await line.greet("PIPELINING")
        await line.hear_group()
        line.say("250 fine", "550 5.1.1 no such user", "354 go on")
        assert [await line.hear(), await line.hear()] == [".", "RSET"]
        line.say(end, "250 forgotten")
        await line.hear_group()
        line.say(*OPENED)
        await line.content()
        line.say("250 taken")
        await line.until_left()

    async with ScriptedRelay(script) as relay, transport(relay, connections=1) as smtp:
        first, second = await asyncio.gather(
            smtp.send(to("ann"), held), smtp.send(to("bob"), held), return_exceptions=True
        )
    assert isinstance(first, Refused)
    assert (first.reason, second) == (Refusal.RECIPIENT_REFUSED, "250 taken")


async def test_a_relay_that_wants_content_for_somebody_after_refusing_the_mail_gets_none() -> None:
    async def script(line: Line) -> None:
        await line.greet("PIPELINING")
        await line.hear_group()
        line.say("550 5.7.1 not you", "250 fine", "354 go on")
        assert await line.until_left() == b""

    async with ScriptedRelay(script) as relay:
        error = await error_of(Refused, relay)
    assert error.reason is Refusal.SENDER_REFUSED


async def test_a_relay_that_does_not_forget_is_left() -> None:
    async def script(line: Line) -> None:
        await line.greet("PIPELINING")
        await line.hear_group()
        line.say("250 fine", "550 5.1.1 no such user", "554 no valid recipients")
        assert await line.hear() == "RSET"
        line.say("500 never")
        await line.until_left()

    async with ScriptedRelay(script, takes_one) as relay, transport(relay) as smtp:
        await failure(Refused, smtp.send(to("ann"), held))
        assert await smtp.send(to("bob"), held) == "250 taken"


async def test_a_reply_to_nothing_ends_the_connection() -> None:
    left = asyncio.Event()

    async def script(line: Line) -> None:
        await line.greet("PIPELINING")
        await line.hear_group()
        line.say(*OPENED)
        await line.content()
        line.say("250 taken", "250 taken again")
        await line.until_left()
        left.set()

    async with ScriptedRelay(script, takes_one) as relay, transport(relay) as smtp:
        assert await smtp.send(to("ann"), held) == "250 taken"
        await wait_until(left.is_set, "the connection is left")
        assert await smtp.send(to("bob"), held) == "250 taken"


@pytest.mark.parametrize("nonsense", ["hello there", "25 short", "250_fine", "x" * 10_000, "250-" + "x" * 8000])
async def test_what_is_no_reply_ends_the_connection(nonsense: str) -> None:
    async def script(line: Line) -> None:
        await line.greet("PIPELINING")
        await line.hear_group()
        line.say(*[nonsense] * 10)
        await line.until_left()

    async with ScriptedRelay(script) as relay:
        error = await error_of(Unavailable, relay)
    assert (error.reason, error.perhaps) == (Trouble.PROTOCOL, False)


async def test_a_relay_that_throws_away_what_follows_a_command_hears_them_one_by_one_from_then_on() -> None:
    async def forgets(line: Line) -> None:
        await line.greet("PIPELINING")
        await line.hear()
        line.forget_what_has_come()
        line.say("250 sender fine")
        await line.until_left()

    async def honest_this_time(line: Line) -> None:
        await line.greet("PIPELINING")
        for reply in OPENED:
            await line.hear()
            assert not line.has_more
            line.say(reply)
        await line.content()
        line.say("250 taken")
        await line.until_left()

    async with ScriptedRelay(forgets, honest_this_time) as relay, transport(relay, IMPATIENT) as smtp:
        error = await failure(Unavailable, smtp.send(to("ann"), held))
        assert (error.reason, error.perhaps) == (Trouble.TIMEOUT, False)
        assert await smtp.send(to("ann"), held) == "250 taken"


@pytest.mark.parametrize("unknown", ["500 5.5.1 what?", "502 5.5.2 not implemented"])
async def test_a_relay_that_knows_no_ehlo_is_greeted_as_of_old(unknown: str) -> None:
    async def script(line: Line) -> None:
        line.say("220 relay.test")
        assert await line.hear() == "EHLO EXAMPLE.COM"
        line.say(unknown)
        assert await line.hear() == "HELO EXAMPLE.COM"
        line.say("250 relay.test")
        for reply in OPENED:
            await line.hear()
            line.say(reply)
        await line.content()
        line.say("250 taken")
        await line.until_left()

    async with ScriptedRelay(script) as relay, transport(relay) as smtp:
        assert await smtp.send(MAIL, held) == "250 taken"


async def test_a_relay_that_leaves_after_the_login_holds_the_mails() -> None:
    async def script(line: Line) -> None:
        await line.greet("AUTH PLAIN")
        await line.hear()
        line.say("235 welcome", "421 and goodbye")

    async with ScriptedRelay(script) as relay, transport(relay, username="alice", password="secret") as smtp:
        with pytest.raises((Held, Unavailable)):
            await smtp.send(MAIL, held)


async def test_what_a_relay_says_before_tls_counts_for_nothing(tmp_path: Path) -> None:
    """RFC 3207 §6: a reply that was slipped in before the handshake is no reply to anything after it."""
    seen = list[str]()

    async def script(line: Line) -> None:
        await line.greet("STARTTLS")
        seen.append(await line.hear())
        line.say("220 go ahead", "250-relay.test", "250 AUTH PLAIN")
        await line.until_left()

    async with ScriptedRelay(script) as relay:
        trouble = await error_of(
            Held,
            relay,
            patience=IMPATIENT,
            starttls_policy="mandatory",
            ca_file=relay_certificate(tmp_path)[1],
            username="alice",
            password="secret",
        )
    assert (seen, trouble.reason) == (["STARTTLS"], Trouble.TLS)
