"""Pure functions and small parts."""
