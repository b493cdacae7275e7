"""The real router, but that it dies of requests whose id begins with `deadly`, as of a crash in native code.

Of those that begin with `unreadable` it dies already when it reads them.

It also takes a router for dead sooner, since a test waits for that several times.
"""

import os
import signal
from typing import Any
from unittest.mock import patch

from services.router import service
from services.router.decision import Routed, decide
from shared.events import Event, parse_event, request_id_of
from shared.lifecycle import main


def decide_or_die(delivery: Any, event: Any, *rest: Any) -> Routed:
    """Like `decide`, which nobody survives for such a request."""
    if request_id_of(event).startswith("deadly"):
        os.kill(os.getpid(), signal.SIGKILL)
    return decide(delivery, event, *rest)


def parse_or_die(data: bytes) -> Event:
    """Like `parse_event`."""
    if b'"unreadable' in data:
        os.kill(os.getpid(), signal.SIGKILL)
    return parse_event(data)


if __name__ == "__main__":
    with patch.multiple(service, decide=decide_or_die, parse_event=parse_or_die, DEAD_ROUTER_MILLISECONDS=200):
        main("router", service.Router.from_settings)
