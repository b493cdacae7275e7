"""Logins at the simulated mailbox; XOAUTH2 as Google and Microsoft describe it: a user and a bearer token."""

import re
from base64 import b64decode
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from aiosmtpd.smtp import SMTP, AuthResult

MECHANISMS = {"PLAIN", "LOGIN", "XOAUTH2"}
"""All that the mailbox knows."""

REFUSAL = '{"status":"401","schemes":"bearer","scope":"https://mail.example.com/"}'

_RESPONSE = re.compile(r"user=([^\x01]*)\x01auth=Bearer ([^\x01]*)\x01\x01")


@dataclass(frozen=True)
class Login:
    """An attempt to log in."""

    user: str
    mechanism: str
    accepted: bool
    tls: bool


async def log_in_by_token(server: SMTP, arguments: Sequence[str], is_right: Callable[[str, str], bool]) -> AuthResult:
    """Ask `is_right` for user and token. A refusal is told as a challenge, which the client has to answer."""
    found = _RESPONSE.fullmatch(b64decode(arguments[1]).decode()) if arguments[1:] else None
    if found is not None and is_right(found[1], found[2]):
        return AuthResult(success=True)
    await server.challenge_auth(REFUSAL)
    return AuthResult(success=False, handled=False)
