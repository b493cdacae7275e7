"""The product's own processes, as tests run them: started, watched line by line, and never left behind."""

import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.waiting import wait_for


class Running:
    """A process whose stderr goes to a file."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self.log = log

    def text(self) -> str:
        """All that it has said so far."""
        return self.log.read_text()

    def says(self, pattern: str, timeout: float = 45) -> re.Match[str]:
        """Wait for a line in which the pattern is found."""
        try:
            wait_for(lambda: re.search(pattern, self.text()) or self.process.poll() is not None, pattern, timeout)
        except AssertionError as error:
            raise AssertionError(f"{error}; it said:\n{self.text()}") from None
        found = re.search(pattern, self.text())
        assert found, f"it ended without {pattern!r}, but with:\n{self.text()}"
        return found

    def ends(self, number: signal.Signals | None = None) -> int:
        """Its exit code, after that signal or by itself."""
        if number is not None:
            self.process.send_signal(number)
        return self.process.wait(timeout=20)


@contextmanager
def run(arguments: list[str], log: Path, environ: Mapping[str, str] | None = None) -> Iterator[Running]:
    """Run `python -P -m ARGUMENT…` without the settings of our own environment. Killed at the end if need be."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("ACCESS_MAIL", "NOTIFY_"))}
    command = [sys.executable, "-P", "-m", *arguments]
    with (
        log.open("wb") as output,
        subprocess.Popen(command, env={**clean, **(environ or {})}, stderr=output, stdin=subprocess.DEVNULL) as process,
    ):
        try:
            yield Running(process, log)
        finally:
            process.kill()


def probe(url: str) -> tuple[int, str]:
    """Status and text of a probe."""
    try:
        with urllib.request.urlopen(url, timeout=5) as response:  # noqa: S310 - http alone
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
