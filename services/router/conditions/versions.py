"""Semantic versions (https://semver.org, 2.0.0) in order."""

import re
from typing import TypeAlias

from services.router.conditions.errors import EvaluationError

_NUMBER = r"(0|[1-9]\d{0,17})"
_SEMVER = re.compile(
    rf"{_NUMBER}\.{_NUMBER}\.{_NUMBER}(?:-([0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*))?(?:\+[0-9A-Za-z.-]+)?", re.ASCII
)

Version: TypeAlias = tuple[int, int, int, bool, tuple[tuple[bool, int, str], ...]]
"""Sorts as §11 wants it: a version is newer than its pre-releases, and numbers are older than words."""


def version(text: str) -> Version:
    """Raises `EvaluationError` for a text that is no version."""
    parts = _SEMVER.fullmatch(text)
    if parts is None:
        raise EvaluationError(f"no semantic version: {text[:40]!r}")
    major, minor, patch, pre_release = parts.groups()
    identifiers = tuple(_identifier(one) for one in pre_release.split(".")) if pre_release else ()
    return int(major), int(minor), int(patch), pre_release is None, identifiers


def _identifier(text: str) -> tuple[bool, int, str]:
    is_number = text.isdecimal() and len(text) < 19  # noqa: PLR2004  longer than any number that 64 bits hold
    return not is_number, int(text) if is_number else 0, text
