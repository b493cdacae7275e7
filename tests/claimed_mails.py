"""Claimed mails for tests of the mailer: one ordinary request, from which each test changes what it is about."""

from datetime import UTC, datetime, timedelta
from typing import Any

from shared.claimed import Claimed
from shared.events import AccessRequest, Cluster, RequestState, Resource, Review, Threshold
from shared.mail import Mail, Notice, Recipient, Why
from shared.memory import RequestFacts

REQUEST_ID = "0195b3c8-7d1e-7f0a-9c55-3f2d8c1b7a90"
CREATED = datetime(2026, 11, 24, 14, 3, tzinfo=UTC)
REQUEST_ENDS = CREATED + timedelta(hours=1)
CLAIMED_AT = CREATED + timedelta(seconds=30)
BOB = Recipient(address="bob@example.com", why=Why.ROLE, role="editor")

REVIEWS = (
    Review(position=1, author="carol", proposed_state=RequestState.APPROVED, reason="fine with me", created=CREATED),
    Review(position=2, author="dave", proposed_state=RequestState.DENIED, reason="not on a Friday", created=CREATED),
)

REQUEST = AccessRequest(
    id=REQUEST_ID,
    user="alice",
    roles=("editor", "db-admin"),
    state=RequestState.PENDING,
    created=CREATED,
    access_expires=CREATED + timedelta(hours=8),
    request_expires=REQUEST_ENDS,
    request_reason="The billing job hangs",
    resources=(Resource(cluster="prod", kind="node", name="ip-10-0-0-1"),),
    resource_count=1,
    thresholds=(Threshold(name="default", approve=2, deny=1),),
)

CLUSTER = Cluster(name="prod", proxy_public_addr="teleport.example.com:443", reviews_in_web=True)
FACTS = RequestFacts(request=REQUEST, cluster=CLUSTER)


def facts(*, gone: bool = False, cluster: Cluster = CLUSTER, **request: Any) -> RequestFacts:
    """What is known of the request when it differs in this."""
    changed = REQUEST.model_copy(update={"review_count": len(request.get("reviews", ())), **request})
    return RequestFacts(request=changed, cluster=cluster, gone=gone)


def mail(notice: str = "requested", recipient: Recipient = BOB) -> Mail:
    """A mail about the request."""
    return Mail(request_id=REQUEST_ID, notice=Notice.parse(notice), recipient=recipient)


def claimed(notice: str = "requested", known: RequestFacts | None = FACTS, **differing: Any) -> Claimed:
    """A mail in a mailer's hands, half a minute after its request was created."""
    values: dict[str, Any] = {
        "mail": mail(notice),
        "execution": "execution",
        "now": CLAIMED_AT.timestamp(),
        "attempts": 0,
        "first_tried": None,
        "revived": False,
        "perhaps": False,
        "receipt": None,
        "announced": notice != "requested",
        "is_suspect": False,
        "facts": known,
    }
    return Claimed(**values | differing)
