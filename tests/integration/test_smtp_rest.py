"""Connections that have rested: what has become of them meanwhile costs a mail seconds, and no attempt."""

import asyncio
from dataclasses import replace

import pytest

from tests.relaying import MAIL, PATIENT, held, to, transport
from tests.scripted_relay import OPENED, Line, ScriptedRelay, takes_one
from tests.waiting import wait_until

NAMES = ("ann", "bob", "eve")
TIRED = replace(PATIENT, command=120, wake=0.5)
"""A test that waits for the answer to an ordinary command fails."""


@pytest.fixture(autouse=True)
def any_rest_is_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.mailer.transports.smtp_connection.LONG_REST", 0)


async def take(line: Line) -> None:
    """One mail, from its group on."""
    await line.hear_group()
    line.say(*OPENED)
    await line.content()
    line.say("250 taken")


@pytest.mark.parametrize("extensions", [["PIPELINING"], []])
async def test_a_connection_whose_way_was_dropped_in_silence_is_given_up_within_seconds(extensions: list[str]) -> None:
    async def falls_silent(line: Line) -> None:
        await line.greet(*extensions)
        if extensions:
            await take(line)
        else:
            for answer in OPENED:
                await line.hear()
                line.say(answer)
            await line.content()
            line.say("250 taken")
        assert await line.hear() == "RSET"
        assert b"Subject" not in await line.until_left()

    async with ScriptedRelay(falls_silent, takes_one) as relay, transport(relay, TIRED) as smtp:
        assert await smtp.send(MAIL, held) == "250 taken"
        await wait_until(lambda: smtp.resting, "the connection rests")
        assert await asyncio.wait_for(smtp.send(MAIL, held), 20) == "250 taken"


async def test_one_such_connection_casts_doubt_on_all_that_rest() -> None:
    """Each of them would cost the mail as long."""
    all_there, woken = asyncio.Barrier(len(NAMES)), list[bytes]()

    async def falls_silent(line: Line) -> None:
        await line.greet("PIPELINING")
        await line.hear_group()
        line.say(*OPENED)
        await line.content()
        await all_there.wait()
        line.say("250 taken")
        woken.append(await line.until_left())

    relay = ScriptedRelay(*[falls_silent] * len(NAMES), takes_one)
    async with relay, transport(relay, TIRED) as smtp:
        await asyncio.gather(*(smtp.send(to(name), held) for name in NAMES))
        await wait_until(lambda: len(smtp.resting) == len(NAMES), "all connections rest")
        assert await asyncio.wait_for(smtp.send(MAIL, held), 20) == "250 taken"
        await wait_until(lambda: len(woken) == len(NAMES), "all are given up")
    assert sum(b"RSET" in heard for heard in woken) == 1


async def test_a_connection_that_is_there_after_its_rest_is_used_without_a_round_trip_more() -> None:
    async def script(line: Line) -> None:
        await line.greet("PIPELINING")
        await take(line)
        assert await line.hear() == "RSET"
        await line.hear_group()
        line.say("250 forgotten", *OPENED)
        await line.content()
        line.say("250 taken")
        await line.until_left()

    async with ScriptedRelay(script) as relay, transport(relay, TIRED) as smtp:
        for _ in range(2):
            assert await smtp.send(MAIL, held) == "250 taken"
            await wait_until(lambda: smtp.resting, "the connection rests")
