"""The mailer as its process drives it: a worker, the mailroom that it delivers through, and their metrics."""

from typing import Self

from prometheus_client import CollectorRegistry

from services.mailer.mailroom import Mailroom
from services.mailer.metrics import Metrics
from services.mailer.settings import MailerConfiguration
from services.mailer.worker import MailWorker
from shared.mail_queue.depth import queue_depth
from shared.redis import connect, connect_async
from shared.settings import MailerSettings, Settings
from shared.settings_values import OnAmbiguous


class Mailer:
    """One mailer process. Any number of them may run."""

    def __init__(self, worker: MailWorker, mailroom: Mailroom) -> None:
        self._worker = worker
        self._mailroom = mailroom

    @classmethod
    def from_settings(cls, settings: Settings, registry: CollectorRegistry) -> Self:
        """Raises `SettingsError`."""
        configuration = MailerConfiguration.of(settings)
        metrics = Metrics(registry)
        registry.register(queue_depth(settings.redis, "mailer"))
        mailroom = Mailroom.from_settings(configuration, metrics)
        worker = MailWorker(
            connect(settings.redis, "mailer"),
            connect_async(settings.redis, "mailer"),
            mailroom,
            metrics,
            relay=configuration.relay_terms,
            capacity=_capacity(configuration.mailer, mailroom.relay.at_once),
            grace=configuration.mailer.grace.total_seconds(),
        )
        return cls(worker, mailroom)

    def run(self) -> None:
        """Send until `stop`."""
        self._worker.work()

    def stop(self) -> None:
        """End gracefully; a second time, at once."""
        self._worker.stop()

    def reload(self, settings: Settings) -> None:
        """Read passwords, keys and certificates again. Raises `SettingsError`."""
        MailerConfiguration.of(settings)
        self._mailroom.relay.reload()

    def live(self) -> str | None:
        """Have all loops turned lately? None if so."""
        return self._worker.pulse.stalled()

    def ready(self) -> str | None:
        """What is missing; None while mails can be taken."""
        return self._worker.trouble or self._worker.turned_away


def _capacity(settings: MailerSettings, at_once: int) -> int:
    """Mails to have in hand. Where none may come twice, all of them are dead letters if their mailer dies: so, few."""
    return min(at_once, settings.connections) if settings.on_ambiguous is OnAmbiguous.DEAD else at_once
