"""Access Requests out of Teleport's messages. Texts and lists are cut here, as `decode` says."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from google.protobuf.message import DecodeError
from google.protobuf.timestamp_pb2 import Timestamp

from services.watcher.teleport import facts
from services.watcher.teleport.facts import NAME_CHARACTERS, Border, Fact
from services.watcher.teleport.pb import auth_pb2, types_pb2, wrappers_pb2
from services.watcher.teleport.undecodable import Fault, Undecodable, spoiled
from shared.events import AccessRequest, RequestState, Resource, Review, Threshold

REMARK_CHARACTERS = 2_000
"""Of a review or a resolution."""
REVIEWS = 20
THRESHOLDS = 20

STATES = {
    types_pb2.PENDING: RequestState.PENDING,
    types_pb2.APPROVED: RequestState.APPROVED,
    types_pb2.DENIED: RequestState.DENIED,
    types_pb2.PROMOTED: RequestState.PROMOTED,
}

LEGAL_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")


@dataclass(frozen=True)
class SightedRequest:
    """A request of which is known how far it has come. All else is read when it is asked for.

    A listing holds thousands of requests that are no news, and to read one whole takes thirty times as long.
    """

    id: str
    state: RequestState
    review_count: int
    message: types_pb2.AccessRequestV3

    def whole(self) -> AccessRequest:
        """All of it that we speak of."""
        return _whole(self.message, self.state)


Sighted = SightedRequest | Undecodable


def read_request(data: bytes) -> Sighted:
    """Read a request from its bytes: one that cannot be read is that request's fault, and no other's."""
    try:
        return sight_request(types_pb2.AccessRequestV3.FromString(data))
    except DecodeError:
        return spoiled(lambda: auth_pb2.SparseRequest.FromString(data).Metadata.Name)


def sight_request(message: types_pb2.AccessRequestV3) -> Sighted:
    """Look at a request. A state that no known version of Teleport has is a fault: what it would mean is not known."""
    spec = message.Spec
    request_id = message.Metadata.Name
    if not is_legal(request_id):
        return Undecodable(facts.name(request_id), Fault.ID)
    state = STATES.get(spec.State)
    if state is None:
        return Undecodable(facts.name(request_id), Fault.STATE)
    return SightedRequest(request_id, state, len(spec.Reviews), message)


def decode_request(message: types_pb2.AccessRequestV3) -> AccessRequest | Undecodable:
    """Read a request whole."""
    sighted = sight_request(message)
    return sighted.whole() if isinstance(sighted, SightedRequest) else sighted


def is_legal(request_id: str) -> bool:
    """May this be the id of a request?"""
    return LEGAL_ID.fullmatch(request_id) is not None


def _whole(message: types_pb2.AccessRequestV3, state: RequestState) -> AccessRequest:
    spec = message.Spec
    border = Border()
    resource_ids = _resource_ids(spec)
    resources = border.first(Fact.RESOURCES, resource_ids, facts.RESOURCES)
    roles = border.names(Fact.ROLES, spec.Roles, facts.ROLES)
    suggested_reviewers = border.names(Fact.SUGGESTED_REVIEWERS, spec.SuggestedReviewers, facts.SUGGESTED_REVIEWERS)
    user = border.text(Fact.USER, spec.User, NAME_CHARACTERS)
    request_reason = border.text(Fact.REQUEST_REASON, spec.RequestReason, facts.REASON_CHARACTERS)
    system_annotations = border.sets(
        Fact.SYSTEM_ANNOTATIONS, _annotations(spec.SystemAnnotations), facts.ANNOTATIONS_CHARACTERS
    )
    return AccessRequest(
        id=message.Metadata.Name,
        user=user,
        roles=roles,
        role_count=len(spec.Roles),
        state=state,
        created=_time(spec.Created),
        access_expires=_time(spec.Expires),
        # Newer servers may leave the metadata's empty, older ones know no other.
        request_expires=_time(spec.ResourceExpiry) or _time(message.Metadata.Expires),
        request_reason=request_reason,
        resolve_reason=_remark(spec.ResolveReason),
        reviews=_reviews(spec.Reviews),
        review_count=len(spec.Reviews),
        suggested_reviewers=suggested_reviewers,
        suggested_reviewer_count=len(spec.SuggestedReviewers),
        resources=tuple(map(_resource, resources)),
        resource_count=len(resource_ids),
        thresholds=tuple(
            Threshold(name=facts.name(threshold.Name), approve=threshold.Approve, deny=threshold.Deny)
            for threshold in spec.Thresholds[:THRESHOLDS]
        ),
        access_list=facts.name(spec.accessList.Title or spec.accessList.Name),
        system_annotations=system_annotations,
        cut=border.cut,
    )


def _resource_ids(spec: types_pb2.AccessRequestSpecV3) -> Sequence[types_pb2.ResourceID]:
    """Where the newest form of the list is there it is the one that counts."""
    return [access.id for access in spec.RequestedResourceAccessIDs] or spec.RequestedResourceIDs


def _resource(resource: types_pb2.ResourceID) -> Resource:
    return Resource(
        cluster=facts.name(resource.ClusterName),
        kind=facts.name(resource.Kind),
        name=facts.name(resource.Name),
        sub_resource=facts.name(resource.SubResourceName),
    )


def _annotations(annotations: wrappers_pb2.LabelValues) -> Iterable[tuple[str, Iterable[str]]]:
    return ((key, annotations.Values[key].Values) for key in sorted(annotations.Values))


def _reviews(reviews: Sequence[types_pb2.AccessReview]) -> tuple[Review, ...]:
    """The newest ones, each with its place in Teleport's whole list."""
    first = max(0, len(reviews) - REVIEWS)
    return tuple(
        Review(
            position=position,
            author=facts.name(review.Author),
            proposed_state=STATES.get(review.ProposedState),
            reason=_remark(review.Reason),
            created=_time(review.Created),
        )
        for position, review in enumerate(reviews[first:], first + 1)
    )


def _time(timestamp: Timestamp) -> datetime | None:
    """A time that was never set is absent, or year 1 (Go's zero time). What no calendar holds is no time either."""
    try:
        time = timestamp.ToDatetime(UTC)
    except (ValueError, OverflowError):
        return None
    # An absent message reads as the epoch, before which Teleport did not exist.
    return time if timestamp.seconds > 0 else None


def _remark(text: str) -> str:
    return facts.cut(text, REMARK_CHARACTERS)
