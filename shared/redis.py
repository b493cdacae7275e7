"""The connection to Redis (or Valkey) that the settings name, and whether what answers there will do."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from redis import Redis
from redis.asyncio import Redis as AsyncRedis
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.exceptions import NoPermissionError
from redis.retry import Retry

from shared.settings import RedisSettings, SettingsError
from shared.settings_files import NamedFile

TIMEOUT_SECONDS = 5.0
"""Longer than any block of ours, so that only a dead peer meets it."""

HEALTH_CHECK_SECONDS = 30
"""A connection that has been idle longer is asked with PING before it is used."""

OLDEST_VERSION = (6, 2)
"""XAUTOCLAIM and its kin (Redis 6.2); every Valkey has them."""


class RedisUnfit(Exception):
    """Redis answers, but does not keep what it is given as we need it; the text says what to change."""


def connect(settings: RedisSettings, service: str, timeout: float = TIMEOUT_SECONDS) -> Redis:
    """A client that connects at its first command and never retries by itself: the services do, each in one place.

    `timeout`: seconds for each answer. Raises `SettingsError` if the settings name no usable Redis.
    """
    url, options = _target(settings, service, timeout)
    return Redis.from_url(url, retry=Retry(NoBackoff(), 0), **options)


def connect_async(settings: RedisSettings, service: str) -> AsyncRedis:
    """The same for asyncio. Raises `SettingsError`."""
    url, options = _target(settings, service, TIMEOUT_SECONDS)
    return AsyncRedis.from_url(url, retry=AsyncRetry(NoBackoff(), 0), **options)


def check_redis(redis: Redis) -> str:
    """Name, version and eviction policy. Raises `RedisUnfit`, or `redis.exceptions.RedisError` without an answer."""
    redis.ping()
    try:
        return judge(redis.info())
    except NoPermissionError:
        return "version and eviction policy unknown, INFO is not allowed"


def judge(info: Mapping[str, Any]) -> str:
    """Like `check_redis`, from the answer to INFO (which managed services allow where they forbid CONFIG)."""
    valkey = info.get("valkey_version")
    version = str(valkey or info.get("redis_version", "0"))
    name = f"{'Valkey' if valkey else 'Redis'} {version}"
    if tuple(int(part) for part in version.split(".")[:2]) < OLDEST_VERSION:
        raise RedisUnfit(f"{name} is too old; use Redis {'.'.join(map(str, OLDEST_VERSION))} or newer, or Valkey")
    policy = info.get("maxmemory_policy")
    if policy is None:
        return f"{name}, eviction policy unknown"
    if policy != "noeviction":
        raise RedisUnfit(
            f"{name} drops keys when its memory is full (maxmemory-policy {policy}), and mails would be lost; "
            "set maxmemory-policy to noeviction"
        )
    return f"{name}, noeviction"


_TLS_FILES = {"ssl_ca_certs", "ssl_certfile", "ssl_keyfile"}
"""Options of the URL that name files."""

_NO_URL = "redis.url: no URL of a Redis; write redis://host:port/0, rediss://… for TLS, or unix:///path"


def _target(settings: RedisSettings, service: str, timeout: float) -> tuple[str, dict[str, Any]]:
    if settings.url is None:
        raise SettingsError(["redis.url: missing; give the URL of a Redis, or let `access-mail start` run its own"])
    url = settings.url.get_secret_value()
    try:
        query = parse_qs(urlsplit(url).query)
        _insist_on_options(url, query)
    except ValueError:
        raise SettingsError([_NO_URL]) from None  # its text may repeat the password
    if query.keys() & {"ssl_cert_reqs", "ssl_check_hostname"}:
        raise SettingsError(["redis.url: TLS is always verified; name a CA of your own with ?ssl_ca_certs=/path"])
    for option in _TLS_FILES & query.keys():
        # The library would not name it. It takes the first one where an option is given twice.
        NamedFile(f"redis.url, {option}", Path(query[option][0])).content()
    options: dict[str, Any] = {
        "client_name": f"access-mail-{service}",
        "health_check_interval": HEALTH_CHECK_SECONDS,
        "socket_connect_timeout": timeout,
        "socket_timeout": timeout,
    }
    if settings.password_file is not None:
        password = NamedFile("redis.password_file", settings.password_file).secret()
        options["password"] = password.get_secret_value()
    return url, options


def _insist_on_options(url: str, query: Collection[str]) -> None:
    """The library would notice at the first command only. Raises `ValueError` where the URL is none."""
    try:
        Redis.from_url(url).connection_pool.make_connection()
    except TypeError as error:
        option = next((name for name in query if f"'{name}'" in str(error)), "")
        fault = f"redis.url, {option}: no option of such a connection; delete it (those of TLS need rediss://)"
        raise SettingsError([fault]) from None
