"""What can go wrong between a mail and its acceptance by the relay.

    DeliveryError
    ├── Unavailable   not now: the mail waits and is tried again
    │   └── NotAsked  the relay has asked for a pause, and is not asked before its end
    ├── Held          not now, and no other mail either: all wait, and no attempt is counted
    ├── Refused       never: the mail becomes a dead letter
    └── ClaimLost     not by us: another mailer may hold the mail by now, or Redis does not say what has become of it

The reasons are closed sets: they are labels of metrics and the words that operators read.
"""

from enum import StrEnum


class Trouble(StrEnum):
    """Why a mail could not be handed over for now."""

    CONNECT = "connect"
    """The relay cannot be reached, or its greeting turns us away."""
    TLS = "tls"
    """No TLS where it must be, or a certificate that cannot be verified."""
    CREDENTIALS = "credentials"
    """The relay refuses our password or key, or the file that holds it cannot be read."""
    BUSY = "busy"
    """The relay closes the connection (421) or limits our rate (429)."""
    TEMPORARY = "temporary"
    """A 4xx reply to this mail: greylisting, a full disk. From an HTTP API: a 5xx."""
    TIMEOUT = "timeout"
    CONNECTION_LOST = "connection_lost"
    PROTOCOL = "protocol"
    """An answer that the protocol does not allow here."""


class Refusal(StrEnum):
    """Why a mail will never be taken."""

    ADDRESS_INVALID = "address_invalid"
    """The recipient's address follows neither RFC 5321 nor, in its domain, IDNA."""
    NO_SMTPUTF8 = "no_smtputf8"
    """The address needs RFC 6531, which the relay does not offer."""
    SENDER_REFUSED = "sender_refused"
    RECIPIENT_REFUSED = "recipient_refused"
    MESSAGE_REFUSED = "message_refused"


class DeliveryError(Exception):
    """The mail was not delivered. `code` is the relay's SMTP reply code or HTTP status, where it gave any."""

    def __init__(self, detail: str, code: int | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.code = code


class Unavailable(DeliveryError):
    """Try again later: `retry_after` seconds at least, where the relay asks for it.

    `perhaps`: the relay may have taken the mail, for its answer was lost after the whole content had left.
    """

    def __init__(
        self,
        reason: Trouble,
        detail: str,
        *,
        code: int | None = None,
        retry_after: float | None = None,
        perhaps: bool = False,
    ) -> None:
        super().__init__(detail, code)
        self.reason = reason
        self.retry_after = retry_after
        self.perhaps = perhaps


class NotAsked(Unavailable):
    """The relay has asked for a pause of which so many seconds are left: nobody has met it with this mail."""

    def __init__(self, detail: str, retry_after: float) -> None:
        super().__init__(Trouble.BUSY, detail, retry_after=retry_after)


class Held(DeliveryError):
    """The relay turns everybody away: no mail is at fault, all wait until a probe gets through."""

    def __init__(
        self, reason: Trouble, detail: str, *, code: int | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(detail, code)
        self.reason = reason
        self.retry_after = retry_after


class Refused(DeliveryError):
    """Do not try again: the relay, or the address itself, says no."""

    def __init__(self, reason: Refusal, detail: str, *, code: int | None = None) -> None:
        super().__init__(detail, code)
        self.reason = reason


class ClaimLost(DeliveryError):
    """Nobody could say, before its content was sent, that the mail is still ours to send; nothing left."""

    def __init__(self) -> None:
        super().__init__("the claim was not sure any more before the mail was sent")
