"""One part against the real servers it talks to."""
