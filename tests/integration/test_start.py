"""`access-mail start`: Valkey and three services as one, up together and down in order."""

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from simulators.background import in_background
from simulators.certificates import ClusterAuthority
from simulators.mailbox import Mailbox, Rule
from simulators.teleport.service import AuthService
from tests.processes import Running, probe, run
from tests.rules import know_rules
from tests.waiting import wait_for

FILE = """
data_dir = "{directory}/data"
[teleport]
addr = "{teleport}"
identity = "{directory}/identity"
[smtp]
host = "127.0.0.1"
port = {relay}
starttls_policy = "disabled"
[delivery]
sender = "access@example.com"
[role_to_recipients]
"*" = "all@example.com"
[watcher]
port = 0
[router]
port = 0
[mailer]
port = 0
"""

READY = r"INFO start: ready: watcher (http://\S+), router (http://\S+), mailer (http://\S+), redis (\S+)\n"


@pytest.fixture
def authority() -> ClusterAuthority:
    return ClusterAuthority.create("teleport.example.com")


@pytest.fixture
def teleport(authority: ClusterAuthority) -> Iterator[AuthService]:
    with in_background(AuthService(authority)) as service:
        yield service


@pytest.fixture
def mailbox() -> Iterator[Mailbox]:
    with Mailbox().run_in_thread() as mailbox:
        yield mailbox


@pytest.fixture
def file(tmp_path: Path, authority: ClusterAuthority, teleport: AuthService, mailbox: Mailbox) -> Path:
    """A configuration without a Redis."""
    authority.identity("access-mail").write_file(tmp_path / "identity")
    path = tmp_path / "access-mail.toml"
    path.write_text(FILE.format(directory=tmp_path, teleport=teleport.address, relay=mailbox.port))
    return path


def children(start: Running) -> dict[str, int]:
    """Process ids by what runs there."""
    pids = Path(f"/proc/{start.process.pid}/task/{start.process.pid}/children").read_text().split()
    lines = {int(pid): Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ") for pid in pids}
    names = ("services.watcher", "services.router", "services.mailer", "valkey-server")
    return {name: pid for name in names for pid, line in lines.items() if name in line}


def is_gone(pid: int) -> bool:
    try:
        return "State:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return True


def test_one_command_brings_a_request_to_the_mailbox(
    file: Path, tmp_path: Path, teleport: AuthService, mailbox: Mailbox
) -> None:
    with run(["console", "start", "-c", str(file)], tmp_path / "log") as start:
        ready = start.says(READY)
        assert [probe(f"{ready[n]}/readyz") for n in (1, 2, 3)] == [(200, "ok\n")] * 3
        with Redis.from_url(ready[4]) as redis:
            assert redis.ping()
        teleport.create_request("alice", roles=["dba"])
        wait_for(lambda: mailbox.mails, "a mail")
        assert mailbox.mails[0].recipient == "all@example.com"
        assert start.ends(signal.SIGTERM) == 0


def test_it_stops_in_order_and_leaves_nobody_behind(file: Path, tmp_path: Path) -> None:
    with run(["console", "start", "-c", str(file)], tmp_path / "log") as start:
        start.says(READY)
        pids = children(start)
        assert len(pids) == 4
        assert start.ends(signal.SIGINT) == 0
        assert all(is_gone(pid) for pid in pids.values())
        ends = [line.split()[2].rstrip(":") for line in start.text().splitlines() if line.endswith(": stopped")]
        assert ends == ["watcher", "router", "mailer", "start"]
        assert "ready to exit, bye bye" in (tmp_path / "data" / "valkey.log").read_text()


def test_a_second_signal_puts_the_mails_back_that_the_first_waits_for_and_none_is_lost(
    file: Path, tmp_path: Path, teleport: AuthService, mailbox: Mailbox
) -> None:
    mailbox.rules.append(slow := Rule("rcpt", delay=60))
    much = {"ACCESS_MAIL__MAILER__GRACE": "5m"}
    with run(["console", "start", "-c", str(file)], tmp_path / "log", much) as start:
        start.says(READY)
        mailer = children(start)["services.mailer"]
        teleport.create_request("alice", roles=["dba"])
        wait_for(lambda: slow.obeyed, "the relay is slow with a mail")
        start.process.send_signal(signal.SIGTERM)
        start.says("INFO router: stopped")
        assert not is_gone(mailer), "it waits for the relay"
        start.process.send_signal(signal.SIGTERM)
        start.says("INFO mailer: 1 mails in flight go back into the queue")
        start.says("WARNING start: asked again to stop")
        assert start.process.wait(timeout=20) == 0
        start.says("INFO start: stopped")
    mailbox.rules.clear()
    with run(["console", "start", "-c", str(file)], tmp_path / "second log") as start:
        start.says(READY)
        wait_for(lambda: mailbox.mails, "the mail")
        assert start.ends(signal.SIGTERM) == 0
    assert len(mailbox.mails) == 1


def test_after_a_death_the_first_signal_already_waits_for_no_relay(
    file: Path, tmp_path: Path, teleport: AuthService, mailbox: Mailbox
) -> None:
    mailbox.rules.append(slow := Rule("rcpt", delay=60))
    much = {"ACCESS_MAIL__MAILER__GRACE": "5m"}
    with run(["console", "start", "-c", str(file)], tmp_path / "log", much) as start:
        start.says(READY)
        pids = children(start)
        teleport.create_request("alice", roles=["dba"])
        wait_for(lambda: slow.obeyed, "the relay is slow with a mail")
        os.kill(pids["services.watcher"], signal.SIGKILL)
        start.says("CRITICAL start: watcher has ended with signal SIGKILL.*; stopping the others")
        start.says("INFO router: stopped")
        assert not is_gone(pids["services.mailer"]), "it waits for the relay"
        start.process.send_signal(signal.SIGTERM)
        start.says("WARNING start: asked again to stop")
        start.says("INFO mailer: 1 mails in flight go back into the queue")
        assert start.process.wait(timeout=20) == 1


def test_a_mailer_has_the_grace_that_is_configured(
    file: Path, tmp_path: Path, teleport: AuthService, mailbox: Mailbox
) -> None:
    mailbox.rules.append(slow := Rule("accepted", delay=12))
    with run(["console", "start", "-c", str(file)], tmp_path / "log", {"ACCESS_MAIL__MAILER__GRACE": "1m"}) as start:
        start.says(READY)
        teleport.create_request("alice", roles=["dba"])
        wait_for(lambda: slow.obeyed, "the relay is slow with a mail")
        start.process.send_signal(signal.SIGTERM)
        start.says("INFO mailer: stopped")
        assert "go back" not in start.text()
        assert start.ends() == 0


def test_a_third_signal_kills_a_service_that_hangs_but_not_valkey(file: Path, tmp_path: Path) -> None:
    with run(["console", "start", "-c", str(file)], tmp_path / "log") as start:
        start.says(READY)
        mailer = children(start)["services.mailer"]
        os.kill(mailer, signal.SIGSTOP)
        start.process.send_signal(signal.SIGINT)
        start.says("INFO router: stopped")
        start.process.send_signal(signal.SIGINT)
        start.says("WARNING start: asked again to stop")
        assert not is_gone(mailer), "it hears nothing"
        assert start.ends(signal.SIGINT) == 0
        start.says("WARNING start: asked once more to stop: the services are killed")
        assert is_gone(mailer)
    assert "ready to exit, bye bye" in (tmp_path / "data" / "valkey.log").read_text()


def test_it_can_be_stopped_while_it_still_starts(file: Path, tmp_path: Path) -> None:
    with run(["console", "start", "-c", str(file)], tmp_path / "log") as start:
        start.says("starting Valkey")
        start.process.send_signal(signal.SIGHUP)
        assert start.ends(signal.SIGTERM) == 0
        assert "ready:" not in start.text()
        assert not (tmp_path / "data" / "valkey.sock").exists()


@pytest.mark.parametrize("victim", ["services.watcher", "services.router", "services.mailer", "valkey-server"])
def test_a_process_that_dies_ends_the_whole_and_is_named(file: Path, tmp_path: Path, victim: str) -> None:
    with run(["console", "start", "-c", str(file)], tmp_path / "log") as start:
        start.says(READY)
        pids = children(start)
        os.kill(pids[victim], signal.SIGKILL)
        assert start.ends() == 1
        name = {"valkey-server": "valkey"}.get(victim, victim.removeprefix("services."))
        start.says(f"CRITICAL start: {name} has ended with signal SIGKILL")
        assert all(is_gone(pid) for pid in pids.values())


def test_all_die_with_the_start_that_is_killed_and_the_next_start_finds_what_they_kept(
    file: Path, tmp_path: Path
) -> None:
    with run(["console", "start", "-c", str(file)], tmp_path / "log") as start:
        url = start.says(READY)[4]
        pids = children(start)
        with Redis.from_url(url) as redis:
            redis.set("kept", "value")
        assert start.ends(signal.SIGKILL) == -signal.SIGKILL
    with run(["console", "start", "-c", str(file)], tmp_path / "second log") as start:
        start.says(READY)
        wait_for(lambda: all(is_gone(pid) for pid in pids.values()), f"the first ones are gone: {pids}", timeout=45)
        with Redis.from_url(url) as redis:
            assert redis.get("kept") == b"value"


def test_a_second_start_on_the_same_data_is_refused_and_names_the_first(file: Path, tmp_path: Path) -> None:
    with run(["console", "start", "-c", str(file)], tmp_path / "log") as first:
        first.says(READY)
        with run(["console", "start", "-c", str(file)], tmp_path / "second") as second:
            assert second.ends() == 1
            assert second.text() == f"{tmp_path}/data is in use by process {first.process.pid}; stop it first\n"
        assert first.process.poll() is None


def test_sighup_reaches_the_services_and_ends_nobody(file: Path, tmp_path: Path) -> None:
    with run(["console", "start", "-c", str(file)], tmp_path / "log") as start:
        start.says(READY)
        start.process.send_signal(signal.SIGHUP)
        for service in ("watcher", "router", "mailer"):
            start.says(f"INFO {service}: configuration read again")
        assert start.ends(signal.SIGTERM) == 0


def test_a_configured_redis_is_used_and_none_is_run(file: Path, tmp_path: Path, redis_url: str) -> None:
    environ = {"ACCESS_MAIL__REDIS__URL": redis_url}
    with run(["console", "start", "-c", str(file)], tmp_path / "log", environ) as start:
        assert start.says(READY.replace(r"(\S+)\n", "(.*)\n"))[4] == "the configured Redis"
        assert sorted(children(start)) == ["services.mailer", "services.router", "services.watcher"]
        assert not (tmp_path / "data").exists()
        assert start.ends(signal.SIGTERM) == 0


def test_a_log_of_valkey_that_is_damaged_is_told_with_the_command_that_mends_it(file: Path, tmp_path: Path) -> None:
    with run(["console", "start", "-c", str(file)], tmp_path / "log") as start:
        start.says(READY)
        assert start.ends(signal.SIGTERM) == 0
    with (tmp_path / "data/appendonlydir/appendonly.aof.1.incr.aof").open("ab") as log:
        log.write(b"garbage\r\n" * 10)
    with run(["console", "start", "-c", str(file)], tmp_path / "log") as start:
        assert start.ends() == 1
        start.says("CRITICAL start: valkey has ended with exit status 1: its log is damaged.*--fix")
        assert "starting, Access Mail" not in start.text()


def test_one_service_runs_alone_in_the_foreground_at_the_port_it_is_given(
    file: Path, tmp_path: Path, redis: Redis, redis_url: str
) -> None:
    know_rules(redis)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environ = {"ACCESS_MAIL__REDIS__URL": redis_url}
    command = ["console", "start", "-c", str(file), "--service", "router", "--probe-port", "router", str(port)]
    with run(command, tmp_path / "log", environ) as router:
        router.says(f"INFO router: ready, probes on http://127.0.0.1:{port}\n")
        assert router.ends(signal.SIGTERM) == 0


def test_faults_are_told_before_anything_runs(tmp_path: Path) -> None:
    file = tmp_path / "bad.toml"
    file.write_text("data_dir = '/dev/null/x'\n[smtp]\nhots = 'x'\n")
    with run(["console", "start", "-c", str(file)], tmp_path / "log") as start:
        assert start.ends() == 1
        assert len(start.text().splitlines()) == 2
    file.write_text("")
    with run(["console", "start", "-c", str(file)], tmp_path / "log") as start:
        assert start.ends() == 1
        assert [line.split(":")[0] for line in start.text().splitlines()] == [
            "teleport",
            "role_to_recipients",
            "delivery.sender",
            "smtp",
        ]


def test_a_data_directory_that_will_not_do_is_a_fault(file: Path, tmp_path: Path) -> None:
    command = ["console", "start", "-c", str(file), "--data-dir", "/dev/null/x"]
    with run(command, tmp_path / "log") as start:
        assert start.ends() == 1
        assert start.text().startswith("data_dir: /dev/null/x cannot be used (Not a directory)")


def test_wrong_use_is_exit_status_2(tmp_path: Path) -> None:
    with run(["console", "start", "--service", "postman"], tmp_path / "log") as start:
        assert start.ends() == 2
