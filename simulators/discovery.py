"""The part of a Teleport proxy's web server that clients ask first: which cluster is this, and how is it reached?"""

import asyncio
import json
import ssl
import tempfile
from asyncio import IncompleteReadError, LimitOverrunError, StreamReader, StreamWriter
from contextlib import closing
from http import HTTPStatus
from pathlib import Path
from typing import Any

from simulators.certificates import ClusterAuthority, KeyPair

PATHS = ("/webapi/find", "/webapi/ping")


class DiscoveryServer:
    """Answers HTTP/1.1 over TLS with the web certificate, one request per connection."""

    def __init__(self, authority: ClusterAuthority) -> None:
        self.answer: dict[str, Any] = {}
        self._authority = authority
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
        context = _web_context(self._authority.web_certificate())
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=context)

    async def stop(self) -> None:
        """Stop listening."""
        assert self._server is not None, "the server was not started"
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        with closing(writer):
            try:
                head = await reader.readuntil(b"\r\n\r\n")
            except (IncompleteReadError, LimitOverrunError, ConnectionError):
                return  # not a request; the client finds the connection closed
            writer.write(self._respond(head))

    def _respond(self, head: bytes) -> bytes:
        method, target, *_ = [*head.split(b"\r\n", 1)[0].decode("latin-1").split(" "), "", ""]
        if method == "GET" and target.partition("?")[0] in PATHS:
            return _response(HTTPStatus.OK, self.answer)
        return _response(HTTPStatus.NOT_FOUND, {"error": {"message": f"{method} {target} not found"}})


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


def _response(status: HTTPStatus, content: dict[str, Any]) -> bytes:
    body = json.dumps(content).encode()
    lines = [
        f"HTTP/1.1 {status.value} {status.phrase}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        "Connection: close",
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body


def _web_context(pair: KeyPair) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["http/1.1"])
    # The ssl module reads certificates from files only.
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "web.pem"
        path.touch(mode=0o600)
        path.write_bytes(pair.key + pair.certificate)
        context.load_cert_chain(path)
    return context
