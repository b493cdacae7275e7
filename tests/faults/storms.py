"""Many mails through mailers that are killed at random: as many as the test wants."""

import asyncio
import random
from contextlib import suppress

from simulators.rules import Rule, Stage
from tests.faults.mailers import Mailers, ids, put_mails
from tests.faults.pipeline import Service
from tests.faults.threads import COURSE, Threads
from tests.waiting import wait_until

KILL_SECONDS = 1.0
SLOW = 0.2
"""Seconds that the relay thinks about a mail, so that many are in flight whenever a mailer is killed."""


class Reaper:
    """Kills one of two mailers now and then, and starts another in its place."""

    def __init__(self, mailers: Mailers, dice: random.Random) -> None:
        self._mailers = mailers
        self._dice = dice
        self._living: list[Service] = []
        self.kills = 0
        self.in_flight = 0
        """Mails in the hands of all whom it has killed."""

    async def start(self) -> None:
        """Two mailers."""
        self._living = [await self._mailers.start() for _ in range(2)]

    async def reap(self) -> None:
        """For ever."""
        while True:
            await asyncio.sleep(self._dice.uniform(0.5, 1.5) * KILL_SECONDS)
            victim = self._living.pop(self._dice.randrange(2))
            self.in_flight += await self._mailers.kill(victim)
            self.kills += 1
            self._living.append(await self._mailers.start())


async def storm(mailers: Mailers, number: int, seconds: float, seed: int) -> None:
    """So many mails, `kill -9` every second: none lost, none dead, and twice only what was in a killed one's hands."""
    reaper = Reaper(mailers, random.Random(seed))  # noqa: S311  # no secret
    mailers.mailbox.rules.append(Rule("data", delay=SLOW))
    mails = put_mails(mailers.redis, number)
    await reaper.start()
    reaping = asyncio.create_task(reaper.reap())
    await wait_until(lambda: len(mailers.mailbox.mails) >= number * 0.9, "nearly all mails have come", seconds)
    reaping.cancel()
    with suppress(asyncio.CancelledError):
        await reaping
    await wait_until(lambda: not mailers.unfinished(), "nothing is left anywhere", seconds)
    received = mailers.received()
    assert set(received) == ids(mails)
    assert reaper.kills > 1
    assert sum(received.values()) - number <= reaper.in_flight
    assert not mailers.dead()


async def storm_of_threads(mailers: Mailers, number: int, seconds: float, seed: int) -> None:
    """Threads of six notices under refusals and kills: everybody reads in order, and nothing is stuck."""
    dice = random.Random(seed)  # noqa: S311  # no secret
    reaper = Reaper(mailers, dice)
    stages: tuple[Stage, ...] = ("rcpt", "data")
    mailers.mailbox.rules += [
        Rule(dice.choice(stages), dice.choice(("450 4.2.0 later", "452 4.2.2 full")), times=dice.randint(1, 3))
        for _ in range(number // 2)
    ]
    mailers.mailbox.rules += [Rule("rcpt", "550 5.1.1 no such user", recipient="p1@example.com", times=3)]
    mailers.mailbox.rules += [Rule("data", delay=2 * SLOW)]
    threads = Threads(mailers.redis, number)
    threads.open()
    await reaper.start()
    reaping = asyncio.create_task(reaper.reap())
    await wait_until(lambda: len(mailers.mailbox.mails) >= number * 3, "the reviews are being told", seconds)
    threads.settle()
    await wait_until(lambda: len(mailers.mailbox.mails) >= number * 4, "the resolutions are being told", seconds)
    reaping.cancel()
    with suppress(asyncio.CancelledError):
        await reaping
    await wait_until(lambda: not mailers.unfinished(), "nothing is left anywhere", seconds)
    told = threads.told(mailers.mailbox.mails)
    dead = mailers.dead()
    assert dead <= 3
    assert len(told) >= number - dead, "only a thread whose first mail is dead is silent"
    for person, notices in told.items():
        once = list(dict.fromkeys(notices))
        assert once == [notice for notice in COURSE if notice in once], "in order"
        # A thread goes on without its first mail only if a killed mailer may have sent that.
        assert once[0] == "requested" or person in threads.perhaps_announced()
        assert once[-1] == "approved"
    assert sum(len(notices) - len(set(notices)) for notices in told.values()) <= reaper.in_flight
    assert reaper.kills
