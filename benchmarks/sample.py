"""The mail that every contender renders and sends: one request with three recipients, real templates."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cache

from services.mailer.mime import Mailbox, write
from services.mailer.render import Renderer
from shared.events import AccessRequest, Cluster, RequestState, Threshold
from shared.mail import Mail, Notice, NoticeKind, Recipient, Why
from shared.memory import RequestFacts

SENDER = "access@example.com"
RECIPIENTS = 3


def facts(request_id: str) -> RequestFacts:
    """What is known of a request that was made a minute ago."""
    created = datetime.now(UTC) - timedelta(minutes=1)
    request = AccessRequest(
        id=request_id,
        user="alice@example.com",
        roles=("prod-db-admin", "prod-ssh"),
        state=RequestState.PENDING,
        created=created,
        access_expires=created + timedelta(hours=8),
        request_expires=created + timedelta(hours=10),
        request_reason="INC-4711: the nightly billing job hangs, I need to look at its locks and restart it.",
        thresholds=(Threshold(name="default", approve=2, deny=1),),
    )
    cluster = Cluster(name="prod", proxy_public_addr="teleport.example.com:443", reviews_in_web=True)
    return RequestFacts(request=request, cluster=cluster, message_id_domain="example.com")


def mails(request_id: str) -> list[Mail]:
    """Its first mails, one to each recipient."""
    people = [
        Recipient(address=f"reviewer-{number}@example.com", why=Why.ROLE, role="prod-ssh")
        for number in range(RECIPIENTS)
    ]
    return [Mail(request_id=request_id, notice=Notice(kind=NoticeKind.REQUESTED), recipient=one) for one in people]


def request_ids(mails_in_all: int) -> Iterator[str]:
    """Ids of as many requests as have that many mails."""
    return (f"0195b3c8-7d1e-7f0a-9c55-{number:012d}" for number in range(-(-mails_in_all // RECIPIENTS)))


@cache
def renderer() -> Renderer:
    """The product's own, once a process."""
    return Renderer(Mailbox("Teleport access requests", SENDER), "example.com")


def content(mail: Mail, known: RequestFacts) -> bytes:
    """The mail as it goes to the relay."""
    return write(renderer().render(mail, known, datetime.now(UTC).timestamp()))
