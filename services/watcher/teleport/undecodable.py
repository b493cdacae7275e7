"""What Teleport shows that cannot be passed on: counted, logged and passed over, it stops nothing else."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from google.protobuf.message import DecodeError

from services.watcher.teleport import facts

KIND: Final = "access_request"
RULE_KIND: Final = "access_monitoring_rule"


class Fault(StrEnum):
    """Why something of Teleport's cannot be passed on."""

    ID = "id"
    STATE = "state"
    TEXT = "text"
    SIZE = "size"


@dataclass(frozen=True)
class Undecodable:
    """A request or rule that we cannot speak of."""

    name: str
    """As Teleport gave it, which may be anything; cut. Of a request, its id."""
    fault: Fault
    kind: str = KIND


def spoiled(name: Callable[[], bytes], kind: str = KIND) -> Undecodable:
    """Where something cannot be read whole, its name perhaps can. `name` may raise `DecodeError`."""
    try:
        known = name().decode(errors="replace")
    except DecodeError:
        known = ""
    return Undecodable(facts.name(known), Fault.TEXT, kind)
