"""Who hears of a request, and why: pure."""

from collections.abc import Mapping
from dataclasses import dataclass

from shared.addresses import is_address
from shared.events import AccessRequest
from shared.mail import Recipient, Why

FALLBACK = "*"
LONGEST_ADDRESS = 254
"""RFC 5321 §4.5.3.1.3: a path has 256 octets with its brackets."""

RoleMap = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Audience:
    """The people to tell, each once, and how many suggested reviewers could not be told."""

    recipients: tuple[Recipient, ...]
    unaddressable: int
    """Suggested reviewers whose name is no e-mail address."""


def audience(request: AccessRequest, role_map: RoleMap) -> Audience:
    """Recipients of the requested roles (`*` for roles without any), then suggested reviewers (Go plugin's rule).

    A request for resources alone names no role: it goes to `*`.
    """
    found: dict[str, Recipient] = {}
    for role in request.roles or ("",):
        addresses = role_map.get(role)
        why, named = (Why.ROLE, role) if addresses else (Why.DEFAULT, "")
        for text in addresses or role_map.get(FALLBACK, ()):
            address = normal_address(text)
            if address:
                found.setdefault(address, Recipient(address=address, why=why, role=named))
    reviewers = [normal_address(text) for text in request.suggested_reviewers]
    for address in reviewers:
        if address:
            found.setdefault(address, Recipient(address=address, why=Why.SUGGESTED_REVIEWER))
    return Audience(tuple(found.values()), unaddressable=reviewers.count(None))


def normal_address(text: str) -> str | None:
    """A bare address, its domain in lower case so that one person is told once; None if it is no address."""
    if len(text) > LONGEST_ADDRESS or not is_address(text):
        return None
    local_part, _, domain = text.rpartition("@")
    return f"{local_part}@{domain.lower()}"
