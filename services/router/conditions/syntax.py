"""The tree of a condition, before anything is known about types."""

from collections.abc import Sequence
from dataclasses import dataclass

from services.router.conditions.errors import Place


@dataclass(frozen=True)
class Node:
    """Any part of a condition."""

    place: Place
    depth: int
    """Levels of nodes below it, itself included."""


@dataclass(frozen=True)
class Name(Node):
    """An identifier without dots."""

    name: str


@dataclass(frozen=True)
class Literal(Node):
    """A text or a number."""

    value: str | int | float


@dataclass(frozen=True)
class Select(Node):
    """`of.name`."""

    of: Node
    name: str


@dataclass(frozen=True)
class Index(Node):
    """`of[key]`."""

    of: Node
    key: Node


@dataclass(frozen=True)
class Call(Node):
    """`callee(arguments)`."""

    callee: Node
    arguments: Sequence[Node]


@dataclass(frozen=True)
class Not(Node):
    """`!operand`."""

    operand: Node


@dataclass(frozen=True)
class Chain(Node):
    """`a && b && c` or `a || b || c`: one level, however many there are."""

    operator: str
    operands: list[Node]


@dataclass(frozen=True)
class Comparison(Node):
    """`left == right` or `left != right`."""

    operator: str
    left: Node
    right: Node
