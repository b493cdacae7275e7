"""`access-mail check`: tries what the services need, for real but without sending a mail, a line for each."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import click
from prometheus_client import CollectorRegistry
from redis.exceptions import RedisError

from console.advice import about_redis, about_relay, about_teleport
from console.parts import PARTS, insist_on_parts
from services.mailer.errors import Held, Unavailable
from services.mailer.metrics import Metrics
from services.mailer.relay import Relay
from services.mailer.settings import MailerConfiguration
from services.watcher.settings import WatcherConfiguration
from services.watcher.teleport.connect import Connection, connect
from services.watcher.teleport.errors import TeleportRefused, TeleportUnavailable
from services.watcher.teleport.identity import Identity, IdentityError
from services.watcher.teleport.permissions import Permission, permissions
from shared.lifecycle import process_settings
from shared.mail import one_line
from shared.redis import RedisUnfit, check_redis
from shared.redis import connect as connect_redis
from shared.settings import ServiceName, Settings, SettingsError, SmtpSettings

DEADLINE_SECONDS = 60.0
"""For each of the things that are tried, all at once; several routes may lead to Teleport, each with its own."""

LONGEST_LINE = 2000
"""Teleport's and the relay's own words are in it, which may be anything."""

OLDEST_TELEPORT = (6, 1)
"""Older ones lack what the watcher calls."""


@dataclass(frozen=True)
class Finding:
    """One line of the answer."""

    good: bool
    text: str
    required: bool = True
    """Is it a failure if it is not good?"""

    @property
    def mark(self) -> str:
        """How the line begins."""
        return "ok  " if self.good else "FAIL" if self.required else "lack"


Try = Callable[[Settings], Awaitable[list[Finding]]]


def check(config: Path | None, service: ServiceName | None) -> int:
    """Print what was found for all services, or for the one; the exit code: 0 all is well, 1 something is not."""
    services = tuple(PARTS) if service is None else (service,)
    try:
        settings = process_settings(config, None)
    except SettingsError as error:
        findings = _failed("configuration", error.faults)
    else:
        findings = asyncio.run(_found(settings, services))
    for finding in findings:
        click.echo(f"{finding.mark} {one_line(finding.text, LONGEST_LINE)}")
    return 1 if any(finding.required and not finding.good for finding in findings) else 0


def _tries(services: Sequence[ServiceName]) -> Mapping[str, Try]:
    """What these services need. Each of them knows only its own sections and secrets where they run apart."""
    tries: dict[str, Try] = {"redis": _redis_or_our_own if len(services) > 1 else _redis}
    if "watcher" in services:
        tries["teleport"] = _teleport
    if "mailer" in services:
        tries["relay"] = _relay
    return tries


async def _found(settings: Settings, services: Sequence[ServiceName]) -> list[Finding]:
    missing = _missing(settings, services)
    tried = (_tried(name, one(settings), missing) for name, one in _tries(services).items())
    complete = "complete" if len(services) > 1 else f"complete for the {services[0]}"
    told = _failed("configuration", missing) or [Finding(good=True, text=f"configuration: {complete}")]
    return [*told, *(finding for findings in await asyncio.gather(*tried) for finding in findings)]


def _missing(settings: Settings, services: Sequence[ServiceName]) -> list[str]:
    try:
        insist_on_parts(settings, services)
    except SettingsError as error:
        return error.faults
    return []


async def _tried(name: str, attempt: Awaitable[list[Finding]], told: Sequence[str]) -> list[Finding]:
    """What is found, but for what is told already: what misses its part of the configuration is not tried."""
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            return [replace(one, text=f"{name}: {one.text}") for one in await attempt]
    except SettingsError as error:
        return _failed(name, [fault for fault in error.faults if fault not in told])
    except (IdentityError, RedisUnfit) as error:
        return _failed(name, [str(error)])
    except TimeoutError:
        return _failed(name, [f"no answer within {DEADLINE_SECONDS:g} s"])


def _failed(name: str, faults: Sequence[str]) -> list[Finding]:
    return [Finding(good=False, text=f"{name}: {fault}") for fault in faults]


async def _redis_or_our_own(settings: Settings) -> list[Finding]:
    if settings.redis.url is None:
        return [Finding(good=True, text="none is configured, `access-mail start` runs a Valkey of its own")]
    return await _redis(settings)


async def _redis(settings: Settings) -> list[Finding]:
    with connect_redis(settings.redis, "check") as redis:
        options = redis.connection_pool.connection_kwargs
        place = options.get("path") or f"{options.get('host', 'localhost')}:{options.get('port', 6379)}"
        try:
            return [Finding(good=True, text=f"{await asyncio.to_thread(check_redis, redis)} ({place})")]
        except RedisError as error:
            return [Finding(good=False, text=f"{place}: {error}; {about_redis(error)}")]


async def _teleport(settings: Settings) -> list[Finding]:
    teleport = WatcherConfiguration.of(settings).teleport
    try:
        connection = await connect(teleport.address, Identity.load(teleport))
        async with connection.client:
            return [_cluster(connection), *await _permissions(connection)]
    except (TeleportUnavailable, TeleportRefused) as error:
        return [Finding(good=False, text=f"{error}; {about_teleport(error)}")]


def _cluster(connection: Connection) -> Finding:
    server = connection.server
    numbers = re.match(r"(\d+)\.(\d+)", server.version)
    old = numbers is None or (int(numbers[1]), int(numbers[2])) < OLDEST_TELEPORT
    need = f", too old: {'.'.join(map(str, OLDEST_TELEPORT))} is needed" if old else ""
    return Finding(not old, f"cluster {server.cluster.name}, version {server.version} ({connection.route}){need}")


async def _permissions(connection: Connection) -> list[Finding]:
    return [_allowed(permission) for permission in await permissions(connection.client)]


def _allowed(permission: Permission) -> Finding:
    what = f"{permission.verb} {permission.resource}"
    if not permission.refusal:
        return Finding(good=True, text=f"may {what}")
    if permission.buys:
        text = f"may not {what}, which would buy: {permission.buys} ({permission.refusal})"
        return Finding(good=False, text=text, required=False)
    return Finding(good=False, text=f"may not {what} ({permission.refusal}); allow it in the role")


async def _relay(settings: Settings) -> list[Finding]:
    configuration = MailerConfiguration.of(settings)
    way = configuration.relay
    place = f"{way.host}:{way.port}" if isinstance(way, SmtpSettings) else way.base_url
    relay = Relay.from_settings(configuration, Metrics(CollectorRegistry()))
    try:
        return [Finding(good=True, text=f"{await relay.check()} ({place})")]
    except (Held, Unavailable) as error:
        return [Finding(good=False, text=f"{place}: {error}; {about_relay(error, way)}")]
    finally:
        await relay.close()
