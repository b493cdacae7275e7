"""Whether all loops of a service turn: what its liveness probe asks."""

import time

STALLED_SECONDS = 30.0
"""Longer than any single step of a loop may take."""


class Pulse:
    """When each loop has turned last. May be read in any thread."""

    def __init__(self, *loops: str) -> None:
        """These turn from the beginning."""
        now = time.monotonic()
        self._turned = dict.fromkeys(loops, now)

    def turns(self, loop: str) -> None:
        """It is at work, and turns again before `STALLED_SECONDS` are over."""
        self._turned[loop] = time.monotonic()

    def rests(self, loop: str) -> None:
        """It has nothing to do, for as long as it takes."""
        self._turned.pop(loop, None)

    def stalled(self) -> str | None:
        """Which loops have not turned lately; None if all have."""
        now = time.monotonic()
        stuck = {loop: now - turned for loop, turned in dict(self._turned).items() if now - turned > STALLED_SECONDS}
        if not stuck:
            return None
        return f"the loop has not turned for {max(stuck.values()):.0f} s: {', '.join(sorted(stuck))}"
