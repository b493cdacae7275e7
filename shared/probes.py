"""What a service tells over HTTP: /metrics for Prometheus, /healthz and /readyz for whoever restarts and routes."""

import logging
import socket
import sys
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from types import TracebackType
from typing import Any, Self

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from shared.mail import one_line
from shared.settings import ProbeSettings, SettingsError

log = logging.getLogger(__name__)

Probe = Callable[[], str | None]
"""None: all is well; otherwise the reason. Called in the server's threads."""

CLIENT_SECONDS = 5.0
"""A client that says nothing for so long is hung up on."""

LONGEST_REASON = 500


class Probes:
    """An HTTP server in threads of its own, from the making until `close`."""

    def __init__(self, settings: ProbeSettings, registry: CollectorRegistry, live: Probe, ready: Probe) -> None:
        """Listen. Raises `SettingsError` if the port cannot be had."""
        try:
            self._server = _Server(settings.host, settings.port, _handler(registry, live, ready))
        except OSError as error:
            where = f"{settings.host} port {settings.port}"
            fault = f"probes: cannot listen on {where} ({error.strerror}); choose another port, or 0 for any free one"
            raise SettingsError([fault]) from error
        self._thread = Thread(target=self._server.serve_forever, name="probes", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        """`http://host:port`."""
        host = str(self._server.server_address[0])
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    def close(self) -> None:
        """Stop listening; answers under way are finished or cut with the process."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, host: str, port: int, handler: type[BaseHTTPRequestHandler]) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, port), handler)

    def server_bind(self) -> None:
        """Without HTTPServer's look-up of our own host name, which may take seconds."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - the base class's signature
        """A client that hangs up in the middle is no news; a metric that cannot be read is."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            log.error("probe not answered", exc_info=error)


def _handler(registry: CollectorRegistry, live: Probe, ready: Probe) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = CLIENT_SECONDS

        def do_GET(self) -> None:
            match self.path.partition("?")[0]:
                case "/metrics":
                    encode, kind = choose_encoder(self.headers.get("Accept", ""))
                    self._answer(HTTPStatus.OK, kind, encode(registry))
                case "/healthz":
                    self._probe(live)
                case "/readyz":
                    self._probe(ready)
                case _:
                    self._text(HTTPStatus.NOT_FOUND, "here are /metrics, /healthz and /readyz")

        def _probe(self, probe: Probe) -> None:
            reason = probe()
            if reason is None:
                self._text(HTTPStatus.OK, "ok")
            else:
                self._text(HTTPStatus.SERVICE_UNAVAILABLE, one_line(reason, LONGEST_REASON))

        def _text(self, status: HTTPStatus, text: str) -> None:
            self._answer(status, "text/plain; charset=utf-8", f"{text}\n".encode(errors="replace"))

        def _answer(self, status: HTTPStatus, kind: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nothing: a line for each probe would drown the log."""

    return Handler
