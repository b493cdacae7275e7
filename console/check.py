"""`access-mail check`: tries all that the services need, for real but without sending a mail, a line for each."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path

import click
from prometheus_client import CollectorRegistry
from redis.exceptions import RedisError

from console.parts import insist_on_all_parts
from services.mailer.errors import DeliveryError
from services.mailer.metrics import Metrics
from services.mailer.relay import Relay
from services.mailer.settings import MailerConfiguration
from services.watcher.settings import WatcherConfiguration
from services.watcher.teleport.client import TeleportError
from services.watcher.teleport.connect import Connection, connect
from services.watcher.teleport.identity import Identity, IdentityError
from services.watcher.teleport.permissions import Permission, permissions
from shared.lifecycle import process_settings
from shared.mail import one_line
from shared.redis import RedisUnfit, check_redis
from shared.redis import connect as connect_redis
from shared.settings import Settings, SettingsError

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

FAILURES = (DeliveryError, IdentityError, RedisError, RedisUnfit, TeleportError)
"""What the outside world may do to us; their texts are made for people, and hold no secret."""


def check_everything(config: Path | None) -> int:
    """Print what was found; the exit code: 0 all is well, 1 something is not."""
    try:
        settings = process_settings(config, None)
    except SettingsError as error:
        findings = [Finding(good=False, text=f"configuration: {fault}") for fault in error.faults]
    else:
        findings = asyncio.run(_everything(settings))
    for finding in findings:
        click.echo(f"{finding.mark} {one_line(finding.text, LONGEST_LINE)}")
    return 1 if any(finding.required and not finding.good for finding in findings) else 0


async def _everything(settings: Settings) -> list[Finding]:
    tries: dict[str, Try] = {
        "configuration": _configuration,
        "redis": _redis,
        "teleport": _teleport,
        "relay": _relay,
    }
    found = await asyncio.gather(*(_tried(name, one(settings)) for name, one in tries.items()))
    return [finding for findings in found for finding in findings]


async def _tried(name: str, attempt: Awaitable[list[Finding]]) -> list[Finding]:
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            return [replace(one, text=f"{name}: {one.text}") for one in await attempt]
    except SettingsError as error:
        return [Finding(good=False, text=f"{name}: {fault}") for fault in error.faults]
    except FAILURES as error:
        return [Finding(good=False, text=f"{name}: {error}")]
    except TimeoutError:
        return [Finding(good=False, text=f"{name}: no answer within {DEADLINE_SECONDS:g} s")]


async def _configuration(settings: Settings) -> list[Finding]:
    insist_on_all_parts(settings)
    return [Finding(good=True, text="complete")]


async def _redis(settings: Settings) -> list[Finding]:
    if settings.redis.url is None:
        return [Finding(good=True, text="none is configured, `access-mail start` runs a Valkey of its own")]
    with connect_redis(settings.redis, "check") as redis:
        return [Finding(good=True, text=await asyncio.to_thread(check_redis, redis))]


async def _teleport(settings: Settings) -> list[Finding]:
    teleport = WatcherConfiguration.of(settings).teleport
    connection = await connect(teleport.address, Identity.load(teleport))
    async with connection.client:
        return [_cluster(connection), *await _permissions(connection)]


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
    relay = Relay.from_settings(MailerConfiguration.of(settings), Metrics(CollectorRegistry()))
    try:
        return [Finding(good=True, text=await relay.check())]
    finally:
        await relay.close()
