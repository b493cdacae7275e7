"""A private Unix socket in front of a TLS connection that we make ourselves: the one way to Teleport.

gRPC for Python cannot choose its ALPN, which Teleport's TLS routing needs, and takes minutes to notice a dead peer.
"""

import asyncio
import errno
import os
import shutil
import socket
import ssl
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from services.watcher.teleport.identity import Identity

SERVER_NAME = "teleport.cluster.local"
"""The name that every Auth Service's certificate carries, whatever its address."""

DIAL_SECONDS = 30
"""As Teleport's own client."""

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

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.name} to {host}:{self.port}"


class Tunnel:
    """One TLS connection to the Auth Service, and the Unix socket through which gRPC may use it, once."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, folder: Path) -> None:
        self._far_reader = reader
        self._far_writer = writer
        self._folder = folder
        self._listener: asyncio.Server | None = None
        self._near_writer: asyncio.StreamWriter | None = None
        self._carrying: asyncio.Task[None] | None = None

    @classmethod
    async def open(cls, route: Route, identity: Identity) -> Self:
        """Connect, and verify that the server is one of the identity's cluster.

        Raises `OSError` if it is not (`ssl.SSLError`) or nobody answers. With TLS 1.3 a server that refuses *our*
        certificate says so only later: that it is accepted is proved by a call, not by the handshake.
        """
        # mkdtemp's folder is ours alone (0700): whoever can connect to the socket has our identity.
        folder = Path(tempfile.mkdtemp(prefix="access-mail-"))
        try:
            reader, writer = await _dial(route, _tls_context(identity, route.alpn, folder))
        except BaseException:
            shutil.rmtree(folder)
            raise
        tunnel = cls(reader, writer, folder)
        try:
            tunnel._listener = await asyncio.start_unix_server(tunnel._accept, tunnel.socket)
        except BaseException:
            await tunnel.close()
            raise
        return tunnel

    @property
    def socket(self) -> Path:
        """Where gRPC connects to."""
        return self._folder / "grpc"

    @property
    def failure(self) -> Exception | None:
        """Why the connection to Teleport ended, of which gRPC learns nothing; None: it stands, or just ended."""
        return self._far_reader.exception()

    @property
    def has_ended(self) -> bool:
        """Is there no connection to Teleport any more?"""
        return self._far_writer.is_closing()

    async def close(self) -> None:
        """End both connections and leave nothing behind."""
        self._far_writer.transport.abort()
        if self._near_writer is None or self._carrying is None:
            self._remove_socket()
            return
        # Here as well as at the end of `_carry`: a task that is cancelled before its first step does nothing.
        self._near_writer.transport.abort()
        self._carrying.cancel()
        await asyncio.wait([self._carrying])

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._near_writer or self.has_ended:
            writer.transport.abort()
            return
        # Once is enough: after an end gRPC tries in vain to connect again, and our owner makes a new tunnel.
        self._remove_socket()
        self._near_writer = writer
        self._carrying = asyncio.create_task(self._carry(reader, writer))

    def _remove_socket(self) -> None:
        if self._listener:
            self._listener.close()
        shutil.rmtree(self._folder)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry bytes both ways until either side ends; then end both."""
        ways = [
            asyncio.create_task(_copy(self._far_reader, writer)),
            asyncio.create_task(_copy(reader, self._far_writer)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            # How each way ended says less than `failure`, which the far side's reader keeps.
            await asyncio.gather(*ways, return_exceptions=True)
            self._far_writer.transport.abort()
            writer.transport.abort()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy until the end. What the receiving side cannot take yet is not read from the other."""
    while chunk := await reader.read(CHUNK_BYTES):
        writer.write(chunk)
        await writer.drain()


async def _dial(route: Route, context: ssl.SSLContext) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    try:
        async with asyncio.timeout(DIAL_SECONDS):
            reader, writer = await asyncio.open_connection(
                route.host, route.port, ssl=context, server_hostname=SERVER_NAME, limit=CHUNK_BYTES
            )
    except TimeoutError as error:
        raise TimeoutError(errno.ETIMEDOUT, f"no answer within {DIAL_SECONDS} s") from error
    for level, option, value in KEEPALIVE:
        writer.get_extra_info("socket").setsockopt(level, option, value)
    if writer.get_extra_info("ssl_object").selected_alpn_protocol() != "h2":
        writer.transport.abort()
        raise ConnectionError(errno.EPROTO, "the server does not offer HTTP/2; something in between ends TLS")
    return reader, writer


def _tls_context(identity: Identity, alpn: Sequence[str], folder: Path) -> ssl.SSLContext:
    """Trust the identity's CAs and nothing else, whatever this host trusts."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(list(alpn))
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


def describe(error: Exception) -> str:
    """What an error of the connection means, in words: asyncio's own name sockets instead of the trouble."""
    match error:
        case ssl.SSLCertVerificationError():
            return f"the server's certificate is not of the identity's cluster ({error.verify_message})"
        case ssl.SSLError(reason=str(reason)) if "ALERT" in reason:
            return f"the server refused our certificate or protocol ({reason.replace('_', ' ').lower()})"
        case ssl.SSLError():
            return f"TLS failed ({error.reason or error})"
        case OSError(errno=int(number)) if str(error.strerror).startswith("Connect call failed"):
            return os.strerror(number)
        case OSError(strerror=str(text)):
            return text
        case _:
            return str(error) or type(error).__name__
