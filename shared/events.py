"""What happens to Access Requests, in Teleport's own words: the messages from the watcher to the router.

Values never change; knowledge about a request grows by merging events (see `services.router.changes`).
Every stored JSON carries its format's version `v`; readers ignore fields that they do not know.
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
    resources: tuple[Resource, ...] = ()
    """The first ones; `resource_count` counts all."""
    resource_count: int = 0
    thresholds: tuple[Threshold, ...] = ()
    access_list: str = ""
    """Title of the access list that a promoted request was promoted to."""


class RequestChanged(Message):
    """A request was created, reviewed or settled: Teleport's PUT, or an entry of its listing."""

    v: Literal[1] = 1
    type: Literal["request_changed"] = "request_changed"
    request: AccessRequest
    cluster: Cluster


class RequestGone(Message):
    """A request was deleted or has expired, which Teleport does not tell apart; or it is missing in a listing."""

    v: Literal[1] = 1
    type: Literal["request_gone"] = "request_gone"
    request_id: RequestId


AccessEvent = Annotated[RequestChanged | RequestGone, Field(discriminator="type")]

_access_event: TypeAdapter[RequestChanged | RequestGone] = TypeAdapter(AccessEvent)


def request_id_of(event: RequestChanged | RequestGone) -> str:
    """The id of the request that the event is about."""
    return event.request_id if isinstance(event, RequestGone) else event.request.id


def parse_event(data: bytes | str) -> RequestChanged | RequestGone:
    """Read an event as it stands on the stream. Raises `pydantic.ValidationError`."""
    return _access_event.validate_json(data)
