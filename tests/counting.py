"""What a worker counts, kept for assertions."""

from collections import Counter

from shared.claimed import Claimed
from shared.mail import Verdict
from shared.relay import RelayState


class CountingMetrics:
    """The metrics of a worker in a test."""

    def __init__(self) -> None:
        self.verdicts: Counter[str] = Counter()
        self.taken = 0
        self.lost = 0
        self.dropped_as_canceled = 0
        self.left_by_the_dead = 0
        self.redis_failures = 0
        self.probes = 0
        self.relay: list[str | None] = []
        """Why it was held, one after the other; None: it was not."""
        self.turned_away: list[str | None] = []
        """Why it turned this worker alone away, in the same way."""

    def claimed(self, jobs: int) -> None:
        """Count jobs taken from the queue."""
        self.taken += jobs

    def settled(self, verdict: Verdict, claimed: Claimed | None, accepted_at: float) -> None:
        """Count what became of a mail."""
        assert accepted_at > 0
        assert claimed is None or claimed.mail.id
        self.verdicts[type(verdict).__name__.lower()] += 1

    def canceled(self, mails: int) -> None:
        """Count mails that were dropped because an operator has canceled them."""
        self.dropped_as_canceled += mails

    def recovered(self, jobs: int) -> None:
        """Count jobs that dead or stock workers had left."""
        self.left_by_the_dead += jobs

    def claims_lost(self, jobs: int) -> None:
        """Count mails whose claim was lost while they were in hand."""
        self.lost += jobs

    def relay_seen(self, state: RelayState) -> None:
        """Note whether the relay is held."""
        self.relay.append(state.held)
        self.turned_away.append(state.turns_us_away)

    def relay_probed(self) -> None:
        """Count a mail that tries whether a held relay lets us in again."""
        self.probes += 1

    def redis_failed(self) -> None:
        """Count a time that Redis did not do its part."""
        self.redis_failures += 1
