"""Who hears of a request, and why: pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from shared.addresses import is_address
from shared.events import AccessMonitoringRule, AccessRequest
from shared.mail import Recipient, Why
from shared.settings_values import RuleEffect

FALLBACK = "*"
LONGEST_ADDRESS = 254
"""RFC 5321 §4.5.3.1.3: a path has 256 octets with its brackets."""

RoleMap = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Audience:
    """The people to tell, each once, and how many names could be told nothing, for they are no e-mail addresses."""

    recipients: tuple[Recipient, ...]
    unaddressable: int
    """Suggested reviewers."""
    unaddressable_by_rules: int = 0
    """Recipients of the rules that apply."""


def audience(
    request: AccessRequest,
    role_map: RoleMap,
    rules: Sequence[AccessMonitoringRule] = (),
    effect: RuleEffect = RuleEffect.REPLACE,
) -> Audience:
    """Recipients of the rules that apply to the request; if they name nobody, those of the role map (Go plugin's rule).

    With `RuleEffect.ADD` both. A rule that names nobody who can be told does not silence the role map.
    """
    by_rule, unaddressable = _by_rules(rules)
    if by_rule and effect is RuleEffect.REPLACE:
        return Audience(tuple(by_rule.values()), 0, unaddressable)
    by_role = _by_role_map(request, role_map)
    found = {**by_role, **by_rule}
    reviewers = [normal_address(text) for text in request.suggested_reviewers]
    for address in reviewers:
        if address:
            found.setdefault(address, Recipient(address=address, why=Why.SUGGESTED_REVIEWER))
    return Audience(tuple(found.values()), reviewers.count(None), unaddressable)


def _by_rules(rules: Sequence[AccessMonitoringRule]) -> tuple[dict[str, Recipient], int]:
    found: dict[str, Recipient] = {}
    unaddressable = 0
    for rule in rules:
        for text in rule.recipients:
            address = normal_address(text)
            if address is None:
                unaddressable += 1
            else:
                found.setdefault(address, Recipient(address=address, why=Why.RULE, rule=rule.name))
    return found, unaddressable


def _by_role_map(request: AccessRequest, role_map: RoleMap) -> dict[str, Recipient]:
    """Recipients of the requested roles, `*` for roles without any. A request for resources alone goes to `*`."""
    found: dict[str, Recipient] = {}
    for role in request.roles or ("",):
        addresses = role_map.get(role)
        why, named = (Why.ROLE, role) if addresses else (Why.DEFAULT, "")
        for text in addresses or role_map.get(FALLBACK, ()):
            address = normal_address(text)
            if address:
                found.setdefault(address, Recipient(address=address, why=why, role=named))
    return found


def normal_address(text: str) -> str | None:
    """A bare address, its domain in lower case so that one person is told once; None if it is no address."""
    if len(text) > LONGEST_ADDRESS or not is_address(text):
        return None
    local_part, _, domain = text.rpartition("@")
    return f"{local_part}@{domain.lower()}"
