"""What happens to Access Requests and to the rules about them: the messages from the watcher to the router.

Values never change; knowledge about a request grows by merging events (see `services.router.changes`).
Every stored JSON carries its format's version `v`; readers ignore fields that they do not know, and take those that are
not there for their defaults, which never change within a version.
"""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, TypeAdapter

RequestId = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,128}$")]
"""A UUID in practice. It becomes part of RQ job ids, which allow these characters only."""


class Message(BaseModel):
    """A value that crosses a process border as JSON."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class RequestState(StrEnum):
    """Teleport's states, from what is known first to what overrules all before (Teleport: `types.RequestState`)."""

    PENDING = "pending"
    APPROVED = "approved"
    PROMOTED = "promoted"
    DENIED = "denied"

    @property
    def rank(self) -> int:
        """Order of knowledge: an administrator may overturn an approval, nothing overturns a denial."""
        return list(RequestState).index(self)


class Cluster(Message):
    """The Teleport cluster as its Ping describes it."""

    name: str
    proxy_public_addr: str = ""
    """`host:port` of the web UI, empty where the cluster names none."""
    reviews_in_web: bool = False
    """Teleport's feature AdvancedAccessWorkflows: requests are reviewed in the web UI, not by `tsh` alone."""


class Review(Message):
    """One review in Teleport's cumulative list."""

    position: int = Field(ge=1)
    """Place in that list, counted from 1: it names the notice `reviewed-N`."""
    author: str
    proposed_state: RequestState | None
    """None: a state that no version of Teleport known here has."""
    reason: str = ""
    created: AwareDatetime | None = None


class Resource(Message):
    """A requested resource by its id."""

    cluster: str
    kind: str
    name: str
    sub_resource: str = ""
    friendly_name: str = ""
    """What people call it where its name is an id; empty: not known."""
    labels: dict[str, str] = {}
    """For the conditions of rules; empty: not known. The router does not remember them."""


class Threshold(Message):
    """How many reviews settle the request."""

    name: str = ""
    approve: int = 0
    deny: int = 0


class AccessRequest(Message):
    """A Just-in-Time Access Request as Teleport last showed it, its texts cut to a bounded size."""

    id: RequestId
    user: str
    roles: tuple[str, ...] = ()
    """The first ones; `role_count` counts all."""
    role_count: int = 0
    state: RequestState
    created: AwareDatetime | None = None
    access_expires: AwareDatetime | None = None
    """End of the access that is asked for (Spec.Expires), not of the request."""
    request_expires: AwareDatetime | None = None
    """When the request itself ends unreviewed (Spec.ResourceExpiry, else Metadata.Expires)."""
    request_reason: str = ""
    resolve_reason: str = ""
    reviews: tuple[Review, ...] = ()
    """The newest ones; `review_count` counts all."""
    review_count: int = 0
    suggested_reviewers: tuple[str, ...] = ()
    """The first ones; `suggested_reviewer_count` counts all."""
    suggested_reviewer_count: int = 0
    resources: tuple[Resource, ...] = ()
    """The first ones; `resource_count` counts all."""
    resource_count: int = 0
    thresholds: tuple[Threshold, ...] = ()
    access_list: str = ""
    """Title of the access list that a promoted request was promoted to."""
    logins_by_role: dict[str, tuple[str, ...]] = {}
    """Logins that the requested roles allow; a role that is not here was not looked up."""
    system_annotations: dict[str, tuple[str, ...]] = {}
    """For the conditions of rules; the router does not remember them."""
    user_traits: dict[str, tuple[str, ...]] = {}
    """The requester's, for the conditions of rules; empty: not known. The router does not remember them."""
    cut: tuple[str, ...] = ()
    """Fields that decide who is told, and of which Teleport holds more than stands here; `labels`: of a resource."""


class AnnouncedThread(Message):
    """A person who was told of a request, and the mail that did it."""

    address: str
    message_id: str = ""
    """Without angle brackets; empty where it is not known."""


class Announced(Message):
    """Who was told what of a request, as Teleport's record has it: the second witness, should Redis lose its data."""

    threads: tuple[AnnouncedThread, ...]
    review_count: int = 0
    """How many reviews were told to them."""
    resolution: str = ""
    """`approved`, `denied`, `promoted` or `expired`, once they were told so; empty before that."""
    user: str = ""
    roles: tuple[str, ...] = ()
    request_reason: str = ""


class RequestChanged(Message):
    """A request was created, reviewed or settled: Teleport's PUT, or an entry of its listing."""

    v: Literal[1] = 1
    type: Literal["request_changed"] = "request_changed"
    request: AccessRequest
    cluster: Cluster
    announced: Announced | None = None
    """Where the watcher found the request unknown to Redis, but known to Teleport's record."""


class RequestGone(Message):
    """A request was deleted or has expired, which Teleport does not tell apart; or it is missing in a listing."""

    v: Literal[1] = 1
    type: Literal["request_gone"] = "request_gone"
    request_id: RequestId
    announced: Announced | None = None
    """As of `RequestChanged`; then with the cluster."""
    cluster: Cluster | None = None


RequestEvent = RequestChanged | RequestGone


class Shift(Message):
    """A part of a day, as the rule's author wrote it: `services.router.schedules` reads it."""

    weekday: str
    start: str
    end: str


class Schedule(Message):
    """When a rule applies."""

    shifts: tuple[Shift, ...] = ()
    timezone: str = ""


class AccessMonitoringRule(Message):
    """An Access Monitoring Rule that has notifications for us, as Teleport last showed it."""

    name: str
    condition: str
    recipients: tuple[str, ...] = ()
    schedules: dict[str, Schedule] = {}
    """By name; without any the rule applies at all times."""


class RulesListed(Message):
    """All rules that Teleport holds for us: they replace whatever was known before."""

    v: Literal[1] = 1
    type: Literal["rules_listed"] = "rules_listed"
    rules: tuple[AccessMonitoringRule, ...] = ()


class RulesUnavailable(Message):
    """Teleport does not show us its rules: those that are known stay in use; where none are, the role map decides."""

    v: Literal[1] = 1
    type: Literal["rules_unavailable"] = "rules_unavailable"
    reason: str


class RuleChanged(Message):
    """A rule was created or changed: Teleport's PUT."""

    v: Literal[1] = 1
    type: Literal["rule_changed"] = "rule_changed"
    rule: AccessMonitoringRule


class RuleDeleted(Message):
    """A rule was deleted, or is none for us any more."""

    v: Literal[1] = 1
    type: Literal["rule_deleted"] = "rule_deleted"
    name: str


RulesEvent = RulesListed | RulesUnavailable | RuleChanged | RuleDeleted

Event = RequestEvent | RulesEvent
"""Whatever the watcher puts on the stream."""

AccessEvent = Annotated[Event, Field(discriminator="type")]

_access_event: TypeAdapter[Event] = TypeAdapter(AccessEvent)


def request_id_of(event: RequestEvent) -> str:
    """The id of the request that the event is about."""
    return event.request_id if isinstance(event, RequestGone) else event.request.id


def parse_event(data: bytes | str) -> Event:
    """Read an event as it stands on the stream. Raises `pydantic.ValidationError`."""
    return _access_event.validate_json(data)
