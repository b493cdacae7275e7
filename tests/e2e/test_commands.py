"""The other commands, as they are installed, under both names."""

import os
import platform
import re
from importlib.metadata import version
from pathlib import Path

import pytest
from redis import Redis

from simulators.world import World
from tests.e2e.installation import BIN, Done, command

NAMES = ["access-mail", "teleport-email"]

PASSWORD, WRONG = "a throw-away password", "another throw-away password"

ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("ACCESS_MAIL")}
"""Without settings of ours."""


async def run(name: str, *arguments: str) -> Done:
    """Run the command in an environment without settings."""
    return await command(BIN / name, *arguments, environ=ENVIRONMENT)


@pytest.mark.parametrize("name", NAMES)
async def test_both_names_are_the_same_command(name: str) -> None:
    done = await run(name, "version")
    assert (done.code, done.error) == (0, "")
    assert done.out == f"Access Mail {version('access-mail')}, Python {platform.python_version()}\n"
    done = await run(name, "--help")
    assert set(re.findall(r"^  (\w+) ", done.out, re.MULTILINE)) >= {"check", "configure", "start", "version"}
    assert (await run(name, "strat")).code == 2


COMMANDS = [
    "",
    "start",
    "check",
    "configure",
    "version",
    "dead",
    "dead list",
    "dead show",
    "dead replay",
    "dead forget",
]


@pytest.mark.parametrize("words", COMMANDS)
async def test_each_command_explains_itself_and_no_list_cuts_a_sentence_off(words: str) -> None:
    done = await run("access-mail", *words.split(), "-h")
    assert (done.code, done.error) == (0, "")
    assert done.out.startswith(f"Usage: access-mail {words}".rstrip())
    assert re.search(r"^  -h, --help +Show this message and exit\.$", done.out, re.MULTILINE)
    assert not re.search(r"\.\.\.$", done.out.partition("Commands:")[2], re.MULTILINE)


async def test_what_configure_prints_works_as_soon_as_its_places_are_filled_in(outside: World, tmp_path: Path) -> None:
    example = await run("access-mail", "configure")
    assert (example.code, example.error) == (0, "")
    text = example.out
    for old, new in {
        "teleport.example.com:443": outside.proxy.address,
        "/var/lib/teleport/bot/identity": str(outside.identity),
        "smtp.example.com": outside.mailbox.host,
        "# port = 587": f"port = {outside.mailbox.port}",
        '# starttls_policy = "mandatory"': 'starttls_policy = "disabled"',
    }.items():
        assert old in text
        text = text.replace(old, new)
    file = tmp_path / "teleport-email.toml"
    file.write_text(text)
    done = await run("access-mail", "check", "-c", str(file))
    assert (done.code, done.error) == (0, ""), done.out


async def checked(outside: World, tmp_path: Path, redis_url: str, password: str) -> tuple[int, list[str], list[str]]:
    """Exit code of `check` with this password for the relay, and the lines of what is well and of what fails."""
    outside.mailbox.users["access"] = PASSWORD
    login = f'username = "access"\npassword = "{password}"\nstarttls_policy'
    text = outside.configuration({"*": ["ann@example.com"]}).replace("starttls_policy", login)
    file = tmp_path / "teleport-email.toml"
    file.write_text(f'{text}\n[redis]\nurl = "{redis_url}"\n')
    done = await run("access-mail", "check", "-c", str(file))
    assert done.error == ""
    assert PASSWORD not in done.out
    assert outside.mailbox.mails == []
    lines = done.out.splitlines()
    return (
        done.code,
        [line[5:] for line in lines if line.startswith("ok   ")],
        [line[5:] for line in lines if line.startswith("FAIL ")],
    )


async def test_check_says_that_all_is_well(outside: World, tmp_path: Path, redis_url: str) -> None:
    code, well, bad = await checked(outside, tmp_path, redis_url, PASSWORD)
    assert (code, bad) == (0, [])
    assert list(dict.fromkeys(line.split(":")[0] for line in well)) == ["configuration", "redis", "teleport", "relay"]
    assert any("through a proxy (TLS routing)" in line for line in well)


async def test_check_names_each_thing_that_is_not_well(
    outside: World, tmp_path: Path, redis_url: str, redis: Redis
) -> None:
    outside.auth.faults.denied_kinds.add("access_request")
    redis.config_set("maxmemory-policy", "allkeys-lru")
    try:
        code, well, bad = await checked(outside, tmp_path, redis_url, WRONG)
    finally:
        redis.config_set("maxmemory-policy", "noeviction")
    assert code == 1
    redis_line, teleport_line, relay_line = bad
    assert redis_line.startswith("redis: Valkey ")
    assert redis_line.endswith("set maxmemory-policy to noeviction")
    assert teleport_line.startswith("teleport: may not read access_request (")
    assert relay_line.startswith(f"relay: {outside.mailbox.host}:{outside.mailbox.port}: 535")
    assert "configuration: complete" in well
