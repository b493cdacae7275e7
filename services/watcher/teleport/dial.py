"""From a route to a TLS connection with the Auth Service: past an HTTP proxy, through an upgrade, as the route says."""

import asyncio
import errno
import os
import re
import socket
import ssl
from asyncio import StreamReader, StreamWriter
from dataclasses import dataclass
from pathlib import Path

from services.watcher.teleport.http_proxy import HttpProxy, Refusal, authority, connect_through
from services.watcher.teleport.identity import Identity
from services.watcher.teleport.upgrade import Upgrade

SERVER_NAME = "teleport.cluster.local"
"""The name that every Auth Service's certificate carries, whatever its address."""

DIAL_SECONDS = 10

CHUNK_BYTES = 64 * 1024

KEEPALIVE = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 15_000),
)
"""A peer that answers nothing for 15 s is dead, whether we wait for it or have sent it something (tcp(7))."""


@dataclass(frozen=True)
class Route:
    """One way to reach the Auth Service."""

    name: str
    """For people: `direct`."""
    host: str
    port: int
    alpn: tuple[str, ...]
    http_proxy: HttpProxy | None = None
    """Through which the connection is made."""
    is_upgraded: bool = False
    """Does TLS to the Auth Service run inside Teleport's connection upgrade?"""

    def __str__(self) -> str:
        by = f" by way of the HTTP proxy {self.http_proxy}" if self.http_proxy else ""
        return f"{self.name} to {authority(self.host, self.port)}{by}"


@dataclass(frozen=True, eq=False)
class Line:
    """A TLS connection with the Auth Service."""

    reader: StreamReader
    writer: StreamWriter
    upgrade: Upgrade | None

    @property
    def failure(self) -> Exception | None:
        """Why it ended; None: it stands, or was closed without a word."""
        return (self.upgrade.failure if self.upgrade else None) or self.reader.exception()

    @property
    def has_ended(self) -> bool:
        """Is there no connection any more?"""
        return self.writer.is_closing()

    async def close(self) -> None:
        """End it at once."""
        self.writer.transport.abort()
        if self.upgrade:
            await self.upgrade.close()


async def dial(route: Route, identity: Identity, folder: Path) -> Line:
    """Connect, and verify that the server is one of the identity's cluster; `folder` is private and empty.

    Raises `OSError` if it is not (`ssl.SSLError`), somebody on the way says no (`Refusal`) or nobody answers. With
    TLS 1.3 a server that refuses *our* certificate says so only later: that it is accepted is proved by a call.
    """
    context = _auth_context(identity, route, folder)
    try:
        async with asyncio.timeout(DIAL_SECONDS):
            return await _dial(route, context, identity)
    except TimeoutError as error:
        raise TimeoutError(errno.ETIMEDOUT, f"no answer within {DIAL_SECONDS} s") from error


async def _dial(route: Route, context: ssl.SSLContext, identity: Identity) -> Line:
    reader, writer = await _reach(route)
    upgrade = None
    try:
        if route.is_upgraded:
            await _start_web_tls(writer, identity, route.host)
            upgrade = await Upgrade.open(route.host, route.port, reader, writer)
            reader, writer = await asyncio.open_connection(sock=upgrade.socket, limit=CHUNK_BYTES)
        await writer.start_tls(context, server_hostname=SERVER_NAME)
        _insist_on_http2(writer)
    except BaseException:
        await Line(reader, writer, upgrade).close()
        raise
    return Line(reader, writer, upgrade)


def _insist_on_http2(writer: StreamWriter) -> None:
    if writer.get_extra_info("ssl_object").selected_alpn_protocol() != "h2":
        raise ConnectionError(errno.EPROTO, "the server does not offer HTTP/2; something in between ends TLS")


async def _reach(route: Route) -> tuple[StreamReader, StreamWriter]:
    """A connection with `route.host`, on which nothing was said yet."""
    proxy = route.http_proxy
    host, port = (proxy.host, proxy.port) if proxy else (route.host, route.port)
    reader, writer = await asyncio.open_connection(host, port, limit=CHUNK_BYTES)
    try:
        for level, option, value in KEEPALIVE:
            writer.get_extra_info("socket").setsockopt(level, option, value)
        if proxy:
            await connect_through(proxy, route.host, route.port, reader, writer)
    except BaseException:
        writer.transport.abort()
        raise
    return reader, writer


async def _start_web_tls(writer: StreamWriter, identity: Identity, host: str) -> None:
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    # What this host trusts, or the cluster itself, whose CA some proxies use for the web too.
    context.load_verify_locations(cadata=identity.authorities.decode())
    try:
        await writer.start_tls(context, server_hostname=host)
    except ssl.SSLCertVerificationError as error:
        raise Refusal(
            f"this host does not trust the web certificate of {host} ({error.verify_message}); name a file with its CA"
            " in SSL_CERT_FILE"
        ) from error


def _auth_context(identity: Identity, route: Route, folder: Path) -> ssl.SSLContext:
    """Trust the identity's CAs and nothing else, whatever this host trusts."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(list(route.alpn))
    context.load_verify_locations(cadata=identity.authorities.decode())
    # OpenSSL takes a client certificate from files only.
    path = folder / "identity"
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(identity.key + identity.certificates)
        context.load_cert_chain(path)
    finally:
        path.unlink(missing_ok=True)
    return context


def is_refusal(error: Exception) -> bool:
    """Is this a no that waiting does not turn into a yes?"""
    is_alert = isinstance(error, ssl.SSLError) and "ALERT" in str(error.reason)
    return is_alert or isinstance(error, Refusal | ssl.SSLCertVerificationError)


def describe(error: Exception) -> str:
    """What an error of the connection means, in words: asyncio's own name sockets instead of the trouble."""
    match error:
        case ssl.SSLCertVerificationError():
            return f"the server's certificate is not of the identity's cluster ({error.verify_message})"
        case ssl.SSLError(reason=str(reason)) if "ALERT" in reason:
            return f"the server refused our certificate or protocol ({reason.replace('_', ' ').lower()})"
        case ssl.SSLError():
            return f"TLS failed ({error.reason or error})"
        case OSError():
            return _in_words(error)
        case _:
            return str(error) or type(error).__name__


def _in_words(error: OSError) -> str:
    if error.errno is not None and str(error.strerror).startswith("Connect call failed"):
        return os.strerror(error.errno)
    # A name with several addresses: asyncio tells what came of each, as text alone.
    numbers = re.findall(r"\[Errno (\d+)\]", str(error)) if str(error).startswith("Multiple exceptions") else []
    return ", ".join(dict.fromkeys(os.strerror(int(number)) for number in numbers)) or error.strerror or str(error)
