"""What RQ's own worker runs in the conformance test: jobs that return, raise, ask for a retry."""

from rq import Retry


def deliver(_mail: object) -> None:
    """Return."""


def refuse(_mail: object) -> None:
    """Raise."""
    raise RuntimeError("550 no such user")


def poison(_mail: object) -> None:
    """Raise as if it had ended its workers."""
    raise RuntimeError("its workers died four times in a row")


def defer(_mail: object) -> Retry:
    """Ask for another try in 100 seconds."""
    return Retry(max=5, interval=100)
