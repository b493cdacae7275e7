"""How long a mail waits for its next attempt: by chance, within what its failures and the relay's own wish allow."""

import re

from services.mailer.errors import Refusal, Trouble

LONGEST_HINT = 3600.0
"""Seconds. A mail is worth little longer than its request (one hour by default): later is as good as never."""

_HINT = re.compile(
    r"\b(?:in|after|wait)\s+([0-9]{1,6})\s*(s|secs?|seconds?|m|mins?|minutes?|h|hours?)\b", re.IGNORECASE
)
_SECONDS = {"s": 1, "m": 60, "h": 3600}


_STEPS = (1, 4, 12, 24, 40, 60)
"""In units of the first pause, by default of 15 s: a minute, 3, 6, 10 and 15. Greylisting opens after about five."""

_LONGEST_STEP_WHILE_BUSY = 4
"""The relay's complaint concerns all mails: the transport has taken it to heart, so no mail need wait for long."""


def pause_before(
    reason: Trouble | Refusal,
    attempts: int,
    tried_for: float,
    hint: float | None,
    jitter: float,
    *,
    first: float,
    longest: float,
) -> float:
    """Seconds to wait after `attempts` failures within `tried_for` seconds and one more, which had this reason.

    A busy relay is no failure of the mail, so there the time counts. The longest possible pause grows from `first` to
    `longest`; `jitter` in [0, 1) chooses any shorter one, so that mails that failed together come back one by one. A
    relay's `hint` in seconds is kept up to `LONGEST_HINT`, and exceeded by up to a tenth for the same reason.
    """
    if reason is Trouble.BUSY:
        most = min(max(first, tried_for), first * _LONGEST_STEP_WHILE_BUSY)
    else:
        most = first * _STEPS[min(attempts, len(_STEPS) - 1)]
    pause = min(longest, most) * jitter
    if hint is None:
        return pause
    return max(pause, min(hint, LONGEST_HINT) * (1 + jitter / 10))


def hint_in(answer: str) -> float | None:
    """Seconds that a relay's answer asks to wait, as greylisting does: `450 4.2.0 Greylisted, try again in 300 s`."""
    found = _HINT.search(answer)
    if found is None:
        return None
    return float(found[1]) * _SECONDS[found[2][0].lower()]
