"""An HTTP server in threads that leaves neither connection nor thread behind when it stops."""

import socket
import ssl
import sys
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Any, Self


class WebServer(ThreadingHTTPServer):
    """Listens from its construction on, and serves as long as the `with` block lasts."""

    daemon_threads = False
    request_queue_size = 128

    def __init__(
        self, host: str, port: int, handler: type[BaseHTTPRequestHandler], tls: ssl.SSLContext | None = None
    ) -> None:
        super().__init__((host, port), handler)
        if tls is not None:  # shaking hands in the connection's own thread
            self.socket = tls.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
        self.url = f"{'http' if tls is None else 'https'}://{host}:{self.server_port}"
        self.connections = 0
        """How many connections there have been."""
        self.closing = Event()
        self.open: dict[Any, int] = {}
        """The number of each connection that is open, from 1."""
        self._thread = Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, name="web server")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self.shutdown()
        self._thread.join()
        for connection in tuple(self.open):
            with suppress(OSError):  # the peer was faster
                connection.shutdown(socket.SHUT_RDWR)
        self.server_close()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection in a thread of its own."""
        self.connections += 1
        self.open[request] = self.connections
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """End a connection."""
        self.open.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say what went wrong, except that a peer has gone."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)
