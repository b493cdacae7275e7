"""What a mail says, in words: the facts of a request as short clean texts, the same for the text and the HTML part."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from services.mailer import untrusted
from shared.events import AccessRequest, Cluster, RequestState, Resource, Review, Threshold
from shared.mail import Notice, NoticeKind, Recipient, Why
from shared.memory import RequestFacts

NAME_LENGTH = 100
REASON_LENGTH, REASON_LINES = 2000, 40
REMARK_LENGTH, REMARK_LINES = 300, 6
"""Of a review that is told besides the news."""
RESOURCES_SHOWN, ROLES_SHOWN, LOGINS_SHOWN, REVIEWS_SHOWN, THRESHOLDS_SHOWN = 10, 20, 10, 10, 5
"""Gmail clips HTML beyond 102 KB: a mail names the first ones and counts the rest."""


@dataclass(frozen=True)
class Status:
    """A state as the Go plugin writes it, and the tone that colours it."""

    text: str
    tone: str


PENDING: Final = Status("⏳ PENDING", "pending")
EXPIRED: Final = Status("⌛ EXPIRED", "expired")
UNKNOWN: Final = Status("❔ UNKNOWN", "expired")

STATUSES: Final = {
    RequestState.PENDING: PENDING,
    RequestState.APPROVED: Status("✅ APPROVED", "approved"),
    RequestState.PROMOTED: Status("✅ PROMOTED", "approved"),
    RequestState.DENIED: Status("❌ DENIED", "denied"),
}

_VERBS = {RequestState.APPROVED: "approves", RequestState.DENIED: "denies", RequestState.PROMOTED: "promotes"}


class Fact(NamedTuple):
    """A line of the table of facts, or several."""

    label: str
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Opinion:
    """A review."""

    position: int
    author: str
    status: Status
    time: str
    reason: tuple[str, ...]


WHY: Final = "\0"
"""Stands where the reason belongs why the reader is told, which others may not share: nothing else brings it along."""


@dataclass(frozen=True)
class Wording:
    """All that the templates know. No text in it is longer than it should be, or holds what no reader should meet."""

    headline: str
    request_id: str
    cluster: str
    user: str
    status: Status
    facts: tuple[Fact, ...]
    reason: tuple[str, ...]
    """The requester's, in lines."""
    resolve_reason: tuple[str, ...]
    news: Opinion | None
    """The review that a `reviewed` mail tells of."""
    opinions: tuple[Opinion, ...]
    """The reviews that are known besides, the newest last."""
    link: str
    commands: tuple[str, ...]
    why: str = WHY


def wording(request_id: str, notice: Notice, facts: RequestFacts, now: datetime) -> Wording:
    """The facts of the mail, as far as they are known. Times are UTC, and relative to `now`, the mail's date."""
    request = facts.request or AccessRequest(id=request_id, user="", state=RequestState.PENDING)
    cluster = facts.cluster or Cluster(name="")
    news = next((review for review in request.reviews if review.position == notice.review), None)
    others = [review for review in request.reviews if review is not news][-REVIEWS_SHOWN:]
    user = _name(request.user)
    status = _status(notice.kind, facts)
    return Wording(
        headline=_headline(notice.kind, request, news),
        request_id=request.id,
        cluster=_name(cluster.name),
        user=user,
        status=status,
        facts=tuple(fact for fact in _facts(request, cluster, status, _deadline(facts, now)) if any(fact.lines)),
        reason=untrusted.lines(request.request_reason, REASON_LENGTH, REASON_LINES),
        resolve_reason=untrusted.lines(request.resolve_reason, REASON_LENGTH, REASON_LINES),
        news=None if news is None else _opinion(news, REASON_LENGTH, REASON_LINES),
        opinions=tuple(_opinion(review, REMARK_LENGTH, REMARK_LINES) for review in others),
        link="" if status is EXPIRED else _link(cluster, request.id),  # Teleport has it no more
        commands=_commands(request.id) if facts.is_pending else (),
    )


def _headline(kind: NoticeKind, request: AccessRequest, news: Review | None) -> str:
    """The mail in one sentence: what a list of mails shows beside the subject."""
    user, access_list = _name(request.user), _name(request.access_list)
    theirs = f"The access request of {user}" if user else "The access request"
    match kind:
        case NoticeKind.REQUESTED:
            return f"{user} asks for access" + (f": {_roles(request)}" if request.roles else "")
        case NoticeKind.REVIEWED:
            verb = _VERBS.get(news.proposed_state, "reviews") if news and news.proposed_state else "reviews"
            return f"{_name(news.author) if news else 'Somebody'} {verb} the access request of {user}"
        case NoticeKind.PROMOTED:
            return f"{theirs} is promoted to " + (f"the access list {access_list}" if access_list else "an access list")
        case NoticeKind.EXPIRED:
            return f"{theirs} ended without a decision: it expired or was deleted"
        case NoticeKind.APPROVED | NoticeKind.DENIED:
            return f"{theirs} is {kind}"


def _status(kind: NoticeKind, facts: RequestFacts) -> Status:
    if kind is NoticeKind.EXPIRED or (facts.gone and not facts.is_settled):
        return EXPIRED
    return PENDING if facts.request is None else STATUSES[facts.request.state]


def _facts(request: AccessRequest, cluster: Cluster, status: Status, deadline: str) -> list[Fact]:
    resources = [_resource(resource, cluster) for resource in request.resources]
    return [
        Fact("Request ID", (request.id,)),
        Fact("Cluster", (_name(cluster.name),)),
        Fact("User", (_name(request.user),)),
        Fact("Roles", (_roles(request),)),
        Fact("Logins", _logins(request)),
        Fact("Resources", _some(resources, request.resource_count, RESOURCES_SHOWN)),
        Fact("Requested", (_time(request.created),)),
        Fact("Access until", (_access_end(request, status),)),
        Fact("Review by", (deadline,)),
        Fact("Access list", (_name(request.access_list),)),
        Fact("Reviews", _progress(request)),
        Fact("Not told", (_untold(request),)),
    ]


def _access_end(request: AccessRequest, status: Status) -> str:
    """The end of the access that is asked for, and how long that is; nothing where there will be no access."""
    if status.tone in {"denied", "expired"}:
        return ""
    if request.access_expires is None or request.created is None:
        return _time(request.access_expires)
    return f"{_time(request.access_expires)} ({_span(request.access_expires - request.created)})"


def _deadline(facts: RequestFacts, now: datetime) -> str:
    """The end of the request itself, as long as it is open."""
    if facts.request is None or facts.request.request_expires is None or not facts.is_pending:
        return ""
    end = facts.request.request_expires
    left = f" ({_span(end - now)} after this mail)" if end - now > timedelta(minutes=1) else ""
    return _time(end) + left


def _progress(request: AccessRequest) -> tuple[str, ...]:
    """How far the reviews have got, as far as is known: which threshold counts for which role is not."""
    known = [review.proposed_state for review in request.reviews]
    approvals, denials = known.count(RequestState.APPROVED), known.count(RequestState.DENIED)
    least = "at least " if request.review_count > len(request.reviews) else ""
    thresholds = [threshold for threshold in request.thresholds if threshold.approve or threshold.deny]
    if len(thresholds) == 1 and thresholds[0].approve:
        denied = f", {least}{_count(denials, 'denial')}" if denials else ""
        return (f"{least}{approvals} of {_count(thresholds[0].approve, 'approval')}{denied}",)
    counted = f"{least}{_count(approvals, 'approval')}, {least}{_count(denials, 'denial')}" if known else ""
    needed = [_threshold(threshold) for threshold in thresholds]
    return ((counted,) if counted else ()) + _some(needed, len(needed), THRESHOLDS_SHOWN)


def _threshold(threshold: Threshold) -> str:
    name = f"{_name(threshold.name)}: " if threshold.name else ""
    needs = [(threshold.approve, "approval"), (threshold.deny, "denial")]
    return f"{name}settled by " + " or ".join(_count(number, word) for number, word in needs if number)


def _opinion(review: Review, length: int, lines: int) -> Opinion:
    state = review.proposed_state
    return Opinion(
        position=review.position,
        author=_name(review.author),
        status=STATUSES[state] if state else UNKNOWN,
        time=_time(review.created),
        reason=untrusted.lines(review.reason, length, lines),
    )


def _roles(request: AccessRequest) -> str:
    return ", ".join(_some([_name(role) for role in request.roles], request.role_count, ROLES_SHOWN))


def _logins(request: AccessRequest) -> tuple[str, ...]:
    """What the requester could log in as on servers, role by role."""
    roles = [(role, request.logins_by_role[role]) for role in request.roles if request.logins_by_role.get(role)]
    named = [
        f"{_name(role)}: {', '.join(_some([_name(login) for login in logins], len(logins), LOGINS_SHOWN))}"
        for role, logins in roles
    ]
    return _some(named, len(named), ROLES_SHOWN)


def _untold(request: AccessRequest) -> str:
    """Nobody should wait for a suggested reviewer who was never asked."""
    untold = request.suggested_reviewer_count - len(request.suggested_reviewers)
    return f"{_count(untold, 'suggested reviewer')}, for there are too many" if untold > 0 else ""


def _resource(resource: Resource, cluster: Cluster) -> str:
    name = _name(resource.name)
    if resource.sub_resource:
        name += f"/{_name(resource.sub_resource)}"
    friendly = _name(resource.friendly_name)
    name = f"{_name(resource.kind)} {friendly} ({name})" if friendly else f"{_name(resource.kind)} {name}"
    return name if resource.cluster == cluster.name else f"{name} on {_name(resource.cluster)}"


def _link(cluster: Cluster, request_id: str) -> str:
    """To the web UI, where the cluster reviews requests there (Teleport: AdvancedAccessWorkflows)."""
    address = untrusted.line(cluster.proxy_public_addr, 256).removesuffix(":443")
    if not cluster.reviews_in_web or not address:
        return ""
    return f"https://{address}/web/requests/{request_id}"


def _commands(request_id: str) -> tuple[str, ...]:
    return (f"tsh request review --approve {request_id}", f"tsh request review --deny {request_id}")


def why(recipient: Recipient, user: str) -> str:
    """Why the recipient is told: the end of a sentence. `user`: the requester, as the mail names him."""
    match recipient.why:
        case Why.ROLE:
            return f"you are a recipient of requests for the role {_name(recipient.role)}"
        case Why.DEFAULT:
            return "you are a default recipient of access requests"
        case Why.SUGGESTED_REVIEWER:
            return f"{user or 'the requester'} suggested you as a reviewer"
        case Why.RULE:
            return f"the Access Monitoring Rule {_name(recipient.rule)} names you"
        case Why.ANNOUNCED:
            return "you were told of this request before"


def _name(text: str) -> str:
    return untrusted.line(text, NAME_LENGTH)


def _some(texts: list[str], count: int, most: int) -> tuple[str, ...]:
    """The first ones, and how many there are besides."""
    shown = texts[:most]
    rest = max(count, len(texts)) - len(shown)
    return (*shown, f"… and {rest} more") if rest else tuple(shown)


def _time(time: datetime | None) -> str:
    return "" if time is None else f"{time.astimezone(UTC).replace(tzinfo=None).isoformat(' ', 'minutes')} UTC"


def _span(span: timedelta) -> str:
    """In the two largest units that say enough."""
    minutes = round(span.total_seconds() / 60)
    days, hours, minutes = minutes // 1440, minutes // 60 % 24, minutes % 60
    named = [_count(number, unit) for number, unit in ((days, "day"), (hours, "hour"), (minutes, "minute")) if number]
    return " ".join(named[:2]) or "under a minute"


def _count(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"
