"""`kill -9` in the middle of work: nothing is lost, and told twice is only what was in the dead mailer's hands."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from shared import keys
from simulators.rules import Rule
from tests.faults.pipeline import PEOPLE, SERVICES, Pipeline, Service
from tests.waiting import wait_until

RQ = Path(sys.executable).with_name("rq")
REQUESTS = 1000
MAILS = REQUESTS * len(PEOPLE)
CONNECTIONS = 20
IN_HAND = 3 * CONNECTIONS
"""At the relay, on its heels, and on the way to and from Redis."""


class Applicants:
    """They ask for access as the mails come, so that every hop is at work when something is killed."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self.requests: list[str] = []

    async def ask(self, number: int) -> None:
        """Ask for so many more."""
        for _ in range(number):
            self.requests.append(self._pipeline.auth.create_request())
            await asyncio.sleep(0)  # the simulators share this loop

    async def ask_until(self, is_at_work: Callable[[], object]) -> None:
        """Ask for more until that service has something in hand."""
        while not is_at_work():
            await self.ask(1)
            assert len(self.requests) < REQUESTS, "nothing was ever in hand"

    async def told(self, mails: int) -> None:
        """Wait until so many mails have come."""
        await wait_until(lambda: len(self._pipeline.mailbox.mails) >= mails, f"{mails} mails have come", timeout=30)


async def kill_in_the_middle(pipeline: Pipeline, victim: Service) -> None:
    """Kill it, look as operators do, and start another one."""
    await victim.kill()
    command = [str(RQ), "info", "--url", pipeline.valkey.url]
    look = await asyncio.to_thread(subprocess.run, command, capture_output=True, check=True, env=dict(os.environ))
    assert b"mail" in look.stdout


async def test_killing_every_service_among_three_thousand_mails_loses_none(pipeline: Pipeline) -> None:
    watcher, router, mailer = await pipeline.start(*SERVICES)
    applicants = Applicants(pipeline)

    await applicants.ask(300)
    await applicants.told(100)
    await kill_in_the_middle(pipeline, mailer)
    in_flight = pipeline.redis.zcard(keys.CLAIMS)
    assert 0 < in_flight <= IN_HAND
    pipeline.launch("mailer")

    await applicants.ask_until(lambda: pipeline.pending()["unrouted"])
    await kill_in_the_middle(pipeline, router)
    await applicants.ask(100)
    pipeline.launch("router")

    await applicants.ask_until(lambda: pipeline.pending()["unread"])
    await kill_in_the_middle(pipeline, watcher)
    await applicants.ask(REQUESTS - len(applicants.requests))
    pipeline.launch("watcher")

    await wait_until(lambda: len(pipeline.notices()) == MAILS, "everybody is told", timeout=180)
    await pipeline.at_rest(timeout=60)
    assert set(pipeline.notices()) == {(request, person) for request in applicants.requests for person in PEOPLE}
    assert {tuple(set(notices)) for notices in pipeline.notices().values()} == {("requested",)}
    twice = sum(times - 1 for times in pipeline.mailbox.duplicates().values())
    assert twice <= in_flight
    assert not pipeline.dead()


async def test_a_mail_survives_three_mailers_in_a_row(pipeline: Pipeline) -> None:
    await pipeline.start("watcher", "router")
    slow = Rule("data", recipient=PEOPLE[0], delay=60)
    pipeline.mailbox.rules.append(slow)
    request = pipeline.auth.create_request()
    for death in range(1, 4):
        (mailer,) = await pipeline.start("mailer")
        await wait_until(
            lambda death=death: slow.obeyed == death and pipeline.redis.zcard(keys.CLAIMS) == 1,
            f"mailer {death} is sending that mail, and no other",
        )
        await mailer.kill()
        assert pipeline.end_claims(mailer) == 1
    pipeline.mailbox.rules.clear()
    await pipeline.start("mailer")
    await pipeline.all_told([request], ["requested"])
    await pipeline.at_rest()
    assert not pipeline.dead()
