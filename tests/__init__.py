"""Tests: `fundamentals` is the tutorial, one promise a test; the other folders say what they look at."""

from pathlib import Path

import pytest

# What an assertion of a helper found is to be told, too, and not only what one of a test did.
pytest.register_assert_rewrite(*(f"{__name__}.{path.stem}" for path in Path(__file__).parent.iterdir()))
