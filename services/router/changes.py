"""What an event changes: pure, so that its laws can be tested.

Events may arrive twice, late or out of order: several watchers follow one cluster, and what is not acknowledged is
delivered again. So knowledge only grows: reviews are added, states have an order, and a request that is gone stays so.
"""

from shared.events import AccessRequest, RequestChanged, RequestGone, RequestState, Review
from shared.mail import Notice, NoticeKind
from shared.memory import RequestFacts, RequestMemory

RESOLUTIONS = {
    RequestState.APPROVED: NoticeKind.APPROVED,
    RequestState.PROMOTED: NoticeKind.PROMOTED,
    RequestState.DENIED: NoticeKind.DENIED,
}


def changes(
    before: RequestMemory | None, event: RequestChanged | RequestGone
) -> tuple[tuple[Notice, ...], RequestFacts]:
    """What is to be told because of this event, and what is known after it.

    Where nothing was learned, the facts are those from before. A request that is first seen when it is settled or
    gone has nothing to tell to anybody: nobody was told of it.
    """
    facts = before.facts if before else RequestFacts()
    after = _learn(facts, event)
    if after.request is None or (facts.request is None and not after.is_pending):
        return (), after
    told = set(before.notices) if before else set()
    return tuple(notice for notice in _due(facts, after) if notice not in told), after


def _learn(facts: RequestFacts, event: RequestChanged | RequestGone) -> RequestFacts:
    if facts.gone:
        return facts
    if isinstance(event, RequestGone):
        return facts.model_copy(update={"gone": True})
    request = event.request if facts.request is None else _merged(facts.request, event.request)
    return facts.model_copy(
        update={"request": _remembered(request), "cluster": event.cluster if facts.request is None else facts.cluster}
    )


def _remembered(request: AccessRequest) -> AccessRequest:
    """Without what only the conditions of rules ask for: it is asked once, and may be large and personal."""
    if not (request.user_traits or request.system_annotations or any(one.labels for one in request.resources)):
        return request
    resources = tuple(resource.model_copy(update={"labels": {}}) for resource in request.resources)
    return request.model_copy(update={"resources": resources, "system_annotations": {}, "user_traits": {}})


def _merged(known: AccessRequest, seen: AccessRequest) -> AccessRequest:
    """Both together: the facts of the one that is further on, and the reviews of both."""
    further = seen if _progress(seen) > _progress(known) else known
    reviews = {review.position: review for review in (*seen.reviews, *known.reviews)}
    return further.model_copy(update={"reviews": tuple(reviews[position] for position in sorted(reviews))})


def _progress(request: AccessRequest) -> tuple[int, int]:
    return request.state.rank, request.review_count


def _due(facts: RequestFacts, after: RequestFacts) -> list[Notice]:
    """All that the change may tell of, in the order in which people should read it."""
    known, request = facts.request, after.request
    assert request is not None
    notices = [Notice(kind=NoticeKind.REQUESTED)] if known is None else []
    notices += [_reviewed(review) for review in request.reviews if known is None or review not in known.reviews]
    if request.state in RESOLUTIONS and (known is None or known.state is not request.state):
        notices.append(Notice(kind=RESOLUTIONS[request.state]))
    if after.gone and request.state is RequestState.PENDING:
        notices.append(Notice(kind=NoticeKind.EXPIRED))
    return notices


def _reviewed(review: Review) -> Notice:
    return Notice(kind=NoticeKind.REVIEWED, review=review.position)
