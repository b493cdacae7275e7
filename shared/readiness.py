"""How a process says that it is at work: the datagram of sd_notify(3), which systemd and `access-mail start` read."""

import logging
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

log = logging.getLogger(__name__)

VARIABLE = "NOTIFY_SOCKET"
"""The environment variable that names the reader's Unix socket; `@` stands for an abstract one."""


@dataclass(frozen=True)
class Ready:
    """A service is at work, and answers its probes at this URL."""

    service: str
    probes: str

    def datagram(self) -> bytes:
        """READY=1 is sd_notify's; names with X_ are for those who know them."""
        return f"READY=1\nX_SERVICE={self.service}\nX_PROBES={self.probes}".encode()

    @classmethod
    def parse(cls, datagram: bytes) -> Self:
        """Read what `datagram` has written. Raises `KeyError`, `ValueError`."""
        values = dict(line.split("=", 1) for line in datagram.decode().splitlines())
        return cls(values["X_SERVICE"], values["X_PROBES"])


def announce(ready: Ready, environ: Mapping[str, str]) -> None:
    """Tell whoever waits for it, if anybody does; a reader that is gone is worth a line in the log."""
    path = environ.get(VARIABLE)
    if not path:
        return
    address = f"\0{path[1:]}" if path.startswith("@") else path
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto(ready.datagram(), os.fsencode(address))
    except OSError as error:
        log.warning("cannot tell $%s that we are ready: %s", VARIABLE, error)
