"""Is this mail still worth sending? Pure decisions from what is known at the time of its claim.

All times are seconds since the epoch by Redis's clock, except the ends of requests, which are Teleport's: the one
comparison between hosts, hence the grace.
"""

from datetime import timedelta
from enum import StrEnum

from shared.claimed import Claimed
from shared.events import AccessRequest, RequestState
from shared.mail import Dead, Dropped, NoticeKind, Outcome
from shared.memory import RequestFacts

REQUEST_LIFETIME = timedelta(days=7)
"""After its creation, where a request names no end of its own."""

GRACE = timedelta(minutes=2)
"""How far Teleport's clock and Redis's may be apart."""

RESOLUTION_LIFETIME = timedelta(days=1)
"""A resolution that has been tried for so long is news no more."""


class Unwanted(StrEnum):
    """Why a mail is dropped: nothing is lost by it."""

    ALREADY_SETTLED = "already_settled"
    """The ledger has its receipt."""
    SETTLED = "settled"
    """Nobody needs to review the request any more."""
    ENDED = "ended"
    """An operator brought the mail back, but its request is gone or over."""
    NEVER_ANNOUNCED = "never_announced"
    """The person never heard of the request, so its further course would only puzzle."""
    SUPERSEDED = "superseded"
    """A later mail of the thread says it all."""


class TooLate(StrEnum):
    """Why a mail is dead before it was sent: somebody was not told what they should have been."""

    REQUEST_UNKNOWN = "request_unknown"
    """The memory of the request is lost: there is nothing to write."""
    EXPIRED_UNSENT = "expired_unsent"
    """The request ended before anybody could be asked to review it."""
    TOO_LATE = "too_late"


def wanted(claimed: Claimed) -> Dropped | Dead | None:
    """None: send it. Otherwise what becomes of the mail, with a reason of `Unwanted` or `TooLate`."""
    if claimed.receipt is not None and claimed.receipt.outcome is not Outcome.DEAD:
        return Dropped(Unwanted.ALREADY_SETTLED)
    facts = claimed.facts
    if facts is None or (facts.request is None and not facts.gone):
        return Dead(TooLate.REQUEST_UNKNOWN)
    kind = claimed.mail.notice.kind
    if kind is NoticeKind.REQUESTED:
        return _request_wanted(claimed, facts)
    if not claimed.announced and claimed.mail.recipient.announced_in is None:
        return Dropped(Unwanted.NEVER_ANNOUNCED)
    if kind is NoticeKind.REVIEWED:
        return _review_wanted(claimed, facts)
    return _resolution_wanted(claimed, facts)


def _request_wanted(claimed: Claimed, facts: RequestFacts) -> Dropped | Dead | None:
    """Worth something until the request is settled or ends, whoever has brought it back."""
    if facts.is_settled:
        return Dropped(Unwanted.SETTLED)
    if facts.gone or _has_ended(facts, claimed.now):
        return Dropped(Unwanted.ENDED) if claimed.revived else Dead(TooLate.EXPIRED_UNSENT)
    return None


def _review_wanted(claimed: Claimed, facts: RequestFacts) -> Dropped | Dead | None:
    """Worth something until the request ends; after a failure not if the resolution, which names it, waits behind."""
    if claimed.attempts and (facts.is_settled or facts.gone):
        return Dropped(Unwanted.SUPERSEDED)
    if not _knows_review(facts.request, claimed.mail.notice.review):
        return Dropped(Unwanted.SUPERSEDED)  # newer ones have displaced it from Teleport's list as we keep it
    # An operator who brings it back wants it to be told although the request has ended: it is news for another day.
    if _tried_for_long(claimed) if claimed.revived else _has_ended(facts, claimed.now):
        return Dead(TooLate.TOO_LATE)
    return None


def _resolution_wanted(claimed: Claimed, facts: RequestFacts) -> Dropped | Dead | None:
    """Worth something for a day from its first attempt (since a replay, if any), unless an approval was overturned."""
    granted = claimed.mail.notice.kind in (NoticeKind.APPROVED, NoticeKind.PROMOTED)
    if granted and facts.request is not None and facts.request.state is RequestState.DENIED:
        return Dropped(Unwanted.SUPERSEDED)
    return Dead(TooLate.TOO_LATE) if _tried_for_long(claimed) else None


def deadline(claimed: Claimed) -> float | None:
    """When the mail, which is wanted now, will not be any more if nothing but time passes; None: never."""
    if claimed.facts is None:
        return None
    kind = claimed.mail.notice.kind
    if kind is NoticeKind.REQUESTED or (kind is NoticeKind.REVIEWED and not claimed.revived):
        return _end(claimed.facts)
    first_tried = claimed.now if claimed.first_tried is None else claimed.first_tried
    return first_tried + RESOLUTION_LIFETIME.total_seconds()


def _tried_for_long(claimed: Claimed) -> bool:
    tried_for = 0.0 if claimed.first_tried is None else claimed.now - claimed.first_tried
    return tried_for > RESOLUTION_LIFETIME.total_seconds()


def _has_ended(facts: RequestFacts, now: float) -> bool:
    """Has the request reached its own end, whether or not Teleport has said so?"""
    end = _end(facts)
    return facts.gone if facts.request is None else end is not None and now > end


def _end(facts: RequestFacts) -> float | None:
    """The request's own end, with the grace."""
    request = facts.request
    if request is None:
        return None
    end = request.request_expires or (request.created and request.created + REQUEST_LIFETIME)
    return None if end is None else (end + GRACE).timestamp()


def _knows_review(request: AccessRequest | None, position: int | None) -> bool:
    return request is not None and any(review.position == position for review in request.reviews)
