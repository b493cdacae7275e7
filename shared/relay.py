"""The relay as all mailers share it: how it may be used, and whether it is held."""

from dataclasses import dataclass


@dataclass(frozen=True)
class RelayTerms:
    """What all mailers together may ask of the relay. Equal in all of them, for they share one record of it."""

    name: str
    """Part of a key: where the relay is, no secret and no address of a person."""
    first_probe: float
    """Seconds from the moment at which the relay turns everybody away until a single mail tries it again."""
    longest_probe: float
    """Seconds up to which the pauses between such probes double."""
    mails_per_second: float | None = None
    connections: int | None = None
    """Most mails at the relay at once, over all mailers."""


@dataclass(frozen=True)
class RelayState:
    """The relay as a mailer has found it when it claimed."""

    held: str | None = None
    """Why it is held; None: it is not."""
    turns_us_away: str | None = None
    """Why it turns this mailer alone away, while it lets others in; None: it does not."""
    detail: str = ""
    """Its answer to either."""
    changed: float = 0.0
    """When it was held or let us in again, by Redis's clock."""

    @property
    def reason(self) -> str | None:
        """Why this mailer can send nothing now; None: it can."""
        return self.held or self.turns_us_away
