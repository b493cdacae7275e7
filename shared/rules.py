"""How the Access Monitoring Rules stand in Redis: the router owns the hash, the watcher compares listings with it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from shared.events import AccessMonitoringRule

REVISION: Final = b"revision"
UNAVAILABLE: Final = b"unavailable"
RULE: Final = b"rule:"


@dataclass(frozen=True)
class KnownRules:
    """What the router has committed about the rules."""

    revision: str
    """The stream's entry that changed them last."""
    rules: tuple[AccessMonitoringRule, ...]
    """In the order of their names."""
    unavailable: str = ""
    """Why Teleport shows us none; empty: it does."""


def rule_field(name: str) -> bytes:
    """The hash's field of a rule."""
    return RULE + name.encode()


def known_rules(fields: Mapping[bytes, bytes]) -> KnownRules | None:
    """Read the hash; None: nothing was ever told of the rules. Raises `pydantic.ValidationError`."""
    if REVISION not in fields:
        return None
    rules = [
        AccessMonitoringRule.model_validate_json(value) for field, value in fields.items() if field.startswith(RULE)
    ]
    return KnownRules(
        revision=fields[REVISION].decode(),
        rules=tuple(sorted(rules, key=lambda rule: rule.name)),
        unavailable=fields.get(UNAVAILABLE, b"").decode(),
    )
