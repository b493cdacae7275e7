"""Every new receipt goes on the stream for the watchers, once, whatever it says."""

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from redis import Redis
from redis.asyncio import Redis as AsyncRedis

from shared import keys
from shared.claimed import Claimed
from shared.mail import Dead, Delivered, Dropped, Later, Mail, Notice, Verdict
from shared.mail_queue.mailer_end import MailerEnd
from shared.receipts import ReceiptReader, WrittenReceipt
from tests.mails import ANN, BOB, mail, memory, put
from tests.queueing import claim, known_relay, mailer_end, settle


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[AsyncRedis]:
    async with AsyncRedis.from_url(redis_url) as client:
        yield client


@pytest.fixture
async def end(client: AsyncRedis, redis: Redis) -> MailerEnd:
    known_relay(redis)
    return mailer_end(client, redis, "w")


@pytest.fixture
async def reader(client: AsyncRedis) -> ReceiptReader:
    reader = ReceiptReader(client, "one")
    await reader.open()
    return reader


async def deliver(end: MailerEnd, verdict: Verdict) -> Claimed:
    """Settle the one mail that is in the queue."""
    (job,) = await claim(end)
    await settle(end, job, verdict)
    return job


async def received(reader: ReceiptReader) -> list[tuple[str, str, str, bool]]:
    found = await reader.new(100, None)
    assert all(isinstance(one, WrittenReceipt) for one in found)
    return [
        (one.request_id, str(one.notice), one.recipient_hash, one.perhaps_read)
        for one in found
        if isinstance(one, WrittenReceipt)
    ]


@pytest.mark.parametrize(
    ("verdict", "perhaps_read"),
    [(Delivered("250"), True), (Dropped("settled"), False), (Dead("refused", "550"), False)],
)
async def test_what_became_of_a_mail_is_told(
    redis: Redis, end: MailerEnd, reader: ReceiptReader, verdict: Verdict, *, perhaps_read: bool
) -> None:
    put(redis, [mail("requested", BOB)])
    await deliver(end, verdict)
    assert await received(reader) == [("r1", "requested", BOB.hash, perhaps_read)]


async def test_a_mail_that_is_tried_again_has_no_receipt_yet_and_then_perhaps_was_read(
    redis: Redis, end: MailerEnd, reader: ReceiptReader
) -> None:
    put(redis, [mail("requested")])
    await deliver(end, Later(0, "no answer", perhaps=True))
    assert await received(reader) == []
    redis.zadd("rq:scheduled:mail", {mail("requested").id: 0})
    await end.queue_due()
    await deliver(end, Dead("refused", "550"))
    assert await received(reader) == [("r1", "requested", ANN.hash, True)]


async def test_the_same_receipt_is_told_once(redis: Redis, end: MailerEnd, reader: ReceiptReader) -> None:
    put(redis, [mail("requested")])
    job = await deliver(end, Delivered("250"))
    await settle(end, job, Delivered("250"))
    assert len(await received(reader)) == 1


async def test_what_is_done_is_forgotten_and_the_rest_is_taken_over(
    redis: Redis, client: AsyncRedis, end: MailerEnd, reader: ReceiptReader
) -> None:
    for request_id in ("r1", "r2"):
        put(redis, [mail("requested", ANN, request_id)], memory(request_id=request_id))
        await deliver(end, Delivered("250"))
    first, second = await reader.new(10, None)
    await reader.done([first.entry])
    assert redis.xlen(keys.RECEIPTS) == 1
    other = ReceiptReader(client, "two")
    assert await other.new(10, None) == []
    assert isinstance(second, WrittenReceipt)
    assert await other.left(10, 60_000) == []
    assert await other.left(10, 0) == [replace(second, was_left=True)]


async def test_a_notice_is_settled_once_all_who_were_told_have_its_receipt(
    redis: Redis, end: MailerEnd, reader: ReceiptReader
) -> None:
    def notices() -> list[Notice]:
        return [Notice.parse("requested"), Notice.parse("approved")]

    put(redis, [mail("requested", ANN)])
    await deliver(end, Delivered("250"))
    assert await reader.settled("r1", notices(), (ANN, BOB)) == set()
    put(redis, [mail("requested", BOB)])
    await deliver(end, Dead("refused", "550"))
    assert await reader.settled("r1", notices(), (ANN, BOB)) == {Notice.parse("requested")}
    assert await reader.settled("r1", notices(), ()) == set()


async def test_receipts_that_nobody_fetches_are_bounded(redis: Redis, end: MailerEnd, reader: ReceiptReader) -> None:
    with redis.pipeline() as pipeline:
        for number in range(100_500):
            pipeline.xadd(keys.RECEIPTS, {"mail": f"r{number}"})
        pipeline.execute()
    put(redis, [mail("requested")])
    await deliver(end, Delivered("250"))
    assert redis.xlen(keys.RECEIPTS) < 100_200
    remembered = await reader.remembered(["r1", "r2"])
    assert list(remembered) == ["r1"]
    assert remembered["r1"].told == (ANN, BOB)


def test_its_stored_form_is_that_of_the_first_release() -> None:
    """What stood in Redis before there were records: nothing is announced in it."""
    stored = (
        '{"v":1,"request_id":"r1","notice":{"kind":"requested"},"recipient":{"address":"a@example.com","why":"role"}}'
    )
    assert Mail.model_validate_json(stored).recipient.announced_in is None
