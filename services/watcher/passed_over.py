"""Requests and rules that cannot be passed on: each is counted and said once, however often Teleport tells of it."""

import logging

from services.watcher.metrics import WatcherMetrics
from services.watcher.teleport.listing import HIDING
from services.watcher.teleport.undecodable import Fault, Undecodable
from shared.mail import one_line

log = logging.getLogger(__name__)

REMEMBERED = 1_000
"""The oldest are forgotten first, and said again if they are still there."""

LOGGED_NAME = 100

FAULTS = {
    Fault.ID: "its id is no legal one; ids are letters, digits, - and _",
    Fault.STATE: "its state is none that this version knows; is there a newer Access Mail?",
    Fault.TEXT: "it holds text that is no UTF-8, or is nothing of the kind",
    Fault.SIZE: "it is larger than can be read",
}


class PassedOver:
    """What one watcher has said, over all its connections."""

    def __init__(self, metrics: WatcherMetrics) -> None:
        self._metrics = metrics
        self._said: dict[Undecodable, None] = {}

    def note(self, undecodable: Undecodable) -> None:
        """Teleport has told of this one."""
        is_news = undecodable not in self._said
        self._said.pop(undecodable, None)  # so that it becomes the youngest
        self._said[undecodable] = None
        if len(self._said) > REMEMBERED:
            del self._said[next(iter(self._said))]
        if is_news:
            self._metrics.undecodable.labels(undecodable.fault.value).inc()
            self._say(undecodable)

    def _say(self, undecodable: Undecodable) -> None:
        if undecodable == HIDING:
            log.warning(
                "a request that is larger than can be read hides others in Teleport's listing: what happens to those"
                " is told, but what happened while nobody watched is not"
            )
        else:
            name = one_line(undecodable.name, LOGGED_NAME)
            log.warning("%s %r is passed over: %s", undecodable.kind, name, FAULTS[undecodable.fault])
