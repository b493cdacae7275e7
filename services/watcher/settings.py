"""What the watcher needs of the configuration."""

from dataclasses import dataclass
from typing import Self

from services.watcher.teleport.connect import parse_address
from shared.settings import Settings, SettingsError, TeleportSettings


@dataclass(frozen=True)
class WatcherConfiguration:
    """The watcher's own part: how to reach the cluster, and as whom."""

    teleport: TeleportSettings

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Pick the watcher's part. Raises `SettingsError` for what is missing or contradicts itself."""
        if settings.teleport is None:
            raise SettingsError(["teleport: missing; give addr and identity"])
        faults = [*_credential_faults(settings.teleport), *_address_faults(settings.teleport)]
        if faults:
            raise SettingsError(faults)
        return cls(settings.teleport)


def _credential_faults(teleport: TeleportSettings) -> list[str]:
    trio = {"client_key": teleport.client_key, "client_crt": teleport.client_crt, "root_cas": teleport.root_cas}
    given = [f"teleport.{key}" for key, path in trio.items() if path]
    missing = [f"teleport.{key}" for key, path in trio.items() if not path]
    faults = []
    if teleport.identity and given:
        faults.append(f"teleport.identity: given together with {', '.join(given)}; keep one of the two ways")
    elif given and missing:
        faults.append(
            f"{missing[0]}: missing; give {' and '.join(missing)}, or teleport.identity in place of all three"
        )
    elif not teleport.identity and not given:
        faults.append(
            "teleport.identity: missing, there are no credentials; give it,"
            " or teleport.client_key, teleport.client_crt and teleport.root_cas"
        )
    return faults


def _address_faults(teleport: TeleportSettings) -> list[str]:
    try:
        parse_address(teleport.address)
    except ValueError as error:
        return [f"teleport.addr: {error}; give the Auth Service's (port 3025) or the proxy's (443 or 3080)"]
    return []
