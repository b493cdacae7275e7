"""The types of the language, as far as they are known before evaluation, and the values that have them."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum


class Kind(Enum):
    """A type; its value is its name in messages."""

    STRING = "string"
    INT = "int"
    FLOAT = "float"
    BOOL = "bool"
    SET = "set"
    DICT = "dict"
    TIME = "time"
    PAIR = "pair"
    OPTION = "option"
    DYNAMIC = "any"
    """Known only when it is evaluated: what `ifelse`, `choose` and `strings.*` give."""


@dataclass(frozen=True)
class Pair:
    """A key with its values, for `dict`."""

    key: str
    values: frozenset[str]


@dataclass(frozen=True)
class Option:
    """A value that `choose` takes if the condition holds."""

    condition: bool
    value: "Value"


Strings = frozenset[str]
Dict = Mapping[str, Strings]
Value = str | int | float | bool | Strings | Dict | datetime | Pair | Option


_KINDS: dict[type, Kind] = {
    bool: Kind.BOOL,
    str: Kind.STRING,
    int: Kind.INT,
    float: Kind.FLOAT,
    frozenset: Kind.SET,
    datetime: Kind.TIME,
    Pair: Kind.PAIR,
    Option: Kind.OPTION,
}


def kind_of(value: Value) -> Kind:
    """The type of a value."""
    return _KINDS.get(type(value), Kind.DICT)
