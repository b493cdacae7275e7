"""What people do in a simulated cluster that runs in another process, by the calls that `tsh` and `tctl` make."""

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

import grpc

from services.watcher.teleport.pb import auth_pb2, types_pb2
from services.watcher.teleport.pb.auth_pb2_grpc import AuthServiceStub
from simulators.certificates import HOST_NAMES
from simulators.teleport.messages import Draft, new_request

CALL_SECONDS = 10


class People:
    """Somebody with credentials, connected as long as the `with` block lasts. Calls raise `grpc.RpcError`."""

    def __init__(self, address: str, credentials: Path) -> None:
        """`credentials`: a directory in which `Identity.write_trio` has put them."""
        channel_credentials = grpc.ssl_channel_credentials(
            (credentials / "teleport-host-ca.crt").read_bytes(),
            private_key=(credentials / "key").read_bytes(),
            certificate_chain=(credentials / "tlscert").read_bytes(),
        )
        options = [("grpc.ssl_target_name_override", HOST_NAMES[0])]
        self._channel = grpc.secure_channel(address, channel_credentials, options)
        self._auth = AuthServiceStub(self._channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()

    def create_request(
        self,
        user: str,
        roles: Sequence[str],
        *,
        reason: str = "",
        suggested_reviewers: Sequence[str] = (),
        resources: Sequence[str] = (),
        ttl: timedelta = timedelta(hours=1),
        approvals: int = 1,
    ) -> str:
        """Create a pending request that ends `ttl` from now, and return its id; so many approvals settle it."""
        access = timedelta(hours=8)
        draft = Draft(user, roles, reason, suggested_reviewers, resources, ttl, access, approvals, denials=1)
        request = new_request(draft, str(uuid.uuid4()), datetime.now(UTC))
        return self._auth.CreateAccessRequestV2(request, timeout=CALL_SECONDS).Metadata.Name

    def review(
        self, request_id: str, author: str, state: types_pb2.RequestState.ValueType, reason: str = ""
    ) -> types_pb2.AccessRequestV3:
        """Submit a review that proposes `types_pb2.APPROVED` or `DENIED`."""
        review = types_pb2.AccessReview(Author=author, ProposedState=state, Reason=reason)
        submission = types_pb2.AccessReviewSubmission(RequestID=request_id, Review=review)
        return self._auth.SubmitAccessReview(submission, timeout=CALL_SECONDS)

    def approve(self, request_id: str, reason: str = "") -> None:
        """Approve as an administrator, without a review."""
        self._set_state(request_id, types_pb2.APPROVED, reason)

    def deny(self, request_id: str, reason: str = "") -> None:
        """Deny as an administrator, without a review."""
        self._set_state(request_id, types_pb2.DENIED, reason)

    def _set_state(self, request_id: str, state: types_pb2.RequestState.ValueType, reason: str) -> None:
        change = auth_pb2.RequestStateSetter(ID=request_id, State=state, Reason=reason)
        self._auth.SetAccessRequestState(change, timeout=CALL_SECONDS)
