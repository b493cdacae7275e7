"""From a host and port to a connection on which nothing was said yet, past a forward proxy where there is one."""

import asyncio
import base64
import errno
import os
import re
import socket
import ssl
from asyncio import StreamReader, StreamWriter
from dataclasses import dataclass
from http import HTTPStatus

import h11
from python_socks import ProxyConnectionError, ProxyError, ProxyType
from python_socks.async_.asyncio.v2 import Proxy

from services.watcher.teleport.carrier import CHUNK_BYTES, Carrier
from services.watcher.teleport.forward_proxy import ForwardProxy, Refusal, authority
from services.watcher.teleport.http_exchange import HttpExchange

KEEPALIVE = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 15_000),
)
"""A peer that answers nothing for 15 s is dead, whether we wait for it or have sent it something (tcp(7))."""

SOCKS_MAY_PASS = frozenset({1, 3, 4, 5, 6})
"""Replies that speak of the network and of what is behind the proxy, not of its rules (RFC 1928, 6)."""


@dataclass(frozen=True, eq=False)
class Line:
    """A connection, and what it is carried by."""

    reader: StreamReader
    writer: StreamWriter
    carriers: tuple[Carrier, ...] = ()
    """The outermost first."""

    @property
    def failure(self) -> Exception | None:
        """Why it ended; None: it stands, or was closed without a word."""
        failures = (carrier.failure for carrier in self.carriers)
        return next((failure for failure in failures if failure), None) or self.reader.exception()

    @property
    def has_ended(self) -> bool:
        """Is there no connection any more?"""
        return self.writer.is_closing()

    async def carried(self, carrier: Carrier) -> "Line":
        """Give the line in its place that this carrier, which has it now, carries."""
        try:
            reader, writer = await asyncio.open_connection(sock=carrier.socket, limit=CHUNK_BYTES)
        except BaseException:
            await carrier.close()
            raise
        return Line(reader, writer, (*self.carriers, carrier))

    async def close(self) -> None:
        """End it at once."""
        self.writer.transport.abort()
        for carrier in reversed(self.carriers):
            await carrier.close()


async def reach(host: str, port: int, by: ForwardProxy | None) -> Line:
    """Connect to `host`, or let the proxy do so, which resolves its name itself.

    Sets no deadline. Raises `Refusal` if the proxy says no, `OSError` if somebody does not answer.
    """
    if by is None:
        return _watched(*await asyncio.open_connection(host, port, limit=CHUNK_BYTES))
    if by.speaks_socks:
        return await _through_socks(by, host, port)
    return await _through_http(by, host, port)


def _watched(reader: StreamReader, writer: StreamWriter) -> Line:
    for level, option, value in KEEPALIVE:
        writer.get_extra_info("socket").setsockopt(level, option, value)
    return Line(reader, writer)


async def _through_http(by: ForwardProxy, host: str, port: int) -> Line:
    line = await _open(by)
    try:
        await _lead_on(by, host, port, HttpExchange(line.reader, line.writer))
        if by.scheme == "https":
            # TLS within TLS: asyncio has it since Python 3.11, but falls over a failed handshake before 3.12.
            carrier = Carrier(line.reader, line.writer)
            carrier.begin()
            line = await line.carried(carrier)
    except BaseException:
        await line.close()
        raise
    return line


async def _open(by: ForwardProxy) -> Line:
    """Connect to an HTTP proxy, by TLS if it is to be spoken to so: verified as this host verifies web servers."""
    context = ssl.create_default_context() if by.scheme == "https" else None
    try:
        return _watched(*await asyncio.open_connection(by.host, by.port, limit=CHUNK_BYTES, ssl=context))
    except ssl.SSLCertVerificationError as error:
        raise Refusal(
            f"this host does not trust the certificate of the proxy {by}: {error.verify_message};"
            " name a file with its CA in SSL_CERT_FILE"
        ) from error
    except ssl.SSLError as error:
        raise Refusal(f"TLS with the proxy {by} failed ({error.reason}); is http:// meant?") from error
    except OSError as error:
        raise _unreachable(by, error) from error


def _unreachable(by: ForwardProxy, error: OSError) -> ConnectionError:
    return ConnectionError(error.errno or errno.ECONNREFUSED, f"the proxy {by} cannot be reached: {in_words(error)}")


async def _lead_on(by: ForwardProxy, host: str, port: int, exchange: HttpExchange) -> None:
    """Ask the proxy to lead this connection on (RFC 9110, 9.3.6)."""
    target = authority(host, port)
    credentials = []
    if by.user:
        basic = base64.b64encode(f"{by.user}:{by.password}".encode()).decode()
        credentials.append(("Proxy-Authorization", f"Basic {basic}"))
    try:
        status, reason = await exchange.ask("CONNECT", target, host, port, credentials)
    except h11.RemoteProtocolError as error:
        raise Refusal(f"the proxy {by} answers CONNECT with something else than HTTP") from error
    except ConnectionError as error:
        raise _unreachable(by, error) from error
    if status in range(200, 300):
        return
    text = f"the proxy {by} does not lead on to {target}: {status} {reason}"
    if status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED:
        raise Refusal(f"{text}; {_credentials_wanted(by)}")
    if status < HTTPStatus.INTERNAL_SERVER_ERROR:
        raise Refusal(f"{text}; it must allow CONNECT to there")
    # What is behind the proxy may be back in a moment.
    raise ConnectionError(errno.ECONNREFUSED, text)


def _credentials_wanted(by: ForwardProxy) -> str:
    return f"write {'other' if by.user else 'its'} credentials into {by.variable}: {by.scheme}://USER:PASSWORD@HOST"


async def _through_socks(by: ForwardProxy, host: str, port: int) -> Line:
    try:
        proxy = Proxy(ProxyType.SOCKS5, by.host, by.port, by.user, by.password, rdns=True)
        stream = await proxy.connect(host, port)
    except ProxyConnectionError as error:
        raise _unreachable(by, error.__cause__ if isinstance(error.__cause__, OSError) else error) from error
    except EOFError as error:
        raise ConnectionError(
            errno.ECONNRESET, f"the proxy {by} closed the connection; is it one for SOCKS?"
        ) from error
    except ProxyError as error:
        text = f"the proxy {by} does not lead on to {authority(host, port)}: {error}"
        if error.error_code in SOCKS_MAY_PASS:
            raise ConnectionError(errno.ECONNREFUSED, text) from error
        # Of what went wrong before the request the library has a text alone.
        advice = _credentials_wanted(by) if "authentication" in str(error) else "it must allow connections to there"
        raise Refusal(f"{text}; {advice}") from error
    return _watched(stream.reader, stream.writer)


def in_words(error: OSError) -> str:
    """What an error of a connection means: asyncio's own texts name sockets instead of the trouble."""
    if error.errno is not None and str(error.strerror).startswith("Connect call failed"):
        return os.strerror(error.errno)
    # A name with several addresses: asyncio tells what came of each, as text alone.
    numbers = re.findall(r"\[Errno (\d+)\]", str(error)) if str(error).startswith("Multiple exceptions") else []
    told = ", ".join(dict.fromkeys(os.strerror(int(number)) for number in numbers)) or error.strerror or str(error)
    return told or "the connection was closed"  # of which asyncio says nothing during a TLS handshake
