"""Tasks end although a library swallows their cancellation."""

import asyncio

import pytest

from shared.tasks import Crew, end


async def deaf(times: int) -> None:
    """Swallows so many cancellations."""
    for _ in range(times):
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            continue
    await asyncio.Event().wait()


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.tasks.AGAIN_SECONDS", 0.01)


async def test_a_task_that_swallows_its_cancellation_ends_all_the_same() -> None:
    tasks = [asyncio.create_task(deaf(times)) for times in range(4)]
    await asyncio.sleep(0)
    await end(tasks)
    assert all(task.cancelled() for task in tasks)


async def test_whoever_is_cancelled_meanwhile_leaves_no_task_behind() -> None:
    task = asyncio.create_task(deaf(3))
    await asyncio.sleep(0)
    ending = asyncio.create_task(end([task]))
    await asyncio.sleep(0)
    ending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await ending
    assert task.cancelled()


async def test_nothing_to_end_is_no_wait() -> None:
    await end([])


async def test_what_one_of_a_crew_raises_ends_all_and_is_raised() -> None:
    async def fails() -> None:
        await asyncio.sleep(0)
        raise ZeroDivisionError

    crew = Crew()
    others = [crew.start(deaf(times)) for times in range(3)]
    crew.start(fails())
    with pytest.raises(ZeroDivisionError):
        await crew.run(deaf(2))
    assert all(task.cancelled() for task in others)


async def test_a_crew_ends_with_its_main_task() -> None:
    async def work() -> int:
        return 42

    crew = Crew()
    other = crew.start(deaf(0))
    assert await crew.run(work()) == 42
    assert other.cancelled()
