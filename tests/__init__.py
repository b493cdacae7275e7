"""Tests: `fundamentals` is the tutorial, one promise a test; the other folders say what they look at."""
