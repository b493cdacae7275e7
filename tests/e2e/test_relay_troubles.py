"""What goes wrong at the relay: mails come late rather than never, nobody waits for another's trouble, none twice."""

from pathlib import Path

from redis import Redis

from services.watcher.teleport.pb import types_pb2
from shared import keys
from shared.keys import RECEIPT_PREFIX
from simulators.rules import Rule
from simulators.world import World
from tests.e2e.installation import installed
from tests.e2e.reading import notices
from tests.waiting import wait_until

ANN, BOB, NOBODY = "ann@example.com", "bob@example.com", "nobody@example.com"

IMPATIENT = """
[mailer]
first_pause = "200ms"
longest_pause = "1s"
first_probe = "200ms"
longest_probe = "1s"
"""
"""So that a test need not wait a quarter of a minute for the second try."""


def configuration(outside: World, *people: str) -> str:
    """All requests go to these people, and tries follow each other fast."""
    return outside.configuration({"*": people}) + IMPATIENT


async def told(outside: World, request_id: str, expected: list[str], address: str = ANN) -> None:
    """Wait until this person has had these mails, in this order and no others."""
    await wait_until(
        lambda: notices(outside.mailbox.thread(request_id, address)) == expected,
        f"{address} has had {', '.join(expected)}",
        timeout=15,
    )


async def test_what_the_relay_defers_is_delivered_later_and_in_order(outside: World, tmp_path: Path) -> None:
    async with installed(tmp_path, configuration(outside, ANN)) as access_mail:
        for rule in (
            Rule("rcpt", "451 4.7.1 Greylisted, try again in 1 second", times=2),
            Rule("data", "452 4.3.1 Insufficient system storage", times=1),
            Rule("mail", "421 4.3.2 Shutting down", times=1),
        ):
            outside.mailbox.rules[:] = [rule]
            request_id = outside.auth.create_request("alice", approvals=2)
            await wait_until(lambda rule=rule: rule.obeyed, "the relay has deferred the mail")
            outside.auth.review(request_id, "erin", types_pb2.APPROVED)
            await told(outside, request_id, ["requested", "reviewed-1"])
            assert rule.obeyed == rule.times
        assert access_mail.dead() == []
        assert outside.mailbox.duplicates() == {}


async def test_a_relay_that_is_down_at_first_gets_its_mails_when_it_is_back(outside: World, tmp_path: Path) -> None:
    await outside.mailbox.stop()
    async with installed(tmp_path, configuration(outside, ANN)) as access_mail:
        requests = [outside.auth.create_request(user) for user in ("alice", "erin")]
        await access_mail.said(r"mailer: the relay is held \(connect: ")
        assert (access_mail.waiting(), access_mail.dead()) == (0, [])
        await outside.mailbox.start()
        for request_id in requests:
            await told(outside, request_id, ["requested"])
        assert access_mail.dead() == []
        assert outside.mailbox.duplicates() == {}


async def test_a_wrong_password_kills_no_mail_and_the_right_one_needs_no_restart(
    outside: World, tmp_path: Path
) -> None:
    outside.mailbox.users["access"] = "the right secret"
    file = tmp_path / "password"
    file.write_text("the wrong secret")
    environ = {"ACCESS_MAIL__SMTP__USERNAME": "access", "ACCESS_MAIL__SMTP__PASSWORD_FILE": str(file)}
    async with installed(tmp_path, configuration(outside, ANN), environ) as access_mail:
        requests = [outside.auth.create_request(user) for user in ("alice", "erin")]
        await wait_until(lambda: len(outside.mailbox.logins) >= 2, "the relay has refused the password")
        assert outside.mailbox.mails == []
        assert access_mail.dead() == []
        file.write_text("the right secret\n")
        for request_id in requests:
            await told(outside, request_id, ["requested"])
        assert access_mail.dead() == []
        assert "secret" not in access_mail.log


async def test_a_recipient_that_is_refused_delays_nobody_and_is_a_dead_letter_with_its_reason(
    outside: World, tmp_path: Path
) -> None:
    refusal = Rule("rcpt", "550 5.1.1 no such user", recipient=NOBODY, delay=1)
    outside.mailbox.rules.append(refusal)
    async with installed(tmp_path, configuration(outside, NOBODY, ANN, BOB)) as access_mail:
        is_met(access_mail.redis, outside)
        request_id = outside.auth.create_request("alice", approvals=2)
        for address in (ANN, BOB):
            await told(outside, request_id, ["requested"], address)
        assert access_mail.dead() == []  # for its refusal is still under way: the others did not wait for it
        outside.auth.review(request_id, "erin", types_pb2.APPROVED)
        outside.auth.approve(request_id)
        for address in (ANN, BOB):
            await told(outside, request_id, ["requested", "reviewed-1", "approved"], address)
        await wait_until(access_mail.is_idle, "the refused thread is done with, too")
        (dead,) = access_mail.dead()
        assert dead.startswith(f"{request_id}-requested-")
        assert receipt(access_mail.redis, dead) == (b"dead", b"recipient_refused", b"550 5.1.1 no such user")
        assert outside.mailbox.thread(request_id, NOBODY) == []
        assert refusal.obeyed == 1  # what follows in that thread is not even tried


def is_met(redis: Redis, outside: World) -> None:
    """Let the relay have taken mails before: a new one is given a single mail first."""
    relay = keys.relay(f"{outside.mailbox.host}:{outside.mailbox.port}")
    redis.hset(relay, mapping={"state": "closed", "changed": 0})
    redis.expire(relay, 3600)


def receipt(redis: Redis, mail_id: str) -> tuple[bytes | str, ...]:
    """Outcome, reason and the relay's answer, as the ledger has them."""
    fields = redis.hgetall(RECEIPT_PREFIX + mail_id)
    return fields[b"outcome"], fields.get(b"reason", b""), fields.get(b"detail", b"")


async def test_a_lost_answer_makes_a_duplicate_that_mail_programs_know_by_its_message_id(
    outside: World, tmp_path: Path
) -> None:
    outside.mailbox.rules.append(Rule("accepted", drop=True, times=1))
    async with installed(tmp_path, configuration(outside, ANN)) as access_mail:
        request_id = outside.auth.create_request("alice")
        await told(outside, request_id, ["requested", "requested"])
        first, second = outside.mailbox.mails
        assert first.message_id == second.message_id
        outside.auth.approve(request_id)
        await told(outside, request_id, ["requested", "requested", "approved"])
        assert access_mail.dead() == []
