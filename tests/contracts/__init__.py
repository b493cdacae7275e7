"""What others rely on or we rely on: wire formats, RQ's keys."""
