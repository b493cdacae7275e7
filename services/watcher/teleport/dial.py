"""From a route to a TLS connection with the Auth Service: past a forward proxy, through an upgrade, as it says."""

import asyncio
import errno
import os
import ssl
from asyncio import StreamWriter
from dataclasses import dataclass
from pathlib import Path

from services.watcher.teleport.forward_proxy import ForwardProxy, Refusal, authority
from services.watcher.teleport.identity import Identity
from services.watcher.teleport.reach import Line, in_words, reach
from services.watcher.teleport.upgrade import Upgrade

SERVER_NAME = "teleport.cluster.local"
"""The name that every Auth Service's certificate carries, whatever its address."""

DIAL_SECONDS = 10


@dataclass(frozen=True)
class Route:
    """One way to reach the Auth Service."""

    name: str
    """For people: `direct`."""
    host: str
    port: int
    alpn: tuple[str, ...]
    by: ForwardProxy | None = None
    """Through which the connection is made."""
    is_upgraded: bool = False
    """Does TLS to the Auth Service run inside Teleport's connection upgrade?"""

    def __str__(self) -> str:
        return f"{self.name} to {self.place}"

    @property
    def place(self) -> str:
        """Where it leads, whichever it is of the routes there."""
        by = f" by way of the proxy {self.by}" if self.by else ""
        return f"{authority(self.host, self.port)}{by}"


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
        who = f", neither of the proxy {route.by} nor of what is behind it" if route.by else ""
        raise TimeoutError(errno.ETIMEDOUT, f"no answer within {DIAL_SECONDS} s{who}") from error


async def _dial(route: Route, context: ssl.SSLContext, identity: Identity) -> Line:
    line = await reach(route.host, route.port, route.by)
    try:
        if route.is_upgraded:
            await _start_web_tls(line.writer, identity, route.host)
            line = await line.carried(await Upgrade.open(route.host, route.port, line.reader, line.writer))
        await line.writer.start_tls(context, server_hostname=SERVER_NAME)
        _insist_on_http2(line.writer)
    except BaseException:
        await line.close()
        raise
    return line


def _insist_on_http2(writer: StreamWriter) -> None:
    if writer.get_extra_info("ssl_object").selected_alpn_protocol() != "h2":
        raise ConnectionError(errno.EPROTO, "the server does not offer HTTP/2; something in between ends TLS")


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
            return in_words(error)
        case _:
            return str(error) or type(error).__name__
