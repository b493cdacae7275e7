"""Many mails through mailers that are killed at random: as many as the test wants."""

import asyncio
import random
from collections import Counter
from collections.abc import Callable

from shared.mail_queue.mailer_end import DEATHS_SURVIVED
from simulators.rules import Rule, Stage
from tests.faults.mailers import Mailers, ids, put_mails
from tests.faults.pipeline import Service
from tests.faults.threads import COURSE, Threads
from tests.waiting import wait_until

KILL_SECONDS = 1.0
SLOW = 0.2
"""Seconds that the relay thinks about a mail, so that many are in flight whenever a mailer is killed."""

FEW = 300
"""Unfinished mails that two mailers may soon be done with."""

UNKNOWN = "p1@example.com"
"""Whose mailbox the relay does not know at first."""


class Reaper:
    """Kills one of two mailers now and then, and starts another in its place."""

    def __init__(self, mailers: Mailers, dice: random.Random) -> None:
        self._mailers = mailers
        self._dice = dice
        self._living: list[Service] = []
        self.is_over = False
        """Set it, and it ends. It is not to be cancelled: whoever it is killing just then would not be noted."""
        self.hits = 0
        """How often it has killed one that had mails in hand."""
        self.in_hand: Counter[str] = Counter()
        """How often each mail was in the hands of one that it killed."""

    async def start(self) -> None:
        """Two mailers."""
        self._living = [await self._mailers.start() for _ in range(2)]

    async def reap(self) -> None:
        """Until it is over."""
        while not self.is_over:
            await asyncio.sleep(self._dice.uniform(0.5, 1.5) * KILL_SECONDS)
            victim = self._dice.choice(self._living)
            victim.freeze()
            if any(self.in_hand[mail] >= DEATHS_SURVIVED for mail in self._mailers.in_hand(victim)):
                victim.thaw()  # a mail that it kills once more is a dead letter, which is no matter of this test
                continue
            self._living.remove(victim)
            left = await self._mailers.kill(victim)
            self.in_hand.update(left)
            self.hits += bool(left)
            self._living.append(await self._mailers.start())

    async def has_hit(self, times: int, more: Callable[[], None], seconds: float) -> None:
        """Wait until it has killed so many in the middle of work, which there is `more` of meanwhile."""
        while self.hits < times:
            await wait_until(
                lambda: self.hits >= times or self._mailers.unfinished() < FEW, f"{times} mailers are killed", seconds
            )
            if self.hits < times:
                more()

    def told_twice_without_it(self) -> Counter[str]:
        """Mails that have come again more often than they were in the hands of one that it killed."""
        again = Counter({mail: times - 1 for mail, times in self._mailers.received().items()})
        return again - self.in_hand


async def storm(mailers: Mailers, number: int, kills: int, seconds: float, seed: int) -> None:
    """So many mails and kills at least: none lost, none dead, and twice only what was in a killed mailer's hands."""
    reaper = Reaper(mailers, random.Random(seed))  # noqa: S311  # no secret
    mailers.mailbox.rules += moments_of_doubt(SLOW)
    mails = put_mails(mailers.redis, number)
    await reaper.start()
    reaping = asyncio.create_task(reaper.reap())
    await wait_until(lambda: len(mailers.mailbox.mails) >= number * 0.9, "nearly all mails have come", seconds)
    await reaper.has_hit(kills, lambda: mails.extend(put_mails(mailers.redis, FEW, first=len(mails))), seconds)
    reaper.is_over = True
    await reaping
    await wait_until(lambda: not mailers.unfinished(), "nothing is left anywhere", seconds)
    assert not mailers.dead(), mailers.logs()
    assert set(mailers.received()) == ids(mails)
    assert not reaper.told_twice_without_it()
    assert mailers.mailbox.duplicates(), "the storm was one"


async def storm_of_threads(mailers: Mailers, number: int, kills: int, seconds: float, seed: int) -> None:
    """Threads of six notices under refusals and kills: everybody reads in order, and nothing is stuck."""
    dice = random.Random(seed)  # noqa: S311  # no secret
    reaper = Reaper(mailers, dice)
    stages: tuple[Stage, ...] = ("rcpt", "data")
    mailers.mailbox.rules += [
        Rule(dice.choice(stages), dice.choice(("450 4.2.0 later", "452 4.2.2 full")), times=dice.randint(1, 3))
        for _ in range(number // 2)
    ]
    mailers.mailbox.rules += [Rule("rcpt", "550 5.1.1 no such user", recipient=UNKNOWN, times=3)]
    mailers.mailbox.rules += moments_of_doubt(2 * SLOW)
    threads = Threads(mailers.redis, number)
    threads.open()
    await reaper.start()
    reaping = asyncio.create_task(reaper.reap())
    await wait_until(lambda: len(mailers.mailbox.mails) >= number * 3, "the reviews are being told", seconds)
    await reaper.has_hit(kills, lambda: threads.open_more(FEW // len(COURSE)), seconds)
    await wait_until(
        lambda: len(threads.told(mailers.mailbox.mails).keys() - {UNKNOWN}) == threads.number - 1,
        "everybody has heard of the request",
        seconds,
    )
    threads.settle()
    await wait_until(lambda: len(mailers.mailbox.mails) >= number * 4, "the resolutions are being told", seconds)
    reaper.is_over = True
    await reaping
    await wait_until(lambda: not mailers.unfinished(), "nothing is left anywhere", seconds)
    told = threads.told(mailers.mailbox.mails)
    dead = mailers.dead()
    assert dead <= 3, mailers.logs()
    assert len(told) >= threads.number - dead, "only a thread whose first mail is dead is silent"
    for person, notices in told.items():
        once = list(dict.fromkeys(notices))
        assert once == [notice for notice in COURSE if notice in once], "in order"
        # A thread goes on without its first mail only if a killed mailer may have sent that.
        assert once[0] == "requested" or person in threads.perhaps_announced()
        assert once[-1] == "approved"
    assert not reaper.told_twice_without_it()


def moments_of_doubt(seconds: float) -> list[Rule]:
    """The relay thinks about half of the mails before it takes them, and about the others before it says so."""
    return [
        Rule("accepted", recipient="p*[02468]@example.com", delay=seconds),
        Rule("data", recipient="p*[13579]@example.com", delay=seconds),
    ]
