"""The facts that decide who is told of a request, and how much is taken of each.

Rules and recipients are chosen by them, so that the limits are as wide as Teleport's own or wider. Where one is passed
all the same, the fact is cut and the event says so.
"""

from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import TypeVar


class Fact(StrEnum):
    """Named as the field of `shared.events.AccessRequest` that holds it; labels as that of its resources."""

    USER = "user"
    ROLES = "roles"
    SUGGESTED_REVIEWERS = "suggested_reviewers"
    REQUEST_REASON = "request_reason"
    RESOURCES = "resources"
    SYSTEM_ANNOTATIONS = "system_annotations"
    USER_TRAITS = "user_traits"
    LABELS = "labels"


NAME_CHARACTERS = 256
"""An e-mail address has at most 254."""
REASON_CHARACTERS = 4_096
"""Teleport takes so many bytes."""
ROLES = 1_000
"""Whoever is granted them bears all their names in one certificate."""
SUGGESTED_REVIEWERS = 1_000
"""Anybody may suggest anybody, and each one who has an address is sent a mail: the mails say how many are not."""
RESOURCES = 300
"""Teleport takes no request for more."""
TRAITS_CHARACTERS = 100_000
"""Of a user's traits together, which stand in the user's certificate."""
ANNOTATIONS_CHARACTERS = 100_000
"""Of a request's annotations together."""
LABELS_CHARACTERS = 20_000
"""Of a resource's labels together: the 50 tags that AWS allows, at their longest."""

CUT = "…"

Sets = dict[str, tuple[str, ...]]
Thing = TypeVar("Thing")


class Border:
    """Lets facts pass up to their limits, and remembers which ones it has cut."""

    def __init__(self) -> None:
        self._cut: set[Fact] = set()

    @property
    def cut(self) -> tuple[Fact, ...]:
        """Of which there was more than has passed."""
        return tuple(fact for fact in Fact if fact in self._cut)

    def text(self, fact: Fact, text: str, characters: int) -> str:
        """The text, or its beginning and a mark."""
        self._note(fact, whole=len(text) <= characters)
        return cut(text, characters)

    def first(self, fact: Fact, things: Sequence[Thing], count: int) -> Sequence[Thing]:
        """The first ones."""
        self._note(fact, whole=len(things) <= count)
        return things[:count]

    def names(self, fact: Fact, names: Sequence[str], count: int) -> tuple[str, ...]:
        """The first ones, each as a name."""
        return tuple(self.text(fact, name, NAME_CHARACTERS) for name in self.first(fact, names, count))

    def sets(self, fact: Fact, pairs: Iterable[tuple[str, Iterable[str]]], characters: int) -> Sets:
        """Keys with values, as long as there is room for them: none is shortened."""
        found: Sets = {}
        room = characters
        for key, values in pairs:
            room -= len(key)
            kept = []
            for value in values:
                room -= len(value) + 1  # even empty ones are counted
                if room >= 0:
                    kept.append(value)
            if room >= 0 or kept:
                found[key] = tuple(kept)
            if room < 0:
                self._note(fact, whole=False)
                break
        return found

    def _note(self, fact: Fact, *, whole: bool) -> None:
        if not whole:
            self._cut.add(fact)


def cut(text: str, characters: int) -> str:
    """The text, with a mark at its end if it was longer than this."""
    return text if len(text) <= characters else text[: characters - len(CUT)] + CUT


def name(text: str) -> str:
    """The text as a name."""
    return cut(text, NAME_CHARACTERS)
