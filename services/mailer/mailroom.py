"""The way of a mail from its claim to the relay's answer."""

import random
from collections.abc import Callable
from datetime import timedelta
from typing import Self

from services.mailer.errors import ClaimLost, Refusal, Refused, Unavailable
from services.mailer.metrics import CLAIM_LOST, Metrics
from services.mailer.mime import wire_address, write
from services.mailer.relay import Relay
from services.mailer.render import Renderer
from services.mailer.retries import pause_before
from services.mailer.settings import MailerConfiguration
from services.mailer.transports import Envelope, StillHeld
from services.mailer.wanted import deadline, wanted
from shared.claimed import Claimed
from shared.mail import Dead, Delivered, Dropped, Later, Verdict


class Mailroom:
    """Decides whether a mail is still wanted, writes it, hands it to the relay, and says what became of it."""

    def __init__(
        self,
        renderer: Renderer,
        relay: Relay,
        *,
        first_pause: timedelta,
        longest_pause: timedelta,
        jitter: Callable[[], float],
    ) -> None:
        """`jitter` gives a number from [0, 1) for each pause."""
        self.relay = relay
        self._renderer = renderer
        self._first_pause = first_pause.total_seconds()
        self._longest_pause = longest_pause.total_seconds()
        self._jitter = jitter

    @classmethod
    def from_settings(cls, configuration: MailerConfiguration, metrics: Metrics) -> Self:
        """Raises `SettingsError` if a file that the configuration names cannot be used."""
        return cls(
            Renderer(configuration.sender, configuration.message_id_domain),
            Relay.from_settings(configuration, metrics),
            first_pause=configuration.mailer.first_pause,
            longest_pause=configuration.mailer.longest_pause,
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
        try:
            envelope = self._envelope(claimed)
            answer = await self.relay.send(envelope, still_held)
        except ClaimLost:
            return Later(0, CLAIM_LOST)
        except Refused as error:
            return Dead(error.reason, error.detail)
        except Unavailable as error:
            return Later(self._pause(claimed, error), error.reason, error.detail, error.perhaps)
        return Delivered(answer)

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
        return Envelope(wire_address(letter.sender.address), recipient, write(letter))

    def _pause(self, claimed: Claimed, error: Unavailable) -> float:
        """Never beyond the mail's deadline: half of the time that is left, but no hammering at its end."""
        pause = pause_before(
            claimed.attempts, error.retry_after, self._jitter(), self._first_pause, self._longest_pause
        )
        end = deadline(claimed)
        if end is None:
            return pause
        return min(pause, max((end - claimed.now) / 2, self._first_pause / 2))
