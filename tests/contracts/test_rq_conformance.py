"""At rest the mail queue looks as if RQ's own worker had run it.

Stock jobs of the same ids are put and run by RQ itself; then the keyspaces are compared. Named exceptions: fields of
ours in a job's hash, none that are empty (RQ reads a job the same without them; they would cost 0.4 KB a mail), and no
result stream for a mail that is tried later (it would cost 4.8 KB a mail).
"""

import json
import re
import zlib
from base64 import b64decode
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any

import pytest
from redis import Redis
from redis.asyncio import Redis as AsyncRedis
from rq import SimpleWorker
from rq.serializers import JSONSerializer

from services.mailer.worker import MailWorker
from shared.claimed import Claimed
from shared.event_log import GROUP, EventReader
from shared.mail import Dead, Delivered, Dropped, Held, Later, Mail, Notice, Recipient, Verdict, Why
from shared.mail_queue import layout, mailer_end
from shared.mail_queue.layout import DESCRIPTION, TIMEOUT_SECONDS, rq_queue
from shared.mail_queue.mailer_end import DEATHS_SURVIVED, MailerEnd
from shared.mail_queue.router_end import Commit, RouterEnd
from shared.memory import RequestMemory
from tests.contracts import stock_jobs
from tests.counting import CountingMetrics
from tests.integration.conftest import end
from tests.queueing import RELAY, claim, end_claims, known_relay, settle

__all__ = ["end"]

OWN_FIELDS = {"thread", "request", "claim", "deaths", "attempts", "first_tried", "perhaps", "revived"}
NO_JSON = "result"
"""RQ keeps the `Retry` object that a job returned there, as a note that JSON cannot hold it."""

MONTH = 30 * 24 * 3600
PEOPLE = {name: Recipient(address=f"{name}@example.com", why=Why.DEFAULT) for name in ("ann", "bob", "cy", "dee")}
VERDICTS: dict[str, Verdict] = {
    "ann": Delivered("250 ok"),
    "bob": Dead("refused", "550 no such user"),
    "cy": Later(100, "deferred"),
    "dee": Dropped("settled"),
}
STOCK: dict[str, Callable[[object], object]] = {
    "ann": stock_jobs.deliver,
    "bob": stock_jobs.refuse,
    "cy": stock_jobs.defer,
    "dee": stock_jobs.deliver,
}


def mail_to(name: str) -> Mail:
    return Mail(request_id="r1", notice=Notice.parse("requested"), recipient=PEOPLE[name])


def put_ours(redis: Redis, names: Iterable[str] = PEOPLE) -> None:
    EventReader(redis, "test").open()
    mails = [mail_to(name) for name in names]
    RouterEnd(redis, GROUP, "test").commit([Commit("1-1", "r1", "", RequestMemory(), mails)])


SECONDS_BETWEEN_RUNS = 20


class Verdicts:
    """A mailroom that has made up its mind."""

    async def deliver(self, claimed: Claimed, _still_held: Callable[[], bool], /) -> Verdict:
        return VERDICTS[claimed.mail.recipient.address.partition("@")[0]]

    def unwanted(self, _claimed: Claimed, /) -> Dropped | Dead | None:
        return None

    async def close(self) -> None:
        """Nothing is open."""


def run_ours(redis: Redis, url: str) -> None:
    mails = AsyncRedis.from_url(url)
    MailWorker(redis, mails, Verdicts(), CountingMetrics(), relay=RELAY, capacity=3, grace=10).work(burst=True)


def put_stock(redis: Redis, functions: Mapping[str, Callable[[object], object]] = STOCK) -> None:
    queue = rq_queue(redis)
    for name, function in functions.items():
        queue.enqueue(
            function,
            mail_to(name).model_dump(mode="json", exclude_none=True),
            job_id=mail_to(name).id,
            description=DESCRIPTION,
            job_timeout=TIMEOUT_SECONDS,
            result_ttl=0,
            failure_ttl=MONTH,
        )


def run_stock(redis: Redis, _url: str) -> None:
    SimpleWorker([rq_queue(redis)], connection=redis, serializer=JSONSerializer).work(
        burst=True, logging_level="WARNING"
    )


class Near(float):
    """A time that is the same in two runs, one a few seconds after the other."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Near) and abs(self - other) < SECONDS_BETWEEN_RUNS

    __hash__ = None  # type: ignore[assignment]  # what is near to two others may make them no nearer


def keyspace(redis: Redis) -> dict[str, Any]:
    """Every key of RQ's but those of workers, in a form that two runs have in common."""
    keys = sorted(key.decode() for key in redis.scan_iter("rq:*", count=1000))
    return {key: content(redis, key) for key in keys if not key.startswith(("rq:worker", "rq:clean"))}


def content(redis: Any, key: str) -> tuple[str, str | Near, Any]:
    kind = redis.type(key).decode()
    lifetime = redis.ttl(key)
    readers: dict[str, Callable[[], Any]] = {
        "hash": lambda: {
            field.decode(): value_of(field.decode(), value)
            for field, value in sorted(redis.hgetall(key).items())
            if value and field.decode() not in OWN_FIELDS | {NO_JSON}
        },
        "zset": lambda: [(member.decode(), Near(score)) for member, score in redis.zrange(key, 0, -1, withscores=True)],
        "set": lambda: sorted(member.decode() for member in redis.smembers(key)),
        "list": lambda: [member.decode() for member in redis.lrange(key, 0, -1)],
        "stream": lambda: [
            {field.decode(): value_of(field.decode(), value) for field, value in fields.items()}
            for _, fields in redis.xrange(key)
        ],
    }
    return kind, "for ever" if lifetime == -1 else Near(lifetime), readers[kind]()


def value_of(field: str, value: bytes) -> str:
    if field == "data":
        with suppress(zlib.error):  # ours is not compressed, which RQ takes as well
            value = zlib.decompress(value)
        _function, instance, arguments, keywords = json.loads(value)
        return json.dumps([instance, arguments, keywords])
    if field == "exc_string":
        return zlib.decompress(b64decode(value)).decode().splitlines()[-1].rpartition(": ")[2]
    if field in {"execution_started_at", "execution_ended_at", "execution_id", "worker_name"}:
        return "<set>" if value else ""
    return re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", "<time>", value.decode())


@pytest.fixture
def stock(redis: Redis, redis_url: str) -> tuple[dict[str, Any], dict[str, Any]]:
    put_stock(redis)
    queued = keyspace(redis)
    run_stock(redis, redis_url)
    settled = keyspace(redis)
    redis.flushall()
    return queued, settled


def test_jobs_in_the_queue_are_rq_jobs(stock: tuple[dict[str, Any], dict[str, Any]], redis: Redis) -> None:
    put_ours(redis)
    assert keyspace(redis) == stock[0]


def test_settled_jobs_leave_what_rq_leaves(
    stock: tuple[dict[str, Any], dict[str, Any]], redis: Redis, redis_url: str
) -> None:
    put_ours(redis)
    run_ours(redis, redis_url)
    expected = {key: value for key, value in stock[1].items() if key != f"rq:results:{mail_to('cy').id}"}
    assert keyspace(redis) == expected


def test_a_broken_script_is_caught(
    stock: tuple[dict[str, Any], dict[str, Any]], redis: Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(name: str) -> str:
        return layout.script_source(name).replace("redis.call('ZADD', FAILED,", "redis.call('ZADD', SCHEDULED,")

    monkeypatch.setattr(mailer_end, "script_source", broken)
    put_ours(redis)
    run_ours(redis, redis_url)
    assert keyspace(redis)["rq:scheduled:mail"] != stock[1]["rq:scheduled:mail"]


# -- jobs that are put back, jobs that end their workers, and what workers count

OF_AN_EARLIER_TRY = {"started_at", "last_heartbeat", "worker_name"}
"""Fields of a job that RQ leaves as they are when it puts one back."""


def untried(space: dict[str, Any]) -> dict[str, Any]:
    """Without what only tells that there has been a try."""
    return {
        key: (kind, life, {name: value for name, value in fields.items() if name not in OF_AN_EARLIER_TRY})
        if kind == "hash"
        else (kind, life, fields)
        for key, (kind, life, fields) in space.items()
    }


@pytest.mark.parametrize("way", ["held", "released", "recovered"])
async def test_a_job_that_is_put_back_is_one_that_waits(
    stock: tuple[dict[str, Any], dict[str, Any]], redis: Redis, end: MailerEnd, way: str
) -> None:
    known_relay(redis)
    put_ours(redis)
    (job,) = await claim(end, 1)
    if way == "held":
        await settle(end, job, Held("connect", "refused"))
    elif way == "released":
        await end.release([(job.mail.id, job.execution, False)])
    else:
        await end_claims(redis)
        await end.recover()
    assert untried(keyspace(redis)) == stock[0]


async def test_poison_is_a_job_that_failed(redis: Redis, redis_url: str, end: MailerEnd) -> None:
    put_stock(redis, {"ann": stock_jobs.poison})
    run_stock(redis, redis_url)
    expected = keyspace(redis)
    redis.flushall()
    known_relay(redis)
    put_ours(redis, ["ann"])
    for _ in range(DEATHS_SURVIVED + 1):
        assert len(await claim(end)) == 1
        await end_claims(redis)
        await end.recover()
    assert (await end.claim(["last"])).poison == [mail_to("ann").id]
    assert keyspace(redis) == expected


def counted(redis: Any) -> list[bytes]:
    """What the one worker that there was has told RQ of its jobs, and whether it has told of its time."""
    (key,) = (key for key in redis.scan_iter("rq:worker:*") if redis.type(key) == b"hash")
    assert float(redis.hget(key, "total_working_time")) > 0
    return list(redis.hmget(key, "successful_job_count", "failed_job_count"))


def test_a_worker_counts_as_rqs_own_does(redis: Redis, redis_url: str) -> None:
    put_stock(redis)
    run_stock(redis, redis_url)
    expected = counted(redis)
    redis.flushall()
    put_ours(redis)
    run_ours(redis, redis_url)
    assert counted(redis) == expected == [b"2", b"2"]
