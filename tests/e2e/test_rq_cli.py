"""Mails are ordinary RQ jobs: an operator needs nothing but `rq` to see the queue, to hold it, and to try again.

The `rq` here stands in an environment of its own, without any code of ours, and it cannot unpickle.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from simulators.rules import Rule
from simulators.world import World
from tests.e2e.installation import BIN, Installation, command, installed
from tests.e2e.reading import notices
from tests.waiting import wait_until

RECIPIENTS = {"*": ["ann@example.com", "bob@example.com"]}

NO_PICKLE = """
import pickle
def refuse(*_):
    raise RuntimeError("something was to be unpickled")
pickle.load = pickle.loads = pickle.Unpickler = refuse
"""
"""What Python runs at its start in that environment."""

SHOW_OURS = "from importlib.util import find_spec; print([*map(find_spec, ('console', 'services', 'shared'))])"


@pytest.fixture(scope="session")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory whose `venv` has `rq` and nothing else."""
    folder = tmp_path_factory.mktemp("rq")
    environ = {**os.environ, "VIRTUAL_ENV": str(folder / "venv")}
    for arguments in (["venv", "--python", sys.executable, str(folder / "venv")], ["pip", "install", "rq==3.0.*"]):
        uv = [str(BIN / "uv"), *arguments]
        subprocess.run(uv, env=environ, cwd=folder, capture_output=True, check=True)
    (packages,) = (folder / "venv/lib").glob("python*/site-packages")
    (packages / "sitecustomize.py").write_text(NO_PICKLE)
    look = [str(folder / "venv/bin/python"), "-c", SHOW_OURS]
    found = subprocess.run(look, env={}, cwd=folder, capture_output=True, check=True, text=True)
    assert found.stdout == "[None, None, None]\n"
    return folder


async def rq(bare: Path, access_mail: Installation, name: str, *options: str) -> str:
    """What `rq` answers."""
    done = await command(bare / "venv/bin/rq", name, "--url", access_mail.url, *options, directory=bare, environ={})
    assert done.code == 0, done.error
    assert done.error == ""
    return done.out


async def test_rq_info_shows_the_queue_and_its_worker_and_rq_suspend_holds_it(
    outside: World, tmp_path: Path, bare: Path
) -> None:
    async with installed(tmp_path, outside.configuration(RECIPIENTS)) as access_mail:
        await rq(bare, access_mail, "suspend")
        request_id = outside.auth.create_request("alice")
        await access_mail.said(f"router: {request_id}: routed, 2 mails")
        held = await rq(bare, access_mail, "info")
        assert re.search(r"^mail +\|█+ 2, 0 executing, 0 finished, 0 failed$", held, re.MULTILINE)
        assert re.search(r"^mailer-\S+ \(.*\): idle mail\. jobs: 0 finished, 0 failed$", held, re.MULTILINE)
        assert "1 workers, 1 queues" in held
        assert outside.mailbox.mails == []
        await rq(bare, access_mail, "resume")
        await wait_until(lambda: len(outside.mailbox.mails) == 2, "the mails that were held have come")
        await wait_until(access_mail.is_idle, "the mails are settled")
        done = await rq(bare, access_mail, "info")
        assert re.search(r"^mail +\| 0, 0 executing, 0 finished, 0 failed$", done, re.MULTILINE)
        assert "jobs: 2 finished, 0 failed" in done


async def test_a_refused_mail_is_a_dead_letter_and_rq_requeue_brings_it_back(
    outside: World, tmp_path: Path, bare: Path
) -> None:
    outside.mailbox.rules.append(Rule("rcpt", "550 5.1.1 no such user", recipient="ann@example.com"))
    async with installed(tmp_path, outside.configuration(RECIPIENTS)) as access_mail:
        requests = [outside.auth.create_request(user) for user in ("alice", "erin", "frank")]
        await wait_until(lambda: len(access_mail.dead()) == 3, "three dead letters")
        dead = await rq(bare, access_mail, "info", "--only-queues")
        assert re.search(r"^mail +\| 0, 0 executing, 0 finished, 3 failed$", dead, re.MULTILINE)
        outside.mailbox.rules.clear()
        one = next(letter for letter in access_mail.dead() if letter.startswith(requests[0]))
        await rq(bare, access_mail, "requeue", "--queue", "mail", one)
        await all_to_ann(outside, requests[:1])
        assert len(access_mail.dead()) == 2
        assert "Requeueing 2 jobs" in await rq(bare, access_mail, "requeue", "--queue", "mail", "--all")
        await all_to_ann(outside, requests)
        await wait_until(access_mail.is_idle, "the mails are settled")
        assert "0, 0 executing, 0 finished, 0 failed" in await rq(bare, access_mail, "info")
        assert outside.mailbox.duplicates() == {}


async def all_to_ann(outside: World, requests: list[str]) -> None:
    """Wait until ann has been asked to review each of these requests."""
    await wait_until(
        lambda: all(notices(outside.mailbox.thread(one, "ann@example.com")) == ["requested"] for one in requests),
        "ann has been asked",
    )
