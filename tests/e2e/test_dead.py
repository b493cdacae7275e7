"""`access-mail dead`, as it is installed, beside a running product."""

from pathlib import Path

from simulators.rules import Rule
from simulators.world import World
from tests.e2e.installation import BIN, command, installed
from tests.e2e.reading import notices
from tests.waiting import wait_until

RECIPIENTS = {"*": ["ann@example.com", "bob@example.com"]}


async def test_an_operator_sees_a_dead_letter_and_sends_it_after_all(outside: World, tmp_path: Path) -> None:
    outside.mailbox.rules.append(Rule("rcpt", "550 5.1.1 no such user", recipient="ann@example.com"))
    async with installed(tmp_path, outside.configuration(RECIPIENTS)) as access_mail:
        request_id = outside.auth.create_request("alice")
        await wait_until(access_mail.dead, "a dead letter")
        place = ("--data-dir", str(tmp_path / "data"))
        listed = await command(BIN / "access-mail", "dead", "list", *place)
        assert (listed.code, listed.error) == (0, "1 dead letter\n")
        assert listed.out.startswith(f"{request_id}-requested-")
        assert "  recipient_refused  1 attempts  550 5.1.1 no such user" in listed.out
        outside.mailbox.rules.clear()
        replayed = await command(BIN / "access-mail", "dead", "replay", "--request", request_id, *place)
        assert (replayed.code, replayed.out, replayed.error) == (0, "1 dead letter replayed\n", "")
        await wait_until(
            lambda: notices(outside.mailbox.thread(request_id, "ann@example.com")) == ["requested"],
            "ann has been asked after all",
        )
        assert outside.mailbox.duplicates() == {}
