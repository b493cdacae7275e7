"""A letter as the bytes that a relay takes: RFC 5322 header fields and a MIME multipart/alternative body.

Its law: the standard parser reads back what was put in, without defects. The standard library's own writer breaks it:
it folds long Message-IDs into encoded words, after which no thread holds. Every line ends in CRLF, none is longer
than RFC 5322 §2.1.1 allows, all but a UTF-8 address (RFC 6532) is ASCII, and no value can begin a line of its own.
"""

import binascii
import re
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from email.utils import format_datetime
from functools import cached_property, lru_cache

from shared.addresses import is_address, wire_domain

LINE_WANTED = 78
LINE_ALLOWED = 998
"""Characters, without CRLF (RFC 5322 §2.1.1)."""

ADDRESS_ALLOWED = 254
"""Octets (RFC 5321 §4.5.3.1.3, without the angle brackets)."""

_WORD_BYTES = 45
"""Bytes of UTF-8 in an encoded word, which is at most 75 characters long (RFC 2047 §2)."""

_BOUNDARY = "=_alternative"
"""Quoted-printable never holds `=_`, so no text can end its part (RFC 2045 §6.7)."""

ADDRESSES_KEPT = 1000

LINES_KEPT, LINE_KEPT = 1000, 500
"""So many lines of bodies, none with more characters: most lines of a mail are those of all mails."""

_UNFIT = re.compile("[\0-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


@dataclass(frozen=True)
class Mailbox:
    """RFC 5322 §3.4: an address and the name of whom it belongs to, which may be empty."""

    name: str
    address: str


@dataclass(frozen=True)
class Page:
    """What the letters to several people have in common. Identifiers stand without their angle brackets."""

    sender: Mailbox
    subject: str
    date: datetime
    list_id: str
    marks: tuple[tuple[str, str], ...]
    """Further header fields with unstructured text."""
    text: str
    html: str

    @cached_property
    def written(self) -> bytes:
        """Header fields and the whole body. Raises `ValueError` for a control character in a header field."""
        fields = [
            _tokens("From", [*_phrase(self.sender.name), f"<{wire_address(self.sender.address)}>"]),
            _text("Subject", self.subject),
            _tokens("Date", [format_datetime(self.date)]),
            _tokens("List-Id", [f"<{self.list_id}>"]),
            *(_text(name, value) for name, value in self.marks),
            "MIME-Version: 1.0",
            f'Content-Type: multipart/alternative; boundary="{_BOUNDARY}"',
            "",
            "",
        ]
        body = _part("plain", self.text) + _part("html", self.html) + f"--{_BOUNDARY}--\r\n".encode()
        return "\r\n".join(fields).encode() + body


@dataclass(frozen=True)
class Letter:
    """One mail to one recipient, before it becomes bytes. Identifiers stand without their angle brackets."""

    page: Page
    recipient: str
    message_id: str
    references: tuple[str, ...]
    """Earlier mails of the thread, the oldest first."""


def write(letter: Letter) -> bytes:
    """The message. Raises `ValueError` for an address that is none and for a control character in a header field."""
    return own_fields(letter) + letter.page.written


def own_fields(letter: Letter) -> bytes:
    """The header fields before those of the page. Raises `ValueError` as `write` does."""
    fields = f"To: {wire_address(letter.recipient)}\r\nMessage-ID: <{_fit('Message-ID', letter.message_id)}>\r\n"
    if letter.references:
        chain = "\r\n ".join([f"<{_fit('References', reference)}>" for reference in letter.references])
        fields += f"In-Reply-To: {chain}\r\nReferences: {chain}\r\n"
    return fields.encode()


@lru_cache(maxsize=ADDRESSES_KEPT)
def wire_address(address: str) -> str:
    """The address as SMTP and header fields take it: its domain in A-labels (RFC 5891).

    A local part beyond ASCII stays; it needs SMTPUTF8. Raises `ValueError` for what is no address.
    """
    if not is_address(address) or _UNFIT.search(address):
        raise ValueError("it is no e-mail address")
    local, _, domain = address.rpartition("@")
    wire = f"{local}@{wire_domain(domain)}"
    if len(wire.encode()) > ADDRESS_ALLOWED:
        raise ValueError(f"the address is longer than {ADDRESS_ALLOWED} octets")
    return wire


def _tokens(name: str, tokens: Sequence[str]) -> str:
    """A structured field, folded between its tokens and nowhere else."""
    field = _fit(name, f"{name}: {' '.join(tokens)}")
    return field if len(field) <= LINE_WANTED else _folded(name, tokens)


def _folded(name: str, tokens: Sequence[str]) -> str:
    folded, room = f"{name}:", LINE_WANTED - len(name) - 1
    for position, token in enumerate(tokens):
        if position and len(token) >= room:
            folded, room = folded + "\r\n", LINE_WANTED
        folded, room = f"{folded} {token}", room - len(token) - 1
    return folded


def _text(name: str, value: str) -> str:
    """An unstructured field: as it is where every reader sees the same in it, otherwise in encoded words."""
    words = value.split(" ")
    plain = value.isascii() and "=?" not in value and all(words) and max(map(len, words)) < LINE_ALLOWED - len(name) - 2
    return _tokens(name, words if plain else _encoded_words(_fit(name, value)))


def _phrase(name: str) -> list[str]:
    """A display name as RFC 5322 §3.2.5 has it: quoted where ASCII will do."""
    if not name:
        return []
    if not name.isascii() or "=?" in name or len(name) > LINE_WANTED:
        return _encoded_words(_fit("From", name))
    quoted = re.sub(r'(["\\])', r"\\\1", name)
    return [f'"{quoted}"']


def _encoded_words(value: str) -> list[str]:
    """RFC 2047 §2, cut between characters (§5); readers join neighbours without the space between them."""
    chunks = [b""]
    for character in value:
        encoded = character.encode()
        if len(chunks[-1]) + len(encoded) > _WORD_BYTES:
            chunks.append(b"")
        chunks[-1] += encoded
    return [f"=?utf-8?b?{b64encode(chunk).decode()}?=" for chunk in chunks if chunk]


def _fit(name: str, value: str) -> str:
    if _UNFIT.search(value):
        raise ValueError(f"a control character in the header field {name}")
    return value


def _part(subtype: str, content: str) -> bytes:
    lines = content.replace("\r\n", "\n").replace("\r", "\n").removesuffix("\n").split("\n")
    head = (
        f"--{_BOUNDARY}\r\n"
        f'Content-Type: text/{subtype}; charset="utf-8"\r\n'
        "Content-Transfer-Encoding: quoted-printable\r\n"
        "\r\n"
    )
    encoded = [_kept_line(line) if len(line) <= LINE_KEPT else _quoted_printable(line) for line in lines]
    return b"".join([head.encode(), *encoded, b"\r\n"])


def _quoted_printable(line: str) -> bytes:
    """RFC 2045 §6.7. The library takes its soft line breaks from the first hard one, so there must be one."""
    return binascii.b2a_qp(f"{line}\r\n".encode(), istext=True)


_kept_line = lru_cache(maxsize=LINES_KEPT)(_quoted_printable)
