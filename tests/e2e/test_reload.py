"""SIGHUP, as the documented systemd unit sends it: what is new is taken over, what is broken is not, nobody ends."""

import re
import signal
from pathlib import Path

from simulators.world import World
from tests.e2e.installation import SERVICES, Installation, installed
from tests.e2e.reading import notices
from tests.waiting import wait_until

BEFORE, AFTER = "before@example.com", "after@example.com"


async def told(outside: World, address: str) -> None:
    """Make a request, and wait until this person, and nobody else, has been asked to review it."""
    request_id = outside.auth.create_request("alice")
    await wait_until(lambda: notices(outside.mailbox.thread(request_id)) == ["requested"], "a mail")
    assert [mail.recipient for mail in outside.mailbox.thread(request_id)] == [address]


def faults(access_mail: Installation) -> list[tuple[str, str]]:
    """Service and fault, of all that was refused at a reload."""
    return re.findall(r"ERROR (\w+): the old configuration stays: (.*)", access_mail.log)


async def test_changed_recipients_are_used_and_a_broken_file_changes_nothing(outside: World, tmp_path: Path) -> None:
    async with installed(tmp_path, outside.configuration({"*": [BEFORE]})) as access_mail:
        await told(outside, BEFORE)
        good = outside.configuration({"*": [AFTER]})
        broken = good.replace("[smtp]", "[smtp]\nhots = 'x'").replace(AFTER, "Somebody <somebody@example.com>")
        access_mail.config.write_text(broken)
        access_mail.product.process.send_signal(signal.SIGHUP)
        await wait_until(lambda: len(faults(access_mail)) == 2 * len(SERVICES), "a line for each fault of each service")
        assert {service for service, _ in faults(access_mail)} == set(SERVICES)
        assert {fault.removeprefix(f"{access_mail.config}: ").split(":")[0] for _, fault in faults(access_mail)} == {
            "smtp.hots",
            'role_to_recipients."*"[0]',
        }
        await told(outside, BEFORE)
        access_mail.config.write_text(good)
        await access_mail.reload()
        await told(outside, AFTER)
        assert access_mail.product.process.returncode is None


async def test_a_log_file_that_was_moved_away_is_opened_again(outside: World, tmp_path: Path) -> None:
    log, rotated = tmp_path / "log", tmp_path / "log.1"
    configuration = outside.configuration({"*": [BEFORE]}).replace('"stderr"', f'"{log}"')
    async with installed(tmp_path, configuration) as access_mail:
        log.rename(rotated)
        access_mail.product.process.send_signal(signal.SIGHUP)
        await wait_until(log.exists, "there is a log file again")
        await wait_until(
            lambda: all(f"{name}: configuration read again" in access_mail.log for name in SERVICES), "all write there"
        )
        size = rotated.stat().st_size
        await told(outside, BEFORE)
        await access_mail.said("INFO router: .*: routed, 1 mails")
        assert rotated.stat().st_size == size


async def test_no_number_of_reloads_ends_it_or_stops_the_mails(outside: World, tmp_path: Path) -> None:
    async with installed(tmp_path, outside.configuration({"*": [BEFORE]})) as access_mail:
        requests = []
        for _ in range(30):
            access_mail.product.process.send_signal(signal.SIGHUP)
            requests.append(outside.auth.create_request("alice"))
        await wait_until(lambda: len(outside.mailbox.mails) == len(requests), "all requests are mailed", 20)
        for _ in range(5):  # each time with a connection to the relay that is kept for the next mail
            await access_mail.reload()
            await told(outside, BEFORE)
        assert access_mail.product.process.returncode is None
        assert faults(access_mail) == []
        assert outside.mailbox.duplicates() == {}
