"""What a TLS client offers is read from the bytes of real clients, whole or in pieces, and from nothing else."""

import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulators.client_hello import NotClientHelloError, offered_protocols

PROTOCOLS = st.lists(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=60), max_size=8)

RECORD_HEADER_BYTES = 5


def client_hello(protocols: list[str]) -> bytes:
    """The first message of OpenSSL's client."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if protocols:
        context.set_alpn_protocols(protocols)
    connection = context.wrap_bio(incoming, outgoing, server_hostname="teleport.cluster.local")
    with pytest.raises(ssl.SSLWantReadError):
        connection.do_handshake()
    return outgoing.read()


def in_records(handshake: bytes, size: int) -> bytes:
    """The handshake message in records of at most `size` bytes."""
    pieces = [handshake[start : start + size] for start in range(0, len(handshake), size)]
    return b"".join(b"\x16\x03\x01" + len(piece).to_bytes(2, "big") + piece for piece in pieces)


@given(PROTOCOLS, st.data())
def test_what_a_client_offers_is_known_exactly_when_its_hello_is_complete(
    protocols: list[str], data: st.DataObject
) -> None:
    hello = client_hello(protocols)
    assert offered_protocols(hello) == [protocol.encode() for protocol in protocols]
    cut = data.draw(st.integers(0, len(hello) - 1))
    assert offered_protocols(hello[:cut]) is None


@given(PROTOCOLS, st.integers(1, 100))
def test_a_hello_may_come_in_many_records(protocols: list[str], size: int) -> None:
    handshake = client_hello(protocols)[RECORD_HEADER_BYTES:]
    assert offered_protocols(in_records(handshake, size)) == [protocol.encode() for protocol in protocols]


@given(st.binary(max_size=200))
def test_other_bytes_are_incomplete_or_no_hello_or_an_empty_one(received: bytes) -> None:
    try:
        assert offered_protocols(received) in (None, [])
    except NotClientHelloError:
        return


@given(st.data())
def test_a_damaged_hello_breaks_nothing(data: st.DataObject) -> None:
    hello = bytearray(client_hello(["h2", "http/1.1"]))
    hello[data.draw(st.integers(0, len(hello) - 1))] = data.draw(st.integers(0, 255))
    try:
        offered_protocols(bytes(hello))
    except NotClientHelloError:
        return


@pytest.mark.parametrize(
    "received", [b"GET / HTTP/1.1\r\n", b"\x15\x03\x01\x00\x02\x02\x28", in_records(b"\x02\x00\x00\x00", 10)]
)
def test_what_is_not_a_hello_is_said_at_once(received: bytes) -> None:
    with pytest.raises(NotClientHelloError):
        offered_protocols(received)
