"""A loop that stands still is told, whatever else turns."""

import pytest

from shared.pulse import Pulse


def test_a_loop_that_stands_still_is_named_although_others_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("shared.pulse.time.monotonic", lambda: now)
    loops = Pulse("claim")
    loops.turns("settle")
    loops.turns("wait")
    now += 20
    loops.turns("settle")
    loops.rests("wait")
    assert loops.stalled() is None
    now += 11
    assert loops.stalled() == "the loop has not turned for 31 s: claim"
