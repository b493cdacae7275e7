"""A simulated cluster without its network: its requests, its plugin data and its watches, to be scripted.

Every method may be called from any thread. Texts are taken at any length and with any content, so that a client can
be shown what no cluster would accept.
"""

import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from threading import RLock

from services.watcher.teleport.pb import auth_pb2, rules_pb2, types_pb2
from simulators.teleport.directory import Directory
from simulators.teleport.faults import Faults
from simulators.teleport.messages import (
    ACCESS_MONITORING_RULE,
    ACCESS_REQUEST,
    Draft,
    completed,
    delete_event,
    delete_rule_event,
    instant,
    new_request,
    new_rule,
    put_event,
    put_rule_event,
    timestamp,
)
from simulators.teleport.plugin_data import PluginData, Record, insist_on_requests
from simulators.teleport.requests import AccessRequests
from simulators.teleport.rules import AccessMonitoringRules
from simulators.teleport.settling import administered, reviewed
from simulators.teleport.watches import Watches

RECORD_OUTLIVES_ACCESS = timedelta(hours=1)

NEVER = datetime.max.replace(tzinfo=UTC)


def utc_now() -> datetime:
    """Return the present instant."""
    return datetime.now(UTC)


class Cluster:
    """What a cluster knows, and everything that people and plugins can do to it."""

    def __init__(self, name: str, clock: Callable[[], datetime] = utc_now) -> None:
        self.ping = auth_pb2.PingResponse(
            ClusterName=name,
            ServerVersion="18.2.8",
            ServerFeatures=auth_pb2.Features(AccessControls=True, AdvancedAccessWorkflows=True),
            ProxyPublicAddr=f"{name}:443",
        )
        """What Ping answers; change its fields at will."""
        self.client_certificates: set[bytes] = set()
        """The certificates, as PEM, that clients have shown with their calls."""
        self.watches = Watches()
        self.faults = Faults(self.watches)
        self.plugin_data = PluginData()
        self.directory = Directory()
        self._requests = AccessRequests()
        self._rules = AccessMonitoringRules()
        self._clock = clock
        self._lock = RLock()

    def create_request(
        self,
        user: str = "alice",
        roles: Sequence[str] = ("editor",),
        *,
        reason: str = "",
        suggested_reviewers: Sequence[str] = (),
        resources: Sequence[str] = (),
        ttl: timedelta = timedelta(hours=1),
        access: timedelta = timedelta(hours=8),
        approvals: int = 1,
        denials: int = 1,
        request_id: str | None = None,
    ) -> str:
        """Create a pending request and return its id. Raises `TraceError` (AlreadyExists).

        Resources are written `/cluster/kind/name`. It ends `ttl` from now unless it is settled by then; the granted
        access ends `access` from now. So many approvals or denials settle it.
        """
        draft = Draft(user, roles, reason, suggested_reviewers, resources, ttl, access, approvals, denials)
        return self.create(new_request(draft, request_id or str(uuid.uuid4()), self._clock())).Metadata.Name

    def create(self, request: types_pb2.AccessRequestV3) -> types_pb2.AccessRequestV3:
        """Create a request as `CreateAccessRequestV2` does: whatever it lacks is added. Raises `TraceError`."""
        with self._lock:
            return self._show(self._requests.add(completed(request, self._clock())))

    def put(self, request: types_pb2.AccessRequestV3) -> None:
        """Store and show a request exactly as it is, be it new or not: old servers' forms, odd states, hostile text."""
        with self._lock:
            self._show(self._requests.put(request))

    def get(self, request_id: str) -> types_pb2.AccessRequestV3:
        """Return a copy of the request. Raises `TraceError` (NotFound)."""
        copy = types_pb2.AccessRequestV3()
        with self._lock:
            copy.CopyFrom(self._requests.get(request_id))
        return copy

    def review(
        self, request_id: str, author: str, state: types_pb2.RequestState.ValueType, reason: str = ""
    ) -> types_pb2.AccessRequestV3:
        """Submit a review that proposes `types_pb2.APPROVED` or `DENIED`. Raises `TraceError` if it is not allowed."""
        review = types_pb2.AccessReview(Author=author, ProposedState=state, Reason=reason)
        return self.submit(types_pb2.AccessReviewSubmission(RequestID=request_id, Review=review))

    def promote(
        self, request_id: str, title: str, *, author: str = "promoter", reason: str = ""
    ) -> types_pb2.AccessRequestV3:
        """Submit a review that promotes the request to the access list of this title. Raises `TraceError`."""
        review = types_pb2.AccessReview(Author=author, ProposedState=types_pb2.PROMOTED, Reason=reason)
        review.accessList.Name = str(uuid.uuid4())
        review.accessList.Title = title
        return self.submit(types_pb2.AccessReviewSubmission(RequestID=request_id, Review=review))

    def submit(self, submission: types_pb2.AccessReviewSubmission) -> types_pb2.AccessRequestV3:
        """Add a review, dated now, as `SubmitAccessReview` does; perhaps it settles. Raises `TraceError`."""
        review = types_pb2.AccessReview()
        review.CopyFrom(submission.Review)
        review.Created.CopyFrom(timestamp(self._clock()))
        review.Annotations.SetInParent()
        with self._lock:
            return self._show(self._requests.put(reviewed(self._requests.get(submission.RequestID), review)))

    def approve(self, request_id: str, reason: str = "") -> None:
        """Approve as an administrator, without a review. Raises `TraceError`."""
        self.set_state(auth_pb2.RequestStateSetter(ID=request_id, State=types_pb2.APPROVED, Reason=reason))

    def deny(self, request_id: str, reason: str = "") -> None:
        """Deny as an administrator, without a review; overturns an approval. Raises `TraceError`."""
        self.set_state(auth_pb2.RequestStateSetter(ID=request_id, State=types_pb2.DENIED, Reason=reason))

    def set_state(self, change: auth_pb2.RequestStateSetter) -> None:
        """Change the state as `SetAccessRequestState` does. Raises `TraceError`."""
        with self._lock:
            self._show(self._requests.put(administered(self._requests.get(change.ID), change)))

    def delete(self, request_id: str) -> None:
        """Delete the request. Raises `TraceError` (NotFound)."""
        with self._lock:
            self._requests.remove(request_id)
            self._publish(delete_event(request_id))

    def expire(self, request_id: str) -> None:
        """Let the request's time be over at once. To those who watch it is a deletion. Raises `TraceError`."""
        self.delete(request_id)

    def expire_due(self) -> None:
        """Let go what has ended by the cluster's clock; a running `AuthService` does this by itself."""
        now = self._clock()
        with self._lock:
            for request_id in self._requests.remove_ended(now):
                self._publish(delete_event(request_id))
            self.plugin_data.forget(now)

    def find(self, wanted: types_pb2.AccessRequestFilter) -> list[types_pb2.AccessRequestV3]:
        """Return the requests that match id, user and state, none if the id is not known."""
        with self._lock:
            return self._requests.find(wanted)

    def page(self, query: auth_pb2.ListAccessRequestsRequest) -> auth_pb2.ListAccessRequestsResponse:
        """Return one page of a listing."""
        with self._lock:
            return self._requests.page(query)

    def create_rule(self, name: str, condition: str, recipients: Sequence[str]) -> None:
        """Create or replace an Access Monitoring Rule that notifies people by e-mail, at all times."""
        self.put_rule(new_rule(name, condition, recipients))

    def put_rule(self, rule: rules_pb2.AccessMonitoringRule) -> None:
        """Store and show a rule exactly as it is."""
        with self._lock:
            self._publish(put_rule_event(self._rules.put(rule)), ACCESS_MONITORING_RULE)

    def delete_rule(self, name: str) -> None:
        """Delete the rule. Raises `TraceError` (NotFound)."""
        with self._lock:
            self._rules.remove(name)
            self._publish(delete_rule_event(name), ACCESS_MONITORING_RULE)

    def rules_page(
        self, query: rules_pb2.ListAccessMonitoringRulesWithFilterRequest
    ) -> rules_pb2.ListAccessMonitoringRulesResponse:
        """Return one page of a listing of rules."""
        with self._lock:
            return self._rules.page(query)

    def find_plugin_data(self, wanted: types_pb2.PluginDataFilter) -> auth_pb2.PluginDataSeq:
        """Answer `GetPluginData`. Raises `TraceError` (BadParameter)."""
        with self._lock:
            return self.plugin_data.find(wanted)

    def update_plugin_data(self, change: types_pb2.PluginDataUpdateParams) -> None:
        """Do what `UpdatePluginData` does. Raises `TraceError` (NotFound, CompareFailed, BadParameter).

        The request must exist when its record is begun, not afterwards.
        """
        insist_on_requests(change.Kind)
        with self._lock:
            record = self.plugin_data.get(change.Resource) or Record(self._record_end(change.Resource))
            self.plugin_data.update(change, record)

    def plugin_entry(self, request_id: str, plugin: str = "email") -> dict[str, str]:
        """Return what the plugin has noted at the request, {} if nothing."""
        wanted = types_pb2.PluginDataFilter(Kind=ACCESS_REQUEST, Resource=request_id, Plugin=plugin)
        found = self.find_plugin_data(wanted).PluginData
        return dict(found[0].Spec.Entries[plugin].Data) if found else {}

    def _record_end(self, request_id: str) -> datetime:
        access_end = instant(self._requests.get(request_id).Spec.Expires)
        return NEVER if access_end is None else access_end + RECORD_OUTLIVES_ACCESS

    def _show(self, request: types_pb2.AccessRequestV3) -> types_pb2.AccessRequestV3:
        self._publish(put_event(request))
        return request

    def _publish(self, event: auth_pb2.Event, kind: str = ACCESS_REQUEST) -> None:
        # Under the lock: watches see the changes of a request in the order in which they happened.
        if not self.faults.lose_events:
            self.watches.publish(kind, event)
