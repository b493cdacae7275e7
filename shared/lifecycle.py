"""What the processes of all services share: arguments, settings, logs, signals, probes, start and end.

A service's `__main__.py` is `main("watcher", Watcher.from_settings)`.
"""

import enum
import logging
import os
import queue
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import NoReturn, Protocol

import click
from prometheus_client import CollectorRegistry, ProcessCollector
from redis.exceptions import RedisError

from shared.build import register_build, this_build
from shared.logs import configure_logging
from shared.probes import Probes
from shared.readiness import Ready, announce
from shared.redis import RedisUnfit, check_redis, connect
from shared.settings import ServiceName, Settings, SettingsError
from shared.settings_reading import configuration_file, load_settings
from shared.settings_values import LogSeverity

log = logging.getLogger(__name__)

READY_POLL_SECONDS = 0.05


class Service(Protocol):
    """A service as its process drives it."""

    def run(self) -> None:
        """Work until `stop`. Called once, in the main thread; the process ends when it returns or raises."""

    def stop(self) -> None:
        """End `run` gracefully. Called in a signal handler, perhaps twice: set a flag, or `call_soon_threadsafe`."""

    def reload(self, settings: Settings) -> None:
        """Take over changed settings, as far as that is possible without a restart; called in another thread.

        Raises `SettingsError` and keeps the old ones if they will not do.
        """

    def live(self) -> str | None:
        """Why the process ought to be restarted; None: its loop has turned lately. Called in other threads."""

    def ready(self) -> str | None:
        """What this service needs and does not get; None: it is at work. Called in other threads."""


Build = Callable[[Settings, CollectorRegistry], Service]
"""Makes the service and its metrics; raises `SettingsError` for what it misses."""


def main(name: ServiceName, build: Build) -> NoReturn:
    """Run the service as this process, and exit: 0 after SIGTERM or SIGINT, 1 failed, 2 wrong use.

    The caller has set SIGHUP to be ignored, before it imported anything that takes time.
    """

    @click.command(name, help=f"Run the {name} of Access Mail.")
    @click.option("-c", "--config", type=click.Path(path_type=Path), help="Configuration file.")
    @click.option("-d", "--debug", is_flag=True, help="Log everything.")
    def command(config: Path | None, debug: bool) -> None:  # noqa: FBT001 - click passes its flag so
        sys.exit(_run(name, build, config, LogSeverity.DEBUG if debug else None))

    command()
    raise AssertionError("click exits")


def process_settings(config: Path | None, severity: LogSeverity | None) -> Settings:
    """The settings of this process, with the severity of its command line. Raises `SettingsError`."""
    settings = load_settings(configuration_file(config, os.environ), os.environ)
    if severity is None:
        return settings
    return settings.model_copy(update={"log": settings.log.model_copy(update={"severity": severity})})


def print_faults(error: SettingsError) -> None:
    """One line each on stderr."""
    for fault in error.faults:
        click.echo(fault, err=True)


def _run(name: ServiceName, build: Build, config: Path | None, severity: LogSeverity | None) -> int:
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    this = this_build(os.environ)
    register_build(registry, this, name)
    try:
        settings = process_settings(config, severity)
        configure_logging(settings.log, name)
        service = build(settings, registry)
        probes = Probes(settings.probes(name), registry, service.live, service.ready)
    except SettingsError as error:
        print_faults(error)
        return 1
    log.info("starting, Access Mail %s, probes on %s", this.version, probes.url)
    with probes, _Attendant(name, service, probes, lambda: process_settings(config, severity), settings):
        try:
            service.run()
        except Exception:
            log.critical("ended by an error", exc_info=True)
            return 1
    log.info("stopped")
    return 0


class _Wish(enum.Enum):
    RELOAD = enum.auto()
    END = enum.auto()


class _Attendant:
    """Answers the process's signals, tells once when the service is ready, and reloads: in a thread beside it."""

    def __init__(
        self, name: ServiceName, service: Service, probes: Probes, load: Callable[[], Settings], settings: Settings
    ) -> None:
        self._name = name
        self._service = service
        self._probes = probes
        self._load = load
        self._settings = settings
        self._wishes: queue.SimpleQueue[_Wish] = queue.SimpleQueue()  # its `put` may be interrupted by itself
        self._thread = Thread(target=self._attend, name="attendant", daemon=True)

    def __enter__(self) -> None:
        signal.signal(signal.SIGTERM, lambda *_: self._service.stop())
        signal.signal(signal.SIGINT, lambda *_: self._service.stop())
        signal.signal(signal.SIGHUP, lambda *_: self._wishes.put(_Wish.RELOAD))
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._wishes.put(_Wish.END)
        self._thread.join()

    def _attend(self) -> None:
        ready = False
        while True:
            if not ready and self._service.ready() is None:
                ready = True
                self._tell_ready()
            try:
                wish = self._wishes.get(timeout=None if ready else READY_POLL_SECONDS)
            except queue.Empty:
                continue
            if wish is _Wish.END:
                return
            self._reload()

    def _tell_ready(self) -> None:
        log.info("ready, probes on %s", self._probes.url)
        # First: who waits for us is not to wait for what may fail.
        announce(Ready(self._name, self._probes.url), os.environ)
        self._check_redis()

    def _check_redis(self) -> None:
        try:
            with connect(self._settings.redis, self._name) as redis:
                log.debug("%s", check_redis(redis))
        except RedisUnfit as error:
            log.error("%s", error)  # noqa: TRY400 - the text says what to change, a traceback nothing
        except (RedisError, SettingsError) as error:
            log.warning("cannot tell whether this Redis keeps what it is given: %s", error)

    def _reload(self) -> None:
        try:
            configure_logging(self._settings.log, self._name)  # a log file that was moved away is opened again first
            settings = self._load()
            self._service.reload(settings)
            configure_logging(settings.log, self._name)
        except SettingsError as error:
            for fault in error.faults:
                log.error("the old configuration stays: %s", fault)  # noqa: TRY400 - a reader's fault, not the code's
        except Exception:
            # of the service's own `reload`; the next one must still find this thread
            log.exception("the old configuration stays")
        else:
            self._settings = settings
            log.info("configuration read again")
