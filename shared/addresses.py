"""What counts as an e-mail address: the same rule for configuration, rules and suggested reviewers."""

import re
from email.errors import NonASCIILocalPartDefect, ObsoleteHeaderDefect
from email.headerregistry import HeaderRegistry
from typing import Any

import idna

_ATOM = r'[^\x00-\x20\x7f()<>\[\]:;@\\,."]+'
"""RFC 5322 §3.2.3 atext, and RFC 6532 §3.2 beyond ASCII."""

_ADDRESS = re.compile(rf"{_ATOM}(?:\.{_ATOM})*@(?:{_ATOM}(?:\.{_ATOM})*|\[[!-Z^-~]+\])")

_TOLERATED = (NonASCIILocalPartDefect, ObsoleteHeaderDefect)
"""`jürgen@…` is RFC 6532, and `Dr. Who <…>` what everybody writes (RFC 5322 §4.1, obs-phrase)."""


def is_address(text: str) -> bool:
    """Is it a bare addr-spec of RFC 5322 (with RFC 6532) whose local part needs no quotes?

    Go's `lib.IsEmail` gives the same answers: it wants what parses and equals its own bare address part. Invisible
    characters are no part of an address, here.
    """
    return text.isprintable() and _ADDRESS.fullmatch(text) is not None


def parse_sender(text: str) -> tuple[str, str]:
    """Display name (may be empty) and bare address of `Name <user@host>` or `user@host`.

    Raises `ValueError` where it is not exactly one mailbox of RFC 5322 §3.4.
    """
    if not text.isprintable():
        raise ValueError("not an e-mail address, for it holds invisible characters")
    header: Any = HeaderRegistry()("Sender", text)  # a class made at run time: UniqueSingleAddressHeader and BaseHeader
    if len(header.addresses) != 1:
        raise ValueError("not one e-mail address")
    defects = [defect for defect in header.defects if not isinstance(defect, _TOLERATED)]
    mailbox = header.addresses[0]
    if defects or header.groups[0].display_name is not None or not is_address(mailbox.addr_spec):
        raise ValueError("not an e-mail address")
    return mailbox.display_name, mailbox.addr_spec


def wire_domain(domain: str) -> str:
    """The domain of an address in A-labels. Raises `ValueError` for what IDNA does not allow."""
    return domain if domain.isascii() else idna.encode(domain, uts46=True).decode()


def message_id_domain(configured: str | None, sender: str) -> str:
    """The domain of Message-IDs in A-labels: as configured, else the sender's. Raises `ValueError` for no domain."""
    domain = configured or parse_sender(sender)[1].rpartition("@")[2]
    if domain.startswith("[") or not is_address(f"access@{domain}"):
        raise ValueError("no domain name; write one like example.com, or delete the line")
    return wire_domain(domain)
