"""A TCP proxy that puts its server far away: every byte arrives later, at an undiminished rate."""

import asyncio
from typing import Self, cast


class Distance:
    """Forwards each connection to a server, `one_way` seconds later in either direction."""

    def __init__(self, host: str, port: int, one_way: float) -> None:
        self.port = 0
        """Where it listens, at 127.0.0.1."""
        self._server_address = (host, port)
        self._one_way = one_way
        self._server: asyncio.Server | None = None
        self._ends: set[_End] = set()

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: _Near(self._server_address, self._one_way, self._ends), "127.0.0.1", 0
        )
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        assert self._server is not None, "it was entered"
        self._server.close()
        ends = tuple(self._ends)
        for end in ends:
            end.cut()
        await asyncio.gather(*(end.gone for end in ends))
        await self._server.wait_closed()


class _End(asyncio.Protocol):
    """One end of a forwarded connection; what it receives leaves at its peer, later."""

    def __init__(self, one_way: float, ends: set["_End"]) -> None:
        self.peer: _End | None = None
        self.transport: asyncio.Transport | None = None
        self.gone = asyncio.get_running_loop().create_future()
        self._one_way = one_way
        self._ends = ends
        self._early: list[bytes] = []
        """What is to leave here before there is a connection."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Catch up on what has come meanwhile."""
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but its base
        self._ends.add(self)
        for data in self._early:
            self.transport.write(data)

    def data_received(self, data: bytes) -> None:
        """Let it leave at the peer, later. Timers of one delay run in the order of their making."""
        asyncio.get_running_loop().call_later(self._one_way, self._forward, data)

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002  # the library's signature
        """The peer learns of it as late as of all else."""
        self._ends.discard(self)
        self.gone.set_result(None)
        asyncio.get_running_loop().call_later(self._one_way, self._end_peer)

    def leave(self, data: bytes) -> None:
        """Send it from this end."""
        if self.transport is None:
            self._early.append(data)
        elif not self.transport.is_closing():
            self.transport.write(data)

    def cut(self) -> None:
        """End the connection at once."""
        if self.transport is not None:
            self.transport.abort()

    def _forward(self, data: bytes) -> None:
        assert self.peer is not None, "both ends know each other from the start"
        self.peer.leave(data)

    def _end_peer(self) -> None:
        if self.peer is not None and self.peer.transport is not None:
            self.peer.transport.close()


class _Near(_End):
    """The client's end, which connects to the server as far away as all else is."""

    def __init__(self, server: tuple[str, int], one_way: float, ends: set[_End]) -> None:
        super().__init__(one_way, ends)
        self._server = server
        self._connecting: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connect to the server."""
        super().connection_made(transport)
        self.peer = _End(self._one_way, self._ends)
        self.peer.peer = self
        self._connecting = asyncio.get_running_loop().create_task(self._connect(self.peer))

    async def _connect(self, far: _End) -> None:
        try:
            await asyncio.get_running_loop().create_connection(lambda: far, *self._server)
        except OSError:
            self.cut()
