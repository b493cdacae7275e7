"""Events keep the order of their request while they are looked up, and no other order."""

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.watcher import arrivals as arrivals_module
from services.watcher.arrivals import Arrivals
from services.watcher.enrich import Incoming
from shared.events import RequestChanged, RequestGone

LookedUp = asyncio.Future[RequestChanged | RequestGone]


def incoming(request_id: str, answer: LookedUp) -> Incoming:
    """An event whose look-up ends with the answer."""

    async def look_up() -> RequestChanged | RequestGone:
        return await answer

    return Incoming(RequestGone(request_id=request_id), asyncio.create_task(look_up()))


async def left(request_ids: Sequence[str], answered: Sequence[int]) -> list[int]:
    """Positions of the events in the order in which they leave, if their look-ups end in the order that is given."""
    arrivals = Arrivals(len(request_ids))
    answers: list[LookedUp] = [asyncio.get_running_loop().create_future() for _ in request_ids]
    events = [incoming(request_id, answer) for request_id, answer in zip(request_ids, answers, strict=True)]
    for event in events:
        await arrivals.put(event)
    positions: list[int] = []

    async def take() -> None:
        while len(positions) < len(events):
            batch = await arrivals.take(2)
            positions.extend(map(events.index, batch))
            arrivals.told(batch)

    taking = asyncio.create_task(take())
    for position in answered:
        answers[position].set_result(events[position].event)
        await asyncio.sleep(0)
    await taking
    assert len(arrivals) == 0
    assert all(event.told.done() for event in events)
    return positions


@given(st.lists(st.sampled_from("abc"), max_size=8).flatmap(lambda ids: st.tuples(st.just(ids), orders_of(ids))))
def test_the_events_of_one_request_leave_as_they_came_whichever_is_looked_up_first(
    case: tuple[list[str], list[int]],
) -> None:
    request_ids, answered = case
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(arrivals_module, "GATHER_SECONDS", 0)
        positions = asyncio.run(left(request_ids, answered))
    assert sorted(positions) == list(range(len(request_ids)))
    for request_id in set(request_ids):
        ours = [position for position in positions if request_ids[position] == request_id]
        assert ours == sorted(ours)


def orders_of(ids: Sequence[str]) -> st.SearchStrategy[list[int]]:
    """Every order in which their look-ups may end."""
    return st.permutations(range(len(ids)))


async def test_whoever_brings_more_than_there_is_room_for_waits() -> None:
    loop = asyncio.get_running_loop()
    arrivals = Arrivals(2)
    first, second, third = (loop.create_future() for _ in range(3))
    slow, quick = incoming("slow", first), incoming("quick", second)
    await arrivals.put(slow)
    await arrivals.put(quick)
    bringing = asyncio.create_task(arrivals.put(incoming("third", third)))
    second.set_result(quick.event)
    batch = await arrivals.take(10)
    assert batch == [quick]
    assert not bringing.done()
    arrivals.told(batch)
    await bringing
    assert len(arrivals) == 2
    for answer in (first, third):
        answer.set_result(slow.event)
    assert len(await arrivals.take(1)) == 1
