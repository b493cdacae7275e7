"""Says of each job that Redis cannot handle it: once, however often it is tried."""

import logging
from collections.abc import Iterable

log = logging.getLogger(__name__)

MOST_TOLD = 1_000


class JobFaults:
    """What was told of jobs, by one worker."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    def tell(self, faults: Iterable[str]) -> None:
        """Log those that are news: each is the id of a job with Redis's reason."""
        for fault in faults:
            if fault not in self._told and len(self._told) < MOST_TOLD:
                self._told.add(fault)
                log.error("Redis cannot handle job %s; it is tried again and again, and holds up no other", fault)
