"""How many connections a relay gets after it has complained."""

from hypothesis import given
from hypothesis import strategies as st

from services.mailer.transports.width import GROW_SECONDS, Width


@given(most=st.integers(1, 1000), hints=st.lists(st.tuples(st.integers(-5, 1500), st.floats(0, 100)), max_size=20))
def test_there_is_always_one_connection_and_never_one_too_many(most: int, hints: list[tuple[int, float]]) -> None:
    now = 0.0
    width = Width(most, lambda: now)
    for hint, pause in hints:
        before = width.now
        width.narrow(hint, "it is busy")
        assert width.now == min(before, max(1, hint))
        now += pause
        assert 1 <= width.now <= most


def test_half_is_enough_until_something_that_began_later_is_too_much() -> None:
    now = 100.0
    width = Width(16, lambda: now)
    width.halve(16, began=99.0)
    for at_once in (15, 8, 4):
        width.halve(at_once, began=99.5)
    assert width.now == 8
    width.halve(8, began=101.0)
    assert width.now == 4


def test_it_grows_again_by_one_at_a_time() -> None:
    now = 0.0
    width = Width(20, lambda: now)
    now = 1000.0
    width.narrow(3, "it is busy")
    seen = []
    for _ in range(20):
        seen.append(width.now)
        now += GROW_SECONDS
    assert seen == [*range(3, 20), 20, 20, 20]
    width.narrow(19, "it is busy")
    assert width.now == 19
