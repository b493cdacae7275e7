"""Whatever Teleport sends becomes an event that is whole within the limits, says what is cut, and can be stored."""

from collections.abc import Sequence

from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import example, given
from hypothesis import strategies as st

from services.router.directory import audience
from services.watcher.teleport import facts
from services.watcher.teleport.access_request import LEGAL_ID, STATES, SightedRequest, decode_request, read_request
from services.watcher.teleport.pb import types_pb2, wrappers_pb2
from services.watcher.teleport.undecodable import Fault, Undecodable
from shared.events import AccessRequest, Cluster, RequestChanged, parse_event
from shared.memory import RequestFacts

SHORT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
"""Protobuf's texts are UTF-8, which has no surrogates."""
TEXT = SHORT | st.builds(lambda text, times: text * times, SHORT, st.sampled_from([1, 100, 5_000]))
NAMES = st.lists(TEXT, max_size=4) | st.sampled_from([999, 1_000, 1_001, 3_000]).map(
    lambda count: [f"{number}@example.com" for number in range(count)]
)
ENUM = st.integers(0, 5) | st.integers(-(2**31), 2**31 - 1)
TIME = st.none() | st.builds(
    Timestamp,
    seconds=st.sampled_from([0, -62135596800, 1_772_529_300]) | st.integers(-(2**63), 2**63 - 1),
    nanos=st.integers(-(2**31), 2**31 - 1),
)
LABELS = st.none() | st.dictionaries(TEXT, st.lists(TEXT, max_size=3), max_size=3).map(
    lambda sets: wrappers_pb2.LabelValues(
        Values={key: wrappers_pb2.StringValues(Values=values) for key, values in sets.items()}
    )
)
RESOURCE = st.builds(types_pb2.ResourceID, ClusterName=TEXT, Kind=TEXT, Name=TEXT, SubResourceName=TEXT)
RESOURCES = st.lists(RESOURCE, max_size=3) | st.sampled_from([299, 300, 301]).map(
    lambda count: [types_pb2.ResourceID(Kind="node", Name=str(number)) for number in range(count)]
)
PROMOTED = st.none() | st.builds(types_pb2.PromotedAccessList, Name=TEXT, Title=TEXT)
COUNT = st.integers(0, 2**32 - 1)
REVIEW = st.builds(
    types_pb2.AccessReview,
    Author=TEXT,
    Roles=st.lists(TEXT, max_size=2),
    ProposedState=ENUM,
    Reason=TEXT,
    Created=TIME,
    Annotations=LABELS,
    accessList=PROMOTED,
)
SPEC = st.builds(
    types_pb2.AccessRequestSpecV3,
    User=TEXT,
    Roles=NAMES,
    State=st.sampled_from([*STATES]) | ENUM,
    Created=TIME,
    Expires=TIME,
    RequestReason=TEXT,
    ResolveReason=TEXT,
    SystemAnnotations=LABELS,
    Thresholds=st.lists(st.builds(types_pb2.AccessReviewThreshold, Name=TEXT, Approve=COUNT, Deny=COUNT), max_size=25),
    Reviews=st.lists(REVIEW, max_size=3) | REVIEW.map(lambda review: [review] * 30),
    SuggestedReviewers=NAMES,
    RequestedResourceIDs=RESOURCES,
    RequestedResourceAccessIDs=RESOURCES.map(lambda ids: [types_pb2.ResourceAccessID(id=one) for one in ids]),
    accessList=PROMOTED,
    ResourceExpiry=TIME,
)
REQUESTS = st.builds(
    lambda name, expires, spec: types_pb2.AccessRequestV3(
        Kind="access_request", Metadata=types_pb2.Metadata(Name=name, Expires=expires), Spec=spec
    ),
    st.sampled_from(["3f1c", "a" * 128]) | TEXT,
    TIME,
    SPEC,
)


@given(REQUESTS)
def test_a_request_is_decoded_or_the_fault_is_named(message: types_pb2.AccessRequestV3) -> None:
    decoded = decode_request(message)
    sighted = read_request(message.SerializeToString())
    assert (sighted.whole() if isinstance(sighted, SightedRequest) else sighted) == decoded
    name, state = message.Metadata.Name, message.Spec.State
    if LEGAL_ID.fullmatch(name) and state in STATES:
        assert isinstance(decoded, AccessRequest)
        assert (decoded.id, decoded.state) == (name, STATES[state])
    else:
        assert isinstance(decoded, Undecodable)
        assert decoded.fault is (Fault.STATE if LEGAL_ID.fullmatch(name) else Fault.ID)


@given(REQUESTS)
def test_what_is_decoded_can_be_stored_and_is_of_bounded_size(message: types_pb2.AccessRequestV3) -> None:
    decoded = decode_request(message)
    if isinstance(decoded, AccessRequest):
        event = RequestChanged(request=decoded, cluster=Cluster(name="c"))
        stored = event.model_dump_json()
        assert parse_event(stored) == event
        assert len(stored) < 10_000_000
        remembered = RequestFacts(request=decoded, cluster=event.cluster)
        assert RequestFacts.model_validate_json(remembered.model_dump_json(exclude_defaults=True)) == remembered


@given(SPEC)
def test_what_decides_who_is_told_is_whole_or_said_to_be_cut(spec: types_pb2.AccessRequestSpecV3) -> None:
    spec.State = types_pb2.PENDING
    decoded = decode_request(types_pb2.AccessRequestV3(Metadata=types_pb2.Metadata(Name="request-1"), Spec=spec))
    assert isinstance(decoded, AccessRequest)
    resources = [access.id for access in spec.RequestedResourceAccessIDs] or spec.RequestedResourceIDs
    whole = {
        "user": decoded.user == spec.User,
        "roles": decoded.roles == tuple(spec.Roles),
        "suggested_reviewers": decoded.suggested_reviewers == tuple(spec.SuggestedReviewers),
        "request_reason": decoded.request_reason == spec.RequestReason,
        "resources": len(decoded.resources) == len(resources),
        "system_annotations": decoded.system_annotations
        == {key: tuple(values.Values) for key, values in spec.SystemAnnotations.Values.items()},
    }
    assert {fact for fact, is_whole in whole.items() if not is_whole} == set(decoded.cut)
    assert (decoded.role_count, decoded.suggested_reviewer_count) == (len(spec.Roles), len(spec.SuggestedReviewers))
    assert (decoded.resource_count, decoded.review_count) == (len(resources), len(spec.Reviews))
    # Nothing is cut that Teleport takes.
    assert whole["request_reason"] or len(spec.RequestReason) > 4_096
    assert whole["resources"] or len(resources) > 300
    for fact, names in (("roles", spec.Roles), ("suggested_reviewers", spec.SuggestedReviewers)):
        assert whole[fact] or len(names) > 1_000 or max(map(len, names)) > 256


@given(st.integers(1, facts.ROLES), st.data())
@example(facts.ROLES, None)
def test_whichever_role_is_mapped_its_people_are_told(count: int, data: st.DataObject | None) -> None:
    roles = [f"role-{number}" for number in range(count)]
    mapped = data.draw(st.sampled_from(roles)) if data else roles[-1]
    spec = types_pb2.AccessRequestSpecV3(State=types_pb2.PENDING, Roles=roles)
    decoded = decode_request(types_pb2.AccessRequestV3(Metadata=types_pb2.Metadata(Name="request-1"), Spec=spec))
    assert isinstance(decoded, AccessRequest)
    people = audience(decoded, {mapped: ("owner@example.com",), "*": ()}).recipients
    assert [person.address for person in people] == ["owner@example.com"]


@given(st.lists(SHORT.filter(bool), min_size=1, max_size=5), st.integers(0, 4))
def test_a_text_that_is_no_utf_8_is_that_requests_fault_alone(roles: Sequence[str], place: int) -> None:
    marked = [*roles[:place], "\N{SPARKLES}", *roles[place:]]
    spec = types_pb2.AccessRequestSpecV3(State=types_pb2.PENDING, Roles=marked)
    message = types_pb2.AccessRequestV3(Metadata=types_pb2.Metadata(Name="request-1"), Spec=spec)
    surrogate = "\ud800".encode(errors="surrogatepass")  # as long as the mark
    data = message.SerializeToString().replace("\N{SPARKLES}".encode(), surrogate)
    assert read_request(data) == Undecodable("request-1", Fault.TEXT)
