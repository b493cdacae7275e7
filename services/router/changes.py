"""What an event changes: pure, so that its laws can be tested.

Events may arrive twice, late or out of order: several watchers follow one cluster, and what is not acknowledged is
delivered again. So knowledge only grows: reviews are added, states have an order, and a request that is gone stays so.
"""

from services.router.witnessed import RESOLUTIONS, record_of, request_of, told_before
from shared.events import AccessRequest, RequestChanged, RequestGone, RequestState, Resource, Review
from shared.mail import Notice, NoticeKind
from shared.memory import RequestFacts, RequestMemory

ROLES, RESOURCES = 100, 50
"""That are remembered: mails show fewer, and say how many there are."""


def changes(
    before: RequestMemory | None, event: RequestChanged | RequestGone
) -> tuple[tuple[Notice, ...], RequestFacts]:
    """What is to be told because of this event, and what is known after it.

    Where nothing was learned, the facts are those from before. A request that is first seen when it is settled or
    gone has nothing to tell to anybody, unless Teleport's record names whom it was told to: it witnesses for a Redis
    that has lost its data, and counts for nothing where the memory has not.
    """
    facts = before.facts if before else RequestFacts()
    after = _learn(facts, event)
    record = record_of(event) if before is None else None
    if after.request is None or (facts.request is None and not after.is_pending and record is None):
        return (), after
    told = set(before.notices if before else told_before(record, after))
    return tuple(notice for notice in _due(facts, after) if notice not in told), after


def _learn(facts: RequestFacts, event: RequestChanged | RequestGone) -> RequestFacts:
    if facts.gone:
        return facts
    if isinstance(event, RequestGone):
        record = record_of(event) if facts.request is None else None
        if record is None:
            return facts.model_copy(update={"gone": True})
        request = request_of(event.request_id, record)
        return facts.model_copy(update={"gone": True, "request": request, "cluster": event.cluster})
    request = event.request if facts.request is None else _merged(facts.request, event.request)
    return facts.model_copy(
        update={"request": _remembered(request), "cluster": event.cluster if facts.request is None else facts.cluster}
    )


def _remembered(request: AccessRequest) -> AccessRequest:
    """Without what only rules and recipients ask for: it is asked once, and may be large and personal."""
    resources = request.resources[:RESOURCES]
    if any(resource.labels for resource in resources):
        resources = tuple(resource.model_copy(update={"labels": {}}) for resource in resources)
    small = {"roles": request.roles[:ROLES], "resources": resources, "system_annotations": {}, "user_traits": {}}
    is_small = all(getattr(request, name) == value for name, value in small.items())
    return request if is_small else request.model_copy(update=small)


def _merged(known: AccessRequest, seen: AccessRequest) -> AccessRequest:
    """Both together: the facts of the one that is further on, and what only one of them tells."""
    further = seen if _progress(seen) > _progress(known) else known
    reviews = {review.position: review for review in (*seen.reviews, *known.reviews)}
    return further.model_copy(
        update={
            "reviews": tuple(reviews[position] for position in sorted(reviews)),
            # Looked up once, when the request was new.
            "resources": _named(further.resources, known.resources),
            "logins_by_role": known.logins_by_role or seen.logins_by_role,
        }
    )


def _named(resources: tuple[Resource, ...], known: tuple[Resource, ...]) -> tuple[Resource, ...]:
    """The resources with the names that were known of them."""
    names = {_resource_id(resource): resource for resource in known if resource.friendly_name}
    return tuple(names.get(_resource_id(resource), resource) for resource in resources)


def _resource_id(resource: Resource) -> tuple[str, str, str, str]:
    return resource.cluster, resource.kind, resource.name, resource.sub_resource


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
