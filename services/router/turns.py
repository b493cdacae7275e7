"""Whose turn it is: the events of a request are routed in the stream's order, whichever router holds them."""

from collections.abc import Iterable

from pydantic import ValidationError

from shared.event_log import Delivery, EventReader, Position, position_of
from shared.events import Event, RequestEvent, parse_event, request_id_of

RULES = "the rules"
"""Stands where else a request's id stands, which has no blanks."""

MOST_POSTPONED = 1_000
MOST_POSTPONED_OCTETS = 2_000_000
"""As JSON on the stream, in memory several times that. Beyond either nothing new is read: it might only wait, too."""

Received = tuple[Delivery, Event]
"""An event in this router's hands, read."""


def in_order(events: Iterable[Received]) -> list[Received]:
    """As they stand in the stream."""
    return sorted(events, key=lambda received: received[0].position)


def subject_of(event: Event) -> str:
    """What an event's order is kept for: its request, or the rules."""
    return request_id_of(event) if isinstance(event, RequestEvent) else RULES


class Postponed:
    """Events whose turn has not come. What is here is looked at again before anything new is read."""

    def __init__(self) -> None:
        self._events: list[Received] = []
        self._first: dict[str, Position] = {}
        self._waited: set[str] = set()
        """Entries that were here before they were taken last."""

    @property
    def is_full(self) -> bool:
        """So much waits that reading on would only fill the memory."""
        octets = sum(len(delivery.data) for delivery, _ in self._events)
        return len(self._events) >= MOST_POSTPONED or octets >= MOST_POSTPONED_OCTETS

    def keep(self, delivery: Delivery, event: Event) -> bool:
        """Its turn has not come: let it wait, and with it all that follows of its subject. False: it has before."""
        self._events.append((delivery, event))
        subject = subject_of(event)
        self._first[subject] = min(delivery.position, self._first.get(subject, delivery.position))
        return delivery.entry not in self._waited

    def has_before(self, delivery: Delivery, event: Event) -> bool:
        """Does an earlier event of the same subject wait, which this one must not pass?"""
        first = self._first.get(subject_of(event))
        return first is not None and first < delivery.position

    def take(self) -> list[Received]:
        """All of them, in the stream's order; none is left here."""
        events = in_order(self._events)
        self._events, self._first = [], {}
        self._waited = {delivery.entry for delivery, _ in events}
        return events


class Elsewhere:
    """What other routers have in hand: read once, and forgotten once they have routed it."""

    def __init__(self, reader: EventReader) -> None:
        self._reader = reader
        self._subjects: dict[str, str | None] = {}
        """By entry; None for what cannot be read, which is its holder's business, and for what is gone by now."""

    def first_of_each(self, until: str) -> dict[str, Position]:
        """Where the first such event of each subject stands, looking no further than this entry.

        Raises `redis.exceptions.RedisError`.
        """
        held = self._reader.held_elsewhere(until)
        new = self._reader.read([entry for entry in held if entry not in self._subjects])
        known = {**self._subjects, **{delivery.entry: _subject(delivery) for delivery in new}}
        self._subjects = {entry: known.get(entry) for entry in held}
        first: dict[str, Position] = {}
        for entry, subject in self._subjects.items():
            if subject is not None:
                first.setdefault(subject, position_of(entry))
        return first


def _subject(delivery: Delivery) -> str | None:
    try:
        return subject_of(parse_event(delivery.data))
    except ValidationError:
        return None
