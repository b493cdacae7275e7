"""What Access Mail promises, one test each, in the order in which a newcomer may read them."""

import asyncio
import re
from email.utils import getaddresses
from pathlib import Path
from typing import Any

import pytest

from services.watcher.teleport.pb import types_pb2
from shared import keys
from simulators.received import about
from simulators.rules import Rule
from simulators.world import World
from tests.e2e.installation import BIN, Installation, command, installed
from tests.fundamentals.conftest import ANN, BOB
from tests.waiting import wait_until


def told(outside: World, request_id: str, person: str) -> list[str]:
    """The notices that this person has had of the request, in their order."""
    return [mail.message["X-Access-Mail-Notice"] for mail in about(outside.mailbox.mails, request_id, person)]


async def both_told(outside: World, request_id: str, *notices: str) -> None:
    await wait_until(
        lambda: all(told(outside, request_id, person) == list(notices) for person in (ANN, BOB)),
        f"Ann and Bob have read {', '.join(notices)}",
        timeout=20,
    )


async def test_1_nobody_is_forgotten(outside: World, tmp_path: Path) -> None:
    """A request that was made before Access Mail was there is mailed once it is: Teleport is the source of truth."""
    request_id = outside.auth.create_request("alice")
    async with installed(tmp_path, outside.configuration({"*": [ANN, BOB]})):
        await both_told(outside, request_id, "requested")


@pytest.mark.usefixtures("access_mail")
async def test_2_at_least_once_and_in_practice_once(outside: World) -> None:
    """The relay takes a mail and its answer is lost: it is sent again, with the same Message-ID."""
    outside.mailbox.rules.append(Rule("accepted", drop=True, recipient=ANN, times=1))
    request_id = outside.auth.create_request("alice")
    await wait_until(lambda: len(told(outside, request_id, ANN)) == 2, "Ann has it twice", timeout=20)
    assert len({mail.message_id for mail in about(outside.mailbox.mails, request_id, ANN)}) == 1
    assert told(outside, request_id, BOB) == ["requested"]


async def test_3_one_bad_recipient_delays_nobody(outside: World, access_mail: Installation) -> None:
    """A refused address is a dead letter with its reason; everybody else hears everything."""
    outside.mailbox.rules.append(Rule("rcpt", "550 5.1.1 no such user", recipient=ANN))
    requests = [outside.auth.create_request("alice") for _ in range(5)]
    await wait_until(lambda: all(told(outside, one, BOB) == ["requested"] for one in requests), "Bob has heard of all")
    await wait_until(lambda: len(access_mail.dead()) == 5, "Ann's mails are dead letters")
    receipt: Any = access_mail.redis.hgetall(keys.receipt(access_mail.dead()[0]))
    assert b"no such user" in receipt[b"detail"]


async def test_4_what_the_relay_defers_is_tried_again(outside: World, access_mail: Installation) -> None:
    """4xx means later, never never; nothing becomes a dead letter for it."""
    outside.mailbox.rules.append(Rule("rcpt", "450 4.2.1 greylisted", recipient=ANN, times=2))
    request_id = outside.auth.create_request("alice")
    await both_told(outside, request_id, "requested")
    assert access_mail.dead() == []


@pytest.mark.usefixtures("access_mail")
async def test_5_a_thread_is_read_in_its_order(outside: World) -> None:
    """Request, reviews, resolution: although the first mail is deferred and the others are not."""
    outside.mailbox.rules.append(Rule("rcpt", "450 4.2.1 greylisted", recipient=ANN, times=1))
    request_id = outside.auth.create_request("alice", approvals=2)
    await wait_until(lambda: told(outside, request_id, BOB), "Bob has heard of it")
    outside.auth.review(request_id, "bob", types_pb2.APPROVED)
    await both_told(outside, request_id, "requested", "reviewed-1")
    outside.auth.approve(request_id)
    await both_told(outside, request_id, "requested", "reviewed-1", "approved")


async def test_6_losing_redis_is_not_silence(outside: World, access_mail: Installation) -> None:
    """After Redis has lost everything, Teleport tells who has heard what: nobody hears it twice, all hear the rest."""
    request_id = outside.auth.create_request("alice")
    await both_told(outside, request_id, "requested")
    await wait_until(
        lambda: all(person in outside.auth.plugin_entry(request_id).get("email_threads", "") for person in (ANN, BOB)),
        "Teleport's record names Ann and Bob",
    )
    access_mail.redis.flushall()
    outside.auth.faults.lose_events = True
    unseen = outside.auth.create_request("alice")
    outside.auth.deny(request_id)
    await both_told(outside, unseen, "requested")
    await both_told(outside, request_id, "requested", "denied")


async def test_7_a_second_mailer_shares_the_work(outside: World, access_mail: Installation, tmp_path: Path) -> None:
    """Services may run in any number; nobody is told twice."""
    environ = {"ACCESS_MAIL__REDIS__URL": access_mail.url, "ACCESS_MAIL__MAILER__PORT": "0"}
    with (tmp_path / "second").open("wb") as log:
        second = await asyncio.create_subprocess_exec(
            *(BIN / "python", "-P", "-m", "services.mailer", "-c", access_mail.config), env=environ, stderr=log
        )
    try:
        await wait_until(lambda: "ready" in (tmp_path / "second").read_text(), "the second mailer is ready")
        outside.mailbox.rules.append(Rule("data", delay=0.3))
        requests = [outside.auth.create_request("alice") for _ in range(50)]
        await wait_until(lambda: len(outside.mailbox.mails) == 100, "all mails have come", timeout=20)
        assert outside.mailbox.duplicates() == {}
        assert all(told(outside, one, ANN) == ["requested"] for one in requests)
    finally:
        second.terminate()
        assert await second.wait() == 0


async def test_8_a_bad_configuration_stops_the_start_with_one_line_per_fault(tmp_path: Path) -> None:
    """Every fault at once, where it is and what to do, and no secret."""
    config = tmp_path / "teleport-email.toml"
    config.write_text(
        """
[teleport]
adr = "teleport.example.com:443"
[smtp]
host = "relay.example.com"
port = "many"
password = "hunter2"
[delivery]
sender = "not an address"
[role_to_recipients]
dev = "dev@example.com"
"""
    )
    done = await command(BIN / "access-mail", "start", "-c", str(config), "--data-dir", str(tmp_path / "data"))
    assert done.code == 1
    lines = done.error.strip().splitlines()
    for key in ("teleport.adr", "smtp.port", "delivery.sender", "role_to_recipients"):
        assert sum(key in line for line in lines) == 1, lines
    assert "hunter2" not in done.error + done.out


async def test_9_nothing_leaks(outside: World, access_mail: Installation) -> None:
    """No address in a log, a key or a metric; no text of a stranger that breaks a header."""
    request_id = outside.auth.create_request("alice", reason="urgent\r\nBcc: mallory@example.net\r\n\r\nhello")
    await both_told(outside, request_id, "requested")
    for mail in outside.mailbox.mails:
        assert mail.message["Bcc"] is None
        assert [address for _, address in getaddresses([mail.message["To"]])] == [mail.recipient]
        assert not mail.message.defects
    found = [key for key in access_mail.redis.scan_iter(count=1000) if b"@" in key]
    assert found == []
    assert not re.search(r"\w@\w", access_mail.log)
