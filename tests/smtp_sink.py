"""smtp-sink, Postfix's relay for tests, which misbehaves as its options say."""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.waiting import wait_for

COMMAND = shutil.which("smtp-sink", path=os.environ["PATH"] + ":/usr/sbin")
"""None where it is not installed; it comes with Debian's postfix."""

LISTENING = "0A"
"""As the kernel writes it (TCP_LISTEN)."""


@dataclass
class SmtpSink:
    """One that runs, at localhost."""

    port: int


@contextmanager
def smtp_sink(*options: str) -> Iterator[SmtpSink]:
    """Run one as long as the block lasts."""
    assert COMMAND is not None, "tests are skipped without it"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    user = ["-u", "nobody"] if os.getuid() == 0 else []
    process = subprocess.Popen([COMMAND, "-4", *user, *options, f"127.0.0.1:{port}", "100"], stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: _listens(port), "smtp-sink listens")
        yield SmtpSink(port)
    finally:
        process.terminate()
        process.wait()


def _listens(port: int) -> bool:
    """Without connecting: the sink would count that."""
    sockets = [line.split() for line in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()]
    return any(fields[1].endswith(f":{port:04X}") and fields[3] == LISTENING for fields in sockets)
