"""Mails a second at saturation: ours beside RQ's own workers, another Python queue, and no queue at all.

All render and send the same mail to the same sink, in rounds that take turns, so that noise falls on all alike.
"""

import asyncio
import importlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from redis import Redis
from rq import Queue
from rq.serializers import JSONSerializer

from benchmarks.machine import Certificates, cpu, cpu_of, memory, module, running, sink, url_of, used, valkey, wait
from benchmarks.sample import SENDER, facts, mails, request_ids
from shared import keys
from shared.event_log import GROUP, EventReader
from shared.mail_queue.router_end import Commit, RouterEnd
from shared.memory import RequestMemory

PATIENCE_SECONDS = 30.0
WARM_UP = 0.2
"""Part of the mails that is sent before the measurement begins."""


@dataclass(frozen=True)
class Relay:
    """The sink as a contender meets it."""

    name: str
    tls: bool = False
    delay: float = 0.0


@dataclass(frozen=True)
class Race:
    """One contender against one relay."""

    contender: str
    relay: Relay
    connections: int
    mails: int
    processes: int = 1


@dataclass(frozen=True)
class Result:
    """What one race has shown."""

    mails_per_second: float
    cpu_milliseconds: float
    """Of the contender's processes, for each mail."""
    round_trips: float
    """To Redis, for each mail."""
    redis_milliseconds: float
    """CPU of Redis, for each mail."""
    sink_milliseconds: float
    """CPU of the sink, for each mail: what the measurement itself takes from the machine."""
    commands: float
    memory_megabytes: float


PLAIN = Relay("plaintext")
TLS = Relay("STARTTLS + AUTH", tls=True)
FAR = Relay("20 ms away, STARTTLS + AUTH", tls=True, delay=0.02)

RACES = (
    Race("RQ Worker", PLAIN, 1, 150),
    Race("RQ SimpleWorker", PLAIN, 1, 600),
    Race("taskiq", PLAIN, 20, 3_000),
    Race("aiosmtplib alone", PLAIN, 20, 6_000),
    Race("MailWorker", PLAIN, 20, 9_000),
    Race("MailWorker", PLAIN, 20, 12_000, processes=2),
    Race("RQ SimpleWorker", TLS, 1, 600),
    Race("aiosmtplib alone", TLS, 20, 6_000),
    Race("MailWorker", TLS, 20, 9_000),
    *(
        Race(contender, FAR, connections, 60 * connections + 60)
        for connections in (1, 10, 50)
        for contender in ("aiosmtplib alone", "MailWorker")
    ),
)


def measure(folder: Path, rounds: int) -> list[dict[str, Any]]:
    """Run all races, `rounds` times in turn; the medians, one row a race."""
    results: dict[Race, list[Result]] = {race: [] for race in RACES}
    certificates = Certificates.create(folder)
    for number in range(rounds):
        for race in RACES:
            place = folder / f"{number}-{len(results[race])}-{RACES.index(race)}"
            place.mkdir()
            results[race].append(run(race, place, certificates))
    return [_row(race, found) for race, found in results.items()]


def run(race: Race, folder: Path, certificates: Certificates) -> Result:
    """One race, from a full queue to an empty one. Raises `TooSlow`."""
    contender = CONTENDERS[race.contender]
    warm_up = int(race.mails * WARM_UP)
    relay = race.relay
    with (
        valkey(folder) as redis,
        sink(folder, warm_up, relay.delay, certificates if relay.tls else None) as target,
    ):
        environ = environ_of(race, url_of(redis), target.port, certificates)
        contender.fill(redis, race, environ)
        with running([contender.command(race, url_of(redis))] * race.processes, environ) as pids:
            wait(lambda: target.tally.read()[0] >= warm_up, f"{race.contender} is warm", PATIENCE_SECONDS)
            before, at = used(pids, redis), target.tally.read()[0]
            beside = cpu_of(redis), cpu(target.pid)
            wait(lambda: target.tally.read()[0] >= race.mails, f"{race.contender} is done", PATIENCE_SECONDS)
            spent, size = used(pids, redis) - before, memory(pids)
            redis_cpu, sink_cpu = cpu_of(redis) - beside[0], cpu(target.pid) - beside[1]
        _, begin, end = target.tally.read()
    measured = race.mails - at
    return Result(
        mails_per_second=(race.mails - warm_up) / (end - begin),
        cpu_milliseconds=1000 * spent.cpu / measured,
        round_trips=spent.round_trips / measured,
        redis_milliseconds=1000 * redis_cpu / measured,
        sink_milliseconds=1000 * sink_cpu / measured,
        commands=spent.commands / measured,
        memory_megabytes=size / 1e6,
    )


def _row(race: Race, found: Sequence[Result]) -> dict[str, Any]:
    figures = {name: median(getattr(one, name) for one in found) for name in asdict(found[0])}
    return {
        "contender": race.contender,
        "relay": race.relay.name,
        "connections": race.connections,
        "processes": race.processes,
        **figures,
    }


def environ_of(race: Race, redis_url: str, port: int, certificates: Certificates) -> dict[str, str]:
    """For ours and for the others; nobody reads what is not for them."""
    environ = {
        "BENCHMARK_REDIS": redis_url,
        "BENCHMARK_RELAY_HOST": "127.0.0.1",
        "BENCHMARK_RELAY_PORT": str(port),
        "BENCHMARK_CONNECTIONS": str(race.connections),
        "ACCESS_MAIL__REDIS__URL": redis_url,
        "ACCESS_MAIL__SMTP__HOST": "127.0.0.1",
        "ACCESS_MAIL__SMTP__PORT": str(port),
        "ACCESS_MAIL__SMTP__STARTTLS_POLICY": "mandatory" if race.relay.tls else "disabled",
        "ACCESS_MAIL__DELIVERY__SENDER": SENDER,
        "ACCESS_MAIL__MAILER__PORT": "0",
        "ACCESS_MAIL__MAILER__CONNECTIONS": str(race.connections),
        "ACCESS_MAIL__LOG__SEVERITY": "warn",
    }
    if race.relay.tls:
        environ |= {
            "BENCHMARK_RELAY_CA": str(certificates.ca),
            "ACCESS_MAIL__SMTP__CA_FILE": str(certificates.ca),
            "ACCESS_MAIL__SMTP__USERNAME": "access-mail",
            "ACCESS_MAIL__SMTP__PASSWORD": "secret",
        }
    return environ


# -- the contenders: how their queue is filled, and what runs


@dataclass(frozen=True)
class Contender:
    """One way to send the mails of a queue."""

    fill: Callable[[Redis, Race, dict[str, str]], None]
    command: Callable[[Race, str], list[str]]


def fill_ours(redis: Redis, race: Race, _: dict[str, str]) -> None:
    """As the router does."""
    EventReader(redis, "benchmark").open()
    end = RouterEnd(redis, GROUP, "benchmark")
    batch = []
    for number, one in enumerate(request_ids(race.mails), start=1):
        told = tuple(mail.recipient for mail in mails(one))
        memories = RequestMemory(facts=facts(one), told=told, notices=(mails(one)[0].notice,))
        batch.append(Commit(f"1-{number}", one, "", memories, mails(one)))
        if len(batch) == 100:  # noqa: PLR2004 - any size will do
            end.commit(batch)
            batch = []
    end.commit(batch)
    assert redis.exists(keys.OPEN)


def fill_rq(function: str) -> Callable[[Redis, Race, dict[str, str]], None]:
    """As RQ's documentation says, in one pipeline."""

    def fill(redis: Redis, race: Race, _: dict[str, str]) -> None:
        queue = Queue("mail", connection=redis, serializer=JSONSerializer)
        for one in request_ids(race.mails):
            known = facts(one).model_dump_json()
            queue.enqueue_many(
                [Queue.prepare_data(function, args=(mail.model_dump_json(), known)) for mail in mails(one)]
            )

    return fill


def fill_taskiq(_: Redis, race: Race, environ: dict[str, str]) -> None:
    """As taskiq's documentation says."""
    with _environment(environ):
        jobs = importlib.reload(importlib.import_module("benchmarks.taskiq_jobs"))

        async def kick() -> None:
            await jobs.broker.startup()
            for one in request_ids(race.mails):
                known = facts(one).model_dump_json()
                await asyncio.gather(*(jobs.send.kiq(mail.model_dump_json(), known) for mail in mails(one)))
            await jobs.broker.shutdown()

        asyncio.run(kick())


@contextmanager
def _environment(environ: dict[str, str]) -> Iterator[None]:
    """This process's, as long as the block lasts."""
    before = dict(os.environ)
    os.environ.update(environ)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _nothing(_: Redis, __: Race, ___: dict[str, str]) -> None:
    """There is no queue."""


def _rq(worker: str) -> Callable[[Race, str], list[str]]:
    def command(_: Race, url: str) -> list[str]:
        return module(
            "benchmarks.stock_jobs",
            "worker",
            "--quiet",
            "-S",
            "json",
            "-w",
            f"rq.worker.{worker}",
            "--url",
            url,
            "mail",
        )

    return command


CONTENDERS = {
    "RQ Worker": Contender(fill_rq("benchmarks.stock_jobs.send_on_a_new_connection"), _rq("Worker")),
    "RQ SimpleWorker": Contender(fill_rq("benchmarks.stock_jobs.send_on_a_kept_connection"), _rq("SimpleWorker")),
    "taskiq": Contender(
        fill_taskiq,
        lambda race, _: module(
            "taskiq",
            "worker",
            "benchmarks.taskiq_jobs:broker",
            "--workers",
            1,
            "--log-level",
            "WARNING",
            "--max-async-tasks",
            race.connections * 2,
        ),
    ),
    "aiosmtplib alone": Contender(
        _nothing,
        lambda race, _: module("benchmarks.without_queue", "--mails", race.mails, "--connections", race.connections),
    ),
    "MailWorker": Contender(fill_ours, lambda _, __: module("services.mailer")),
}
