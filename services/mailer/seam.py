"""What a worker needs beside Redis: where its mails go, and what it counts."""

from collections.abc import Callable
from typing import Protocol

from shared.claimed import Claimed
from shared.mail import Dead, Dropped, Verdict
from shared.relay import RelayState


class Delivery(Protocol):
    """Where the worker's mails go: the mailroom."""

    async def deliver(self, claimed: Claimed, may_leave: Callable[[], bool], /) -> Verdict:
        """Send one mail; `may_leave` is asked right before its content leaves."""

    def unwanted(self, claimed: Claimed, /) -> Dropped | Dead | None:
        """What becomes of the mail instead of being sent; None: it is wanted."""

    async def close(self) -> None:
        """Leave the relay."""


class WorkerMetrics(Protocol):
    """What the worker counts."""

    def claimed(self, jobs: int) -> None:
        """Count jobs taken from the queue."""

    def settled(self, verdict: Verdict, claimed: Claimed | None, accepted_at: float) -> None:
        """Count what became of a mail (None: a job that was no mail), at a time by this host's clock."""

    def canceled(self, mails: int) -> None:
        """Count mails that were dropped because an operator has canceled them."""

    def recovered(self, jobs: int) -> None:
        """Count jobs that dead or stock workers had left."""

    def claims_lost(self, jobs: int) -> None:
        """Count mails whose claim was lost while they were in hand."""

    def relay_seen(self, state: RelayState) -> None:
        """Note whether the relay is held, and since when it is not or is; and whether it turns this mailer away."""

    def relay_probed(self) -> None:
        """Count a mail that tries whether a held relay lets us in again."""

    def redis_failed(self) -> None:
        """Count a time that Redis did not do its part."""
