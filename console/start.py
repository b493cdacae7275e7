"""`access-mail start`: all three services as processes that end with this one, and Valkey where no Redis is named."""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

from console.children import ChildEnded, Children
from console.embedded_valkey import DataDirectoryBusy, EmbeddedValkey, data_directory
from shared.lifecycle import process_settings
from shared.logs import configure_logging
from shared.readiness import VARIABLE, Ready, announce
from shared.settings import ServiceName, Settings, SettingsError
from shared.settings_sources import ENVIRONMENT_PREFIX
from shared.settings_values import LogSeverity

log = logging.getLogger(__name__)

POLL_SECONDS = 0.02
DATAGRAM_BYTES = 4096
SERVICES: tuple[ServiceName, ...] = get_args(ServiceName)


@dataclass(frozen=True)
class Start:
    """What the command line asks for."""

    config: Path | None
    severity: LogSeverity | None
    data_dir: Path | None = None
    ports: Mapping[ServiceName, int] = field(default_factory=dict)
    """Ports of the probes, in place of the configured ones."""


def module_command(module: str, start: Start) -> list[str]:
    """How a program of ours is run. -P: the directory that we happen to stand in holds no code of ours."""
    config = ["-c", str(start.config.absolute())] if start.config else []
    return [sys.executable, "-P", "-m", module, *config]


def service_command(name: ServiceName, start: Start) -> list[str]:
    """How a service is run."""
    return [*module_command(f"services.{name}", start), *(["-d"] if start.severity else [])]


def port_variables(start: Start) -> dict[str, str]:
    """The ports of the command line, as a service reads them."""
    return {f"{ENVIRONMENT_PREFIX}{name}__PORT".upper(): str(port) for name, port in start.ports.items()}


def stop_seconds(settings: Settings) -> dict[str, float]:
    """In the order of stopping: who brings work before who does it. 15 s in all by default; then they are killed."""
    return {"watcher": 1.5, "router": 1.5, "mailer": settings.mailer.grace.total_seconds(), "valkey": 1.5}


def start_one(name: ServiceName, start: Start) -> None:
    """Become that service. Returns only by an `OSError`."""
    command = service_command(name, start)
    os.execve(command[0], command, {**os.environ, **port_variables(start)})  # noqa: S606 - our own command, no shell


def start_all(start: Start) -> int:
    """Run everything until SIGTERM or SIGINT (0), or until one of the processes ends or misses a setting (1).

    Asked twice to stop it waits for no relay any more, asked thrice for no service; the answer is 0 all the same.
    Raises `SettingsError`.
    """
    settings = process_settings(start.config, start.severity)
    configure_logging(settings.log, "start")
    if subprocess.run(module_command("console.parts", start), check=False).returncode:  # noqa: S603 - our own command
        return 1
    with contextlib.ExitStack() as stack:
        valkey = None
        if settings.redis.url is None:
            directory = data_directory(start.data_dir, settings, dict(os.environ))
            try:
                valkey = stack.enter_context(EmbeddedValkey(directory))
            except DataDirectoryBusy as error:
                raise SettingsError([str(error)]) from error
        run_directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="access-mail-")))
        return asyncio.run(_Supervisor(start, settings, valkey, run_directory / "notify").run())


class _Supervisor:
    """Brings everything up, watches it, and takes it down."""

    def __init__(self, start: Start, settings: Settings, valkey: EmbeddedValkey | None, notify: Path) -> None:
        self._start = start
        self._settings = settings
        self._valkey = valkey
        self._notify = notify
        self._children = Children()
        self._stopping = asyncio.Event()
        self._wishes_to_stop = 0

    async def run(self) -> int:
        """Exit code of the command."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._asked_to_stop)
        loop.add_signal_handler(signal.SIGHUP, self._reload)
        work = asyncio.create_task(self._work())
        stop = asyncio.create_task(self._stopping.wait())
        await asyncio.wait({work, stop}, return_when=asyncio.FIRST_COMPLETED)
        work.cancel()
        stop.cancel()
        (outcome, _) = await asyncio.gather(work, stop, return_exceptions=True)
        if isinstance(outcome, ChildEnded):
            log.critical("%s", self._epitaph(outcome))
            self._wishes_to_stop = max(1, self._wishes_to_stop)  # the next one is for haste
        await self._children.stop(stop_seconds(self._settings))
        if isinstance(outcome, asyncio.CancelledError):
            log.info("stopped")
            return 0
        if not isinstance(outcome, ChildEnded) and outcome is not None:
            raise outcome
        return 1

    async def _work(self) -> None:
        """Everything from the first process to the end of one. Raises `ChildEnded`."""
        environ = {**os.environ, **port_variables(self._start), VARIABLE: str(self._notify)}
        url = "the configured Redis"
        if self._valkey is not None:
            url = environ[f"{ENVIRONMENT_PREFIX}REDIS__URL"] = self._valkey.url
            await self._run_valkey(self._valkey)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.bind(str(self._notify))
            notify.setblocking(False)
            for name in SERVICES:
                await self._children.spawn(name, service_command(name, self._start), environ)
            ready = await self._children.meanwhile(self._all_ready(notify))
        probes = ", ".join(f"{one.service} {one.probes}" for one in ready)
        log.info("ready: %s, redis %s", probes, url)
        announce(Ready("start", ready[0].probes), os.environ)
        await self._children.one_ends()

    async def _run_valkey(self, valkey: EmbeddedValkey) -> None:
        log.info("starting Valkey in %s", valkey.directory)
        await self._children.spawn("valkey", valkey.command(), os.environ, valkey.inherited)
        await self._children.meanwhile(_until_it_answers(valkey))
        for warning in valkey.warnings():
            log.warning("%s", warning)

    @staticmethod
    async def _all_ready(notify: socket.socket) -> list[Ready]:
        """What the services tell as soon as they are at work, in their order."""
        loop = asyncio.get_running_loop()
        ready: dict[str, Ready] = {}
        while len(ready) < len(SERVICES):
            told = Ready.parse(await loop.sock_recv(notify, DATAGRAM_BYTES))
            ready[told.service] = told
        return [ready[name] for name in SERVICES]

    def _epitaph(self, ended: ChildEnded) -> str:
        why = f": {self._valkey.why_it_ended()}" if self._valkey and ended.name == "valkey" else ""
        return f"{ended}{why}; stopping the others"

    def _asked_to_stop(self) -> None:
        """Once: all end in order. Twice: the mailer waits for no relay any more. Thrice: only Valkey ends in order."""
        self._wishes_to_stop += 1
        match self._wishes_to_stop:
            case 1:
                self._stopping.set()
            case 2:
                log.warning("asked again to stop: mails in flight go back into the queue")
                self._children.send(signal.SIGTERM, SERVICES)
            case _:
                log.warning("asked once more to stop: the services are killed; what they have in hand is not lost")
                self._children.send(signal.SIGKILL, SERVICES)

    def _reload(self) -> None:
        try:
            configure_logging(self._settings.log, "start")
        except SettingsError as error:
            log.error("%s", error)  # noqa: TRY400 - a reader's fault, not the code's
        self._children.send(signal.SIGHUP, SERVICES)


async def _until_it_answers(valkey: EmbeddedValkey) -> None:
    while not await valkey.answers():  # noqa: ASYNC110 - another process says when
        await asyncio.sleep(POLL_SECONDS)
