"""Untrusted text that goes into logs and receipts."""

from hypothesis import given
from hypothesis import strategies as st

from shared.mail import one_line


@given(st.text(st.characters(exclude_categories=()), max_size=50), st.integers(1, 60))
def test_it_is_one_line_that_utf8_can_hold(text: str, limit: int) -> None:
    line = one_line(text, limit)
    assert len(line) <= limit
    assert len(line.splitlines()) <= 1
    assert line.encode().decode() == line
