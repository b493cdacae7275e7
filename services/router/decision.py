"""What follows from one event: pure."""

from dataclasses import dataclass

from pydantic import ValidationError

from services.router.changes import changes
from services.router.directory import Audience, audience
from services.router.metrics import EventOutcome
from services.router.rulebook import Fault, Matches, Rulebook
from services.router.settings import RouterConfiguration
from services.router.witnessed import joined, message_id_domain, record_of, told_before
from shared.event_log import Delivery
from shared.events import RequestChanged, RequestEvent, request_id_of
from shared.mail import Mail, NoticeKind
from shared.mail_queue.router_end import Commit, Remembered
from shared.memory import RequestMemory


@dataclass(frozen=True)
class Routed:
    """An event with what it leads to."""

    delivery: Delivery
    event: RequestEvent
    commit: Commit
    outcome: EventOutcome
    audience: Audience | None
    """None: nobody had to be found."""
    rule_faults: tuple[Fault, ...] = ()
    """Rules that had no answer."""


def decide(
    delivery: Delivery,
    event: RequestEvent,
    remembered: Remembered | ValidationError,
    configuration: RouterConfiguration,
    rulebook: Rulebook,
) -> Routed:
    """What follows from one event: pure. Raises the `ValidationError` of a memory that cannot be read."""
    if isinstance(remembered, ValidationError):
        raise remembered
    memory = remembered.memory
    notices, facts = changes(memory, event)
    record = record_of(event) if memory is None else None
    found, matches = None, Matches()
    told = memory.told if memory else joined((), record)
    if facts.request is not None and any(notice.kind is NoticeKind.REQUESTED for notice in notices):
        # The event tells more than is remembered: what only the rules ask for.
        request = event.request if isinstance(event, RequestChanged) else facts.request
        matches = rulebook.matching(request)
        found = audience(request, configuration.role_map, matches.rules, configuration.rules)
        told = joined(found.recipients, record)
    after = None
    if memory is None or facts != memory.facts:
        domain = memory.facts.message_id_domain if memory else message_id_domain(request_id_of(event), told)
        after = RequestMemory(
            facts=facts.model_copy(update={"message_id_domain": domain or configuration.message_id_domain}),
            told=told,
            notices=(memory.notices if memory else told_before(record, facts)) + notices,
        )
    mails = [
        Mail(request_id=request_id_of(event), notice=notice, recipient=person)
        for notice in notices
        for person in told
        if notice.kind is not NoticeKind.REQUESTED or person.announced_in is None
    ]
    commit = Commit(delivery.entry, request_id_of(event), remembered.revision, after, mails)
    return Routed(delivery, event, commit, _outcome(memory, after), found, matches.faults)


def _outcome(memory: RequestMemory | None, after: RequestMemory | None) -> EventOutcome:
    if after is None:
        return EventOutcome.KNOWN
    unannounced = memory is None and after.facts.is_settled and not after.told
    return EventOutcome.SETTLED_UNANNOUNCED if unannounced else EventOutcome.ROUTED
