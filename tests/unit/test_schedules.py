"""A rule's shifts on the clock on the wall, whatever the time zone does."""

from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.router.schedules import WEEKDAYS, Hours, ScheduleError
from shared.events import Schedule, Shift


def contain(instant: str, *shifts: tuple[str, str, str], timezone: str = "") -> bool:
    schedule = Schedule(
        shifts=tuple(Shift(weekday=day, start=start, end=end) for day, start, end in shifts), timezone=timezone
    )
    return Hours.of(schedule).contain(datetime.fromisoformat(instant))


FRIDAY_EVENING = ("Friday", "17:00", "23:59")


@pytest.mark.parametrize(
    ("instant", "inside"),
    [
        ("2026-11-20T16:59:59Z", False),
        ("2026-11-20T17:00:00Z", True),
        ("2026-11-20T23:59:59.999999Z", True),
        ("2026-11-21T00:00:00Z", False),
        ("2026-11-19T18:00:00Z", False),
    ],
)
def test_both_ends_are_inside_to_the_minute(instant: str, inside: bool) -> None:  # noqa: FBT001  a column
    assert contain(instant, FRIDAY_EVENING) is inside


def test_without_shifts_it_is_never() -> None:
    assert not contain("2026-11-20T17:00:00Z")


def test_any_of_the_shifts_is_enough() -> None:
    assert contain("2026-11-22T08:30:00Z", FRIDAY_EVENING, ("Sunday", "08:30", "12:00"))


def test_a_shift_that_ends_before_it_begins_holds_nothing() -> None:
    assert not contain("2026-11-20T23:00:00Z", ("Friday", "22:00", "06:00"))


@pytest.mark.parametrize(
    ("instant", "inside"),
    [
        # Los Angeles is 8 hours behind in winter and 7 in summer; Friday there is Saturday here.
        ("2026-11-21T01:00:00Z", True),
        ("2026-11-21T00:59:00Z", False),
        ("2026-07-18T00:00:00Z", True),
        ("2026-07-17T23:59:00Z", False),
        # The hour that comes twice (2026-11-01, a Sunday) is not in it, whichever of the two.
        ("2026-11-01T08:30:00Z", False),
        ("2026-11-01T09:30:00Z", False),
    ],
)
def test_the_clock_on_the_wall_counts(instant: str, inside: bool) -> None:  # noqa: FBT001  a column
    assert contain(instant, FRIDAY_EVENING, timezone="America/Los_Angeles") is inside


@pytest.mark.parametrize("instant", ["2026-11-01T08:30:00Z", "2026-11-01T09:30:00Z"])
def test_an_hour_that_comes_twice_is_inside_both_times(instant: str) -> None:
    assert contain(instant, ("Sunday", "01:00", "01:59"), timezone="America/Los_Angeles")


def test_an_hour_that_a_zone_leaves_out_does_no_harm() -> None:
    skipped = ("Sunday", "02:00", "02:59")  # 2026-03-29 in Berlin
    assert not contain("2026-03-29T00:59:00Z", skipped, timezone="Europe/Berlin")
    assert not contain("2026-03-29T01:00:00Z", skipped, timezone="Europe/Berlin")


@pytest.mark.parametrize(
    ("shift", "timezone", "reason"),
    [
        (("Fri", "17:00", "23:59"), "", "'Fri' is no weekday"),
        (("Friday", "17:00", "24:00"), "", "'24:00' is no time"),
        (("Friday", "00:60", "23:00"), "", "'00:60' is no time"),
        (("Friday", "12:34:56", "23:00"), "", "'12:34:56' is no time"),
        (("Friday", "", "23:00"), "", "'' is no time"),
        (FRIDAY_EVENING, "Mars/Olympus", "'Mars/Olympus' is no time zone"),
        (FRIDAY_EVENING, "../../etc/passwd", "is no time zone"),
        (FRIDAY_EVENING, "America", "is no time zone"),
        (FRIDAY_EVENING, "\0", "is no time zone"),
    ],
)
def test_what_no_clock_can_tell_is_said(shift: tuple[str, str, str], timezone: str, reason: str) -> None:
    with pytest.raises(ScheduleError, match=reason):
        contain("2026-11-20T17:00:00Z", shift, timezone=timezone)


@given(st.datetimes(timezones=st.just(UTC)), st.sampled_from(["", "Asia/Kathmandu", "America/St_Johns"]))
def test_every_instant_is_in_a_week_of_whole_days(instant: datetime, timezone: str) -> None:
    week = tuple(Shift(weekday=day, start="0:00", end="23:59") for day in WEEKDAYS)
    hours = Hours.of(Schedule(shifts=week, timezone=timezone))
    assert hours.contain(min(instant, datetime.max.replace(tzinfo=UTC) - timedelta(days=1)))


@given(st.text(), st.text(), st.text(), st.text())
def test_any_text_is_read_or_refused(weekday: str, start: str, end: str, timezone: str) -> None:
    with suppress(ScheduleError):
        Hours.of(Schedule(shifts=(Shift(weekday=weekday, start=start, end=end),), timezone=timezone))
