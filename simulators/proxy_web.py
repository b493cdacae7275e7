"""The part of a Teleport proxy's web server that clients need: what cluster is this, and the connection upgrade."""

import asyncio
import json
import ssl
import tempfile
from asyncio import StreamReader, StreamWriter
from collections.abc import Callable, Sequence
from contextlib import closing
from http import HTTPStatus
from pathlib import Path
from typing import Any

from websockets.datastructures import Headers
from websockets.http11 import Request, Response
from websockets.protocol import State
from websockets.server import ServerProtocol

from simulators.certificates import ClusterAuthority, KeyPair
from simulators.tunnel import CHUNK_BYTES, End
from simulators.upgrade import SUBPROTOCOL, Heartbeat, carry_frames

DISCOVERY = ("/webapi/find", "/webapi/ping")
UPGRADE = "/webapi/connectionupgrade"

Visit = Callable[[StreamReader, StreamWriter], None]


class ProxyWeb:
    """Answers HTTP/1.1 over TLS with the web certificate, one request per connection."""

    def __init__(self, authority: ClusterAuthority, visit: Visit) -> None:
        """`visit` is given what arrives through a connection upgrade, as if it had come by itself."""
        self.answer: dict[str, Any] = {}
        self.upgrades = 0
        """How many connections have been upgraded."""
        self.heartbeat = Heartbeat()
        """Of what has been upgraded."""
        self.offers_upgrade = True
        self._authority = authority
        self._visit = visit
        self._server: asyncio.Server | None = None

    @property
    def port(self) -> int:
        """Where it listens on 127.0.0.1."""
        assert self._server is not None, "the server was not started"
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def start(self, public_address: str) -> None:
        """Listen on a free port and tell clients that the proxy is at `public_address`."""
        self.answer = description(self._authority.cluster_name, public_address)
        context = tls_context(self._authority.web_certificate(), ["http/1.1"])
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=context)

    async def stop(self) -> None:
        """Stop listening."""
        assert self._server is not None, "the server was not started"
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        with closing(writer):
            protocol = ServerProtocol(subprotocols=[SUBPROTOCOL], max_size=None)
            request = await _request(protocol, reader)
            if request is None:
                return  # not a request; the client finds the connection closed
            protocol.send_response(self._respond(protocol, request))
            writer.write(b"".join(protocol.data_to_send()))
            if protocol.state is State.OPEN:
                self.upgrades += 1
                await carry_frames(protocol, End(reader, writer), self._visit, self.heartbeat)

    def _respond(self, protocol: ServerProtocol, request: Request) -> Response:
        path = request.path.partition("?")[0]
        if path in DISCOVERY:
            return _json(HTTPStatus.OK, self.answer)
        # Teleport asks for the header's whole value: a list joined by commas matches nothing.
        if path == UPGRADE and self.offers_upgrade and request.headers.get_all("Upgrade") == ["websocket"]:
            return protocol.accept(request)
        return _json(HTTPStatus.NOT_FOUND, {"error": {"message": f"GET {request.path} not found"}})


async def _request(protocol: ServerProtocol, reader: StreamReader) -> Request | None:
    while protocol.handshake_exc is None:
        for event in protocol.events_received():
            if isinstance(event, Request):
                return event
        try:
            chunk = await reader.read(CHUNK_BYTES)
        except ConnectionError:
            return None
        if not chunk:
            return None
        protocol.receive_data(chunk)
    return None


def description(cluster_name: str, public_address: str) -> dict[str, Any]:
    """Return the JSON of a v18 proxy on which everything goes over one port."""
    ssh = {"listen_addr": public_address, "web_listen_addr": public_address, "public_addr": public_address}
    return {
        "auth": {"type": "local"},
        "proxy": {
            "kube": {"enabled": False},
            "ssh": ssh | {"dial_timeout": 30_000_000_000},
            "db": {},
            "tls_routing_enabled": True,
        },
        "server_version": "18.2.8",
        "min_client_version": "17.0.0-aa",
        "cluster_name": cluster_name,
        "auto_update": {},
        "automatic_upgrades": False,
        "edition": "ent",
        "fips": False,
    }


def _json(status: HTTPStatus, content: dict[str, Any]) -> Response:
    body = json.dumps(content).encode()
    headers = Headers(Connection="close")
    headers["Content-Type"] = "application/json"
    headers["Content-Length"] = str(len(body))
    return Response(status.value, status.phrase, headers, body)


def tls_context(pair: KeyPair, protocols: Sequence[str]) -> ssl.SSLContext:
    """A TLS server's, with this certificate and ALPN; without protocols it answers no ALPN at all."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if protocols:
        context.set_alpn_protocols(protocols)
    # The ssl module reads certificates from files only.
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "web.pem"
        path.touch(mode=0o600)
        path.write_bytes(pair.key + pair.certificate)
        context.load_cert_chain(path)
    return context
