"""The compose project of a test run, made from a fresh copy of the working tree."""

import hashlib
import shutil
import socket
import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from simulators.teleport.people import People
from tests.stack.engine import Engine
from tests.waiting import wait_for

ROOT = Path(__file__).parents[2]
UP = ("--profile", "demo", "up", "-d", "--wait", "--scale", "mailer=3")
"""The README's command, but for Grafana, which `without-grafana.yml` leaves out."""

ROLE, READERS = "production-editor", ("ann@example.com", "carol@example.com")
"""A role, and who reads of a request for it that suggests carol."""

Sent = tuple[str, str]
"""Message-ID and recipient."""


class Stack:
    """Docker Compose in a directory of its own, and what can be seen of it from this machine."""

    def __init__(self, engine: Engine, folder: Path, commit: str) -> None:
        self.engine = engine
        self.project = folder.name.lower()
        self.checkout = folder / "checkout"
        self.mails_of_the_story: list[dict[str, Any]] = []
        """What had come when the demo was up."""
        self._credentials = folder / "people"
        inbox, prometheus = free_port(), free_port()
        self._environ = {
            "COMPOSE_PROJECT_NAME": self.project,
            "COMPOSE_FILE": "docker-compose.yml:tests/stack/without-grafana.yml",
            "ACCESS_MAIL_COMMIT": commit,
            "INBOX_PORT": str(inbox),
            "PROMETHEUS_PORT": str(prometheus),
        }
        self._inbox = httpx.Client(base_url=f"http://127.0.0.1:{inbox}", timeout=60)
        self._prometheus = httpx.Client(base_url=f"http://127.0.0.1:{prometheus}", timeout=10)
        copy_working_tree(self.checkout)

    def compose(self, *arguments: str, **environ: str) -> str:
        """What `docker compose ARGUMENT…` prints, with these variables."""
        return self.engine.run("compose", *arguments, cwd=self.checkout, environ={**self._environ, **environ})

    def close(self) -> None:
        """Leave nothing behind but images."""
        self.compose("--profile", "demo", "--profile", "tools", "down", "--volumes", "--timeout", "5")
        self._inbox.close()
        self._prometheus.close()

    # -- containers

    def containers(self, service: str) -> list[dict[str, Any]]:
        """What the engine knows of each container of the service."""
        return [self.engine.inspect(one) for one in self.compose("--profile", "demo", "ps", "-q", service).split()]

    def are_healthy(self, service: str) -> bool:
        """Do all copies say so?"""
        return all(one["State"]["Health"]["Status"] == "healthy" for one in self.containers(service))

    def rq(self, *arguments: str) -> str:
        """What the tool service prints."""
        return self.compose("run", "--rm", "rq", *arguments)

    # -- people

    @contextmanager
    def people(self) -> Iterator[People]:
        """The people of the simulated cluster, over gRPC from this machine."""
        shutil.rmtree(self._credentials, ignore_errors=True)
        self.compose("--profile", "demo", "cp", "teleport:/run/teleport/demo-profile/people", str(self._credentials))
        (teleport,) = self.containers("teleport")
        (network,) = teleport["NetworkSettings"]["Networks"].values()
        with People(f"{network['IPAddress']}:3025", self._credentials) as people:
            yield people

    # -- mails

    def count(self) -> int:
        """How many mails have come."""
        return int(self._inbox.get("/count.json").raise_for_status().json())

    def mails(self) -> list[dict[str, Any]]:
        """All mails that have come."""
        return list(self._inbox.get("/mails.json").raise_for_status().json())

    def sent(self) -> Counter[Sent]:
        """How often each mail has come."""
        return Counter((mail["message_id"], mail["recipient"]) for mail in self.mails())

    def wait_for_mails(self, expected: Iterable[Sent], timeout: float = 30) -> Counter[Sent]:
        """Wait until all of these have come; gives how often each of them has."""
        wanted = set(expected)

        def missing() -> set[Sent]:
            return wanted - self.sent().keys() if self.count() >= len(wanted) else wanted

        wait_for(lambda: not missing(), f"{len(wanted)} mails have come", timeout)
        return Counter({one: times for one, times in self.sent().items() if one in wanted})

    # -- metrics

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The series that Prometheus gives for it."""
        answer = self._prometheus.get(f"/api/v1/query?query={quote(expression)}").json()
        assert answer["status"] == "success", f"{expression}: {answer}"
        return list(answer["data"]["result"])

    def alerts(self) -> set[str]:
        """Names of the rules that Prometheus has loaded."""
        groups = self._prometheus.get("/api/v1/rules").raise_for_status().json()["data"]["groups"]
        return {rule["name"] for group in groups for rule in group["rules"]}

    def targets(self) -> list[tuple[str, str]]:
        """Job and health of each target."""
        found = self._prometheus.get("/api/v1/targets").raise_for_status().json()["data"]["activeTargets"]
        return sorted((one["labels"]["job"], one["health"]) for one in found)


def asked(request_ids: Iterable[str], readers: Sequence[str] = READERS) -> set[Sent]:
    """The mails that ask these people for their review."""
    return {
        (f"<{request_id}-requested-{hashlib.sha256(reader.encode()).hexdigest()[:12]}@teleport.example.com>", reader)
        for request_id in request_ids
        for reader in readers
    }


def copy_working_tree(folder: Path) -> None:
    """Copy what git would put into a fresh clone of what is here, committed or not."""
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listing, cwd=ROOT, capture_output=True, check=True, text=True).stdout.split("\0")
    for name in filter(None, names):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)


def free_port() -> int:
    """A port of this machine that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
