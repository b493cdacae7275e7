"""The bytes of a letter, by example."""

import pytest

from services.mailer.mime import Mailbox, wire_address, write
from tests.laws.test_mime import plain_letter


def test_an_ordinary_letter_is_legible_as_it_stands() -> None:
    letter = plain_letter(text="Grüße, Bob\n.\n")
    assert write(letter).decode("ascii").split("\r\n") == [
        "To: bob@example.com",
        "Message-ID: <1@example.com>",
        "In-Reply-To: <0@example.com>",
        "References: <0@example.com>",
        'From: "Access" <access@example.com>',
        "Subject: Access request",
        "Date: Tue, 24 Nov 2026 00:00:00 +0000",
        "List-Id: <access.example.com>",
        "MIME-Version: 1.0",
        'Content-Type: multipart/alternative; boundary="=_alternative"',
        "",
        "--=_alternative",
        'Content-Type: text/plain; charset="utf-8"',
        "Content-Transfer-Encoding: quoted-printable",
        "",
        "Gr=C3=BC=C3=9Fe, Bob",
        "=2E",
        "",
        "--=_alternative",
        'Content-Type: text/html; charset="utf-8"',
        "Content-Transfer-Encoding: quoted-printable",
        "",
        "<p>Hello</p>",
        "",
        "--=_alternative--",
        "",
    ]


def test_a_long_chain_of_references_is_folded_and_never_encoded() -> None:
    ids = tuple(f"{'0195b3c8-7d1e-7f0a-9c55-3f2d8c1b7a90' * 2}-{number}@example.com" for number in range(3))
    folded = "".join(f"\r\n <{reference}>" for reference in ids).removeprefix("\r\n")
    assert f"References:{folded}\r\n".encode() in write(plain_letter(references=ids))


def test_a_display_name_that_imitates_an_encoded_word_is_encoded() -> None:
    message = write(plain_letter(sender=Mailbox("=?utf-8?q?Boss?=", "access@example.com")))
    assert b"\r\nFrom: =?utf-8?b?PT91dGYtOD9xP0Jvc3M/PQ==?= <access@example.com>\r\n" in message


def test_addresses_travel_with_their_domain_in_a_labels() -> None:
    assert wire_address("bob@bücher.example") == "bob@xn--bcher-kva.example"
    assert wire_address("jürgen@bücher.example") == "jürgen@xn--bcher-kva.example"
    assert wire_address("bob@[192.0.2.1]") == "bob@[192.0.2.1]"


@pytest.mark.parametrize(
    "address",
    ["", "bob", "bob@", "@example.com", "a b@c.example", "bob@ex\nample.com", "b@" + "ü" * 70, "b" * 260 + "@c"],
)
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 # three causes, all of them told
        wire_address(address)
