"""Pauses stay between the first and the longest, grow at most threefold, and begin anew after a long life."""

from hypothesis import given
from hypothesis import strategies as st

from services.watcher.backoff import Backoff


@given(first=st.floats(0.001, 1), factor=st.floats(1, 1000), tries=st.integers(1, 50))
def test_a_pause_is_never_too_short_nor_too_long(first: float, factor: float, tries: int) -> None:
    longest = first * factor
    backoff = Backoff(first, longest)
    last = first
    for _ in range(tries):
        pause = backoff.next()
        assert first <= pause <= min(longest, last * 3 + 1e-9)
        last = pause
    backoff.lasted(longest)
    assert backoff.next() <= min(longest, last * 3 + 1e-9), "that was not long enough"
    backoff.lasted(longest * 1.01)
    assert backoff.next() <= first * 3
