"""Every fault that smtp-sink knows, as a real server makes it: what becomes of the mail, and of the next one."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from prometheus_client import CollectorRegistry
from redis import Redis
from redis.asyncio import Redis as AsyncRedis

from services.mailer.errors import DeliveryError, Held, Refusal, Refused, Trouble, Unavailable
from services.mailer.mailroom import Mailroom
from services.mailer.metrics import Metrics
from services.mailer.mime import Mailbox as Sender
from services.mailer.relay import Relay
from services.mailer.render import Renderer
from services.mailer.transports.smtp_login import Patience
from services.mailer.worker import MailWorker
from shared import keys
from shared.settings_values import OnAmbiguous
from tests.mails import mail, put
from tests.queueing import RELAY, known_relay, mailer_end, receipt, status
from tests.relaying import BOB, CONTENT, MAIL, PATIENT, SENDER, Listening, failure, held, transport, unused_transport
from tests.smtp_sink import COMMAND, smtp_sink

pytestmark = pytest.mark.skipif(
    COMMAND is None, reason="smtp-sink is not installed; it comes with Debian's postfix (make tools)"
)

IMPATIENT = Patience(connect=5, command=0.3, content=0.3)

SLOW_DOWN = ("-b", "421 4.7.0 slow down")
FULL = ("-B", "552 5.2.2 mailbox full")

REFUSALS = [
    (("-f", "MAIL"), Refusal.SENDER_REFUSED, 500),
    (("-f", "RCPT"), Refusal.RECIPIENT_REFUSED, 500),
    (("-f", "DATA"), Refusal.MESSAGE_REFUSED, 500),
    (("-f", "."), Refusal.MESSAGE_REFUSED, 500),
    ((*FULL, "-f", "RCPT"), Refusal.RECIPIENT_REFUSED, 552),
    ((*FULL, "-f", "."), Refusal.RECIPIENT_REFUSED, 552),
]

TROUBLES = [
    (("-r", "MAIL"), Trouble.TEMPORARY, 450, False),
    (("-r", "RCPT"), Trouble.TEMPORARY, 450, False),
    (("-r", "DATA"), Trouble.TEMPORARY, 450, False),
    (("-r", "."), Trouble.TEMPORARY, 450, False),
    ((*SLOW_DOWN, "-r", "RCPT"), Trouble.BUSY, 421, False),
    ((*SLOW_DOWN, "-r", "."), Trouble.BUSY, 421, False),
    (("-q", "MAIL"), Trouble.CONNECTION_LOST, None, False),
    (("-q", "RCPT"), Trouble.CONNECTION_LOST, None, False),
    (("-q", "DATA"), Trouble.CONNECTION_LOST, None, False),
    (("-q", "."), Trouble.CONNECTION_LOST, None, True),
    (("-Q", "MAIL"), Trouble.BUSY, 421, False),
    (("-Q", "RCPT"), Trouble.BUSY, 421, False),
    (("-Q", "DATA"), Trouble.BUSY, 421, False),
    (("-Q", "."), Trouble.BUSY, 421, False),
    (("-w", "2"), Trouble.TIMEOUT, None, False),
    (("-W", "DATA:2"), Trouble.TIMEOUT, None, False),
    (("-W", ".:2"), Trouble.TIMEOUT, None, True),
    (("-p", "-W", "MAIL:2"), Trouble.TIMEOUT, None, False),
    (("-p", "-W", "RCPT:2"), Trouble.TIMEOUT, None, False),
]

HOLDS = [
    (("-f", "CONNECT"), Trouble.CONNECT, 500),
    (("-r", "CONNECT"), Trouble.CONNECT, 450),
    (("-r", "EHLO"), Trouble.CONNECT, 450),
    (("-q", "CONNECT"), Trouble.CONNECT, None),
    (("-q", "EHLO"), Trouble.CONNECT, None),
    (("-Q", "CONNECT"), Trouble.BUSY, 421),
    (("-Q", "EHLO"), Trouble.BUSY, 421),
    (("-W", "EHLO:2"), Trouble.CONNECT, None),
]


async def twice(kind: type[DeliveryError], *options: str) -> DeliveryError:
    """The error that a mail meets, and the next one, too: nothing of the first is left that would change that."""
    with smtp_sink(*options) as sink:
        async with transport(sink, IMPATIENT, connections=1) as smtp:
            first = await failure(kind, smtp.send(MAIL, held))
            second = await failure(kind, smtp.send(MAIL, held))
    assert (second.code, type(second)) == (first.code, type(first))
    return first


@pytest.mark.parametrize("lockstep", [(), ("-p",)], ids=["pipelining", "lockstep"])
@pytest.mark.parametrize(("options", "reason", "code"), REFUSALS, ids=str)
async def test_a_refusal_is_for_ever(
    options: tuple[str, ...], reason: Refusal, code: int, lockstep: tuple[str, ...]
) -> None:
    error = await twice(Refused, *options, *lockstep)
    assert isinstance(error, Refused)
    assert (error.reason, error.code) == (reason, code)


@pytest.mark.parametrize("lockstep", [(), ("-p",)], ids=["pipelining", "lockstep"])
@pytest.mark.parametrize(("options", "reason", "code", "perhaps"), TROUBLES, ids=str)
async def test_trouble_is_for_now(
    options: tuple[str, ...], reason: Trouble, code: int | None, lockstep: tuple[str, ...], *, perhaps: bool
) -> None:
    error = await twice(Unavailable, *options, *lockstep)
    assert isinstance(error, Unavailable)
    assert (error.reason, error.code, error.perhaps) == (reason, code, perhaps)


@pytest.mark.parametrize(("options", "reason", "code"), HOLDS, ids=str)
async def test_what_precedes_mail_holds_all(options: tuple[str, ...], reason: Trouble, code: int | None) -> None:
    error = await twice(Held, *options)
    assert isinstance(error, Held)
    assert (error.reason, error.code) == (reason, code)


@pytest.mark.parametrize("command", ["MAIL", "RCPT"])
async def test_a_relay_whose_delays_mix_up_its_answers_hears_commands_one_by_one_from_then_on(command: str) -> None:
    with smtp_sink("-W", f"{command}:1") as sink:
        async with transport(sink, PATIENT, connections=1) as smtp:
            error = await failure(Unavailable, smtp.send(MAIL, held))
            assert (error.reason, error.perhaps) == (Trouble.PROTOCOL, False)
            assert (await smtp.send(MAIL, held)).startswith("250 ")


@pytest.fixture
def drop() -> Iterator[Path]:
    """A directory that anybody may write to: as root, smtp-sink runs as nobody."""
    with TemporaryDirectory(dir="/tmp") as name:
        Path(name).chmod(0o777)
        yield Path(name)


def dumped(drop: Path) -> list[bytes]:
    """The mails that smtp-sink has put there, with what it knows of them."""
    return [file.read_bytes() for file in drop.iterdir()]


@pytest.mark.parametrize(
    "options",
    [(), ("-e",), ("-p",), ("-8",), ("-E",), ("-N",), ("-a",), ("-h", "relay.test"), ("-e", "-p", "-8", "-E", "-N")],
    ids=str,
)
async def test_whatever_it_announces_mails_arrive_whole(options: tuple[str, ...], drop: Path) -> None:
    with smtp_sink(*options, "-d", f"{drop}/mail.") as sink:
        async with transport(sink, PATIENT, connections=1) as smtp:
            for _ in range(3):
                await smtp.send(MAIL, held)
    files = dumped(drop)
    assert len(files) == 3
    for text in files:
        assert CONTENT.replace(b"\r\n", b"\n") in text
        assert f"X-Rcpt-Args: <{BOB}>".encode() in text
        assert f"X-Mail-Args: <{SENDER}>".encode() in text


async def test_a_refusal_in_the_middle_of_the_content_is_one() -> None:
    with smtp_sink("-A", "1") as sink:
        async with transport(sink, PATIENT, connections=1) as smtp:
            error = await failure(Refused, smtp.send(MAIL, held))
    assert (error.reason, error.code) == (Refusal.MESSAGE_REFUSED, 550)


async def test_a_refusal_before_any_content_has_left_is_trouble_without_doubt() -> None:
    with smtp_sink("-A", "0") as sink:
        async with transport(sink, PATIENT, connections=1) as smtp:
            error = await failure(DeliveryError, smtp.send(MAIL, held))
    assert isinstance(error, Refused) or (isinstance(error, Unavailable) and not error.perhaps)


# -- the same faults as a worker meets them: what it counts, and what is left in Redis

PATIENTLY = replace(RELAY, first_probe=60, longest_probe=60)
FIRST_PAUSE = 60
JITTER = 0.5
TAKEN = {("mails", "delivered", "accepted"): 1.0, ("relay_answers", "2xx"): 1.0}


def work(redis: Redis, url: str, relay: Listening) -> dict[tuple[str, ...], float]:
    """Let a worker do what can be done now; what it counts of mails and of the relay, by the values of the labels."""
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    room = Mailroom(
        Renderer(Sender("", SENDER), "example.com"),
        Relay(unused_transport(relay, IMPATIENT, connections=1), metrics),
        first_pause=timedelta(seconds=FIRST_PAUSE),
        longest_pause=timedelta(hours=1),
        on_ambiguous=OnAmbiguous.RETRY,
        jitter=lambda: JITTER,
    )
    mails = AsyncRedis.from_url(url)
    MailWorker(redis, mails, room, metrics, relay=PATIENTLY, capacity=3, grace=10).work(burst=True)
    names = [f"access_mail_mailer_{name}" for name in ("mails_total", "relay_answers_total", "relay_held")]
    names.append("access_mail_mailer_ambiguous_answers_total")
    return {
        (sample.name.removeprefix("access_mail_mailer_").removesuffix("_total"), *sample.labels.values()): sample.value
        for family in registry.collect()
        for sample in family.samples
        if sample.name in names and sample.value
    }


async def end_pause(redis: Redis, url: str) -> None:
    """The mail's pause is over, and a worker has seen that."""
    redis.zadd("rq:scheduled:mail", {mail("requested").id: 1})
    async with AsyncRedis.from_url(url) as connection:
        assert await mailer_end(connection, redis, "w1").queue_due() == 1


def answered(code: int | None) -> tuple[str, str]:
    return ("relay_answers", "none" if code is None else f"{code // 100}xx")


@pytest.fixture
def queued(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> Redis:
    """A mail is in the queue of a relay that has taken others, and workers look whether there is more in no time."""
    monkeypatch.setattr("services.mailer.worker.IDLE_SECONDS", 0.05)
    known_relay(redis)
    put(redis, [mail("requested")])
    return redis


@pytest.mark.parametrize(("options", "reason", "code"), REFUSALS[1:], ids=str)
def test_a_refused_mail_is_a_dead_letter(
    queued: Redis, redis_url: str, options: tuple[str, ...], reason: Refusal, code: int
) -> None:
    with smtp_sink(*options) as sink:
        assert work(queued, redis_url, sink) == {("mails", "dead", reason): 1.0, answered(code): 1.0}
        assert work(queued, redis_url, sink) == {}, "nobody tries it again"
    told = receipt(queued, mail("requested"))
    assert (told["outcome"], told["reason"], told["attempts"], told["perhaps"]) == ("dead", reason, "1", "0")
    assert told["detail"].startswith(str(code))
    assert status(queued, mail("requested")) == "failed"


TROUBLES_OF_A_MAIL = [*TROUBLES, (("-f", "MAIL"), Refusal.SENDER_REFUSED, 500, False)]


@pytest.mark.parametrize(("options", "reason", "code", "perhaps"), TROUBLES_OF_A_MAIL, ids=str)
def test_a_troubled_mail_waits_for_its_pause_and_is_told_then(
    queued: Redis, redis_url: str, options: tuple[str, ...], reason: str, code: int | None, *, perhaps: bool
) -> None:
    expected = {("mails", "later", reason): 1.0, answered(code): 1.0}
    with smtp_sink(*options) as sink:
        counted = work(queued, redis_url, sink)
    assert counted == expected | ({("ambiguous_answers",): 1.0} if perhaps else {})
    assert status(queued, mail("requested")) == "scheduled"
    due = queued.zscore("rq:scheduled:mail", mail("requested").id)
    assert due == pytest.approx(queued.time()[0] + FIRST_PAUSE * JITTER, abs=10)
    attempts = 0 if reason == Trouble.BUSY else 1
    job = queued.hmget(f"rq:job:{mail('requested').id}", "attempts", "perhaps")
    assert job == [str(attempts).encode(), b"1" if perhaps else b"0"]
    assert not receipt(queued, mail("requested"))

    asyncio.run(end_pause(queued, redis_url))
    with smtp_sink() as sink:
        assert work(queued, redis_url, sink) == TAKEN
    told = receipt(queued, mail("requested"))
    assert (told["outcome"], int(told["attempts"])) == ("delivered", attempts + 1)
    assert told["perhaps"] == ("1" if perhaps else "0")


@pytest.mark.parametrize(("options", "reason", "code"), HOLDS, ids=str)
def test_a_mail_that_is_held_has_spent_nothing_and_goes_first(
    queued: Redis, redis_url: str, options: tuple[str, ...], reason: Trouble, code: int | None
) -> None:
    expected = {("mails", "held", reason): 1.0, answered(code): 1.0, ("relay_held", reason): 1.0}
    with smtp_sink(*options) as sink:
        assert work(queued, redis_url, sink) == expected
    assert status(queued, mail("requested")) == "queued"
    assert queued.hget(f"rq:job:{mail('requested').id}", "attempts") is None
    relay = queued.hmget(keys.relay(RELAY.name), "state", "reason", "wait")
    assert relay == [b"open", reason.encode(), str(PATIENTLY.first_probe).encode()]
    assert queued.zcard("rq:failed:mail") == queued.zcard("rq:scheduled:mail") == 0

    queued.hset(keys.relay(RELAY.name), "probe_at", 0)
    with smtp_sink() as sink:
        assert work(queued, redis_url, sink) == TAKEN
    assert receipt(queued, mail("requested"))["attempts"] == "1"
