"""What the router needs of the configuration."""

from dataclasses import dataclass
from typing import Self

from services.router.directory import RoleMap
from shared.addresses import message_id_domain
from shared.settings import Settings, SettingsError
from shared.settings_values import RuleEffect


@dataclass(frozen=True)
class RouterConfiguration:
    """The router's own part."""

    role_map: RoleMap
    message_id_domain: str
    rules: RuleEffect = RuleEffect.REPLACE

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Pick the router's part. Raises `SettingsError` for what is missing."""
        faults = []
        if not settings.role_map():
            faults.append(
                "role_to_recipients: missing; name who is told, at least '*' = [\"somebody@example.com\"]"
                " (by the environment: ACCESS_MAIL__DELIVERY__RECIPIENTS)"
            )
        if settings.delivery is None:
            faults.append("delivery.sender: missing; name the address that mails come from")
        if faults or settings.delivery is None:
            raise SettingsError(faults)
        try:
            domain = message_id_domain(settings.delivery.message_id_domain, settings.delivery.sender)
        except ValueError as error:
            raise SettingsError([f"delivery.message_id_domain: {error}"]) from None
        return cls(role_map=settings.role_map(), message_id_domain=domain, rules=settings.routing.rules)
