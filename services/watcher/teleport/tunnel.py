"""A private Unix socket in front of a TLS connection that we make ourselves: the one way to Teleport.

gRPC for Python cannot choose its ALPN, which Teleport's TLS routing needs, and takes minutes to notice a dead peer.
"""

import asyncio
import os
import shutil
import socket
import struct
import tempfile
from pathlib import Path
from typing import Self

from services.watcher.teleport.carrier import CHUNK_BYTES, copy
from services.watcher.teleport.dial import Route, dial
from services.watcher.teleport.identity import Identity
from services.watcher.teleport.reach import Line
from shared.tasks import end

CREDENTIALS = struct.Struct("3i")
"""What SO_PEERCRED tells of a Unix socket's other end (unix(7)): process, user, group."""


class Tunnel:
    """One TLS connection to the Auth Service, and the Unix socket through which our own gRPC may use it, once."""

    def __init__(self, line: Line, folder: Path) -> None:
        self._line = line
        self._folder = folder
        self._listener: asyncio.Server | None = None
        self._near_writer: asyncio.StreamWriter | None = None
        self._carrying: asyncio.Task[None] | None = None

    @classmethod
    async def open(cls, route: Route, identity: Identity) -> Self:
        """Connect, and verify that the server is one of the identity's cluster. Raises `OSError`, as `dial`."""
        # mkdtemp's folder is ours alone (0700): whoever can connect to the socket has our identity.
        folder = Path(tempfile.mkdtemp(prefix="access-mail-"))
        try:
            line = await dial(route, identity, folder)
        except BaseException:
            shutil.rmtree(folder)
            raise
        tunnel = cls(line, folder)
        try:
            tunnel._listener = await asyncio.start_unix_server(tunnel._accept, tunnel.socket, limit=CHUNK_BYTES)
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
        return self._line.failure

    @property
    def has_ended(self) -> bool:
        """Is there no connection to Teleport any more?"""
        return self._line.has_ended

    async def close(self) -> None:
        """End both connections and leave nothing behind."""
        if self._near_writer is None or self._carrying is None:
            self._remove_socket()
        else:
            # Here as well as at the end of `_carry`: a task that is cancelled before its first step does nothing.
            self._near_writer.transport.abort()
            await end([self._carrying])
        await self._line.close()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._near_writer or self.has_ended or not _is_ours(writer.get_extra_info("socket")):
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
            asyncio.create_task(copy(self._line.reader, writer)),
            asyncio.create_task(copy(reader, self._line.writer)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            # At once: whoever closes us while the ways end cuts this short.
            self._line.writer.transport.abort()
            writer.transport.abort()
            await end(ways)  # how each ended says less than `failure`, which the line keeps


def _is_ours(near: socket.socket) -> bool:
    """Is our own process at the other end? The folder keeps other users away, not our user's other processes."""
    process, _, _ = CREDENTIALS.unpack(near.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size))
    return bool(process == os.getpid())
