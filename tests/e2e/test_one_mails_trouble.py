"""What concerns one mail alone: a refusal, a lost answer. Whoever else is told has nothing of it."""

from pathlib import Path

from redis import Redis

from shared.keys import RECEIPT_PREFIX
from simulators.rules import Rule
from simulators.world import World
from tests.e2e.installation import installed
from tests.e2e.reading import notices
from tests.waiting import wait_until

ANN, BOB, NOBODY = "ann@example.com", "bob@example.com", "nobody@example.com"
REQUESTS = 12


async def test_a_recipient_whose_every_mail_is_refused_delays_nobody(outside: World, tmp_path: Path) -> None:
    refusal = Rule("data", "550 5.7.1 we do not like this", recipient=NOBODY, delay=0.5)
    outside.mailbox.rules.append(refusal)
    configuration = outside.configuration({"*": [NOBODY, ANN, BOB]})
    async with installed(tmp_path, configuration) as access_mail:
        requests = [outside.auth.create_request("alice") for _ in range(REQUESTS)]
        await wait_until(lambda: len(outside.mailbox.mails) == 2 * REQUESTS, "all others have their mails")
        assert len(access_mail.dead()) < REQUESTS  # their refusals are still under way
        await wait_until(lambda: len(access_mail.dead()) == REQUESTS, "all its mails are dead letters")
        for request_id in requests:
            for address in (ANN, BOB):
                assert notices(outside.mailbox.thread(request_id, address)) == ["requested"]
        assert {receipt(access_mail.redis, dead)[:2] for dead in access_mail.dead()} == {(b"dead", b"message_refused")}
        late = outside.auth.create_request("alice")
        await wait_until(lambda: outside.mailbox.thread(late, ANN), "the relay is still used")


async def test_a_lost_answer_makes_a_dead_letter_and_no_duplicate_where_that_is_wanted(
    outside: World, tmp_path: Path
) -> None:
    outside.mailbox.rules.append(Rule("accepted", drop=True, times=1))
    configuration = outside.configuration({"*": [ANN]}) + '[mailer]\non_ambiguous = "dead"\n'
    async with installed(tmp_path, configuration) as access_mail:
        request_id = outside.auth.create_request("alice")
        await wait_until(access_mail.dead, "the mail in doubt is a dead letter")
        (dead,) = access_mail.dead()
        assert receipt(access_mail.redis, dead) == (b"dead", b"ambiguous", b"1")
        outside.auth.approve(request_id)  # whoever has perhaps been asked is told how it ends
        await wait_until(lambda: len(outside.mailbox.mails) == 2, "the resolution is told")
        assert notices(outside.mailbox.thread(request_id, ANN)) == ["requested", "approved"]


def receipt(redis: Redis, mail_id: str) -> tuple[bytes | str, ...]:
    """Outcome, reason, and whether the relay may have the mail, as the ledger has them."""
    fields = redis.hgetall(RECEIPT_PREFIX + mail_id)
    return fields[b"outcome"], fields.get(b"reason", b""), fields.get(b"perhaps", b"0")
