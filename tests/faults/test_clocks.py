"""A clock that is ten minutes off on one mailer's host changes nothing: all times are Redis's."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from shared import keys
from shared.memory import RequestMemory
from simulators.mailbox import Mailbox
from simulators.rules import Rule
from tests.faults.mailers import Mailers, ids, mailers_in, put_mails
from tests.faults.valkey import Valkey
from tests.mails import mail, memory, put
from tests.waiting import wait_until

FAKETIME = next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))), None)


def clock(offset: str) -> dict[str, str]:
    """The environment of a process whose host's clock is so much off."""
    return {"LD_PRELOAD": str(FAKETIME), "FAKETIME": offset, "FAKETIME_DONT_FAKE_MONOTONIC": "1"}


@pytest.fixture
async def mailers(valkey: Valkey, folder: Path) -> AsyncIterator[Mailers]:
    async with Mailbox() as mailbox:
        with mailers_in(valkey, mailbox, folder) as mailers:
            yield mailers


@pytest.mark.skipif(FAKETIME is None, reason="libfaketime is not installed: make tools")
@pytest.mark.parametrize("offset", ["+10m", "-10m"])
async def test_a_mailer_whose_clock_is_off_is_like_any_other(mailers: Mailers, offset: str) -> None:
    put(mailers.redis, [mail("requested", request_id="ending")], ends_in_minutes(5))
    mails = put_mails(mailers.redis, 200)
    held = Rule("data", delay=3, times=10)
    greylisted = Rule("rcpt", "450 4.7.1 greylisted, try again in 2 seconds", times=30)
    mailers.mailbox.rules += [greylisted, held]
    off = await mailers.start(clock(offset))
    await wait_until(lambda: held.obeyed >= 5, "it has mails in hand")
    right = await mailers.start()
    assert offset_of(off.log, right.log) > 500, "its clock is off indeed"

    await wait_until(lambda: not mailers.unfinished(), "all mails are gone", 60)
    assert set(mailers.received()) == {*ids(mails), mail("requested", request_id="ending").id}
    assert set(mailers.received().values()) == {1}, "nobody took what the other had in hand"
    assert not mailers.dead()
    ages = [at - mailers.redis.time()[0] for at in receipts(mailers)]
    assert all(-120 < age <= 1 for age in ages), "receipts tell Redis's time"
    assert off.says("of a worker that died") == right.says("of a worker that died") == 0


def ends_in_minutes(minutes: int) -> RequestMemory:
    """A request that is over so soon, and by a clock that is ten minutes ahead long ago."""
    remembered = memory(request_id="ending")
    assert remembered.facts.request is not None
    end = datetime.now(UTC) + timedelta(minutes=minutes)
    request = remembered.facts.request.model_copy(update={"request_expires": end})
    return remembered.model_copy(update={"facts": remembered.facts.model_copy(update={"request": request})})


def receipts(mailers: Mailers) -> list[float]:
    """When each mail was settled."""
    return [float(mailers.redis.hget(key, "at") or 0) for key in mailers.redis.scan_iter(f"{keys.RECEIPT_PREFIX}*")]


def offset_of(one: str, other: str) -> float:
    """Seconds between the first lines of two logs."""
    times = (datetime.fromisoformat(log.split(maxsplit=1)[0]) for log in (one, other))
    first, second = times
    return abs((second - first).total_seconds())
