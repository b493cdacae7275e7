"""What was asked is remembered for a minute, in bounded space, and one answer serves all who wait for it."""

import asyncio
from collections import Counter
from collections.abc import Sequence

import pytest
from prometheus_client import CollectorRegistry

from services.watcher import look_ups, patience
from services.watcher.look_ups import LookUps, Subject
from services.watcher.metrics import LookUp, WatcherMetrics
from services.watcher.patience import Patience
from services.watcher.teleport.errors import TeleportUnavailable
from tests.waiting import wait_until

NODES = Subject(LookUp.RESOURCES, "node")
APPS = Subject(LookUp.RESOURCES, "app")


class Asked:
    """Knows the names of all but what is called `missing`, once it may answer."""

    def __init__(self) -> None:
        self.times: Counter[str] = Counter()
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.is_away = False

    async def __call__(self, keys: Sequence[str]) -> dict[str, str]:
        self.times.update(keys)
        await self.may_answer.wait()
        if self.is_away:
            raise TeleportUnavailable
        return {key: f"name of {key}" for key in keys if key != "missing"}


@pytest.fixture
def looking_up() -> LookUps:
    return LookUps(WatcherMetrics(CollectorRegistry()), Patience())


async def test_ten_thousand_answers_take_the_room_of_a_thousand_and_the_least_used_goes_first(
    looking_up: LookUps,
) -> None:
    asked = Asked()
    for number in range(10_000):
        key = f"node-{number}"
        assert await looking_up.each(NODES, [key, "often"], asked) == {one: f"name of {one}" for one in (key, "often")}
        assert len(looking_up._remembered) <= look_ups.REMEMBERED
    assert asked.times["often"] == 1
    newest = [f"node-{number}" for number in range(10_001 - look_ups.REMEMBERED, 10_000)]
    await looking_up.each(NODES, newest, asked)
    assert set(asked.times.values()) == {1}, "the newest are known"
    await looking_up.each(NODES, ["node-0"], asked)
    assert asked.times["node-0"] == 2, "the oldest is not"


async def test_more_at_once_than_are_remembered_are_all_told(looking_up: LookUps) -> None:
    keys = [f"node-{number}" for number in range(2 * look_ups.REMEMBERED)]
    found = await looking_up.each(NODES, keys, Asked())
    assert list(found) == keys
    assert len(looking_up._remembered) == look_ups.REMEMBERED


async def test_only_what_is_not_known_or_on_its_way_is_asked(looking_up: LookUps) -> None:
    asked = Asked()
    await looking_up.each(NODES, ["known", "missing"], asked)
    asked.may_answer.clear()
    first = asyncio.create_task(looking_up.each(NODES, ["a", "b"], asked))
    await asyncio.sleep(0)
    second = asyncio.create_task(looking_up.each(NODES, ["b", "c", "c", "known", "missing"], asked))
    other_kind = asyncio.create_task(looking_up.each(APPS, ["a"], asked))
    await asyncio.sleep(0)
    asked.may_answer.set()
    assert await first == {key: f"name of {key}" for key in "ab"}
    assert await second == {key: f"name of {key}" for key in ("b", "c", "known")}
    assert await other_kind == {"a": "name of a"}
    assert asked.times == {"a": 2, "b": 1, "c": 1, "known": 1, "missing": 1}


async def test_an_answer_is_good_for_a_minute(looking_up: LookUps, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Asked()
    monkeypatch.setattr(look_ups, "REMEMBERED_SECONDS", 0.0)
    for _ in range(2):
        await looking_up.each(NODES, ["a", "missing"], asked)
    assert asked.times == {"a": 2, "missing": 2}


async def test_no_answer_is_nothing_to_remember(looking_up: LookUps, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(look_ups, "DEADLINE_SECONDS", 0.1)
    asked = Asked()
    asked.is_away = True
    assert await looking_up.each(NODES, ["a"], asked) == {}
    asked.is_away = False
    assert await looking_up.each(NODES, ["a"], asked) == {"a": "name of a"}


async def test_who_gives_up_takes_no_answer_away_from_the_others(looking_up: LookUps) -> None:
    asked = Asked()
    asked.may_answer.clear()
    first, second = (asyncio.create_task(looking_up.each(NODES, ["a"], asked)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.wait([first])
    asked.may_answer.set()
    assert await second == {"a": "name of a"}
    assert asked.times == {"a": 1}


async def test_in_the_end_nothing_is_asked_any_more(looking_up: LookUps) -> None:
    asked = Asked()
    asked.may_answer.clear()
    waiting = [asyncio.create_task(looking_up.each(NODES, [str(number)], asked)) for number in range(50)]
    await asyncio.sleep(0)
    await looking_up.end()
    assert {type(one) for one in await asyncio.gather(*waiting, return_exceptions=True)} == {asyncio.CancelledError}
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_wait_in_vain_is_not_repeated_at_the_next_connection_until_something_is_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    metrics, shared = WatcherMetrics(CollectorRegistry()), Patience()
    asked = Asked()
    asked.is_away = True
    monkeypatch.setattr(patience, "PATIENT_SECONDS", 0.1)
    assert await LookUps(metrics, shared).record("r1", lambda: asked(["r1"])) is None
    monkeypatch.setattr(patience, "PATIENT_SECONDS", 60.0)
    connection = LookUps(metrics, shared)
    assert await connection.record("r2", lambda: asked(["r2"])) is None
    assert asked.times["r2"] == 1
    asked.is_away = False
    assert await connection.record("r2", lambda: asked(["r2"])) == {"r2": "name of r2"}
    asked.is_away = True
    waiting = asyncio.create_task(connection.record("r3", lambda: asked(["r3"])))
    await wait_until(lambda: asked.times["r3"] > 1, "it is tried again")
    asked.is_away = False
    assert await waiting == {"r3": "name of r3"}


async def test_waits_that_were_cut_off_are_remembered_in_bounded_space(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "KEPT", 2)
    shared = Patience()

    async def wait(request_id: str) -> None:
        async with shared.wait(request_id):
            await asyncio.Event().wait()

    for number in range(5):
        waiting = asyncio.create_task(wait(f"r{number}"))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
    assert list(shared._waited) == ["r3", "r4"]


async def test_a_look_up_that_the_connection_may_have_cut_off_is_no_answer_yet(looking_up: LookUps) -> None:
    asked = Asked()
    asked.is_away = True
    waiting = asyncio.create_task(looking_up.each(NODES, ["a"], asked))
    await wait_until(lambda: asked.times["a"] > 1, "it is tried again")
    asked.is_away = False
    assert await waiting == {"a": "name of a"}
