"""Regular expressions as Teleport writes them, by RE2, whose time is linear in the text."""

import re
from functools import lru_cache
from typing import Any

import re2

from services.router.conditions.errors import EvaluationError

MEMORY_BYTES = 1 << 20
"""What RE2 may use for one expression; a larger one is refused, and its automaton forgets beyond that."""

KEPT = 4096
"""Compiled expressions that are kept."""


def matches_any(texts: frozenset[str], expression: str) -> bool:
    """Does any of the texts match as a whole? Raises `EvaluationError` for what is no expression."""
    pattern = _whole(expression)
    return any(pattern.search(text) for text in texts)


def replaced(text: str, expression: str, replacement: str, longest: int) -> str | None:
    """The text with each match replaced, `$1` and `${name}` in the replacement standing for groups.

    None: nothing matches. Raises `EvaluationError` for what is no expression or would be longer than `longest`.
    """
    pattern = _anywhere(expression)
    parts: list[str] = []
    length = end = 0
    for match in pattern.finditer(text):
        parts += [text[end : match.start()], _expanded(replacement, match, pattern.groupindex, longest)]
        length += len(parts[-1]) + len(parts[-2])
        end = match.end()
        if length > longest:
            raise EvaluationError(f"the text grows beyond {longest} characters")
    return "".join([*parts, text[end:]]) if parts else None


_REFERENCE = re.compile(r"\$(?:(\$)|(\w+)|\{(\w+)\})")


def _expanded(replacement: str, match: Any, names: dict[str, int], longest: int) -> str:
    """Go's `Regexp.Expand`: a group that does not exist or took no part is empty text."""

    def group(reference: re.Match[str]) -> str:
        dollar, bare, braced = reference.groups()
        if dollar:
            return "$"
        name = bare or braced
        number = int(name) if name.isdecimal() and len(name) < 4 else names.get(name, -1)  # noqa: PLR2004  no more groups than that fit into a condition
        return (match.group(number) or "") if 0 <= number <= match.re.groups else ""

    if len(replacement) + replacement.count("$") * len(match.group()) > longest:
        raise EvaluationError(f"the text grows beyond {longest} characters")
    return _REFERENCE.sub(group, replacement)


@lru_cache(KEPT)
def _whole(expression: str) -> Any:
    """What is written ^…$ is a regular expression; anything else is taken literally, but for `*`, which is any text."""
    if expression.startswith("^") and expression.endswith("$"):
        return _compiled(expression)
    return _compiled("^" + "(.*)".join(map(re2.escape, expression.split("*"))) + "$")


@lru_cache(KEPT)
def _anywhere(expression: str) -> Any:
    return _compiled(expression)


def _compiled(expression: str) -> Any:
    options = re2.Options()
    options.log_errors = False
    options.max_mem = MEMORY_BYTES
    try:
        return re2.compile(expression, options)
    except re2.error as error:
        (reason,) = error.args
        text = reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)
        raise EvaluationError(f"no regular expression: {text}") from None
