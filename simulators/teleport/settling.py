"""How a request's state may change: pure rules of Teleport's Auth Service, from one message to the next."""

from grpc import StatusCode

from services.watcher.teleport.pb import auth_pb2, types_pb2
from simulators.teleport.errors import TraceError
from simulators.teleport.messages import state_name

SETTLED = (types_pb2.APPROVED, types_pb2.DENIED, types_pb2.PROMOTED)


def administered(request: types_pb2.AccessRequestV3, change: auth_pb2.RequestStateSetter) -> types_pb2.AccessRequestV3:
    """Return the request after an administrator's `SetAccessRequestState`. Raises `TraceError` (BadParameter).

    A denial is final; an approval may be overturned. An approval moves the request's end to that of the access.
    """
    if change.State not in (types_pb2.APPROVED, types_pb2.DENIED):
        name = state_name(change.State)
        raise TraceError(StatusCode.INVALID_ARGUMENT, f"request state cannot be set to {name}")
    if request.Spec.State == types_pb2.DENIED and change.State != types_pb2.DENIED:
        raise TraceError(
            StatusCode.INVALID_ARGUMENT, f"cannot set request-state {state_name(change.State)} (already denied)"
        )
    after = _copy(request)
    after.Spec.State = change.State
    after.Spec.ResolveReason = change.Reason
    if change.State == types_pb2.APPROVED:
        if change.Roles:
            after.Spec.Roles[:] = change.Roles
        _end_with_access(after)
    return after


def reviewed(request: types_pb2.AccessRequestV3, review: types_pb2.AccessReview) -> types_pb2.AccessRequestV3:
    """Return the request with the review appended, and settled if that suffices. Raises `TraceError`.

    All thresholds' approvals approve, any threshold's denials deny, a promotion settles at once. A settled request
    takes no review, and nobody reviews twice.
    """
    if review.ProposedState not in SETTLED:
        name = state_name(review.ProposedState)
        raise TraceError(StatusCode.INVALID_ARGUMENT, f"invalid state proposal: {name} (expected approval/denial)")
    if request.Spec.State in SETTLED:
        raise TraceError(
            StatusCode.PERMISSION_DENIED, f"the access request has been already {state_name(request.Spec.State)}"
        )
    if any(earlier.Author == review.Author for earlier in request.Spec.Reviews):
        raise TraceError(StatusCode.PERMISSION_DENIED, f'user "{review.Author}" has already reviewed this request')
    after = _copy(request)
    after.Spec.Reviews.append(review)
    state = _outcome(after.Spec)
    if state in SETTLED:
        after.Spec.State = state
        after.Spec.ResolveReason = review.Reason
        _end_with_access(after)
    if state == types_pb2.PROMOTED:
        after.Spec.accessList.CopyFrom(review.accessList)
    return after


def _outcome(spec: types_pb2.AccessRequestSpecV3) -> types_pb2.RequestState.ValueType:
    proposals = [review.ProposedState for review in spec.Reviews]
    if types_pb2.PROMOTED in proposals:
        return types_pb2.PROMOTED
    denials, approvals = proposals.count(types_pb2.DENIED), proposals.count(types_pb2.APPROVED)
    if any(0 < threshold.Deny <= denials for threshold in spec.Thresholds):
        return types_pb2.DENIED
    if spec.Thresholds and all(threshold.Approve <= approvals for threshold in spec.Thresholds):
        return types_pb2.APPROVED
    return types_pb2.PENDING


def _end_with_access(request: types_pb2.AccessRequestV3) -> None:
    """Move the request's own end, wherever it stands, to the end of the granted access."""
    if request.Spec.HasField("ResourceExpiry"):
        request.Spec.ResourceExpiry.CopyFrom(request.Spec.Expires)
    else:
        request.Metadata.Expires.CopyFrom(request.Spec.Expires)


def _copy(request: types_pb2.AccessRequestV3) -> types_pb2.AccessRequestV3:
    after = types_pb2.AccessRequestV3()
    after.CopyFrom(request)
    return after
