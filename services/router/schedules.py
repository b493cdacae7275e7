"""Is an instant inside the shifts of a rule? Pure; the rules are those of Teleport's access monitoring."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Self
from zoneinfo import ZoneInfo

from shared.events import Schedule, Shift

WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
"""In the order of `datetime.weekday`."""

_TIME = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)", re.ASCII)


class ScheduleError(Exception):
    """A schedule says nothing that a clock could tell."""


@dataclass(frozen=True)
class Hours:
    """The shifts of one schedule."""

    zone: ZoneInfo
    shifts: Mapping[int, Sequence[tuple[int, int]]]
    """Weekday → first and last minute of each shift, counted from midnight on the clock on the wall."""

    @classmethod
    def of(cls, schedule: Schedule) -> Self:
        """Read a schedule; without a time zone it is UTC. Raises `ScheduleError`."""
        shifts: dict[int, list[tuple[int, int]]] = {}
        for shift in schedule.shifts:
            shifts.setdefault(_weekday(shift), []).append((_time(shift.start), _time(shift.end)))
        return cls(_zone(schedule.timezone or "UTC"), shifts)

    def contain(self, instant: datetime) -> bool:
        """Both ends of a shift are inside, the last one with all its seconds. No shifts: never.

        A shift that ends before it begins holds nothing: one over midnight is written as two.
        """
        weekday, minute = _on_the_wall(instant, self.zone)
        for start, end in self.shifts.get(weekday, ()):  # noqa: SIM110  as in `conditions.patterns`: a rule's price
            if start <= minute <= end:
                return True
        return False


@lru_cache(64)  # all rules are asked about the same instant, and most of them in the same zone
def _on_the_wall(instant: datetime, zone: ZoneInfo) -> tuple[int, int]:
    """Weekday and minute since midnight."""
    local = instant.astimezone(zone)
    return local.weekday(), local.hour * 60 + local.minute


def _weekday(shift: Shift) -> int:
    try:
        return WEEKDAYS.index(shift.weekday.lower())
    except ValueError:
        raise ScheduleError(f"{shift.weekday!r} is no weekday; write it in full, like Monday") from None


def _time(text: str) -> int:
    """Minutes since midnight."""
    found = _TIME.fullmatch(text)
    if found is None:
        raise ScheduleError(f"{text!r} is no time; write it like 08:30, at most 23:59")
    return int(found[1]) * 60 + int(found[2])


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (OSError, ValueError, LookupError):  # what is no name at all, a directory of them, or not there
        raise ScheduleError(f"{name!r} is no time zone; write one like Europe/Berlin") from None
