"""The law of `mime`: the standard parser reads back what was put in, without defects, whatever it was."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from email import message_from_bytes, message_from_string
from email.errors import NonASCIILocalPartDefect
from email.header import decode_header, make_header
from email.message import EmailMessage, Message
from email.policy import SMTPUTF8, compat32, default
from email.utils import parseaddr
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from services.mailer.mime import LINE_ALLOWED, Letter, Mailbox, Page, wire_address, write

ONE_WORD = 45
"""Bytes of a display name up to which the parser of Python 3.11 reads it back; it leaves the spaces between two encoded
words in a phrase, which RFC 2047 §6.2 has readers ignore."""

QUOTED_LINE = 76
"""Characters, without CRLF (RFC 2045 §6.7)."""

UNFIT = re.compile("[\0-\x1f\x7f-\x9f\u2028\u2029]")

hostile = st.one_of(
    st.text(),
    st.text(alphabet='<>@,;:"\\ ()=?_ab', max_size=200),
    st.text(alphabet="=?utf-8bqQB.\r\n -", max_size=300),
    st.text(alphabet="\r\n.\t -=ab\0\x0b\x85\u2028\u202e", max_size=300),
    st.text(alphabet="😀👩‍🚀éש中", max_size=300),
    st.sampled_from(["=?utf-8?q?Boss?=", "a =?utf-8?b?PGI+?= b", "=?utf-8?q?=0D=0ABcc:?="]),
    st.sampled_from(["x" * 3000, "é" * 1500, "😀" * 700, "a b " * 500, "word " + "y" * 997 + " word", "=" * 400]),
)
"""Any text, and more often what has broken mails before. Lone surrogates are none: they have no UTF-8."""

parts = hostile.map(lambda text: "".join(character for character in text if not "\ud800" <= character <= "\udfff"))
one_liners = parts.map(lambda text: UNFIT.sub("", text))

atoms = st.text(alphabet="abcXYZ019!#$%&'*+/=?^_`{|}~-", min_size=1, max_size=20)
locals_ = st.lists(atoms, min_size=1, max_size=3).map(".".join)
labels = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True).filter(lambda label: label[2:4] != "--")
domains = st.lists(labels, min_size=1, max_size=4).map(".".join)
addresses = st.tuples(locals_, domains).map("@".join)
identifiers = st.tuples(st.from_regex(r"[A-Za-z0-9_-]{1,150}", fullmatch=True), domains).map("@".join)

pages = st.builds(
    Page,
    sender=st.builds(Mailbox, one_liners, addresses),
    subject=one_liners,
    date=st.integers(min_value=0, max_value=2**34).map(lambda seconds: datetime.fromtimestamp(seconds, UTC)),
    list_id=domains,
    marks=one_liners.map(lambda text: (("X-Mark", text),)),
    text=parts,
    html=parts,
)
letters = st.builds(
    Letter,
    page=pages,
    recipient=addresses,
    message_id=identifiers,
    references=st.lists(identifiers, max_size=4).map(tuple),
)


OWN: dict[str, Any] = {"recipient": "bob@example.com", "message_id": "1@example.com", "references": ("0@example.com",)}
PAGE: dict[str, Any] = {
    "sender": Mailbox("Access", "access@example.com"),
    "subject": "Access request",
    "date": datetime(2026, 11, 24, tzinfo=UTC),
    "list_id": "access.example.com",
    "marks": (),
    "text": "Hello",
    "html": "<p>Hello</p>",
}


def plain_letter(**differing: Any) -> Letter:
    page = Page(**{name: differing.get(name, value) for name, value in PAGE.items()})
    return Letter(page, **{name: differing.get(name, value) for name, value in OWN.items()})


def read(message: bytes) -> EmailMessage:
    return message_from_bytes(message, policy=default)


def defects(message: EmailMessage) -> Iterator[object]:
    for part in message.walk():
        yield from part.defects
        for value in part.values():
            yield from value.defects


def as_read(text: str) -> str:
    """What remains of a text: its line ends are one kind, and the last line has one."""
    return text.replace("\r\n", "\n").replace("\r", "\n").removesuffix("\n") + "\n"


def body(message: EmailMessage, subtype: str) -> str:
    part = message.get_body((subtype,))
    assert isinstance(part, EmailMessage)
    return str(part.get_content()).replace("\r\n", "\n")


@given(letters)
def test_the_standard_parser_reads_back_what_was_put_in(letter: Letter) -> None:
    message = read(write(letter))
    assert message["subject"] == letter.page.subject
    assert message["x-mark"] == letter.page.marks[0][1]
    assert message["to"] == letter.recipient
    assert message["from"].addresses[0].addr_spec == letter.page.sender.address
    assert message["date"].datetime == letter.page.date
    assert message["message-id"] == f"<{letter.message_id}>"
    assert str(message.get("references", "")).split() == [f"<{reference}>" for reference in letter.references]
    assert message.get("in-reply-to") == message.get("references")
    assert message["list-id"] == f"<{letter.page.list_id}>"
    assert body(message, "plain") == as_read(letter.page.text)
    assert body(message, "html") == as_read(letter.page.html)
    assert [part.get_content_type() for part in message.walk()] == ["multipart/alternative", "text/plain", "text/html"]


@given(letters)
def test_the_standard_parser_finds_no_defects(letter: Letter) -> None:
    assert list(defects(read(write(letter)))) == []


@given(letters)
def test_lines_end_in_crlf_and_are_short_enough_for_smtp(letter: Letter) -> None:
    message = write(letter)
    assert message.isascii()
    assert message.endswith(b"\r\n")
    lines = message.split(b"\r\n")
    assert not any(b"\r" in line or b"\n" in line for line in lines)
    assert max(map(len, lines)) <= LINE_ALLOWED


@given(letters)
def test_lines_of_the_body_are_those_of_quoted_printable(letter: Letter) -> None:
    _, _, whole = write(letter).partition(b"\r\n\r\n")
    lines = whole.split(b"\r\n")
    assert max(map(len, lines)) <= QUOTED_LINE
    assert not any(line.endswith((b" ", b"\t")) or line == b"." for line in lines)


@given(letters)
def test_no_value_makes_a_header_field_of_its_own(letter: Letter) -> None:
    names = [name.lower() for name in read(write(letter))]
    references = ["in-reply-to", "references"] if letter.references else []
    own = ["to", "message-id", *references]
    assert names == [*own, "from", "subject", "date", "list-id", "x-mark", "mime-version", "content-type"]


@given(one_liners.map(lambda text: " ".join(text.split())))
def test_a_display_name_is_read_back(name: str) -> None:
    message = write(plain_letter(sender=Mailbox(name, "access@example.com")))
    if len(name.encode()) <= ONE_WORD:
        assert read(message)["from"].addresses[0].display_name == name
    older: Message = message_from_bytes(message, policy=compat32)
    assert str(make_header(decode_header(parseaddr(older["from"])[0]))) == name


@given(st.text(alphabet=st.characters(categories=["Cc", "Cs", "Zl", "Zp"]), min_size=1), st.text(max_size=5))
@example("\r\n", "Bcc: eve@example.com")
@example("\n", "")
@example("\ud800", "")
def test_a_control_character_in_a_header_field_is_refused(unfit: str, harmless: str) -> None:
    value = harmless + unfit + harmless
    for letter in (
        plain_letter(subject=value),
        plain_letter(sender=Mailbox(value, "access@example.com")),
        plain_letter(recipient=f"{value}@example.com"),
        plain_letter(message_id=value),
        plain_letter(references=(value,)),
        plain_letter(list_id=value),
        plain_letter(marks=(("X-Mark", value),)),
    ):
        with pytest.raises(ValueError, match=r"control character|no e-mail address"):
            write(letter)


@given(st.text(alphabet="äöüßéñçøåλдש中日", min_size=1, max_size=15), locals_)
def test_a_domain_beyond_ascii_travels_in_a_labels(label: str, local: str) -> None:
    try:
        wire = wire_address(f"{local}@{label}.example")
    except ValueError:
        return  # IDNA does not allow every mixture of scripts
    assert wire.isascii()
    assert read(write(plain_letter(recipient=wire)))["to"] == wire


@given(st.text(alphabet="abäöüλд中", min_size=1, max_size=15))
def test_a_local_part_beyond_ascii_stands_as_it_is(local: str) -> None:
    message = write(plain_letter(recipient=f"{local}@example.com")).decode()
    assert message_from_string(message, policy=default)["to"].addresses[0].addr_spec == f"{local}@example.com"


literals = st.one_of(
    st.ip_addresses(v=4).map(lambda address: f"[{address}]"),
    st.ip_addresses(v=6).map(lambda address: f"[IPv6:{address}]"),
)
wide_locals = st.lists(st.text(alphabet="aZ0äöüλд中👩", min_size=1, max_size=10), min_size=1, max_size=3).map(".".join)


@given(st.builds(plain_letter, recipient=st.tuples(locals_ | wide_locals, literals | domains).map("@".join)))
def test_address_literals_and_local_parts_beyond_ascii_are_read_back_without_defects(letter: Letter) -> None:
    """RFC 5321 §4.1.3 and RFC 6532, both at once as well."""
    message = message_from_bytes(write(letter), policy=SMTPUTF8)
    to = message_from_string(write(letter).decode(), policy=default)["to"]
    assert to.addresses[0].addr_spec == letter.recipient
    assert [defect for defect in to.defects if not isinstance(defect, NonASCIILocalPartDefect)] == []
    assert message["message-id"] == f"<{letter.message_id}>"
    assert body(message, "plain") == as_read(letter.page.text)


@given(st.tuples(locals_, literals).map("@".join))
def test_an_address_literal_may_send_and_stands_as_it_is(address: str) -> None:
    assert wire_address(address) == address
    message = read(write(plain_letter(sender=Mailbox("Access", address), recipient=address)))
    assert (message["from"].addresses[0].addr_spec, message["to"].addresses[0].addr_spec) == (address, address)
    assert list(defects(message)) == []
