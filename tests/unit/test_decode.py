"""Teleport's messages become facts of bounded size; what cannot be spoken of is told apart, not raised."""

from datetime import UTC, datetime
from typing import Any, cast

import pytest
from google.protobuf.message import DecodeError
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from services.router.conditions import Condition, ParseError
from services.watcher.teleport.access_request import decode_request
from services.watcher.teleport.decode import accepted_kinds, decode_event, decode_ping, decode_rule, is_init
from services.watcher.teleport.pb import auth_pb2, rules_pb2, types_pb2, wrappers_pb2
from services.watcher.teleport.undecodable import Fault, Undecodable
from shared.events import (
    AccessRequest,
    Cluster,
    RequestChanged,
    RequestGone,
    RequestState,
    Resource,
    Review,
    RuleChanged,
    RuleDeleted,
    Schedule,
    Shift,
    Threshold,
    parse_event,
)
from tests.contracts.golden import message

CREATED = datetime(2026, 3, 3, 9, 15, 0, 123456, UTC)
ENDS = datetime(2026, 3, 10, 9, 15, tzinfo=UTC)
ACCESS_ENDS = datetime(2026, 3, 3, 17, 15, tzinfo=UTC)


def decoded(name: str) -> AccessRequest:
    request = decode_request(cast("types_pb2.AccessRequestV3", message(name)))
    assert isinstance(request, AccessRequest)
    return request


def pending(request_id: str = "request-1", **spec: Any) -> types_pb2.AccessRequestV3:
    return types_pb2.AccessRequestV3(
        Kind="access_request",
        Metadata=types_pb2.Metadata(Name=request_id),
        Spec=types_pb2.AccessRequestSpecV3(User="alice", **{"State": types_pb2.PENDING, **spec}),
    )


def shown(**spec: Any) -> AccessRequest:
    request = decode_request(pending(**spec))
    assert isinstance(request, AccessRequest)
    return request


def test_a_minimal_request() -> None:
    assert decoded("request_pending_minimal") == AccessRequest(
        id="11111111-1111-4111-8111-111111111101",
        user="alice",
        roles=("editor",),
        role_count=1,
        state=RequestState.PENDING,
        created=CREATED,
        access_expires=ACCESS_ENDS,
        request_expires=ENDS,
    )


def test_an_older_server_puts_the_requests_end_into_the_metadata() -> None:
    assert decoded("request_pending_older").request_expires == ENDS


def test_a_full_request_keeps_its_hostile_reason_its_reviewers_and_its_resources() -> None:
    request = decoded("request_pending_full")
    assert request.roles == ("access", "db-admin", "editor")
    assert "\r\nBcc: mallory@example.net" in request.request_reason
    assert request.suggested_reviewers == (
        "carol@example.com",
        "dave",
        "Eve Example <eve@example.com>",
        "frank@bücher.example",
    )
    assert request.thresholds == (Threshold(name="two admins", approve=2, deny=1), Threshold(approve=3, deny=1))
    assert request.resource_count == len(request.resources) == 8
    assert request.resources[1] == Resource(cluster="test.example.com", kind="app", name="grafana")


def test_a_request_settled_by_reviews_brings_them_with_their_positions() -> None:
    request = decoded("request_approved")
    assert (request.state, request.resolve_reason, request.review_count) == (RequestState.APPROVED, "go ahead", 2)
    assert request.reviews == (
        Review(
            position=1,
            author="carol",
            proposed_state=RequestState.APPROVED,
            reason="looks right",
            created=datetime(2026, 3, 3, 9, 20, 0, 500_000, UTC),
        ),
        Review(
            position=2,
            author="dave",
            proposed_state=RequestState.APPROVED,
            reason="go ahead",
            created=datetime(2026, 3, 3, 9, 25, tzinfo=UTC),
        ),
    )


@pytest.mark.parametrize(
    ("name", "state"),
    [
        ("request_denied", RequestState.DENIED),
        ("request_denied_by_admin", RequestState.DENIED),
        ("request_promoted", RequestState.PROMOTED),
        ("request_pending_reviewed", RequestState.PENDING),
        ("request_pending_long", RequestState.PENDING),
        ("request_unknown_fields", RequestState.PENDING),
    ],
)
def test_states_are_teleports(name: str, state: RequestState) -> None:
    assert decoded(name).state is state


def test_a_promoted_request_names_its_access_list() -> None:
    assert decoded("request_promoted").access_list == "Database readers"


def test_times_that_were_never_set_are_none() -> None:
    request = decoded("request_zero_times")
    assert (request.created, request.access_expires, request.request_expires) == (None, None, None)


@pytest.mark.parametrize("seconds", [-62135596800, -1, 0, 253402300800, 2**62])
def test_a_time_that_no_calendar_holds_is_none(seconds: int) -> None:
    assert shown(Created=Timestamp(seconds=seconds)).created is None


def test_the_newest_form_of_requested_resources_counts() -> None:
    assert [resource.name for resource in decoded("request_access_ids").resources] == ["n-1", "aws-console"]


def test_a_state_that_no_version_knows_is_a_fault_of_that_request() -> None:
    request = decode_request(cast("types_pb2.AccessRequestV3", message("request_unknown_state")))
    assert request == Undecodable("11111111-1111-4111-8111-11111111110b", Fault.STATE)
    assert decode_request(pending(State=types_pb2.NONE)) == Undecodable("request-1", Fault.STATE)


@pytest.mark.parametrize("request_id", ["", "a b", "a/b", "ä", "a\n", "x" * 129])
def test_an_id_that_could_be_no_key_is_a_fault_of_that_request(request_id: str) -> None:
    assert decode_request(pending(request_id)) == Undecodable(request_id, Fault.ID)


def test_events_of_the_watch() -> None:
    def event(name: str) -> auth_pb2.Event:
        return cast("auth_pb2.Event", message(name))

    assert is_init(event("event_init"))
    assert is_init(event("event_init_bare"))
    assert not is_init(event("event_put_request"))
    assert decode_event(event("event_put_request")) == decoded("request_pending_reviewed")
    assert decode_event(event("event_delete_request")) == RequestGone(request_id="11111111-1111-4111-8111-111111111101")
    changed = decode_event(event("event_put_rule"))
    assert isinstance(changed, RuleChanged)
    assert (changed.rule.name, changed.rule.recipients) == ("night", ("ops@example.com",))
    assert decode_event(event("event_delete_rule")) == RuleDeleted(name="night")
    others = ["event_put_user", "event_put_unknown_resource", "event_init"]
    assert [decode_event(event(name)) for name in others] == [None] * 3


def rule(name: str) -> rules_pb2.AccessMonitoringRule:
    return cast("rules_pb2.AccessMonitoringRule", message(name))


def test_rules_that_notify_us() -> None:
    notify = decode_rule(rule("rule_notify"))
    assert notify is not None
    assert notify.recipients == ("ops@example.com", "sec@example.com")
    assert notify.condition.startswith("contains_any(access_request.spec.roles")
    schedules = decode_rule(rule("rule_schedules"))
    assert schedules is not None
    assert schedules.schedules["default"] == Schedule(
        shifts=(
            Shift(weekday="Monday", start="00:00", end="23:59"),
            Shift(weekday="Sunday", start="08:30", end="12:00"),
        ),
        timezone="America/Los_Angeles",
    )
    assert schedules.schedules["utc"].timezone == ""


def test_rules_that_are_none_of_ours() -> None:
    assert decode_rule(rule("rule_review_only")) is None
    for version, subject, plugin in (
        ("v2", "access_request", "email"),
        ("v1", "access_list", "email"),
        ("v1", "access_request", "slack"),
    ):
        other = rule("rule_notify")
        other.version = version
        other.spec.subjects[:] = [subject]
        other.spec.notification.name = plugin
        assert decode_rule(other) is None
        assert decode_event(auth_pb2.Event(Type=auth_pb2.PUT, AccessMonitoringRule=other)) == RuleDeleted(name="notify")


def test_a_rule_is_of_bounded_size_and_a_long_condition_is_not_made_another_one() -> None:
    large = rule("rule_schedules")
    large.spec.condition = "true || " * 2000 + "true"
    large.spec.notification.recipients.extend(["ann@example.com"] * 1000)
    shifts = large.spec.schedules["default"].time.shifts
    shifts.extend([shifts[0]] * 500)
    decoded_rule = decode_rule(large)
    assert decoded_rule is not None
    assert len(decoded_rule.condition) == 10_001
    assert len(decoded_rule.recipients) == 500
    assert len(decoded_rule.schedules["default"].shifts) == 100
    with pytest.raises(ParseError, match="longer than 10000"):
        Condition.parse(decoded_rule.condition)


def annotations(values: dict[str, list[str]]) -> wrappers_pb2.LabelValues:
    return wrappers_pb2.LabelValues(
        Values={key: wrappers_pb2.StringValues(Values=some) for key, some in values.items()}
    )


def test_annotations_of_a_request_are_read_and_bounded_together() -> None:
    request = shown(SystemAnnotations=annotations({"teams": ["dev", "ops"], "none": []}))
    assert (request.system_annotations, request.cut) == ({"teams": ("dev", "ops"), "none": ()}, ())
    large = {f"x{n:03}": ["v" * 1_000] * 10 for n in range(100)}
    request = shown(SystemAnnotations=annotations(large))
    assert request.cut == ("system_annotations",)
    kept = [value for values in request.system_annotations.values() for value in values]
    assert 95 < len(kept) < 100
    assert set(kept) == {"v" * 1_000}, "none is shortened"


def test_what_a_watch_will_tell_of() -> None:
    asked = ["access_request", "access_monitoring_rule"]
    assert accepted_kinds(cast("auth_pb2.Event", message("event_init_bare")), asked) == set(asked)
    assert accepted_kinds(cast("auth_pb2.Event", message("event_init")), asked) == set(asked)
    only = types_pb2.WatchStatusSpecV1(Kinds=[types_pb2.WatchKind(Kind="access_request")])
    init = auth_pb2.Event(WatchStatus=types_pb2.WatchStatusV1(Spec=only))
    assert accepted_kinds(init, asked) == {"access_request"}


def test_a_deletion_of_an_impossible_id_is_a_fault() -> None:
    header = types_pb2.ResourceHeader(Kind="access_request", Metadata=types_pb2.Metadata(Name="a b"))
    event = auth_pb2.Event(Type=auth_pb2.DELETE, ResourceHeader=header)
    assert decode_event(event) == Undecodable("a b", Fault.ID)


def test_a_ping_describes_the_cluster() -> None:
    enterprise = decode_ping(cast("auth_pb2.PingResponse", message("ping_enterprise")))
    assert enterprise.cluster == Cluster(
        name="test.example.com", proxy_public_addr="proxy.test.example.com:443", reviews_in_web=True
    )
    community = decode_ping(cast("auth_pb2.PingResponse", message("ping_community")))
    assert (community.cluster, community.version) == (Cluster(name="home"), "17.7.20-dev.1+abc")


def test_long_texts_and_lists_are_cut_with_a_count_of_all() -> None:
    reviews = [types_pb2.AccessReview(Author=f"r{n}", Reason="y" * 3000) for n in range(1, 31)]
    request = shown(
        RequestReason="x" * 5000,
        ResolveReason="x" * 5000,
        Roles=["r" * 300] * 1100,
        Reviews=reviews,
        RequestedResourceIDs=[types_pb2.ResourceID(Name=f"n{n}") for n in range(310)],
        SuggestedReviewers=[f"{n}@example.com" for n in range(1200)],
    )
    assert len(request.request_reason) == 4096
    assert request.request_reason.endswith("…")
    assert len(request.resolve_reason) == 2000
    assert (len(request.roles), len(request.roles[0])) == (1000, 256)
    assert [review.position for review in request.reviews] == list(range(11, 31))
    assert request.reviews[-1].author == "r30"
    assert len(request.reviews[0].reason) == 2000
    assert request.review_count == 30
    assert (len(request.resources), request.resource_count) == (300, 310)
    assert (len(request.suggested_reviewers), request.suggested_reviewer_count) == (1000, 1200)
    assert request.role_count == 1100
    assert request.cut == ("roles", "suggested_reviewers", "request_reason", "resources")


def test_texts_at_the_limit_are_not_cut_and_a_thousand_reviewers_pass() -> None:
    request = shown(RequestReason="x" * 4096, SuggestedReviewers=[f"{n}@example.com" for n in range(1000)])
    assert request.request_reason == "x" * 4096
    assert len(request.suggested_reviewers) == 1000
    assert request.cut == ()


TEXT = st.text(st.characters(exclude_categories=["Cs"]))  # protobuf's texts are UTF-8, which has no surrogates


@given(reason=TEXT, roles=st.lists(TEXT, max_size=5), author=TEXT, approve=st.integers(0, 2**32 - 1))
def test_any_text_of_teleports_survives_the_stream(reason: str, roles: list[str], author: str, approve: int) -> None:
    request = shown(
        RequestReason=reason,
        Roles=roles,
        Reviews=[types_pb2.AccessReview(Author=author, Reason=reason)],
        Thresholds=[types_pb2.AccessReviewThreshold(Approve=approve)],
    )
    event = RequestChanged(request=request, cluster=Cluster(name="c"))
    assert parse_event(event.model_dump_json()) == event


@given(st.binary(max_size=300))
def test_no_bytes_that_protobuf_accepts_make_decoding_fail(data: bytes) -> None:
    try:
        event = auth_pb2.Event.FromString(data)
    except DecodeError:
        return
    decode_event(event)
