"""The story of the demo can be told to a cluster and an inbox that run elsewhere, as the compose file does."""

import sys
from pathlib import Path

import pytest

from simulators.demo import ROLES
from simulators.inbox import Inbox
from simulators.story import has_come
from simulators.world import World
from tests.e2e.installation import command, installed


async def test_the_story_is_told_over_the_network(outside: World, tmp_path: Path) -> None:
    people = tmp_path / "people"
    people.mkdir()
    outside.auth.authority.identity("people").write_trio(people)
    told = tmp_path / "told"
    with Inbox(outside.mailbox) as inbox:
        options = ["--teleport", outside.auth.address, "--credentials", str(people), "--inbox", inbox.url]
        async with installed(tmp_path, outside.configuration(ROLES)):
            arguments = ["-P", "-m", "simulators.story", *options, "--told", str(told)]
            done = await command(Path(sys.executable), *arguments)
    assert (done.code, done.error) == (0, "")
    assert done.out.endswith("The story is over.\n")
    assert "✗" not in done.out
    assert told.exists()
    assert len(outside.mailbox.mails) == 10


@pytest.mark.parametrize(
    ("came", "well"),
    [
        ({"ann": ["requested", "denied"]}, True),
        ({"ann": ["requested"]}, False),
        ({"ann": ["denied", "requested"]}, False),
        ({"ann": ["requested", "denied"], "bob": ["requested"]}, False),
    ],
)
async def test_other_mails_than_the_storys_are_a_failure(came: dict[str, list[str]], well: bool) -> None:  # noqa: FBT001 - pytest passes parameters so
    async def told(_: str) -> dict[str, list[str]]:
        return came

    assert await has_come({("r1", "ann"): ["requested", "denied"]}, told) is well
