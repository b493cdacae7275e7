"""Teleport's connection upgrade: a TLS stream in WebSocket frames, past load balancers that end TLS and strip ALPN."""

import errno
import logging
from asyncio import StreamReader, StreamWriter
from http import HTTPStatus
from typing import Self

from websockets.client import ClientProtocol
from websockets.exceptions import InvalidStatus
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.protocol import State
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

from services.watcher.teleport.carrier import CHUNK_BYTES, Carrier
from services.watcher.teleport.forward_proxy import Refusal, authority

PATH = "/webapi/connectionupgrade"
SUBPROTOCOL = Subprotocol("alpn")

frames_log = logging.getLogger(f"{__name__}.frames")
frames_log.setLevel(logging.INFO)  # --debug is not for every frame


class Upgrade(Carrier):
    """Carries what is written to `socket` in binary frames to the proxy, and back."""

    def __init__(self, protocol: ClientProtocol, reader: StreamReader, writer: StreamWriter) -> None:
        super().__init__(reader, writer)
        self._protocol = protocol

    @classmethod
    async def open(cls, host: str, port: int, reader: StreamReader, writer: StreamWriter) -> Self:
        """Ask the proxy at the other end of this connection for the upgrade.

        Raises `Refusal` if it is none that offers it, `ConnectionError`.
        """
        uri = parse_uri(f"wss://{authority(host, port)}{PATH}")
        protocol = ClientProtocol(uri, subprotocols=[SUBPROTOCOL], max_size=None, logger=frames_log)
        protocol.send_request(protocol.connect())
        upgrade = cls(protocol, reader, writer)
        try:
            await upgrade._shake_hands()
            upgrade.begin()
        except BaseException:
            await upgrade.close()
            raise
        return upgrade

    async def _shake_hands(self) -> None:
        await self._flush()
        while not any(isinstance(event, Response) for event in self._protocol.events_received()):
            if self._protocol.handshake_exc is not None:
                break
            chunk = await self._reader.read(CHUNK_BYTES)
            if not chunk:
                raise ConnectionError(errno.ECONNRESET, "the server closed the connection in place of upgrading it")
            self._protocol.receive_data(chunk)
        match self._protocol.handshake_exc:
            case InvalidStatus(response=response) if response.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR:
                # A load balancer's word for a proxy that is away, which may be back in a moment.
                raise ConnectionError(errno.ECONNREFUSED, f"the server is not able to (HTTP {response.status_code})")
            case InvalidStatus(response=response):
                raise Refusal(f"the server offers no connection upgrade (HTTP {response.status_code})")
            case Exception() as error:
                raise Refusal(f"the server does not answer the connection upgrade as it should ({error})")
        if self._protocol.subprotocol != SUBPROTOCOL:
            raise Refusal(f"the server upgrades the connection, but not to {SUBPROTOCOL}")

    async def _carry_out(self, inner: StreamReader) -> None:
        # The proxy reads only whole frames (Teleport drops continuations): one frame a chunk.
        while chunk := await inner.read(CHUNK_BYTES):
            self._protocol.send_binary(chunk)
            await self._flush()

    async def _carry_in(self, inner: StreamWriter) -> None:
        while self._protocol.state is State.OPEN and (chunk := await self._reader.read(CHUNK_BYTES)):
            self._protocol.receive_data(chunk)
            for event in self._protocol.events_received():
                if isinstance(event, Frame) and event.opcode in (Opcode.BINARY, Opcode.CONT):
                    inner.write(event.data)
            await self._flush()  # answers to pings and closes
            await inner.drain()

    async def _flush(self) -> None:
        for chunk in self._protocol.data_to_send():
            if chunk:  # an empty one says that the connection may be closed, which its owner does
                self._writer.write(chunk)
        await self._writer.drain()
