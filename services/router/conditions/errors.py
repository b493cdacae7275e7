"""What may be wrong with a condition.

ConditionError
├── ParseError       it cannot be used at all: found when it is read, with the place
└── EvaluationError  it cannot be answered for this request: found when it is evaluated
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Place:
    """A place in a condition's text, counted from 1."""

    line: int
    column: int


class ConditionError(Exception):
    """The condition has no answer."""


class ParseError(ConditionError):
    """The text is no condition."""

    def __init__(self, reason: str, place: Place) -> None:
        super().__init__(f"line {place.line}, column {place.column}: {reason}")
        self.reason = reason
        self.place = place


class EvaluationError(ConditionError):
    """The condition asks for something that its values do not allow, such as the version of a text that is none."""
