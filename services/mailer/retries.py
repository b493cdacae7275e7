"""How long a mail waits for its next attempt: longer each time, spread by chance, never shorter than the relay asks."""

import re

LONGEST_HINT = 3600.0
"""Seconds. A mail is worth little longer than its request (one hour by default): later is as good as never."""

_HINT = re.compile(
    r"\b(?:in|after|wait)\s+([0-9]{1,6})\s*(s|secs?|seconds?|m|mins?|minutes?|h|hours?)\b", re.IGNORECASE
)
_SECONDS = {"s": 1, "m": 60, "h": 3600}


def pause_before(attempts: int, hint: float | None, jitter: float, first: float, longest: float) -> float:
    """Seconds to wait after `attempts` failures and one more.

    The pause doubles from `first` to `longest`; `jitter` in [0, 1) chooses within its upper half, so that no pause is
    shorter than any before it could be. A relay's `hint` in seconds is kept up to `LONGEST_HINT`, and exceeded by up
    to a tenth, lest all that were told the same come back at once.
    """
    doublings = min(attempts, 32)  # 2.0 ** 1024 overflows
    whole = min(longest, first * 2.0**doublings)
    pause = whole * (1 + jitter) / 2
    if hint is None:
        return pause
    return max(pause, min(hint, LONGEST_HINT) * (1 + jitter / 10))


def hint_in(answer: str) -> float | None:
    """Seconds that a relay's answer asks to wait, as greylisting does: `450 4.2.0 Greylisted, try again in 300 s`."""
    found = _HINT.search(answer)
    if found is None:
        return None
    return float(found[1]) * _SECONDS[found[2][0].lower()]
