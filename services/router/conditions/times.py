"""Instants as conditions write them."""

import re
from datetime import UTC, datetime

from services.router.conditions.errors import EvaluationError

NEVER_SET = datetime.min.replace(tzinfo=UTC)
"""Go's zero time, which stands for a time that was not set."""

_RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", re.ASCII)


def rfc3339(text: str) -> datetime:
    """Raises `EvaluationError` for a text that is no time of RFC 3339, or one that no calendar holds."""
    if _RFC3339.fullmatch(text):
        try:
            return datetime.fromisoformat(text).astimezone(UTC)
        except (ValueError, OverflowError):
            pass
    raise EvaluationError(f"time.RFC3339: no time like 2026-11-01T09:00:00Z: {text[:40]!r}")
