"""The relay: the one way out that the configuration names."""

from typing import Self

from services.mailer.errors import DeliveryError, NotAsked
from services.mailer.metrics import Metrics
from services.mailer.settings import MailerConfiguration
from services.mailer.transports import Envelope, StillHeld, Transport
from shared.settings import MailgunSettings

HTTP_TIMEOUT = 60.0
"""Seconds. Impatience makes duplicates."""

SHARED_IDLE = 1.0
"""Seconds that a connection rests where all mailers together may have so many: those that rest are not counted."""

ACCEPTED = 250


class Relay:
    """Hands mails over, and counts the relay's answers."""

    def __init__(self, transport: Transport, metrics: Metrics) -> None:
        self._transport = transport
        self.at_once = transport.at_once
        """Mails that are worth having in hand."""
        self._metrics = metrics

    @classmethod
    def from_settings(cls, configuration: MailerConfiguration, metrics: Metrics) -> Self:
        """Raises `SettingsError` if a file that the configuration names cannot be used."""
        return cls(_transport(configuration), metrics)

    async def send(self, envelope: Envelope, still_held: StillHeld) -> str:
        """The relay's answer. Raises `DeliveryError`."""
        self._metrics.in_flight.inc()
        try:
            answer = await self._transport.send(envelope, still_held)
        except NotAsked:
            raise  # there is no answer to count
        except DeliveryError as error:
            self._metrics.relay_answered(error.code)
            raise
        finally:
            self._metrics.in_flight.dec()
        self._metrics.relay_answered(ACCEPTED)
        return answer

    async def check(self) -> str:
        """Is there a relay, and does it let us in? Its answer. Raises `Held` or `Unavailable`."""
        return await self._transport.check()

    def reload(self) -> None:
        """Read passwords, keys and certificates again. Raises `SettingsError` and goes on with what it had."""
        self._transport.reload()

    async def close(self) -> None:
        """Leave the relay."""
        await self._transport.close()


def _transport(configuration: MailerConfiguration) -> Transport:
    """Imported here, where it is known which: httpx alone costs a mailer without use for it a sixth of its start."""
    relay = configuration.relay
    if isinstance(relay, MailgunSettings):
        from services.mailer.transports.mailgun import MailgunTransport  # noqa: PLC0415 - see above

        return MailgunTransport(relay, configuration.mailer.connections, HTTP_TIMEOUT)
    from services.mailer.transports.smtp import SmtpTransport  # noqa: PLC0415 - see above
    from services.mailer.transports.smtp_login import Patience  # noqa: PLC0415 - see above

    ehlo_name = relay.ehlo_name or configuration.sender.address.rpartition("@")[2]
    patience = Patience(idle=SHARED_IDLE) if configuration.mailer.connections_of_all else Patience()
    return SmtpTransport(relay, ehlo_name, configuration.mailer.connections, patience)
