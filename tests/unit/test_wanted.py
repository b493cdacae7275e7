"""Which mails are still worth sending, and what becomes of the others."""

from datetime import timedelta

import pytest

from services.mailer.wanted import deadline, wanted
from shared.claimed import Claimed
from shared.events import RequestState
from shared.mail import Dead, Dropped, Outcome, Receipt
from shared.memory import RequestFacts
from tests.claimed_mails import BOB, CREATED, FACTS, REQUEST_ENDS, REVIEWS, claimed, facts, mail

IN_TIME = (REQUEST_ENDS + timedelta(minutes=1, seconds=59)).timestamp()
TOO_LATE = (REQUEST_ENDS + timedelta(minutes=2, seconds=1)).timestamp()
DAY = 86_400.0

REVIEWED = facts(reviews=REVIEWS)
APPROVED = facts(state=RequestState.APPROVED, reviews=REVIEWS)
DENIED = facts(state=RequestState.DENIED, reviews=REVIEWS)
GONE = facts(gone=True, reviews=REVIEWS)
ENDLESS = facts(request_expires=None)
TIMELESS = facts(request_expires=None, created=None)
ONLY_ITS_END = RequestFacts(gone=True)

WANTED = {
    "a fresh request": claimed(),
    "a request within the grace after its end": claimed(now=IN_TIME),
    "a request without an end, within seven days": claimed(known=ENDLESS, now=CREATED.timestamp() + 7 * DAY),
    "a request without any time": claimed(known=TIMELESS, now=TOO_LATE),
    "a request that died before": claimed(receipt=Receipt(Outcome.DEAD), revived=True),
    "a review": claimed("reviewed-2", REVIEWED),
    "a review of a settled request at its first try": claimed("reviewed-2", APPROVED),
    "a revived review past the end of its request": claimed(
        "reviewed-2", REVIEWED, first_tried=TOO_LATE, now=TOO_LATE + DAY, revived=True
    ),
    "an approval": claimed("approved", APPROVED),
    "a denial after an approval": claimed("denied", DENIED),
    "an end of which nothing else is known": claimed("expired", ONLY_ITS_END),
    "a resolution within its day": claimed("approved", APPROVED, first_tried=IN_TIME - DAY, now=IN_TIME),
    "a resolution of what another Redis announced": claimed(
        "approved", APPROVED, announced=False, mail=mail("approved", BOB.model_copy(update={"announced_in": ""}))
    ),
    "a revived resolution": claimed("approved", APPROVED, now=IN_TIME + 2 * DAY, revived=True),
}


@pytest.mark.parametrize("mail", WANTED.values(), ids=WANTED.keys())
def test_it_is_sent(mail: Claimed) -> None:
    assert wanted(mail) is None


DROPPED = {
    "delivered already": (claimed(receipt=Receipt(Outcome.DELIVERED)), "already_settled"),
    "dropped already": (claimed(receipt=Receipt(Outcome.DROPPED)), "already_settled"),
    "delivered already, though revived": (claimed(receipt=Receipt(Outcome.DELIVERED), revived=True), "already_settled"),
    "a request that is settled": (claimed(known=APPROVED), "settled"),
    "a request that is settled and gone": (claimed(known=facts(gone=True, state=RequestState.DENIED)), "settled"),
    "a revived request that is gone": (claimed(known=GONE, revived=True), "ended"),
    "a revived request past its end": (claimed(now=TOO_LATE, revived=True), "ended"),
    "a review of what was never announced": (claimed("reviewed-1", REVIEWED, announced=False), "never_announced"),
    "a resolution of what was never announced": (claimed("denied", DENIED, announced=False), "never_announced"),
    "a late review of a settled request": (claimed("reviewed-1", APPROVED, attempts=1), "superseded"),
    "a late review of a request that is gone": (claimed("reviewed-1", GONE, attempts=1), "superseded"),
    "a review that newer ones have displaced": (claimed("reviewed-1", FACTS), "superseded"),
    "an approval that was overturned": (claimed("approved", DENIED), "superseded"),
    "a promotion that was overturned": (claimed("promoted", DENIED), "superseded"),
}


@pytest.mark.parametrize(("mail", "reason"), DROPPED.values(), ids=DROPPED.keys())
def test_it_is_dropped(mail: Claimed, reason: str) -> None:
    assert wanted(mail) == Dropped(reason)


DEAD = {
    "nothing is known any more": (claimed(known=None), "request_unknown"),
    "nothing was ever known": (claimed(known=RequestFacts()), "request_unknown"),
    "a request past its end": (claimed(now=TOO_LATE), "expired_unsent"),
    "a request without an end after seven days": (
        claimed(known=ENDLESS, now=CREATED.timestamp() + 7 * DAY + 121),
        "expired_unsent",
    ),
    "a request that is gone": (claimed(known=GONE), "expired_unsent"),
    "a request of which only the end is known": (claimed(known=ONLY_ITS_END), "expired_unsent"),
    "a review past the end of its request": (claimed("reviewed-2", REVIEWED, now=TOO_LATE), "too_late"),
    "a revived review after another day": (
        claimed("reviewed-2", REVIEWED, first_tried=TOO_LATE, now=TOO_LATE + DAY + 1, revived=True),
        "too_late",
    ),
    "a revived resolution after another day": (
        claimed("denied", DENIED, first_tried=TOO_LATE, now=TOO_LATE + DAY + 1, revived=True),
        "too_late",
    ),
    "a resolution after a day": (
        claimed("denied", DENIED, first_tried=IN_TIME - DAY - 1, now=IN_TIME),
        "too_late",
    ),
}


@pytest.mark.parametrize(("mail", "reason"), DEAD.values(), ids=DEAD.keys())
def test_it_is_a_dead_letter(mail: Claimed, reason: str) -> None:
    assert wanted(mail) == Dead(reason)


def test_what_delivery_has_ruled_out_outweighs_all_other_reasons() -> None:
    assert wanted(claimed(known=None, receipt=Receipt(Outcome.DELIVERED))) == Dropped("already_settled")


DEADLINES = {
    "a request": (claimed(), (REQUEST_ENDS + timedelta(minutes=2)).timestamp()),
    "a review": (claimed("reviewed-2", REVIEWED), (REQUEST_ENDS + timedelta(minutes=2)).timestamp()),
    "a request without an end": (claimed(known=ENDLESS), (CREATED + timedelta(days=7, minutes=2)).timestamp()),
    "a request without any time": (claimed(known=TIMELESS), None),
    "a revived request": (claimed(revived=True), (REQUEST_ENDS + timedelta(minutes=2)).timestamp()),
    "a revived review": (
        claimed("reviewed-2", REVIEWED, now=TOO_LATE, first_tried=TOO_LATE - 60, revived=True),
        TOO_LATE - 60 + DAY,
    ),
    "a resolution that was never tried": (claimed("approved", APPROVED, now=IN_TIME), IN_TIME + DAY),
    "a resolution": (claimed("approved", APPROVED, now=IN_TIME, first_tried=IN_TIME - 60), IN_TIME - 60 + DAY),
}


@pytest.mark.parametrize(("mail", "end"), DEADLINES.values(), ids=DEADLINES.keys())
def test_a_mail_is_worth_something_until(mail: Claimed, end: float | None) -> None:
    assert deadline(mail) == end
