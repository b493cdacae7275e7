"""A mail as the commands and the content that the relay is sent (RFC 5321), by what the relay has announced."""

import re
from collections.abc import Mapping
from functools import lru_cache

from services.mailer.errors import Refusal, Refused
from services.mailer.transports import Envelope

_UNFIT = re.compile("[\0-\x20\x7f<>]")
"""What would end an address, or its line."""

SIZE_DIGITS = 18
"""Of a limit that a relay announces: RFC 1870 §4 allows 20, and nobody means that many octets."""

SHARED_KEPT = 16

_LINE_END = re.compile(rb"\r\n|\r|\n")


def mail_command(envelope: Envelope, extensions: Mapping[str, str]) -> bytes:
    """MAIL with the parameters that the relay's `extensions` (names in lower case) call for.

    Raises `Refused` for a mail that this relay cannot take.
    """
    parameters = []
    if "size" in extensions:  # RFC 1870
        parameters.append(b" SIZE=%d" % _size(envelope, extensions["size"]))
    if "8bitmime" in extensions and not (envelope.content.isascii() and envelope.shared.isascii()):  # RFC 6152
        parameters.append(b" BODY=8BITMIME")
    if envelope.needs_smtputf8:  # RFC 6531
        if "smtputf8" not in extensions:
            raise Refused(Refusal.NO_SMTPUTF8, "the address needs SMTPUTF8 (RFC 6531), which the relay lacks")
        parameters.append(b" SMTPUTF8")
    return b"MAIL FROM:<%b>%b\r\n" % (_address(envelope.sender), b"".join(parameters))


def rcpt_command(envelope: Envelope) -> bytes:
    """RCPT. Raises `Refused` for an address that would end the command."""
    return b"RCPT TO:<%b>\r\n" % _address(envelope.recipient)


def data(envelope: Envelope) -> bytes:
    """What follows DATA: the content with CRLF at the end of each line and no bare CR or LF, transparent, and its end.

    A bare LF that one relay takes for the end of a line, and another not, lets a mail end where its writer wants it to
    (RFC 5321 §2.3.8, §4.5.2).
    """
    return b"%b%b.\r\n" % (_transparent(envelope.content), _transparent_shared(envelope.shared))


def _transparent(content: bytes) -> bytes:
    line_ends = content.count(b"\r\n")
    if line_ends != content.count(b"\n") or line_ends != content.count(b"\r"):
        content = _LINE_END.sub(b"\r\n", content)
    if content and not content.endswith(b"\r\n"):
        content += b"\r\n"
    stuffed = content.replace(b"\r\n.", b"\r\n..")
    return b"." + stuffed if content.startswith(b".") else stuffed


_transparent_shared = lru_cache(maxsize=SHARED_KEPT)(_transparent)


def _size(envelope: Envelope, announced: str) -> int:
    size = len(envelope.content) + len(envelope.shared)
    limit = (
        int(announced) if announced.isascii() and announced.isdigit() and len(announced) <= SIZE_DIGITS else 0
    )  # 0: none (RFC 1870 §4)
    if 0 < limit < size:
        raise Refused(Refusal.MESSAGE_REFUSED, f"the mail has {size} octets, the relay takes no more than {limit}")
    return size


def _address(address: str) -> bytes:
    if _UNFIT.search(address):
        raise Refused(Refusal.ADDRESS_INVALID, "the address holds a character that no command may")
    return address.encode()
