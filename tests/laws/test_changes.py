"""The three laws of what an event changes: told once, late repetition is nothing, order takes only the worthless."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.router.changes import changes
from services.router.witnessed import record_of, told_before
from shared.events import (
    AccessRequest,
    Announced,
    AnnouncedThread,
    Cluster,
    RequestChanged,
    RequestGone,
    RequestState,
    Resource,
    Review,
)
from shared.mail import Notice, NoticeKind
from shared.memory import RequestFacts, RequestMemory

EXAMPLES = settings(max_examples=1000, suppress_health_check=[HealthCheck.too_slow], deadline=None)
CREATED = datetime(2026, 11, 1, 9, tzinfo=UTC)
Event = RequestChanged | RequestGone


def changed(state: RequestState, reviews: int) -> RequestChanged:
    request = AccessRequest(
        id="r1",
        user="alice",
        roles=("editor",),
        state=state,
        created=CREATED,
        reviews=tuple(
            Review(
                position=n, author=f"reviewer {n}", proposed_state=RequestState.APPROVED, created=CREATED + timedelta(n)
            )
            for n in range(1, reviews + 1)
        ),
        review_count=reviews,
    )
    return RequestChanged(request=request, cluster=Cluster(name="c"))


GONE = RequestGone(request_id="r1")


@st.composite
def histories(draw: st.DrawFn) -> list[Event]:
    """One request's life as Teleport tells it: reviews add up, states only go on, the end comes last."""
    events: list[Event] = []
    states = draw(st.lists(st.sampled_from(list(RequestState)), max_size=4))
    reviews = 0
    for state in sorted([RequestState.PENDING, *states], key=lambda state: state.rank):
        reviews += draw(st.integers(0, 2))
        events.append(changed(state, reviews))
    if draw(st.booleans()):
        events.append(GONE)
    return events[draw(st.integers(0, len(events) - 1)) if draw(st.booleans()) else 0 :]


def tell(history: Sequence[Event]) -> tuple[list[Notice], RequestMemory | None]:
    """All notices of a history, and what is remembered after it."""
    memory: RequestMemory | None = None
    told: list[Notice] = []
    for event in history:
        notices, facts = changes(memory, event)
        told += notices
        if facts != (memory.facts if memory else RequestFacts()) or memory is None:
            before = told_before(record_of(event), facts)
            memory = RequestMemory(facts=facts, notices=(*(memory.notices if memory else before), *notices))
        else:
            assert not notices, "an event that teaches nothing tells nothing"
    return told, memory


@st.composite
def histories_with_repeats(draw: st.DrawFn) -> tuple[list[Event], list[Event]]:
    """A history, and the same with events repeated anywhere after their first delivery."""
    history = draw(histories())
    repeated = list(history)
    for _ in range(draw(st.integers(1, 6))):
        event = draw(st.sampled_from(history))
        first = repeated.index(event)
        repeated.insert(draw(st.integers(first + 1, len(repeated))), event)
    return history, repeated


@given(histories().flatmap(st.permutations))
@EXAMPLES
def test_no_history_yields_a_notice_twice(history: Sequence[Event]) -> None:
    told, _ = tell(history)
    assert len(told) == len(set(map(str, told)))


@given(histories_with_repeats())
@EXAMPLES
def test_a_delivered_event_that_comes_again_changes_nothing(pair: tuple[list[Event], list[Event]]) -> None:
    history, repeated = pair
    assert tell(repeated) == tell(history)


@given(histories().flatmap(lambda history: st.tuples(st.just(history), st.permutations(history))))
@EXAMPLES
def test_another_order_takes_only_what_is_worthless(pair: tuple[list[Event], list[Event]]) -> None:
    history, permuted = pair
    in_order, memory = tell(history)
    told, memory_permuted = tell(permuted)
    assert memory is not None
    assert memory_permuted is not None
    missing = {str(notice) for notice in in_order} - {str(notice) for notice in told}
    announced = any(notice.kind is NoticeKind.REQUESTED for notice in told)
    for text in missing:
        notice = Notice.parse(text)
        assert not announced or is_worthless(notice, memory_permuted), f"{notice} is missing"
    extra = {str(notice) for notice in told} - {str(notice) for notice in in_order}
    # The end may be seen before the settlement: Teleport's DELETE does not say which it was.
    assert extra <= {"expired"}


def is_worthless(notice: Notice, memory: RequestMemory) -> bool:
    """Is there nothing to do any more for whoever reads it late?"""
    facts = memory.facts
    assert facts.request is not None
    if facts.gone:
        return True
    is_resolution = notice.kind not in (NoticeKind.REQUESTED, NoticeKind.REVIEWED)
    return is_resolution and notice.kind.value != facts.request.state.value


def test_a_request_tells_its_whole_story() -> None:
    history = [changed(RequestState.PENDING, 0), changed(RequestState.PENDING, 1), changed(RequestState.APPROVED, 2)]
    told, _ = tell(history)
    assert [str(notice) for notice in told] == ["requested", "reviewed-1", "reviewed-2", "approved"]


def test_an_approval_may_be_overturned() -> None:
    told, _ = tell(
        [changed(RequestState.PENDING, 0), changed(RequestState.APPROVED, 1), changed(RequestState.DENIED, 1)]
    )
    assert [str(notice) for notice in told] == ["requested", "reviewed-1", "approved", "denied"]


def test_a_pending_request_that_is_gone_has_expired() -> None:
    told, _ = tell([changed(RequestState.PENDING, 0), GONE])
    assert [str(notice) for notice in told] == ["requested", "expired"]


def test_a_request_first_seen_when_settled_is_told_to_nobody() -> None:
    told, memory = tell([changed(RequestState.APPROVED, 1), GONE])
    assert told == []
    assert memory is not None
    assert memory.facts.gone


def test_what_only_rules_ask_for_is_not_remembered() -> None:
    node = Resource(cluster="c", kind="node", name="n", labels={"env": "prod"})
    asked = {"user_traits": {"team": ("sre",)}, "system_annotations": {"a": ("b",)}, "resources": (node,)}
    for reviews in (0, 1):
        event = changed(RequestState.PENDING, reviews)
        event = event.model_copy(update={"request": event.request.model_copy(update=asked)})
        _, memory = tell([changed(RequestState.PENDING, 0), event] if reviews else [event])
        assert memory is not None
        assert memory.facts.request is not None
        assert (memory.facts.request.user_traits, memory.facts.request.system_annotations) == ({}, {})
        assert [resource.labels for resource in memory.facts.request.resources] == [{}]


def test_of_a_large_request_is_remembered_what_mails_can_show_and_repetition_is_nothing() -> None:
    large = {
        "roles": tuple(f"role-{number}" for number in range(1_000)),
        "role_count": 1_000,
        "resources": tuple(Resource(cluster="c", kind="node", name=str(number)) for number in range(300)),
        "resource_count": 300,
    }
    event = changed(RequestState.PENDING, 0)
    event = event.model_copy(update={"request": event.request.model_copy(update=large)})
    _, memory = tell([event])
    assert memory is not None
    request = memory.facts.request
    assert request is not None
    assert (request.roles, request.role_count) == (event.request.roles[:100], 1_000)
    assert (request.resources, request.resource_count) == (event.request.resources[:50], 300)
    assert changes(memory, event) == ((), memory.facts)


# -- with the second witness: Redis knows nothing, Teleport's record does


def witnessed(event: Event, record: Announced) -> Event:
    return event.model_copy(update={"announced": record})


@st.composite
def records(draw: st.DrawFn) -> Announced:
    """What a record may say, true or not."""
    addresses = draw(st.lists(st.sampled_from(["ann@example.com", "bob@EXAMPLE.com", "no address"]), min_size=1))
    return Announced(
        threads=tuple(AnnouncedThread(address=address, message_id="X.1@host") for address in addresses),
        review_count=draw(st.integers(0, 30)),
        resolution=draw(st.sampled_from(["", "approved", "denied", "promoted", "expired", "strange"])),
        user="alice",
    )


@given(histories(), records())
@EXAMPLES
def test_what_the_record_tells_is_told_to_nobody_again(history: list[Event], record: Announced) -> None:
    told, _ = tell([witnessed(event, record) for event in history])
    assert len(told) == len(set(told))
    assert record.resolution not in {notice.kind.value for notice in told}
    assert all(notice.review is None or notice.review > record.review_count for notice in told)
    # A pending request may have others who are to hear of it.
    was_pending = isinstance(history[0], RequestChanged) and history[0].request.state is RequestState.PENDING
    assert any(notice.kind is NoticeKind.REQUESTED for notice in told) == was_pending


@given(histories(), records())
@EXAMPLES
def test_a_record_counts_for_nothing_once_the_request_is_known(history: list[Event], record: Announced) -> None:
    assert tell([history[0], *(witnessed(event, record) for event in history[1:])]) == tell(history)


def test_a_record_may_claim_any_number_of_reviews() -> None:
    record = Announced(threads=(AnnouncedThread(address="ann@example.com"),), review_count=999_999_999)
    told, memory = tell([witnessed(changed(RequestState.PENDING, 2), record)])
    assert [str(notice) for notice in told] == ["requested"]
    assert memory is not None
    assert len(memory.notices) < 200


def test_a_loss_of_redis_in_the_middle_tells_the_rest_of_the_story() -> None:
    record = Announced(threads=(AnnouncedThread(address="ann@example.com"),), review_count=1)
    told, memory = tell([witnessed(changed(RequestState.APPROVED, 2), record), GONE])
    assert [str(notice) for notice in told] == ["reviewed-2", "approved"]
    assert memory is not None
    assert memory.facts.gone


def test_a_request_that_ended_in_the_gap_is_told_with_what_the_record_knows() -> None:
    record = Announced(
        threads=(AnnouncedThread(address="ann@example.com"),), user="alice", roles=("editor",), request_reason="why"
    )
    gone = GONE.model_copy(update={"announced": record, "cluster": Cluster(name="c")})
    told, memory = tell([gone])
    assert [str(notice) for notice in told] == ["expired"]
    assert memory is not None
    assert memory.facts.request is not None
    assert (memory.facts.request.user, memory.facts.request.roles) == ("alice", ("editor",))
    assert memory.facts.cluster == Cluster(name="c")


def test_names_that_were_looked_up_once_stay_known() -> None:
    named = Resource(cluster="c", kind="node", name="n", friendly_name="web-1")
    bare = Resource(cluster="c", kind="node", name="n")
    other = Resource(cluster="c", kind="node", name="m")
    first = changed(RequestState.PENDING, 0)
    learned = {"resources": (named,), "logins_by_role": {"editor": ("root",)}}
    later = changed(RequestState.APPROVED, 1)
    _, memory = tell(
        [
            first.model_copy(update={"request": first.request.model_copy(update=learned)}),
            later.model_copy(update={"request": later.request.model_copy(update={"resources": (bare, other)})}),
        ]
    )
    assert memory is not None
    request = memory.facts.request
    assert request is not None
    assert request.state is RequestState.APPROVED
    assert request.resources == (named, other)
    assert request.logins_by_role == learned["logins_by_role"]
