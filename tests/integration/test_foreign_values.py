"""What another program has written into a mail's keys concerns that mail alone, and ends as a dead letter at worst."""

from collections.abc import Iterator

import pytest
from redis import Redis

from services.mailer.mailroom import Mailroom
from shared.mail import Mail
from simulators.mailbox import Mailbox, Rule
from tests.mails import ANN, mail, put
from tests.queueing import receipt
from tests.waiting import wait_for
from tests.working import delivered, mailroom, put_many, working

VALUES = (b"", b"many", b"7", b"-70", b"1.5", b"nan", b"-inf", b"0x10", b" 1", b"9" * 5000, b"\xff\x00", b"[" * 5000)
DELIVERED, MALFORMED, POISON, UNKNOWN = "delivered", "dead malformed", "dead poison", "dead request_unknown"


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> Iterator[Mailroom]:
    """Its relay puts the first mails off: they are tried again, soon."""
    monkeypatch.setattr("services.mailer.upkeep.DUE_SECONDS", 0.05)
    with Mailbox().run_in_thread() as mailbox:
        mailbox.rules = [Rule("data", "450 4.2.0 later", times=20)]
        yield mailroom(mailbox, first_pause="10ms", longest_pause="20ms")


def outcome(redis: Redis, of: Mail) -> str:
    told = receipt(redis, of)
    return f"{told['outcome']} {told['reason']}".rstrip() if told else ""


@pytest.mark.parametrize(
    ("field", "ends"),
    [
        ("attempts", {DELIVERED, MALFORMED}),
        ("first_tried", {DELIVERED, MALFORMED}),
        ("deaths", {DELIVERED, POISON}),
        ("perhaps", {DELIVERED}),
        ("revived", {DELIVERED}),
        ("consent", {DELIVERED}),
        ("claim", {DELIVERED}),
        ("data", {MALFORMED}),
        ("request", {UNKNOWN}),
    ],
)
def test_whatever_stands_in_a_field_of_a_job_every_mail_comes_to_its_end(
    redis: Redis, redis_url: str, room: Mailroom, field: str, ends: set[str]
) -> None:
    put_many(redis, 3)
    foreign = [mail("requested", ANN.model_copy(update={"address": f"f{n}@example.com"})) for n in range(len(VALUES))]
    put(redis, foreign)
    for one, value in zip(foreign, VALUES, strict=True):
        redis.hset(f"rq:job:{one.id}", field, value)
    with working(redis_url, room) as running:
        wait_for(lambda: all(receipt(redis, one) for one in foreign), "each has its receipt", 20)
        wait_for(lambda: delivered(redis) >= 3, "so have the others")
    assert running.error is None
    assert {outcome(redis, one) for one in foreign} == ends
    assert redis.llen("rq:queue:mail") == 0
