"""Mails, requests and commits for tests of the queue."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import count

from redis import Redis

from shared.event_log import GROUP, EventReader
from shared.events import AccessRequest, Cluster, RequestState
from shared.mail import Mail, Notice, Recipient, Why
from shared.mail_queue.router_end import Commit, Committed, Remembered, RouterEnd
from shared.memory import RequestFacts, RequestMemory

ANN = Recipient(address="ann@example.com", why=Why.DEFAULT)
BOB = Recipient(address="bob@example.com", why=Why.ROLE, role="editor")

_entries = count(1)


def mail(notice: str, recipient: Recipient = ANN, request_id: str = "r1") -> Mail:
    """A mail of the request."""
    return Mail(request_id=request_id, notice=Notice.parse(notice), recipient=recipient)


def memory(state: RequestState = RequestState.PENDING, request_id: str = "r1", *, gone: bool = False) -> RequestMemory:
    """What the router remembers of a request that was made a minute ago."""
    now = datetime.now(UTC)
    request = AccessRequest(
        id=request_id,
        user="alice",
        roles=("editor",),
        state=state,
        created=now - timedelta(minutes=1),
        request_expires=now + timedelta(hours=1),
        access_expires=now + timedelta(hours=8),
        request_reason="because",
    )
    facts = RequestFacts(request=request, cluster=Cluster(name="c"), gone=gone, message_id_domain="example.com")
    return RequestMemory(facts=facts, told=(ANN, BOB))


def put(redis: Redis, mails: Sequence[Mail], remembered: RequestMemory | None = None) -> Committed:
    """Commit these mails, whatever is remembered of their request."""
    EventReader(redis, "test").open()
    request_id = mails[0].request_id
    end = RouterEnd(redis, GROUP, "test")
    recalled = end.recall([request_id])[request_id]
    assert isinstance(recalled, Remembered)
    revision = recalled.revision
    commit = Commit(f"1-{next(_entries)}", request_id, revision, remembered or memory(request_id=request_id), mails)
    (committed,) = end.commit([commit])
    assert committed is not None
    return committed
