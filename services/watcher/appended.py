"""What this watcher has put on the stream and no router has taken in yet: a snapshot need not tell it again."""

import time
from collections.abc import Iterable, Sequence

from shared.event_log import KnownRequest
from shared.events import RequestChanged, RequestGone

KEPT = 20_000
"""Requests; the oldest are forgotten first. That costs a repetition, which the router passes over."""

SECONDS = 3600.0
"""After that it is told again: whatever became of the entry, nobody is forgotten for longer."""


class Appended:
    """Grows with the stream while the routers are away, and shrinks as their memory catches up."""

    def __init__(self) -> None:
        self._notes: dict[str, tuple[KnownRequest, float]] = {}

    def note(self, events: Iterable[object]) -> None:
        """These events are on the stream."""
        now = time.monotonic()
        for event in events:
            match event:
                case RequestChanged(request=request):
                    self._add(request.id, KnownRequest(request.state, request.review_count, gone=False), now)
                case RequestGone(request_id=request_id):
                    self._add(request_id, KnownRequest(None, 0, gone=True), now)

    def forget(self) -> None:
        """The stream is lost."""
        self._notes.clear()

    def added_to(self, known: dict[str, KnownRequest], request_ids: Sequence[str]) -> dict[str, KnownRequest]:
        """What the router knows of these requests already, or will as soon as it has read the stream."""
        merged = dict(known)
        for request_id in request_ids:
            note = self._current(request_id)
            if note is None:
                continue
            both = _more(known.get(request_id), note)
            if both == known.get(request_id):
                del self._notes[request_id]
            merged[request_id] = both
        return merged

    def is_gone(self, request_id: str) -> bool:
        """Is the request's end on the stream?"""
        note = self._current(request_id)
        return note is not None and note.gone

    def _add(self, request_id: str, told: KnownRequest, now: float) -> None:
        before = self._current(request_id)
        self._notes.pop(request_id, None)  # so that it becomes the youngest
        self._notes[request_id] = (_more(before, told), now)
        if len(self._notes) > KEPT:
            del self._notes[next(iter(self._notes))]

    def _current(self, request_id: str) -> KnownRequest | None:
        note, noted = self._notes.get(request_id, (None, 0.0))
        if note is not None and time.monotonic() - noted > SECONDS:
            del self._notes[request_id]
            return None
        return note


def _more(one: KnownRequest | None, other: KnownRequest) -> KnownRequest:
    """Both together: knowledge only grows, in whatever order it comes."""
    if one is None:
        return other
    states = [state for state in (one.state, other.state) if state is not None]
    return KnownRequest(
        state=max(states, key=lambda state: state.rank, default=None),
        review_count=max(one.review_count, other.review_count),
        gone=one.gone or other.gone,
    )
