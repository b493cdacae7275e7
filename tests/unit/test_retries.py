"""Pauses grow, are left to chance, and keep what the relay asks for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.mailer.errors import Trouble
from services.mailer.retries import LONGEST_HINT, hint_in, pause_before

FIRST, LONGEST = 15.0, 900.0
ALMOST_ONE = 1 - 2**-53

jitters = st.floats(min_value=0, max_value=1, exclude_max=True)
attempts = st.integers(min_value=0, max_value=10_000)
times = st.floats(min_value=0, max_value=10**6)
reasons = st.sampled_from(Trouble)


def pause(
    attempt: int,
    jitter: float,
    reason: Trouble = Trouble.TEMPORARY,
    hint: float | None = None,
    tried_for: float = 0,
) -> float:
    return pause_before(reason, attempt, tried_for, hint, jitter, first=FIRST, longest=LONGEST)


@given(reasons, attempts, times, times, jitters)
def test_the_longest_possible_pause_never_gets_shorter(
    reason: Trouble, attempt: int, tried_for: float, more: float, jitter: float
) -> None:
    now = pause(attempt, jitter, reason, tried_for=tried_for)
    assert now <= pause(attempt + 1, jitter, reason, tried_for=tried_for + more) <= LONGEST


@given(reasons, attempts, jitters, jitters)
def test_chance_chooses_any_pause_up_to_the_longest(reason: Trouble, attempt: int, one: float, other: float) -> None:
    assert pause(attempt, 0, reason) == 0
    assert (one < other) is (pause(attempt, one, reason) < pause(attempt, other, reason)) or other - one < 1e-9


@given(reasons, attempts, jitters, st.floats(min_value=0, max_value=10**9))
def test_nobody_comes_back_before_the_relay_asked_for_it(
    reason: Trouble, attempt: int, jitter: float, hint: float
) -> None:
    hinted = pause(attempt, jitter, reason, hint)
    assert min(hint, LONGEST_HINT) <= hinted <= max(LONGEST, 1.1 * LONGEST_HINT)
    assert hinted >= pause(attempt, jitter, reason)


def test_pauses_grow_as_greylisting_likes_it() -> None:
    minutes = [pause(attempt, ALMOST_ONE) / 60 for attempt in range(7)]
    assert minutes == pytest.approx([0.25, 1, 3, 6, 10, 15, 15])


def test_a_mail_that_a_busy_relay_turned_away_comes_back_within_a_minute() -> None:
    pauses = [pause(0, ALMOST_ONE, Trouble.BUSY, tried_for=seconds) for seconds in (0, 10, 30, 100, 10_000)]
    assert pauses == pytest.approx([15, 15, 30, 60, 60])
    assert pause(5, ALMOST_ONE, Trouble.BUSY) == pytest.approx(15), "whatever it met before"


def test_the_configured_longest_pause_holds() -> None:
    assert pause_before(Trouble.TEMPORARY, 3, 0, None, ALMOST_ONE, first=0.2, longest=1) == pytest.approx(1)


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
