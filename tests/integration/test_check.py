"""`access-mail check`: each thing is tried for real, each has its lines, and no mail is sent."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from grpc import StatusCode

from simulators.background import in_background
from simulators.certificates import ClusterAuthority
from simulators.mailbox import Mailbox
from simulators.mailgun import Mailgun
from simulators.teleport.service import AuthService

FILE = """
[teleport]
addr = "{teleport}"
identity = "{directory}/identity"
[smtp]
host = "127.0.0.1"
port = {relay}
username = "access"
password = "{password}"
starttls_policy = "disabled"
[delivery]
sender = "access@example.com"
[role_to_recipients]
"*" = "all@example.com"
[redis]
url = "{redis}"
"""

PASSWORD = "correct horse battery staple"


@dataclass
class World:
    """All that there is to try."""

    teleport: AuthService
    mailbox: Mailbox
    file: Path

    def check(self, *options: str) -> tuple[int, list[str]]:
        """Exit code and lines of `check`."""
        command = [sys.executable, "-P", "-m", "console", "check", "-c", str(self.file), *options]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert done.stderr == ""
        assert PASSWORD not in done.stdout
        return done.returncode, done.stdout.splitlines()

    def replace(self, old: str, new: str) -> None:
        """Change the configuration."""
        text = self.file.read_text()
        assert old in text
        self.file.write_text(text.replace(old, new))


@pytest.fixture
def world(tmp_path: Path, redis_url: str) -> Iterator[World]:
    authority = ClusterAuthority.create("teleport.example.com")
    authority.identity("access-mail").write_file(tmp_path / "identity")
    mailbox = Mailbox(users={"access": PASSWORD})
    with in_background(AuthService(authority)) as teleport, mailbox.run_in_thread():
        file = tmp_path / "access-mail.toml"
        places = {"directory": tmp_path, "teleport": teleport.address, "relay": mailbox.port, "redis": redis_url}
        file.write_text(FILE.format(password=PASSWORD, **places))
        yield World(teleport, mailbox, file)


def test_all_is_well(world: World, redis_url: str) -> None:
    code, lines = world.check()
    assert code == 0, lines
    assert lines[0] == "ok   configuration: complete"
    assert lines[1].startswith("ok   redis: Valkey ")
    assert lines[1].endswith(f", noeviction ({redis_url.removeprefix('unix://')})")
    assert lines[2].startswith("ok   teleport: cluster teleport.example.com, version ")
    assert f"(direct to {world.teleport.address})" in lines[2]
    assert lines[3:6] == [
        "ok   teleport: may list access_request",
        "ok   teleport: may read access_request",
        "ok   teleport: may update access_plugin_data",
    ]
    assert lines[-1].startswith("ok   relay: ")
    assert lines[-1].endswith(f" (127.0.0.1:{world.mailbox.port})")
    assert world.mailbox.logins[0].accepted
    assert world.mailbox.mails == []


def test_each_failure_has_its_line_and_hides_no_other(world: World) -> None:
    world.teleport.faults.denied_kinds.add("access_request")
    world.teleport.faults.fail("UpdatePluginData", StatusCode.PERMISSION_DENIED, text="access denied")
    world.mailbox.users["access"] = "another"
    world.replace("unix://", "unix:///nowhere")
    code, lines = world.check()
    assert code == 1
    failures = [line.split(" (")[0] for line in lines if line.startswith("FAIL")]
    assert failures[0].startswith("FAIL redis: /nowhere/")
    assert failures[0].endswith("; see that it runs, that redis.url is right and that this host may connect to it")
    assert failures[1] == "FAIL teleport: may not read access_request"
    assert failures[2].startswith(f"FAIL relay: 127.0.0.1:{world.mailbox.port}: 535")
    assert failures[2].endswith("; see smtp.username and the password, and whether this relay wants a login")
    lack = "lack teleport: may not update access_plugin_data, which would buy: who was told is noted in Teleport too"
    assert any(line.startswith(lack) for line in lines)


def test_a_version_of_teleport_that_is_too_old_is_refused(world: World) -> None:
    world.teleport.ping.ServerVersion = "6.0.3"
    _, lines = world.check()
    assert lines[2].startswith("FAIL teleport: cluster teleport.example.com, version 6.0.3")
    assert lines[2].endswith(", too old: 6.1 is needed")


def test_nobody_at_home_is_said_of_each(world: World, tmp_path: Path) -> None:
    world.replace(world.teleport.address, "127.0.0.1:1")
    world.replace(f"port = {world.mailbox.port}", "port = 1")
    (tmp_path / "identity").chmod(0o600)
    code, lines = world.check()
    assert code == 1
    (teleport, relay) = [line for line in lines if line.startswith("FAIL")]
    assert teleport.startswith("FAIL teleport: no route leads to 127.0.0.1:1: ")
    assert teleport.endswith("; see that teleport.addr is right and that this host may connect to it")
    assert relay.startswith("FAIL relay: 127.0.0.1:1: ")
    assert relay.endswith("; see that smtp.host and smtp.port are right and that this host may connect to them")


def test_teleports_words_cannot_write_lines_of_their_own(world: World) -> None:
    world.teleport.faults.fail("Ping", StatusCode.PERMISSION_DENIED, times=3, text="no\nok   teleport: fine\x1b[2J")
    code, lines = world.check()
    assert code == 1
    assert [line[:4] for line in lines] == ["ok  ", "ok  ", "FAIL", "ok  "]
    assert "\x1b" not in "".join(lines)


def test_what_is_missing_is_said_once_and_the_rest_is_tried(world: World) -> None:
    world.replace(f'identity = "{world.file.parent}/identity"', "")
    code, lines = world.check()
    assert code == 1
    assert lines[0].startswith("FAIL configuration: teleport.identity: missing")
    assert lines[1].startswith("ok   redis")
    assert lines[2].startswith("ok   relay")
    assert len(lines) == 3


@pytest.mark.parametrize("service", [None, "watcher", "router", "mailer"])
def test_where_all_is_missing_no_fault_is_told_twice(world: World, service: str | None) -> None:
    world.file.write_text('redis.url = "unix:///nowhere.sock"')
    code, lines = world.check(*([] if service is None else ["--service", service]))
    assert code == 1
    keys = [line.split(": ")[1] for line in lines]
    assert len(set(keys)) == len(keys), lines
    assert keys.count("delivery.sender") == (service != "watcher")


def test_a_password_that_redis_refuses_is_named(world: World) -> None:
    world.replace("unix://", "unix://nobody:something@")
    code, lines = world.check("--service", "router")
    assert code == 1
    assert lines[1].startswith("FAIL redis: /")
    assert "something" not in lines[1]
    assert lines[1].endswith("; see the password, in redis.password_file or redis.url")


NEEDS = {
    "watcher": {"configuration", "redis", "teleport"},
    "router": {"configuration", "redis"},
    "mailer": {"configuration", "redis", "relay"},
}


@pytest.mark.parametrize("service", NEEDS)
def test_a_service_is_tried_alone_where_the_secrets_of_the_others_are_not(world: World, service: str) -> None:
    if service != "watcher":
        world.file.with_name("identity").unlink()
    if service != "mailer":
        world.replace(f'password = "{PASSWORD}"', 'password_file = "/nowhere/password"')
    code, lines = world.check("--service", service)
    assert (code, lines[0]) == (0, f"ok   configuration: complete for the {service}"), lines
    assert {line[5:].split(":")[0] for line in lines} == NEEDS[service]
    assert world.check()[0] == 1, "the others lack something"


@pytest.mark.parametrize("service", ["watcher", "mailer"])
def test_a_service_misses_its_own_section_and_no_other(world: World, service: str) -> None:
    sections = {"watcher": "teleport", "mailer": "smtp"}
    text = world.file.read_text()
    for other, section in sections.items():
        if other != service:
            before, _, after = text.partition(f"[{section}]")
            text = before + after[after.index("[") :]
    world.file.write_text(text)
    assert world.check("--service", service)[0] == 0
    (other,) = sections.keys() - {service}
    code, lines = world.check("--service", other)
    assert code == 1
    assert lines[0].startswith(f"FAIL configuration: {sections[other]}: ")


def test_a_service_alone_has_no_redis_of_its_own(world: World) -> None:
    world.file.write_text(world.file.read_text().partition("[redis]")[0])
    assert world.check()[0] == 0
    code, lines = world.check("--service", "router")
    assert code == 1
    assert lines[1].startswith("FAIL redis: redis.url: missing; give the URL")


def test_a_file_that_does_not_load_is_all_that_is_said(world: World) -> None:
    world.file.write_text("[smtp]\nhots = 1\n")
    assert world.check() == (
        1,
        [
            f"FAIL configuration: {world.file}: smtp.host: missing; give the host name of the relay",
            f"FAIL configuration: {world.file}: smtp.hots: unknown key; did you mean smtp.host?",
        ],
    )


def test_mailgun_is_asked_with_our_key(world: World) -> None:
    text = world.file.read_text()
    before, _, after = text.partition("[smtp]")
    with Mailgun(domain="mg.example.com", key=PASSWORD) as mailgun:
        section = f'[mailgun]\ndomain = "{mailgun.domain}"\nprivate_key = "{PASSWORD}"\nbase_url = "{mailgun.url}"\n'
        world.file.write_text(before + section + after[after.index("[delivery]") :])
        code, lines = world.check()
        assert code == 0, lines
        assert lines[-1].startswith("ok   relay: the key is accepted")
        world.replace(f'private_key = "{PASSWORD}"', 'private_key = "another"')
        code, lines = world.check()
        assert code == 1
        assert lines[-1].startswith(f"FAIL relay: {mailgun.url}: 401")
        assert lines[-1].endswith("; see mailgun.private_key, and whether mailgun.base_url is of the domain's region")
        assert mailgun.mails == []
