"""The connection to Redis, and what is said of one that will not do."""

import ssl
from pathlib import Path

import pytest
from pydantic import SecretStr
from redis import Redis
from redis.connection import SSLConnection
from redis.exceptions import ConnectionError as RedisConnectionError

from shared.redis import RedisUnfit, check_redis, connect, connect_async, judge
from shared.settings import RedisSettings, SettingsError

PASSWORD = "correct horse battery staple"


def settings(url: str, password_file: Path | None = None) -> RedisSettings:
    return RedisSettings(url=SecretStr(url), password_file=password_file)


def test_a_connection_says_whose_it_is(redis_url: str) -> None:
    with connect(settings(redis_url), "router") as redis:
        assert redis.client_getname() == "access-mail-router"
        assert redis.get("absent") is None


async def test_so_does_one_of_asyncio(redis_url: str) -> None:
    async with connect_async(settings(redis_url), "watcher") as redis:
        assert await redis.client_getname() == "access-mail-watcher"


def test_a_password_comes_from_its_file(redis: Redis, redis_url: str, tmp_path: Path) -> None:
    (tmp_path / "password").write_text(f"{PASSWORD}\n")
    redis.config_set("requirepass", PASSWORD)
    try:
        with connect(settings(redis_url, tmp_path / "password"), "router") as client:
            assert client.ping()
    finally:
        redis.config_set("requirepass", "")


def test_a_failed_command_is_not_tried_again_here(tmp_path: Path) -> None:
    with connect(settings(f"unix://{tmp_path}/absent"), "router") as redis, pytest.raises(RedisConnectionError):
        redis.ping()


@pytest.mark.parametrize(
    ("url", "fault"),
    [
        (None, "redis.url: missing"),
        (f"postgres://:{PASSWORD}@localhost", "redis.url: no URL of a Redis"),
        (f"redis://:{PASSWORD}@localhost:port", "redis.url: no URL of a Redis"),
        (f"redis://:{PASSWORD}/@[localhost", "redis.url: no URL of a Redis"),
        (f"rediss://:{PASSWORD}@localhost?ssl_cert_reqs=none", "redis.url: TLS is always verified"),
        (f"redis://:{PASSWORD}@localhost?ssl_ca_certs=/ca.pem", "redis.url, ssl_ca_certs: no option of such a"),
        ("unix:///run/valkey.sock?timeout=5", "redis.url, timeout: no option of such a connection; delete it"),
        (f"redis://:{PASSWORD}@localhost?db=first", "redis.url: no URL of a Redis"),
    ],
)
def test_a_url_that_will_not_do_is_a_fault_that_does_not_repeat_it(url: str | None, fault: str) -> None:
    wrong = settings(url) if url else RedisSettings()
    for function in (connect, connect_async):
        with pytest.raises(SettingsError, match=fault) as caught:
            function(wrong, "router")
        assert PASSWORD not in str(caught.value)


def test_of_a_file_that_is_named_twice_the_one_that_counts_is_looked_at(tmp_path: Path) -> None:
    (tmp_path / "used").write_text("a certificate")
    url = "rediss://127.0.0.1:1/0?ssl_ca_certs={0}/{1}&ssl_ca_certs={0}/{2}"
    with pytest.raises(SettingsError, match=r"redis\.url, ssl_ca_certs: .*/none: does not exist"):
        connect(settings(url.format(tmp_path, "none", "used")), "router")
    pool = connect(settings(url.format(tmp_path, "used", "none")), "router").connection_pool
    assert pool.connection_kwargs["ssl_ca_certs"] == str(tmp_path / "used")


def test_tls_is_verified() -> None:
    pool = connect(settings("rediss://localhost"), "router").connection_pool
    connection = pool.make_connection()
    assert isinstance(connection, SSLConnection)
    assert (connection.cert_reqs, connection.check_hostname) == (ssl.CERT_REQUIRED, True)


def test_a_redis_that_keeps_what_it_is_given_is_named(redis: Redis) -> None:
    assert check_redis(redis).startswith("Valkey 9.")


def test_one_that_may_drop_keys_or_is_too_old_is_unfit() -> None:
    with pytest.raises(RedisUnfit, match=r"maxmemory-policy allkeys-lru.*set maxmemory-policy to noeviction"):
        judge({"redis_version": "7.2.4", "maxmemory_policy": "allkeys-lru"})
    with pytest.raises(RedisUnfit, match=r"Redis 6\.0\.16 is too old; use Redis 6\.2 or newer, or Valkey"):
        judge({"redis_version": "6.0.16", "maxmemory_policy": "noeviction"})
    assert judge({"redis_version": "6.2.0"}) == "Redis 6.2.0, eviction policy unknown"


def test_one_whose_info_is_forbidden_is_taken_as_it_is(redis: Redis, redis_url: str) -> None:
    redis.acl_setuser("narrow", enabled=True, nopass=True, commands=["+ping", "+client"], keys=["*"])
    try:
        with Redis.from_url(redis_url, username="narrow", password="any") as narrow:
            assert check_redis(narrow) == "version and eviction policy unknown, INFO is not allowed"
    finally:
        redis.acl_deluser("narrow")
