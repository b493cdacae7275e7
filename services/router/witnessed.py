"""What Teleport's record says of a request that Redis does not know: who was told of it, and what. Pure."""

from services.router.directory import normal_address
from shared.events import AccessRequest, Announced, RequestChanged, RequestGone, RequestState
from shared.mail import Notice, NoticeKind, Recipient, Why, mail_id
from shared.memory import RequestFacts

REQUESTED = Notice(kind=NoticeKind.REQUESTED)

REVIEWS = 100
"""The newest ones that are taken for told: a record may claim any number."""

RESOLUTIONS = {
    RequestState.APPROVED: NoticeKind.APPROVED,
    RequestState.PROMOTED: NoticeKind.PROMOTED,
    RequestState.DENIED: NoticeKind.DENIED,
}


def record_of(event: RequestChanged | RequestGone) -> Announced | None:
    """The record, if it names anybody: the Go plugin writes it before it sends the first mail."""
    return event.announced if event.announced is not None and event.announced.threads else None


def told_before(record: Announced | None, facts: RequestFacts) -> tuple[Notice, ...]:
    """What those whom the record names have been told. A pending request may have others who are still to hear it."""
    if record is None:
        return ()
    told = [] if facts.is_pending else [REQUESTED]
    # Also of reviews that the event does not show: it may be older than the record.
    newest = range(max(1, record.review_count - REVIEWS + 1), record.review_count + 1)
    shown = [review.position for review in facts.request.reviews] if facts.request else []
    positions = {*newest, *(position for position in shown if position < newest.start)}
    told += [Notice(kind=NoticeKind.REVIEWED, review=position) for position in sorted(positions)]
    told += [
        Notice(kind=kind) for kind in (*RESOLUTIONS.values(), NoticeKind.EXPIRED) if kind.value == record.resolution
    ]
    return tuple(told)


def recipients(record: Announced) -> tuple[Recipient, ...]:
    """The people whom the record names; what is no address can be told nothing."""
    found: dict[str, Recipient] = {}
    for thread in record.threads:
        address = normal_address(thread.address)
        if address:
            person = Recipient(address=address, why=Why.ANNOUNCED, announced_in=thread.message_id)
            found.setdefault(address, person)
    return tuple(found.values())


def joined(named: tuple[Recipient, ...], record: Announced | None) -> tuple[Recipient, ...]:
    """Those whom the configuration names and those whom the record names, each once, with all that is known of them."""
    people = {person.address: person for person in named}
    for witnessed in recipients(record) if record else ():
        person = people.get(witnessed.address, witnessed)
        people[witnessed.address] = person.model_copy(update={"announced_in": witnessed.announced_in})
    return tuple(people.values())


def request_of(request_id: str, record: Announced) -> AccessRequest:
    """As much of a request as its record tells, where Teleport has it no more."""
    states = {kind.value: state for state, kind in RESOLUTIONS.items()}
    return AccessRequest(
        id=request_id,
        user=record.user,
        roles=record.roles,
        role_count=len(record.roles),
        state=states.get(record.resolution, RequestState.PENDING),
        request_reason=record.request_reason,
    )


def message_id_domain(request_id: str, told: tuple[Recipient, ...]) -> str:
    """The domain of the Message-IDs that this product has given the request's threads; empty if it began none."""
    for person in told:
        ours, _, domain = (person.announced_in or "").rpartition("@")
        if ours == mail_id(request_id, REQUESTED, person):
            return domain
    return ""
