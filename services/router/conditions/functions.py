"""The functions and methods of the language: what they take, what they give, and what they do."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from email.utils import parseaddr
from functools import lru_cache
from typing import Any, Final

from services.router.conditions.errors import EvaluationError
from services.router.conditions.kinds import Dict, Kind, Option, Pair, Strings, Value
from services.router.conditions.patterns import Anywhere, Whole
from services.router.conditions.times import rfc3339
from services.router.conditions.versions import version
from shared.addresses import is_address

LONGEST_MAILBOX = 320
"""Characters: a display name and the longest address (RFC 5321 §4.5.3.1)."""

LARGEST = 100_000
"""Characters of a value that a function may make of smaller ones."""

REMEMBERED = 8
"""Results of each function on texts: few, for each may be of the largest."""

STRING, SET, DICT, TIME = ({kind} for kind in (Kind.STRING, Kind.SET, Kind.DICT, Kind.TIME))
BOOL, PAIR, OPTION = {Kind.BOOL}, {Kind.PAIR}, {Kind.OPTION}
TEXTS = STRING | SET
ANY = set(Kind)


@dataclass(frozen=True)
class Signature:
    """One way to call a function."""

    parameters: Sequence[set[Kind]]
    result: Kind
    do: Callable[..., Value]
    variadic: set[Kind] | None = None
    """What may follow the parameters, any number of times."""
    reads: Mapping[int, Callable[[Any], Any]] = field(default_factory=dict)
    """Position → what is made of the argument there; once, where it is always the same."""

    def fits_number(self, given: int) -> bool:
        """May it be called with so many arguments?"""
        return given >= len(self.parameters) if self.variadic else given == len(self.parameters)

    def misfit(self, kinds: Sequence[Kind]) -> int | None:
        """Position of the first argument whose type is wrong, None if there is none. The number fits."""
        wanted = [*self.parameters, *[self.variadic or set()] * (len(kinds) - len(self.parameters))]
        for position, (kind, allowed) in enumerate(zip(kinds, wanted, strict=True)):
            if kind is not Kind.DYNAMIC and kind not in allowed:
                return position
        return None

    def wants(self, position: int) -> str:
        """The types that stand at this position, for a message."""
        allowed = self.parameters[position] if position < len(self.parameters) else self.variadic or set()
        return " or ".join(sorted(kind.value for kind in allowed))


Overloads = tuple[Signature, ...]


def _union(*sets: Strings) -> Strings:
    return frozenset().union(*sets)


def _contains_any(some: Strings, others: Strings) -> bool:
    return not some.isdisjoint(others)


def _contains_all(whole: Strings, part: Strings) -> bool:
    """An empty part is contained in nothing (Teleport's rule, unlike mathematics')."""
    return bool(part) and part <= whole


def _without_keys(whole: Dict, *keys: str) -> Dict:
    return {key: values for key, values in whole.items() if key not in keys}


def _put(whole: Dict, key: str, values: Strings) -> Dict:
    return {**whole, key: values}


def _add_values(whole: Dict, key: str, *values: str) -> Dict:
    return {**whole, key: whole.get(key, frozenset()) | set(values)}


def _choose(*options: Option) -> Value:
    for option in options:
        if option.condition:
            return option.value
    raise EvaluationError("choose: no option's condition holds")


def _each(change: Callable[..., str]) -> Callable[..., Value]:
    """The change of a text, done to a text or to each of a set; once for all rules that ask it of the same request."""

    @lru_cache(REMEMBERED)
    def changed(texts: str | Strings, *arguments: str) -> Value:
        if isinstance(texts, str):
            return _bounded([change(texts, *arguments)])[0]
        return frozenset(_bounded([change(text, *arguments) for text in texts]))

    return changed


def _bounded(texts: list[str]) -> list[str]:
    if sum(map(len, texts)) > LARGEST:
        raise EvaluationError(f"the text grows beyond {LARGEST} characters")
    return texts


def _replace_all(text: str, old: str, new: str) -> str:
    if len(text) + (text.count(old) * (len(new) - len(old))) > LARGEST:
        raise EvaluationError(f"the text grows beyond {LARGEST} characters")
    return text.replace(old, new)


@lru_cache(REMEMBERED)
def _split(texts: str | Strings, separator: str) -> Value:
    """An empty separator splits after each character, as in Go."""
    parts = [
        part
        for text in ([texts] if isinstance(texts, str) else texts)
        for part in (text.split(separator) if separator else list(text))
    ]
    return frozenset(parts)


def _local(address: str) -> str:
    """What stands before the @ of `user@host` or `Name <user@host>`."""
    if len(address) > LONGEST_MAILBOX:  # the library's parser recurses into each comment
        raise EvaluationError("email.local: no e-mail address")
    bare = address if is_address(address) else parseaddr(address)[1]
    if not is_address(bare):
        raise EvaluationError("email.local: no e-mail address")
    return bare.rpartition("@")[0]


def _matches(texts: Strings, expression: Whole) -> bool:
    return expression.matches_any(texts)


def _replace_matches(texts: Strings, expression: Anywhere, replacement: str) -> Strings:
    """What does not match is left out, as Teleport's documentation of the function says."""
    found = [expression.replaced(text, replacement, LARGEST) for text in texts]
    return frozenset(_bounded([text for text in found if text is not None]))


def _between_times(time: datetime, one: datetime, other: datetime) -> bool:
    """Neither bound is inside; their order does not matter."""
    return min(one, other) < time < max(one, other)


def _between_versions(text: str, lowest: str, beyond: str) -> bool:
    return version(lowest) <= version(text) < version(beyond)


def _before(time: datetime, other: datetime) -> bool:
    return time < other


def _after(time: datetime, other: datetime) -> bool:
    return time > other


BEFORE: Final = Signature([TIME, TIME], Kind.BOOL, _before)
AFTER: Final = Signature([TIME, TIME], Kind.BOOL, _after)
BETWEEN_TIMES: Final = Signature([TIME, TIME, TIME], Kind.BOOL, _between_times)
CONTAINS_ANY: Final = Signature([SET, SET], Kind.BOOL, _contains_any)
CONTAINS_ALL: Final = Signature([SET, SET], Kind.BOOL, _contains_all)

FUNCTIONS: Final[dict[str, Overloads]] = {
    "set": (Signature([], Kind.SET, lambda *texts: frozenset(texts), STRING),),
    "pair": (Signature([STRING, SET], Kind.PAIR, Pair),),
    "dict": (Signature([], Kind.DICT, lambda *pairs: {pair.key: pair.values for pair in pairs}, PAIR),),
    "union": (Signature([], Kind.SET, _union, SET),),
    "ifelse": (Signature([BOOL, ANY, ANY], Kind.DYNAMIC, lambda condition, yes, no: yes if condition else no),),
    "option": (Signature([BOOL, ANY], Kind.OPTION, Option),),
    "choose": (Signature([], Kind.DYNAMIC, _choose, OPTION),),
    "is_empty": (Signature([SET], Kind.BOOL, lambda texts: not texts),),
    "contains_any": (CONTAINS_ANY,),
    "contains_all": (CONTAINS_ALL,),
    "regexp.match": (Signature([SET, STRING], Kind.BOOL, _matches, reads={1: Whole}),),
    "regexp.replace": (Signature([SET, STRING, STRING], Kind.SET, _replace_matches, reads={1: Anywhere}),),
    "strings.upper": (Signature([TEXTS], Kind.DYNAMIC, _each(str.upper)),),
    "strings.lower": (Signature([TEXTS], Kind.DYNAMIC, _each(str.lower)),),
    "strings.replaceall": (Signature([TEXTS, STRING, STRING], Kind.DYNAMIC, _each(_replace_all)),),
    "strings.split": (Signature([TEXTS, STRING], Kind.DYNAMIC, _split),),
    "email.local": (Signature([TEXTS], Kind.DYNAMIC, _each(_local)),),
    "time.RFC3339": (Signature([STRING], Kind.TIME, rfc3339),),
    "before": (BEFORE,),
    "after": (AFTER,),
    "between": (BETWEEN_TIMES, Signature([STRING, STRING, STRING], Kind.BOOL, _between_versions)),
    "newer_than": (Signature([STRING, STRING], Kind.BOOL, lambda one, other: version(one) > version(other)),),
    "older_than": (Signature([STRING, STRING], Kind.BOOL, lambda one, other: version(one) < version(other)),),
}

METHODS: Final[dict[str, Overloads]] = {
    "contains": (Signature([SET, STRING], Kind.BOOL, lambda texts, text: text in texts),),
    "contains_any": (CONTAINS_ANY,),
    "contains_all": (CONTAINS_ALL,),
    "isempty": (Signature([SET], Kind.BOOL, lambda texts: not texts),),
    "add": (Signature([SET], Kind.SET, lambda texts, *more: texts | set(more), STRING),),
    "remove": (
        Signature([SET], Kind.SET, lambda texts, *fewer: texts - set(fewer), STRING),
        Signature([DICT], Kind.DICT, _without_keys, STRING),
    ),
    "put": (Signature([DICT, STRING, SET], Kind.DICT, _put),),
    "add_values": (Signature([DICT, STRING], Kind.DICT, _add_values, STRING),),
    "before": (BEFORE,),
    "after": (AFTER,),
    "between": (BETWEEN_TIMES,),
}
"""Their first parameter is what stands before the dot."""


def fitting(name: str, overloads: Overloads, kinds: Sequence[Kind], received: int) -> Signature:
    """The way to call it with arguments of these types. Raises `TypeError` with the sentence that says what is wrong.

    `received`: how many of the arguments stand before the dot.
    """
    numbered = [signature for signature in overloads if signature.fits_number(len(kinds))]
    if not numbered:
        signature = overloads[0]
        least = "at least " if signature.variadic else ""
        accepts, given = len(signature.parameters) - received, len(kinds) - received
        raise TypeError(f"function ({name}) accepts {least}{accepts} argument(s), given {given}")
    misfits = [(signature.misfit(kinds), signature) for signature in numbered]
    for misfit, signature in misfits:
        if misfit is None:
            return signature
    position, signature = max(misfits, key=lambda one: one[0] or 0)
    assert position is not None, "all of them misfit"
    which = f"argument {position + 1 - received}" if position >= received else "the value before the dot"
    wants = signature.wants(position)
    raise TypeError(f"function ({name}): {which} must be {wants}, not {kinds[position].value}")
