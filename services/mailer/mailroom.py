"""The way of a mail from its claim to the relay's answer."""

import random
from collections.abc import Callable
from datetime import timedelta
from typing import Self

from services.mailer.errors import DeliveryError, NotAsked, Refusal, Refused, Trouble, Unavailable
from services.mailer.errors import Held as RelayHeld
from services.mailer.metrics import AMBIGUOUS, CLAIM_LOST, Metrics
from services.mailer.mime import own_fields, wire_address
from services.mailer.relay import Relay
from services.mailer.render import Renderer
from services.mailer.retries import LONGEST_HINT, pause_before
from services.mailer.settings import MailerConfiguration
from services.mailer.transports import Envelope, StillHeld
from services.mailer.wanted import deadline, wanted
from shared.claimed import Claimed
from shared.mail import Dead, Delivered, Dropped, Held, Later, Met, Verdict
from shared.settings_values import OnAmbiguous

_MET = {Trouble.CREDENTIALS: Met.REFUSED_US, Trouble.BUSY: Met.BUSY}
"""What else than having let us in the relay has done to a mail that is tried later."""


class Mailroom:
    """Decides whether a mail is still wanted, writes it, hands it to the relay, and says what became of it."""

    def __init__(
        self,
        renderer: Renderer,
        relay: Relay,
        *,
        first_pause: timedelta,
        longest_pause: timedelta,
        on_ambiguous: OnAmbiguous,
        jitter: Callable[[], float],
    ) -> None:
        """`jitter` gives a number from [0, 1) for each pause."""
        self.relay = relay
        self._renderer = renderer
        self._first_pause = first_pause.total_seconds()
        self._longest_pause = longest_pause.total_seconds()
        self._on_ambiguous = on_ambiguous
        self._jitter = jitter

    @classmethod
    def from_settings(cls, configuration: MailerConfiguration, metrics: Metrics) -> Self:
        """Raises `SettingsError` if a file that the configuration names cannot be used."""
        return cls(
            Renderer(configuration.sender, configuration.message_id_domain),
            Relay.from_settings(configuration, metrics),
            first_pause=configuration.mailer.first_pause,
            longest_pause=configuration.mailer.longest_pause,
            on_ambiguous=configuration.mailer.on_ambiguous,
            jitter=random.random,
        )

    def unwanted(self, claimed: Claimed) -> Dropped | Dead | None:
        """What becomes of the mail instead of being sent; None: it is wanted."""
        return wanted(claimed)

    async def deliver(self, claimed: Claimed, still_held: StillHeld) -> Verdict:
        """What became of the mail. Nothing that the outside world does raises; a cancellation passes through.

        `still_held` is asked right before the content leaves.
        """
        unwanted = wanted(claimed)
        if unwanted is not None:
            return unwanted
        if claimed.perhaps and self._on_ambiguous is OnAmbiguous.DEAD:
            return Dead(AMBIGUOUS, "the mailer ended while it sent this mail, which the relay may have", perhaps=True)
        try:
            return Delivered(await self.relay.send(self._envelope(claimed), still_held))
        except DeliveryError as error:
            return self._verdict(claimed, error)

    async def close(self) -> None:
        """Leave the relay."""
        await self.relay.close()

    def _envelope(self, claimed: Claimed) -> Envelope:
        """Raises `Refused` for an address that no mail can go to."""
        assert claimed.facts is not None, "`wanted` has no use for a mail without facts"
        letter = self._renderer.render(claimed.mail, claimed.facts, claimed.now)
        try:
            recipient = wire_address(letter.recipient)
        except ValueError as error:
            raise Refused(Refusal.ADDRESS_INVALID, str(error)) from error
        sender = wire_address(letter.page.sender.address)
        return Envelope(sender, recipient, own_fields(letter), letter.page.written)

    def _verdict(self, claimed: Claimed, error: DeliveryError) -> Verdict:
        match error:
            case Refused():
                return self._refused(claimed, error)
            case Unavailable(perhaps=True) if self._on_ambiguous is OnAmbiguous.DEAD:
                return Dead(AMBIGUOUS, error.detail, perhaps=True, met=Met.LET_IN)
            case Unavailable():
                pause = self._pause(claimed, error.reason, error.retry_after)
                met = Met.NOT if isinstance(error, NotAsked) else _MET.get(error.reason, Met.LET_IN)
                return Later(pause, error.reason, error.detail, error.perhaps, met)
            case RelayHeld():
                return Held(error.reason, error.detail, min(error.retry_after or 0, LONGEST_HINT))
            case _:
                return Later(0, CLAIM_LOST, met=Met.NOT)

    def _refused(self, claimed: Claimed, error: Refused) -> Later | Dead:
        """A refusal of our own address is rarely the mail's fault: it is tried again, with the next ones."""
        if error.reason is Refusal.SENDER_REFUSED:
            pause = self._pause(claimed, error.reason, None)
            return Later(pause, error.reason, error.detail, met=Met.REFUSED_US)
        met = Met.NOT if error.reason is Refusal.ADDRESS_INVALID else Met.LET_IN
        return Dead(error.reason, error.detail, met=met)

    def _pause(self, claimed: Claimed, reason: Trouble | Refusal, hint: float | None) -> float:
        """Never beyond the mail's deadline: half of the time that is left, but no hammering at its end."""
        first, longest = self._first_pause, self._longest_pause
        tried_for = 0.0 if claimed.first_tried is None else claimed.now - claimed.first_tried
        pause = pause_before(reason, claimed.attempts, tried_for, hint, self._jitter(), first=first, longest=longest)
        end = deadline(claimed)
        if end is None:
            return pause
        return min(pause, max((end - claimed.now) / 2, first / 2))
