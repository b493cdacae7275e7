"""Pauses grow, are spread, and keep what the relay asks for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.mailer.retries import LONGEST_HINT, hint_in, pause_before

FIRST, LONGEST = 15.0, 900.0

jitters = st.floats(min_value=0, max_value=1, exclude_max=True)
attempts = st.integers(min_value=0, max_value=10_000)


@given(attempts, jitters, jitters)
def test_a_pause_is_never_shorter_than_any_before_it(attempt: int, one: float, other: float) -> None:
    earlier = pause_before(attempt, None, one, FIRST, LONGEST)
    later = pause_before(attempt + 1, None, other, FIRST, LONGEST)
    assert later >= earlier or later >= LONGEST / 2  # where the longest is reached, chance alone decides


@given(attempts, jitters)
def test_a_pause_stays_between_half_the_first_and_the_longest(attempt: int, jitter: float) -> None:
    assert FIRST / 2 <= pause_before(attempt, None, jitter, FIRST, LONGEST) <= LONGEST


@given(attempts, jitters, st.floats(min_value=0, max_value=10**9))
def test_nobody_comes_back_before_the_relay_asked_for_it(attempt: int, jitter: float, hint: float) -> None:
    pause = pause_before(attempt, hint, jitter, FIRST, LONGEST)
    assert min(hint, LONGEST_HINT) <= pause <= max(LONGEST, 1.1 * LONGEST_HINT)
    assert pause >= pause_before(attempt, None, jitter, FIRST, LONGEST)


def test_pauses_double() -> None:
    pauses = [pause_before(attempt, None, 0, FIRST, LONGEST) for attempt in range(8)]
    assert pauses == [7.5, 15, 30, 60, 120, 240, 450, 450]


@pytest.mark.parametrize(
    ("answer", "seconds"),
    [
        ("450 4.2.0 Greylisted, please try again in 300 seconds", 300),
        ("451 4.7.1 Try again after 5 minutes", 300),
        ("421 wait 2h", 7200),
        ("451 4.3.0 IN 10 SEC", 10),
        ("450 4.2.0 mailbox 300 is busy", None),
        ("250 2.0.0 queued in 3 ms", None),
        ("", None),
    ],
)
def test_a_hint_is_read_from_the_answer(answer: str, seconds: float | None) -> None:
    assert hint_in(answer) == seconds
