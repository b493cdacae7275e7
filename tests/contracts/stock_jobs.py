"""What RQ's own worker runs in the conformance test: a job that returns, one that raises, one that asks for a retry."""

from rq import Retry


def deliver(_mail: object) -> None:
    """Return."""


def refuse(_mail: object) -> None:
    """Raise."""
    raise RuntimeError("550 no such user")


def defer(_mail: object) -> Retry:
    """Ask for another try in 100 seconds."""
    return Retry(max=5, interval=100)
