"""Groups of commands (RFC 2920): one round trip a mail, each mail's answers its own, whatever a relay does about it."""

import asyncio

import pytest

from services.mailer.errors import Refusal, Refused, Trouble, Unavailable
from services.mailer.transports.smtp_login import Patience
from tests.relaying import CONTENT, MAIL, error_of, held, to, transport
from tests.scripted_relay import OPENED, Line, ScriptedRelay, takes_one

WIRE = b"Subject: for ann\r\n\r\n" + CONTENT.replace(b"\r\n.", b"\r\n..") + b".\r\n"


async def test_a_mail_costs_two_round_trips_and_arrives_as_it_was_written() -> None:
    async def script(line: Line) -> None:
        await line.greet("PIPELINING")
        assert await line.hear_group() == ["MAIL FROM:<ACCESS@EXAMPLE.COM>", "RCPT TO:<ANN@EXAMPLE.COM>"]
        line.say(*OPENED)
        assert await line.content() == WIRE
        line.say("250 taken")
        assert await line.until_left() == b"QUIT\r\n"

    async with ScriptedRelay(script) as relay, transport(relay) as smtp:
        assert await smtp.send(to("ann"), held) == "250 taken"


async def test_where_no_connection_may_be_added_a_mail_follows_the_content_of_the_one_before() -> None:
    async def script(line: Line) -> None:
        await line.greet("PIPELINING")
        await line.hear_group()
        line.say(*OPENED)
        for number in (1, 2):
            assert await line.content()
            await line.hear_group()  # before the content is answered
            line.say(f"250 taken {number}", *OPENED)
        assert await line.content()
        line.say("250 taken 3")
        await line.until_left()

    async with ScriptedRelay(script) as relay, transport(relay, connections=1) as smtp:
        answers = await asyncio.gather(*(smtp.send(to(name), held) for name in ("ann", "bob", "eve")))
    assert answers == ["250 taken 1", "250 taken 2", "250 taken 3"]


async def test_the_claim_of_a_following_mail_is_looked_at_right_before_its_content_leaves() -> None:
    events = list[str]()

    async def script(line: Line) -> None:
        await line.greet("PIPELINING")
        await line.hear_group()
        line.say(*OPENED)
        await line.content()
        await line.hear_group()
        events.append("the first is answered")
        line.say("250 taken", *OPENED)
        assert await line.until_left() == b""  # no content, and no end of it

    def lost() -> bool:
        events.append("looked")
        return False

    async with ScriptedRelay(script) as relay, transport(relay, connections=1) as smtp:
        first, second = await asyncio.gather(
            smtp.send(to("ann"), held), smtp.send(to("bob"), lost), return_exceptions=True
        )
    assert first == "250 taken"
    assert isinstance(second, Exception)
    assert events == ["the first is answered", "looked"]


async def test_a_relay_without_pipelining_hears_each_command_by_itself() -> None:
    async def script(line: Line) -> None:
        await line.greet()
        for _ in range(2):
            for reply in OPENED:
                await line.hear()
                assert not line.has_more
                line.say(reply)
            await line.content()
            assert not line.has_more
            line.say("250 taken")
        await line.until_left()

    async with ScriptedRelay(script) as relay, transport(relay, connections=1) as smtp:
        await asyncio.gather(smtp.send(to("ann"), held), smtp.send(to("bob"), held))


async def test_a_refused_content_is_the_matter_of_its_mail_alone() -> None:
    async def script(line: Line) -> None:
        await line.greet("PIPELINING")
        await line.hear_group()
        line.say(*OPENED)
        await line.content()
        await line.hear_group()
        line.say("550 5.7.1 spam", *OPENED)
        await line.content()
        line.say("250 taken")
        await line.until_left()

    async with ScriptedRelay(script) as relay, transport(relay, connections=1) as smtp:
        first, second = await asyncio.gather(
            smtp.send(to("ann"), held), smtp.send(to("bob"), held), return_exceptions=True
        )
    assert isinstance(first, Refused)
    assert second == "250 taken"


@pytest.mark.parametrize(
    ("replies", "reason"),
    [
        (("250 fine", "550 5.1.1 no such user", "554 no valid recipients"), Refusal.RECIPIENT_REFUSED),
        (("550 5.7.1 not you", "503 no MAIL", "503 no MAIL"), Refusal.SENDER_REFUSED),
        (("250 fine", "250 fine", "554 no"), Refusal.MESSAGE_REFUSED),
    ],
)
async def test_a_refused_mail_leaves_the_next_one_a_clean_connection(replies: tuple[str, ...], reason: Refusal) -> None:
    async def script(line: Line) -> None:
        await line.greet("PIPELINING")
        await line.hear_group()
        line.say(*replies)
        if replies[0].startswith("250"):
            assert await line.hear() == "RSET"
            line.say("250 forgotten")
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
    assert (first.reason, first.detail) == (reason, next(reply for reply in replies if reply[0] == "5"))
    assert second == "250 taken"


async def test_replies_may_have_many_lines_and_come_in_pieces() -> None:
    async def script(line: Line) -> None:
        await line.greet("PIPELINING")
        await line.hear_group()
        await line.dribble("250-sender", "250 fine", "250-recipient", "250-fine", "250", "354-go", "354 on")
        await line.content()
        await line.dribble("250-2.0.0 taken", "250 2.0.0 as 17")
        await line.until_left()

    async with ScriptedRelay(script) as relay, transport(relay) as smtp:
        assert await smtp.send(MAIL, held) == "250 2.0.0 taken 2.0.0 as 17"


async def test_a_connection_that_breaks_off_leaves_its_mail_in_doubt_and_the_following_one_to_another() -> None:
    async def script(line: Line) -> None:
        await line.greet("PIPELINING")
        await line.hear_group()
        line.say(*OPENED)
        await line.content()
        await line.hear_group()

    async with ScriptedRelay(script, takes_one) as relay, transport(relay, connections=1) as smtp:
        first, second = await asyncio.gather(
            smtp.send(to("ann"), held), smtp.send(to("bob"), held), return_exceptions=True
        )
    assert isinstance(first, Unavailable)
    assert (first.reason, first.perhaps) == (Trouble.CONNECTION_LOST, True)
    assert second == "250 taken"


async def test_421_within_a_group_is_the_relays_matter_whatever_follows() -> None:
    async def script(line: Line) -> None:
        await line.greet("PIPELINING")
        await line.hear_group()
        line.say("250 fine", "421 4.3.2 shutting down")

    async with ScriptedRelay(script) as relay:
        error = await error_of(Unavailable, relay)
    assert (error.reason, error.code, error.perhaps) == (Trouble.BUSY, 421, False)


async def test_the_answer_to_a_content_may_take_longer_than_one_to_the_command_that_follows_it() -> None:
    async def script(line: Line) -> None:
        await line.greet("PIPELINING")
        await line.hear_group()
        line.say(*OPENED)
        await line.content()
        await line.hear_group()
        await line.dawdle(0.3)  # longer than a command may take, which is counted from the answer on
        line.say("250 taken 1", *OPENED)
        await line.content()
        line.say("250 taken 2")
        await line.until_left()

    patience = Patience(connect=5, command=0.2, content=5)
    async with ScriptedRelay(script) as relay, transport(relay, patience, connections=1) as smtp:
        first, second = await asyncio.gather(smtp.send(to("ann"), held), smtp.send(to("bob"), held))
    assert (first, second) == ("250 taken 1", "250 taken 2")


async def test_commands_behind_a_content_have_their_own_patience_once_it_is_answered() -> None:
    async def falls_silent(line: Line) -> None:
        await line.greet("PIPELINING")
        await line.hear_group()
        line.say(*OPENED)
        await line.content()
        await line.hear_group()
        line.say("250 taken")
        await line.until_left()

    patience = Patience(connect=5, command=0.2, content=600)
    async with (
        asyncio.timeout(60),
        ScriptedRelay(falls_silent, takes_one) as relay,
        transport(relay, patience, connections=1) as smtp,
    ):
        await asyncio.gather(smtp.send(to("ann"), held), smtp.send(to("bob"), held))


async def test_while_a_connection_may_be_added_no_mail_waits_for_the_content_of_another() -> None:
    second_is_taken = asyncio.Event()

    async def slow(line: Line) -> None:
        await line.greet("PIPELINING")
        await line.hear_group()
        line.say(*OPENED)
        await line.content()
        await second_is_taken.wait()
        assert not line.has_more
        line.say("250 taken at last")
        await line.until_left()

    async with ScriptedRelay(slow, takes_one) as relay, transport(relay, connections=3) as smtp:
        first, second = (asyncio.create_task(smtp.send(to(name), held)) for name in ("ann", "bob"))
        second.add_done_callback(lambda _: second_is_taken.set())
        assert (await first, await second) == ("250 taken at last", "250 taken")
