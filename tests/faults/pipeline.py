"""The whole pipeline for tests of what goes wrong: real processes of the services between simulators, one by one."""

import asyncio
import re
import signal
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from redis import Redis
from rq import Worker

from shared import keys
from shared.mail_queue.layout import rq_queue
from shared.settings import ServiceName
from simulators.world import World
from tests.faults.valkey import Valkey
from tests.processes import Running, probe, run
from tests.waiting import wait_until

SERVICES: tuple[ServiceName, ...] = ("watcher", "router", "mailer")
PEOPLE = ("ann@example.com", "bob@example.com", "eve@example.com")
STARTING = re.compile(r"INFO \w+: starting, .* probes on (\S+)")
READY = re.compile(r"INFO \w+: ready, probes on (\S+)")
BUSY_SECONDS = 60
"""How long a process may take to start on a machine that does much else."""
REQUEST_ID_LENGTH = 36
ADDRESS_HASH_LENGTH = 12


class Service:
    """One process of one service."""

    def __init__(self, running: Running) -> None:
        self._running = running

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._running.process.pid

    @property
    def log(self) -> str:
        """All that it has said so far."""
        return self._running.text()

    def says(self, text: str) -> int:
        """How many lines of its log hold this text?"""
        return sum(text in line for line in self.log.splitlines())

    async def said(self, pattern: re.Pattern[str]) -> re.Match[str]:
        """Wait for a line in which the pattern is found."""
        is_over = self._running.process.poll
        await wait_until(lambda: pattern.search(self.log) or is_over() is not None, pattern.pattern, BUSY_SECONDS)
        found = pattern.search(self.log)
        assert found, f"it ended without {pattern.pattern!r}, but with:\n{self.log}"
        return found

    async def probe(self, path: str) -> tuple[int, str]:
        """Status and text of `/healthz` or `/readyz`."""
        url = (await self.said(STARTING))[1]
        return await asyncio.to_thread(probe, url + path)

    async def is_ready(self) -> bool:
        """Does it say so?"""
        return (await self.probe("/readyz"))[0] == 200

    async def kill(self) -> None:
        """End it as the kernel does when memory is short: it can do nothing about it."""
        self._running.process.kill()
        await asyncio.to_thread(self._running.process.wait)

    def freeze(self) -> None:
        """Let it do nothing until it is thawed."""
        self._running.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._running.process.send_signal(signal.SIGCONT)

    async def stop(self) -> None:
        """End it as systemd and Kubernetes do."""
        code = await asyncio.to_thread(self._running.ends, signal.SIGTERM)
        assert code == 0, self.log


class Pipeline:
    """The outside world, a Valkey, and as many processes of the services as the test starts."""

    def __init__(self, outside: World, valkey: Valkey, folder: Path, processes: ExitStack) -> None:
        self.auth = outside.auth
        self.proxy = outside.proxy
        self.mailbox = outside.mailbox
        self.valkey = valkey
        self.redis: Redis = valkey.redis
        self.services: list[Service] = []
        """All that were ever started."""
        self._folder = folder
        self._processes = processes
        self._file = folder / "teleport-email.toml"
        self._file.write_text(outside.configuration({"*": PEOPLE}))

    def launch(self, name: ServiceName, environ: Mapping[str, str] | None = None) -> Service:
        """Start a process, and do not wait."""
        settings = {"ACCESS_MAIL__REDIS__URL": self.valkey.url, f"ACCESS_MAIL__{name.upper()}__PORT": "0"}
        log = self._folder / f"{name}-{len(self.services)}.log"
        arguments = [f"services.{name}", "-c", str(self._file)]
        running = self._processes.enter_context(run(arguments, log, {**settings, **(environ or {})}))
        self.services.append(Service(running))
        return self.services[-1]

    async def start(self, *names: ServiceName, environ: Mapping[str, str] | None = None) -> list[Service]:
        """Start one process for each name, and wait until all are ready."""
        started = [self.launch(name, environ) for name in names]
        for service in started:
            await service.said(READY)
        return started

    # -- what has come of it

    def notices(self) -> dict[tuple[str, str], list[str]]:
        """(request, recipient) → its notices in the order of arrival."""
        found: dict[tuple[str, str], list[str]] = {}
        for mail in self.mailbox.mails:
            stem = mail.message_id.strip("<>").partition("@")[0]
            notice = stem[REQUEST_ID_LENGTH + 1 : -ADDRESS_HASH_LENGTH - 1]
            found.setdefault((stem[:REQUEST_ID_LENGTH], mail.recipient), []).append(notice)
        return found

    def told(self, request_id: str, recipient: str = PEOPLE[0]) -> list[str]:
        """What this person has been told of the request, in the order of arrival."""
        return self.notices().get((request_id, recipient), [])

    def all_have_read(self, request_ids: Iterable[str], notice: str) -> bool:
        """Has this notice come last to all people, for each of the requests?"""
        arrived = self.notices()
        return all(arrived[request, person][-1] == notice for request in request_ids for person in PEOPLE)

    async def all_told(self, request_ids: Iterable[str], notices: Sequence[str], timeout: float = 20) -> None:  # noqa: ASYNC109  # as `wait_until`
        """Wait until all people have been told exactly this of each of the requests."""
        wanted = [(request_id, person) for request_id in request_ids for person in PEOPLE]

        def missing() -> list[tuple[str, str]]:
            arrived = self.notices()
            return [key for key in wanted if arrived.get(key) != list(notices)]

        try:
            await wait_until(lambda: not missing(), f"all are told {notices}", timeout)
        except AssertionError as error:
            arrived = self.notices()
            some = {key: arrived.get(key) for key in missing()[:5]}
            raise AssertionError(f"{error}; {len(missing())} are not, such as {some}\n{self.logs()}") from None

    async def at_rest(self, timeout: float = 20) -> None:  # noqa: ASYNC109  # as `wait_until`
        """Wait until nothing is on its way: no event unread, no mail queued, waiting or in hand."""
        await wait_until(lambda: not any(self.pending().values()), "the pipeline is at rest", timeout)

    def pending(self) -> dict[str, int]:
        """What is on its way, by where it is."""
        (group,) = self.redis.xinfo_groups(keys.EVENTS)
        last = self.redis.xinfo_stream(keys.EVENTS)["last-generated-id"]
        return {
            "unread": int(group["last-delivered-id"] != last),
            "unrouted": group["pending"],
            "queued": int(self.redis.llen("rq:queue:mail")),
            **{name: int(self.redis.zcard(f"rq:{name}:mail")) for name in ("wip", "deferred", "scheduled")},
            "claims": int(self.redis.zcard(keys.CLAIMS)),
        }

    def end_claims(self, mailer: Service) -> int:
        """Spare the half minute until the claims of a killed mailer end; gives their number."""
        (worker,) = (one for one in Worker.all(queue=rq_queue(self.redis)) if one.pid == mailer.pid)
        claims = {execution.composite_key: 0.0 for execution in worker.get_current_executions()}
        if claims:
            self.redis.zadd(keys.CLAIMS, claims, xx=True)
        # As if mailers had been there for longer than that: otherwise nobody recovers anything yet.
        self.redis.hset(keys.RECOVERY, mapping={"since": 0, "last": self.redis.time()[0]})
        self.redis.expire(keys.RECOVERY, 60)
        return len(claims)

    def dead(self) -> int:
        """Dead letters, of mails and of events."""
        return int(self.redis.zcard("rq:failed:mail")) + int(self.redis.xlen(keys.DEAD))

    def logs(self) -> str:
        """What all processes have said."""
        return "\n".join(service.log for service in self.services)


@contextmanager
def pipeline_in(outside: World, valkey: Valkey, folder: Path) -> Iterator[Pipeline]:
    """A pipeline whose processes end with the block, and must not have said anything that nobody should read."""
    with ExitStack() as processes:
        pipeline = Pipeline(outside, valkey, folder, processes)
        yield pipeline
    assert "Traceback" not in pipeline.logs(), pipeline.logs()
