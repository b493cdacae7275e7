"""Regular expressions as Teleport writes them, by RE2, whose time is linear in the text."""

import re
from collections.abc import Mapping
from typing import Any

import re2

from services.router.conditions.errors import EvaluationError

MEMORY_BYTES = 1 << 20
"""What RE2 may use for one expression; a larger one is refused, and its automaton forgets beyond that."""


class Whole:
    """An expression that a text must match from its beginning to its end."""

    def __init__(self, expression: str) -> None:
        """What is written ^…$ is a regular expression; all else is literal, but for `*`, which is any text.

        Raises `EvaluationError` for what is no expression.
        """
        if not (expression.startswith("^") and expression.endswith("$")):
            expression = "^" + "(.*)".join(map(re2.escape, expression.split("*"))) + "$"
        # A set of one: asked only whether there is a match, RE2 answers six times as fast.
        self._set = re2.Set.SearchSet(_options())
        try:
            self._set.Add(expression)
            self._set.Compile()
        except re2.error:
            raise _refused(expression) from None

    def matches_any(self, texts: frozenset[str]) -> bool:
        """Does any of the texts match?"""
        match = self._set.Match
        for text in texts:  # noqa: SIM110  half the price of `any` with a generator, and 1,000 rules pay it
            if match(text):
                return True
        return False


class Anywhere:
    """An expression whose matches are replaced, wherever they are in a text."""

    def __init__(self, expression: str) -> None:
        """Raises `EvaluationError` for what is no expression."""
        try:
            self._pattern: Any = re2.compile(expression, _options())
        except re2.error:
            raise _refused(expression) from None

    def replaced(self, text: str, replacement: str, longest: int) -> str | None:
        """The text with each match replaced, `$1` and `${name}` in the replacement standing for groups.

        None: nothing matches. Raises `EvaluationError` for what would be longer than `longest`.
        """
        parts: list[str] = []
        length = end = 0
        for match in self._pattern.finditer(text):
            parts += [text[end : match.start()], _expanded(replacement, match, self._pattern.groupindex, longest)]
            # The work counts, too: a replacement may be long and give nothing, as often as there is a match.
            length += len(parts[-1]) + len(parts[-2]) + len(match.group()) + len(replacement)
            end = match.end()
            if length > longest:
                raise EvaluationError(f"the text grows beyond {longest} characters")
        return "".join([*parts, text[end:]]) if parts else None


_REFERENCE = re.compile(r"\$(?:(\$)|(\w+)|\{(\w+)\})")


def _expanded(replacement: str, match: Any, names: Mapping[str, int], longest: int) -> str:
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


def _options() -> Any:
    options = re2.Options()
    options.log_errors = False
    options.max_mem = MEMORY_BYTES
    return options


def _refused(expression: str) -> EvaluationError:
    """With RE2's own reason."""
    try:
        re2.compile(expression, _options())
    except re2.error as error:
        (reason,) = error.args
        return EvaluationError(f"no regular expression: {reason.decode(errors='replace')}")
    return EvaluationError("the regular expression is too large")
