"""What the mailer counts: a closed vocabulary, every label there from the start, no addresses and no ids."""

from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from services.mailer.errors import Refusal, Trouble
from services.mailer.wanted import TooLate, Unwanted
from shared.claimed import Claimed
from shared.mail import Dead, Delivered, Later, NoticeKind, Verdict
from shared.relay import RelayState

CLAIM_LOST = "claim_lost"
"""Reason of a mail that was kept back at the last moment."""

AMBIGUOUS = "ambiguous"
"""Reason of a dead letter that the relay may have taken."""

CANCELED = "canceled"
"""Reason of a mail that an operator has canceled, whether or not it was in hand."""

_WORKER = ("malformed", "internal_error", "poison")
"""Reasons of dead letters that are no mails, met a fault of ours, or whose workers died too often in a row."""

DEATHS = (*Refusal, *TooLate, AMBIGUOUS, *_WORKER)
"""Reasons of dead letters."""

_REASONS: dict[str, tuple[str, ...]] = {
    "delivered": ("accepted",),
    "later": (*Trouble, Refusal.SENDER_REFUSED, CLAIM_LOST),
    "held": tuple(Trouble),
    "dropped": (*Unwanted, CANCELED),
    "dead": DEATHS,
}

_HELD = (*Trouble, Refusal.SENDER_REFUSED)
"""Reasons for which all mails wait, or those of one mailer."""

_MINUTE, _HOUR = 60.0, 3600.0
_FROM_5_MS_TO_A_DAY = (
    *(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
    *(_MINUTE, 2 * _MINUTE, 5 * _MINUTE, 15 * _MINUTE, 30 * _MINUTE),
    *(_HOUR, 3 * _HOUR, 6 * _HOUR, 12 * _HOUR, 24 * _HOUR),
)

_CLASSES = ("2xx", "3xx", "4xx", "5xx", "none")


class _OfMails:
    """What becomes of mails."""

    def __init__(self, registry: CollectorRegistry) -> None:
        counter, gauge = partial(Counter, registry=registry), partial(Gauge, registry=registry)
        self._mails = counter(
            "access_mail_mailer_mails", "Mails taken in hand, by what became of them", ["outcome", "reason"]
        )
        for outcome, reasons in _REASONS.items():
            for reason in reasons:
                self._mails.labels(outcome, reason)
        self._delivered = self._mails.labels("delivered", "accepted")
        self._last_success = gauge(
            "access_mail_mailer_last_success_timestamp_seconds", "When the relay last took a mail"
        )
        self._ambiguous = counter(
            "access_mail_mailer_ambiguous_answers", "Mails that the relay may have taken, for its answer was lost"
        )
        self._to_accept = Histogram(
            "access_mail_request_to_accept_seconds",
            "From the creation of a request in Teleport to the relay's acceptance of a mail that asks for its review",
            buckets=_FROM_5_MS_TO_A_DAY,
            registry=registry,
        )

    def settled(self, verdict: Verdict, claimed: Claimed | None, accepted_at: float) -> None:
        """Count what became of a mail; `accepted_at`: seconds since the epoch. None: the job was no mail."""
        if isinstance(verdict, Later | Dead) and verdict.perhaps:
            self._ambiguous.inc()
        if not isinstance(verdict, Delivered):
            self._mails.labels(type(verdict).__name__.lower(), verdict.reason).inc()
            return
        self._delivered.inc()
        self._last_success.set(accepted_at)
        request = claimed.facts.request if claimed is not None and claimed.facts is not None else None
        if claimed is None or request is None or request.created is None:
            return
        if claimed.mail.notice.kind is NoticeKind.REQUESTED:
            self._to_accept.observe(max(0.0, accepted_at - request.created.timestamp()))

    def canceled(self, mails: int) -> None:
        """Count mails that were dropped because an operator has canceled them."""
        self._mails.labels("dropped", CANCELED).inc(mails)


class _OfJobs:
    """How this worker fares with its jobs in Redis."""

    def __init__(self, registry: CollectorRegistry) -> None:
        counter = partial(Counter, registry=registry)
        self._claimed = counter("access_mail_mailer_claimed_jobs", "Jobs taken from the queue")
        self._recovered = counter("access_mail_mailer_recovered_jobs", "Jobs put back that other workers had left")
        self._claims_lost = counter(
            "access_mail_mailer_claims_lost", "Mails whose claim was lost while they were in hand"
        )
        self._redis_failures = counter("access_mail_mailer_redis_failures", "Times that Redis did not do its part")

    def claimed(self, jobs: int) -> None:
        """Count jobs taken from the queue."""
        self._claimed.inc(jobs)

    def recovered(self, jobs: int) -> None:
        """Count jobs that dead or stock workers had left."""
        self._recovered.inc(jobs)

    def claims_lost(self, jobs: int) -> None:
        """Count mails whose claim was lost while they were in hand."""
        self._claims_lost.inc(jobs)

    def redis_failed(self) -> None:
        """Count a time that Redis did not do its part."""
        self._redis_failures.inc()


class _OfRelay:
    """What the relay says, and whether it lets us in."""

    def __init__(self, registry: CollectorRegistry) -> None:
        counter, gauge = partial(Counter, registry=registry), partial(Gauge, registry=registry)
        self.in_flight = gauge("access_mail_mailer_mails_in_flight", "Mails at the relay now")
        answers = counter(
            "access_mail_mailer_relay_answers",
            "Ends of mail transactions by the class of the relay's reply; none: it gave none",
            ["class"],
        )
        self._answers = {class_: answers.labels(class_) for class_ in _CLASSES}
        held = gauge(
            "access_mail_mailer_relay_held",
            "1 while all mails wait because the relay turns everybody away, by its reason",
            ["reason"],
        )
        self._held = {reason: held.labels(reason) for reason in _HELD}
        turned_away = gauge(
            "access_mail_mailer_turned_away",
            "1 while the relay turns this mailer away and lets others in, by its reason",
            ["reason"],
        )
        self._turned_away = {reason: turned_away.labels(reason) for reason in _HELD}
        self._changed = gauge(
            "access_mail_mailer_relay_changed_timestamp_seconds",
            "When the relay last began to turn everybody away, or to let us in again",
        )
        self._probes = counter("access_mail_mailer_relay_probes", "Mails that tried whether a held relay lets us in")

    def relay_answered(self, code: int | None) -> None:
        """Count a reply; None: there was none."""
        self._answers["none" if code is None else f"{code // 100}xx"].inc()

    def relay_seen(self, state: RelayState) -> None:
        """Note whether the relay is held, and since when it is not or is; and whether it turns this mailer away."""
        for reason in _HELD:
            self._held[reason].set(reason == state.held)
            self._turned_away[reason].set(reason == state.turns_us_away)
        self._changed.set(state.changed)

    def relay_probed(self) -> None:
        """Count a mail that tries whether a held relay lets us in again."""
        self._probes.inc()


class Metrics(_OfMails, _OfJobs, _OfRelay):
    """All that one mailer counts, in the registry that it is given."""

    def __init__(self, registry: CollectorRegistry) -> None:
        _OfMails.__init__(self, registry)
        _OfJobs.__init__(self, registry)
        _OfRelay.__init__(self, registry)
