"""Mailer processes between a Valkey and a relay, without the services before them: for tests of many mails."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from redis import Redis
from rq import Worker
from rq.worker import BaseWorker

from shared import keys
from shared.mail import Mail, Recipient, Why
from shared.mail_queue.layout import rq_queue
from simulators.mailbox import Mailbox
from tests.faults.pipeline import READY, Service
from tests.faults.valkey import Valkey
from tests.mails import mail, put
from tests.processes import run
from tests.queueing import reached

MAILS_OF_A_REQUEST = 100

CONFIGURATION = """
[smtp]
host = "{host}"
port = {port}
starttls_policy = "disabled"

[delivery]
sender = "access@example.com"

[mailer]
port = 0
first_pause = "50ms"
longest_pause = "500ms"
first_probe = "200ms"
longest_probe = "200ms"
"""


class Mailers:
    """Any number of mailer processes; the test kills and starts them."""

    def __init__(self, valkey: Valkey, mailbox: Mailbox, folder: Path, processes: ExitStack) -> None:
        self.redis: Redis = valkey.redis
        self.mailbox = mailbox
        self.services: list[Service] = []
        """All that were ever started."""
        self._url = valkey.url
        self._folder = folder
        self._processes = processes
        self._file = folder / "mailer.toml"
        self._file.write_text(CONFIGURATION.format(host=mailbox.host, port=mailbox.port))

    def launch(self, environ: Mapping[str, str] | None = None, url: str | None = None) -> Service:
        """Start a process, and do not wait; `url`: of its Redis, where that is another way to the same."""
        log = self._folder / f"mailer-{len(self.services)}.log"
        settings = {"ACCESS_MAIL__REDIS__URL": url or self._url, **(environ or {})}
        running = self._processes.enter_context(run(["services.mailer", "-c", str(self._file)], log, settings))
        self.services.append(Service(running))
        return self.services[-1]

    async def start(self, environ: Mapping[str, str] | None = None, url: str | None = None) -> Service:
        """Start a process, and wait until it is ready."""
        service = self.launch(environ, url)
        await service.said(READY)
        return service

    async def kill(self, mailer: Service) -> list[str]:
        """`kill -9`, and all claims that it leaves are over at once; gives the ids of the mails in its hands."""
        worker = self._worker(mailer)
        await mailer.kill()
        left = worker.get_current_executions()
        if left:
            self.redis.zadd(keys.CLAIMS, {execution.composite_key: 0.0 for execution in left}, xx=True)
        reached(self.redis, since=0)
        return [execution.job_id for execution in left]

    def in_hand(self, mailer: Service) -> list[str]:
        """Ids of the mails in its hands."""
        return [execution.job_id for execution in self._worker(mailer).get_current_executions()]

    def _worker(self, mailer: Service) -> BaseWorker:
        (worker,) = (one for one in Worker.all(queue=rq_queue(self.redis)) if one.pid == mailer.pid)
        return worker

    # -- what has come of it

    def received(self) -> Counter[str]:
        """How often each mail has come."""
        return Counter(one.message_id.strip("<>").partition("@")[0] for one in self.mailbox.mails)

    def dead(self) -> int:
        """Dead letters."""
        return int(self.redis.zcard("rq:failed:mail"))

    def unfinished(self) -> int:
        """Mails that wait or are in hand, wherever RQ and we list them."""
        registries = sum(int(self.redis.zcard(f"rq:{name}:mail")) for name in ("wip", "scheduled", "deferred"))
        return registries + int(self.redis.llen("rq:queue:mail")) + int(self.redis.zcard(keys.CLAIMS))

    def logs(self) -> str:
        """What all processes have said."""
        return "\n".join(service.log for service in self.services)


@contextmanager
def mailers_in(valkey: Valkey, mailbox: Mailbox, folder: Path) -> Iterator[Mailers]:
    """No process yet. All end with the block, and none may have met a fault of ours."""
    with ExitStack() as processes:
        mailers = Mailers(valkey, mailbox, folder, processes)
        yield mailers
    assert "Traceback" not in mailers.logs(), mailers.logs()


def put_mails(redis: Redis, number: int, first: int = 0) -> list[Mail]:
    """First mails of requests with a hundred recipients each, in this order; `first`: so many were put before."""
    mails: list[Mail] = []
    while len(mails) < number:
        of_request = [
            mail("requested", Recipient(address=f"p{n}@example.com", why=Why.DEFAULT), f"r{first + len(mails)}")
            for n in range(min(MAILS_OF_A_REQUEST, number - len(mails)))
        ]
        put(redis, of_request)
        mails += of_request
    return mails


def ids(mails: Sequence[Mail]) -> set[str]:
    """Their ids."""
    return {one.id for one in mails}
