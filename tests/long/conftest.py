"""The fixtures of the faults that these make large."""

from tests.faults.conftest import folder, valkey

__all__ = ["folder", "valkey"]
