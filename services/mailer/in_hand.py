"""The jobs in a worker's hands: how sure their claims are, and whether their mails may still leave."""

import asyncio
import secrets
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from shared.claimed import Claimed
from shared.mail import Dead, Dropped
from shared.mail_queue.mailer_end import CLAIM_SECONDS

STILL_HELD_SECONDS = CLAIM_SECONDS - 5.0
"""A mail whose last confirmed renewal is older is not sent: another worker may have its claim soon."""

KNOWN_SECONDS = 2.0
"""A mail of which nothing was heard for longer is not sent: its request may be settled by now."""

LOST = float("-inf")


@dataclass
class InHand:
    """One job. Times are monotonic."""

    id: str
    execution: str
    renewed_at: float
    """When Redis was asked for its claim, or to prolong it: the claim lives from the answer on, which is later."""
    known_at: float
    """When was heard what is known of it."""
    claimed: Claimed | None
    """None: a job that is no mail, and is not sent."""
    is_asked_in_time: bool = False
    """Redis is being asked about it, for the first time since `known_at`: a slow Redis keeps nothing back."""
    task: asyncio.Task[None] | None = None
    is_leaving: bool = False
    """Its content was let go to the relay, which may have it from then on."""
    unwanted: Dropped | Dead | None = None
    """What has become of it since it was claimed."""
    is_kept_back: bool = False
    """It did not leave, for it is unwanted by now."""

    def may_leave(self) -> bool:
        """Asked right before its content leaves."""
        if self.unwanted is not None:
            self.is_kept_back = True
        elif time.monotonic() - self.renewed_at < STILL_HELD_SECONDS and (self.is_known or self.is_asked_in_time):
            self.is_leaving = True
            return True
        return False

    @property
    def is_known(self) -> bool:
        """Is what is known of it young enough to send it?"""
        return time.monotonic() - self.known_at < KNOWN_SECONDS


class Hands:
    """All jobs that one worker has taken and not settled, at most `capacity` at a time."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._jobs: dict[str, InHand] = {}
        self._hoped_for: Collection[str] = ()

    def __len__(self) -> int:
        return len(self._jobs)

    @property
    def room(self) -> int:
        """How many more jobs may be taken. None beside one that has seen its workers die: it may be its fault."""
        if any(job.claimed is not None and job.claimed.is_suspect for job in self._jobs.values()):
            return 0
        return self._capacity - len(self._jobs)

    @property
    def handful(self) -> int:
        """Room that is worth a claim by itself: the other two thirds keep every connection busy meanwhile."""
        return self._capacity // 3

    @property
    def tasks(self) -> list[asyncio.Task[None]]:
        """Deliveries under way."""
        return [job.task for job in self._jobs.values() if job.task]

    def reach_out(self) -> list[str]:
        """Fresh executions for a claim of as many jobs as there is room for. Those of the claim before are over."""
        self._hoped_for = [secrets.token_hex(16) for _ in range(self.room)]
        return self._hoped_for

    def close(self) -> None:
        """No claim is under way any more."""
        self._hoped_for = ()

    def strays(self, held: Sequence[tuple[str, str]]) -> list[tuple[str, str, bool]]:
        """Of what Redis has given us (job id, execution): what we never heard of, so that no relay has it."""
        return [(id_, one, False) for id_, one in held if one not in self._jobs and one not in self._hoped_for]

    def take(self, job_id: str, execution: str, asked_at: float, claimed: Claimed | None) -> InHand:
        """A job whose claim was asked for at this time."""
        job = InHand(job_id, execution, renewed_at=asked_at, known_at=time.monotonic(), claimed=claimed)
        self._jobs[execution] = job
        return job

    def let_go(self, executions: Collection[str]) -> None:
        """These are settled."""
        for execution in executions:
            self._jobs.pop(execution, None)

    def claims(self) -> list[tuple[str, str]]:
        """Job id and execution of each."""
        return [(job.id, job.execution) for job in self._jobs.values()]

    def renewed(self, claims: Sequence[tuple[str, str]], lost: Collection[str], asked_at: float) -> None:
        """These claims were prolonged when Redis was asked, but for the lost executions."""
        for _, execution in claims:
            if (job := self._jobs.get(execution)) is not None:
                job.renewed_at = LOST if execution in lost else asked_at

    @contextmanager
    def asking(self, seconds: float) -> Iterator[dict[str, InHand]]:
        """Mails that may still be kept back and of which nothing was heard for so long, by execution.

        Redis is asked about them within the block.
        """
        oldest = time.monotonic() - seconds
        unsure = [job for job in self._jobs.values() if job.task and not job.is_leaving and job.known_at <= oldest]
        for job in unsure:
            job.is_asked_in_time = job.is_known
        try:
            yield {job.execution: job for job in unsure}
        finally:
            for job in unsure:
                job.is_asked_in_time = False

    def left(self) -> list[tuple[str, str, bool]]:
        """Job id, execution, and whether the relay may have it: in the order of taking."""
        return [(job.id, job.execution, job.is_leaving) for job in self._jobs.values()]
