"""The promises, one test each: read these first."""
