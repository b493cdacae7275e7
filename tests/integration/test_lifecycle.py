"""What every service's process does the same way, shown by the router."""

import signal
import socket
from pathlib import Path

import pytest
from redis import Redis

from shared.readiness import Ready
from tests.processes import probe, run
from tests.rules import know_rules
from tests.waiting import wait_for

FILE = """
[redis]
url = "{url}"
[router]
port = 0
[delivery]
sender = "access@example.com"
[role_to_recipients]
"*" = "all@example.com"
[log]
output = "{log}"
"""


@pytest.fixture
def file(tmp_path: Path, redis: Redis, redis_url: str) -> Path:
    """A configuration that the router can run with, and rules that it knows; it logs to stderr."""
    know_rules(redis)
    path = tmp_path / "access-mail.toml"
    path.write_text(FILE.format(url=redis_url, log="stderr"))
    return path


def test_a_service_tells_start_readiness_and_end_and_answers_its_probes(file: Path, tmp_path: Path) -> None:
    with run(["services.router", "-c", str(file)], tmp_path / "log") as router:
        url = router.says(r"INFO router: ready, probes on (http://127\.0\.0\.1:\d+)\n")[1]
        assert probe(f"{url}/readyz") == (200, "ok\n")
        assert probe(f"{url}/healthz") == (200, "ok\n")
        assert "process_resident_memory_bytes" in probe(f"{url}/metrics")[1]
        assert router.ends(signal.SIGTERM) == 0
        lines = router.text().splitlines()
        assert "INFO router: starting, Access Mail" in lines[0]
        assert lines[-1].endswith("INFO router: stopped")


def test_ctrl_c_ends_it_as_gently(file: Path, tmp_path: Path) -> None:
    with run(["services.router", "-c", str(file)], tmp_path / "log") as router:
        router.says("ready")
        assert router.ends(signal.SIGINT) == 0


def test_who_started_it_is_told_when_it_is_ready(file: Path, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as reader:
        reader.bind(str(tmp_path / "notify"))
        reader.settimeout(15)
        environ = {"NOTIFY_SOCKET": str(tmp_path / "notify")}
        with run(["services.router", "-c", str(file)], tmp_path / "log", environ) as router:
            told = Ready.parse(reader.recv(1000))
            assert told == Ready("router", router.says(r"ready, probes on (\S+)")[1])


def test_a_bad_reload_keeps_the_old_configuration_and_a_good_one_takes_over(file: Path, tmp_path: Path) -> None:
    good = file.read_text()
    with run(["services.router", "-c", str(file)], tmp_path / "log") as router:
        url = router.says(r"ready, probes on (\S+)\n")[1]
        file.write_text(good + "severity = 'loud'\nx = 1\n")
        router.process.send_signal(signal.SIGHUP)
        router.says(r"ERROR router: the old configuration stays: \S+: log\.severity: .* expected, other text found\n")
        router.says(r"ERROR router: the old configuration stays: \S+: log\.x: unknown key")
        file.write_text(good.replace('"*"', '"role"'))
        router.process.send_signal(signal.SIGHUP)
        router.says(r'the old configuration stays: \S+: role_to_recipients\."\*": names nobody')
        file.write_text(good.partition("[role_to_recipients]")[0])
        router.process.send_signal(signal.SIGHUP)
        router.says("the old configuration stays: role_to_recipients: missing")
        assert probe(f"{url}/readyz") == (200, "ok\n")
        file.write_text(good + "severity = 'debug'\n")
        router.process.send_signal(signal.SIGHUP)
        router.says("INFO router: configuration read again")
        assert router.ends(signal.SIGTERM) == 0


def test_a_log_file_that_was_moved_away_is_opened_again(file: Path, tmp_path: Path) -> None:
    log = tmp_path / "router.log"
    file.write_text(file.read_text().replace("stderr", str(log)))
    with run(["services.router", "-c", str(file)], tmp_path / "log") as router:
        wait_for(lambda: log.exists() and "ready" in log.read_text(), "ready")
        log.rename(tmp_path / "router.log.1")
        file.write_text("no TOML")  # a fault does not hinder it
        router.process.send_signal(signal.SIGHUP)
        wait_for(lambda: log.exists() and "not valid TOML" in log.read_text(), "a new file")
        assert router.text() == ""


def test_faults_stop_the_start_with_one_line_each(tmp_path: Path) -> None:
    file = tmp_path / "bad.toml"
    file.write_text("[redis]\nurl = 'redis://localhost'\nx = 1\n[router]\nport = -1\n")
    with run(["services.router", "-c", str(file)], tmp_path / "log") as router:
        assert router.ends() == 1
        assert router.text().splitlines() == [
            f"{file}: redis.x: unknown key; known here: url, password_file",
            f"{file}: router.port: must be greater than or equal to 0",
        ]


def test_a_missing_section_stops_the_service_that_needs_it(tmp_path: Path) -> None:
    environ = {"ACCESS_MAIL__REDIS__URL": "redis://localhost:1"}
    with run(["services.router"], tmp_path / "log", environ) as router:
        assert router.ends() == 1
        assert router.text().startswith("role_to_recipients: missing; ")


def test_wrong_use_is_exit_status_2(tmp_path: Path) -> None:
    with run(["services.router", "--frobnicate"], tmp_path / "log") as router:
        assert router.ends() == 2


def test_a_redis_that_may_drop_keys_is_complained_of(file: Path, tmp_path: Path, redis_url: str) -> None:
    with Redis.from_url(redis_url) as redis:
        redis.config_set("maxmemory-policy", "allkeys-lru")
        try:
            with run(["services.router", "-c", str(file)], tmp_path / "log") as router:
                router.says(
                    r"ERROR router: Valkey \S+ drops keys when its memory is full \(maxmemory-policy allkeys-lru\)"
                )
        finally:
            redis.config_set("maxmemory-policy", "noeviction")
