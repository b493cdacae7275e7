"""The script of a simulated mail server: what it does at which stage, for whom, and how often."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Literal

Stage = Literal["connect", "ehlo", "starttls", "auth", "mail", "rcpt", "data", "accepted"]
"""Where a rule takes effect. `data`: the content has arrived and is not taken yet; `accepted`: it is taken and
recorded, the answer has not left."""

KNOW_THE_RECIPIENT = ("rcpt", "data", "accepted")


@dataclass
class Rule:
    """What happens at a stage in place of the ordinary. The first rule that fits is obeyed, `times` times.

    A `reply` of 421, and any at `connect`, ends the connection.
    """

    stage: Stage
    reply: str = ""
    """The reply, with its code; empty: the ordinary one."""
    recipient: str = "*"
    """Whom it concerns: an address or a pattern such as `*@example.com`."""
    delay: float = 0
    """Seconds before anything else happens."""
    drop: bool = False
    """The connection is cut without a reply. At `accepted` this is the lost answer."""
    times: int | None = None
    """How often the rule is obeyed; None: for ever."""
    obeyed: int = field(default=0, init=False)
    """How often it has been."""

    def __post_init__(self) -> None:
        if self.recipient != "*" and self.stage not in KNOW_THE_RECIPIENT:
            raise ValueError(f"the recipient is not known yet at {self.stage!r}")

    def fits(self, stage: Stage, recipients: Sequence[str]) -> bool:
        """Is it to be obeyed now?"""
        exhausted = self.times is not None and self.obeyed >= self.times
        concerned = self.recipient == "*" or any(fnmatchcase(address, self.recipient) for address in recipients)
        return stage == self.stage and concerned and not exhausted
