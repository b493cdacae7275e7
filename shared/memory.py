"""What the router remembers of each Access Request: what is known, who was told, and what was told."""

from typing import Literal

from pydantic import Field, TypeAdapter

from shared.events import AccessRequest, Cluster, Message, RequestState
from shared.mail import Notice, Recipient


class RequestFacts(Message):
    """What is known of a request: the part of the memory that the mailer reads."""

    v: Literal[1] = Field(default_factory=lambda _: 1)
    """Made and not assumed, so that it stands in the JSON also where defaults are left out."""
    request: AccessRequest | None = None
    """None: only the request's end was ever seen."""
    cluster: Cluster | None = None
    gone: bool = False
    """Teleport has it no more: deleted, or expired."""
    message_id_domain: str = ""
    """Domain of the thread's Message-IDs, kept so that a thread never changes it."""

    @property
    def is_settled(self) -> bool:
        """Has it been approved, promoted or denied?"""
        return self.request is not None and self.request.state is not RequestState.PENDING

    @property
    def is_pending(self) -> bool:
        """May it still be reviewed, as far as is known?"""
        return self.request is not None and not self.gone and self.request.state is RequestState.PENDING


TOLD: TypeAdapter[tuple[Recipient, ...]] = TypeAdapter(tuple[Recipient, ...])
"""How `RequestMemory.told` is kept, apart from the facts."""


class RequestMemory(Message):
    """All that the router keeps of a request."""

    facts: RequestFacts = RequestFacts()
    told: tuple[Recipient, ...] = ()
    """Who hears of the request, as decided when it was announced."""
    notices: tuple[Notice, ...] = ()
    """What has been told already, or was decided not to be told."""
