"""The watcher has credentials that are good, takes over new ones, and says what is wrong with those that are not."""

import asyncio
import logging
import re
import signal
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from prometheus_client import CollectorRegistry
from pydantic import SecretStr
from redis import Redis

from services.watcher import credentials
from services.watcher.service import Watcher
from services.watcher.teleport.identity import IdentityError
from shared.settings import RedisSettings, Settings, SettingsError, TeleportSettings
from simulators.background import in_background
from simulators.certificates import ClusterAuthority
from simulators.teleport import AuthService
from tests.integration.watching import AUTHORITY, changed, settings, until_ready, watching
from tests.processes import run
from tests.waiting import wait_until

SOON = timedelta(milliseconds=100)


@pytest.fixture
async def auth() -> AsyncIterator[AuthService]:
    async with AuthService(AUTHORITY) as service:
        yield service


def renew(folder: Path, user: str = "renewed") -> int:
    """Put a new identity into the folder's file; the serial number of its certificate."""
    made = AUTHORITY.identity(user)
    made.write_file(folder / "identity")
    return serial_of(made.pair.certificate)


def serial_of(pem: bytes) -> int:
    return x509.load_pem_x509_certificate(pem).serial_number


def end_of(pem: bytes) -> float:
    return x509.load_pem_x509_certificate(pem).not_valid_after_utc.timestamp()


def has_shown(auth: AuthService, serial: int) -> bool:
    """Has a client come with this certificate?"""
    return serial in map(serial_of, auth.client_certificates)


def is_last(redis: Redis, request_id: str) -> bool:
    """Is this the request that was told last?"""
    return [request.id for request in changed(redis)][-1:] == [request_id]


def expiry(registry: CollectorRegistry) -> float:
    return registry.get_sample_value("access_mail_watcher_identity_expiry_timestamp_seconds") or 0


async def test_a_renewed_identity_file_takes_over_in_a_new_connection(
    auth: AuthService, redis: Redis, redis_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    refreshing = settings(auth.address, tmp_path, refresh_identity=True, refresh_identity_interval=SOON)
    async with watching(redis_url, refreshing) as watcher:
        await until_ready(watcher)
        renew(tmp_path)
        await wait_until(lambda: caplog.text.count("connected to cluster") == 2, "the new identity is noticed")
        await until_ready(watcher)
        await wait_until(lambda: len(auth.watches) == 1, "there is one watch")
        request_id = auth.create_request()
        await wait_until(lambda: [request.id for request in changed(redis)][-1:] == [request_id], "it is told")
    assert caplog.text.count("connected to cluster") == 2, "and no third time"


async def test_a_broken_identity_file_is_said_once_and_the_old_one_kept(
    auth: AuthService, redis: Redis, redis_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    refreshing = settings(auth.address, tmp_path, refresh_identity=True, refresh_identity_interval=SOON)
    registry = CollectorRegistry()
    async with watching(redis_url, refreshing, registry) as watcher:
        await until_ready(watcher)
        whole, ends = (tmp_path / "identity").read_text(), expiry(registry)
        (tmp_path / "identity").write_text(whole[:-30])
        await wait_until(lambda: "unterminated PEM block" in caplog.text, "it is said")
        request_id = auth.create_request()
        await wait_until(lambda: [request.id for request in changed(redis)] == [request_id], "it goes on")
        later = datetime.now(UTC) + 4 * SOON
        await wait_until(lambda: datetime.now(UTC) > later, "it has looked at the file again and again")
        (tmp_path / "identity").unlink()
        await wait_until(lambda: "does not exist" in caplog.text, "the next fault is said too")
        assert expiry(registry) == ends
        assert watcher.ready() is None
    assert caplog.text.count("unterminated PEM block") == 1
    assert caplog.text.count("the credentials in use are kept") == 2


async def test_three_changed_files_take_over_and_until_they_fit_together_the_old_ones_are_kept(
    auth: AuthService, redis: Redis, redis_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    trio = AUTHORITY.identity("access-mail").write_trio(tmp_path)
    refreshing = TeleportSettings(
        addr=auth.address, refresh_identity=True, refresh_identity_interval=SOON, **vars(trio)
    )
    async with watching(redis_url, refreshing) as watcher:
        await until_ready(watcher)
        renewed = AUTHORITY.identity("renewed").pair
        trio.client_key.write_bytes(renewed.key)
        await wait_until(lambda: "key does not belong to the certificate" in caplog.text, "a half renewal is said")
        request_id = auth.create_request()
        await wait_until(lambda: [request.id for request in changed(redis)] == [request_id], "it goes on")
        trio.client_crt.write_bytes(renewed.certificate)
        used = re.compile("connected to cluster .* as renewed until")
        await wait_until(partial(is_said, caplog, used), "the whole one is used")
        await wait_until(lambda: len(auth.watches) == 1, "the old connection has ended")
        other = AUTHORITY.host_ca.pem + ClusterAuthority.create("teleport.example.com").host_ca.pem
        trio.root_cas.write_bytes(other)
        await wait_until(lambda: len(used.findall(caplog.text)) == 2, "CAs are credentials, too")
    assert caplog.text.count("key does not belong") == 1


async def test_without_refresh_a_new_file_waits_for_a_reload(
    auth: AuthService, redis_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    teleport = settings(auth.address, tmp_path)
    async with watching(redis_url, teleport) as watcher:
        await until_ready(watcher)
        renew(tmp_path)
        watcher.reload(Settings(teleport=teleport))
        await wait_until(lambda: "as renewed until" in caplog.text, "the new identity is taken over")
        await until_ready(watcher)


async def test_a_reload_follows_the_cluster_to_another_address(
    auth: AuthService, redis: Redis, redis_url: str, tmp_path: Path
) -> None:
    async with AuthService(AUTHORITY) as other, watching(redis_url, settings(auth.address, tmp_path)) as watcher:
        await until_ready(watcher)
        request_id = other.create_request()
        watcher.reload(Settings(teleport=settings(other.address, tmp_path)))
        await wait_until(lambda: [request.id for request in changed(redis)] == [request_id], "it is told")
        await wait_until(lambda: len(auth.watches) == 0, "the old connection has ended")


async def test_a_reload_with_bad_credentials_keeps_the_old_ones(
    auth: AuthService, redis_url: str, tmp_path: Path
) -> None:
    teleport = settings(auth.address, tmp_path)
    async with watching(redis_url, teleport) as watcher:
        await until_ready(watcher)
        (tmp_path / "identity").write_text("nothing")
        with pytest.raises(SettingsError, match="no identity file"):
            watcher.reload(Settings(teleport=teleport))
        assert watcher.ready() is None


async def test_a_certificate_that_ends_is_told_and_a_renewed_file_found(
    auth: AuthService, redis_url: str, tmp_path: Path
) -> None:
    teleport = settings(auth.address, tmp_path)
    ends = datetime.now(UTC) + timedelta(seconds=1.5)
    AUTHORITY.identity("short", lifetime=timedelta(seconds=1.5)).write_file(tmp_path / "identity")
    async with watching(redis_url, teleport) as watcher:
        await until_ready(watcher)
        await wait_until(lambda: datetime.now(UTC) > ends, "it has expired")
        auth.faults.end_streams()
        await wait_until(lambda: "certificate expired" in (watcher.ready() or ""), "that is told")
        renew(tmp_path)
        await until_ready(watcher)


def test_an_expired_identity_refuses_to_start(tmp_path: Path, redis_url: str) -> None:
    teleport = settings("127.0.0.1:1", tmp_path)
    AUTHORITY.identity("late", lifetime=timedelta(hours=-1)).write_file(tmp_path / "identity")
    whole = Settings(teleport=teleport, redis=RedisSettings(url=SecretStr(redis_url)))
    with pytest.raises(SettingsError, match="certificate expired: that of user 'late'") as caught:
        Watcher.from_settings(whole, CollectorRegistry())
    assert isinstance(caught.value.__cause__, IdentityError)


def environ(address: str, redis_url: str, folder: Path) -> dict[str, str]:
    return {
        "ACCESS_MAIL__TELEPORT__ADDR": address,
        "ACCESS_MAIL__TELEPORT__IDENTITY": str(folder / "identity"),
        "ACCESS_MAIL__REDIS__URL": redis_url,
        "ACCESS_MAIL__WATCHER__PORT": "0",
    }


def test_the_process_ends_with_1_and_the_sentence(tmp_path: Path, redis_url: str) -> None:
    AUTHORITY.identity("late", lifetime=timedelta(hours=-1)).write_file(tmp_path / "identity")
    with run(["services.watcher"], tmp_path / "log", environ("127.0.0.1:1", redis_url, tmp_path)) as process:
        assert process.ends() == 1
        assert "certificate expired: that of user 'late'" in process.text()
        assert "tctl auth sign --user=late" in process.text()
        assert "Traceback" not in process.text()


def test_the_process_gets_ready_reloads_and_ends_with_0(tmp_path: Path, redis_url: str, redis: Redis) -> None:
    AUTHORITY.identity("access-mail").write_file(tmp_path / "identity")
    with in_background(AuthService(AUTHORITY)) as auth:
        request_id = auth.create_request()
        with run(["services.watcher"], tmp_path / "log", environ(auth.address, redis_url, tmp_path)) as process:
            process.says("listed 1 requests")
            process.says("ready")
            assert [request.id for request in changed(redis)] == [request_id]
            renew(tmp_path)
            process.process.send_signal(signal.SIGHUP)
            process.says("as renewed until")
            assert process.ends(signal.SIGTERM) == 0
            lines = process.text().splitlines()
            assert [line for line in lines if not re.match(r"\S+Z INFO watcher: ", line)] == []


def is_said(caplog: pytest.LogCaptureFixture, pattern: re.Pattern[str]) -> bool:
    return pattern.search(caplog.text) is not None


def states(redis: Redis) -> set[tuple[str, str]]:
    """What the stream tells of, by request and state."""
    return {(request.id, request.state.value) for request in changed(redis)}


async def happenings(auth: AuthService, requests: int) -> set[tuple[str, str]]:
    """Create and approve so many requests, in no haste; the states that each has gone through."""
    happened: set[tuple[str, str]] = set()
    for _ in range(requests):
        request_id = auth.create_request()
        auth.approve(request_id)
        happened |= {(request_id, "pending"), (request_id, "approved")}
        await asyncio.sleep(0.002)
    return happened


def is_renewed(registry: CollectorRegistry, times: int) -> bool:
    return registry.get_sample_value("access_mail_watcher_reconnects_total", {"reason": "renewed"}) == times


async def test_ten_rotations_during_two_thousand_events_lose_none(
    auth: AuthService, redis: Redis, redis_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Not even one whose later state the next snapshot would find: the old watch goes on until the new one does."""
    caplog.set_level(logging.INFO)
    refreshing = settings(auth.address, tmp_path, refresh_identity=True, refresh_identity_interval=SOON / 2)
    registry = CollectorRegistry()
    async with watching(redis_url, refreshing, registry) as watcher:
        await until_ready(watcher)
        happened: set[tuple[str, str]] = set()
        for rotation in range(10):
            happening = asyncio.create_task(happenings(auth, 100))
            serial = renew(tmp_path, f"bot-{rotation}")
            await wait_until(partial(has_shown, auth, serial), "the new identity is shown to Teleport", timeout=30)
            await wait_until(partial(is_renewed, registry, rotation + 1), "the new connection is used", timeout=30)
            assert watcher.ready() is None
            happened |= await happening
        assert len(happened) == 2000
        await wait_until(lambda: states(redis) >= happened, "every event is told", timeout=30)
    assert caplog.text.count("connected to cluster") == 11, "as often as there were identities"
    assert registry.get_sample_value("access_mail_watcher_reconnects_total", {"reason": "unavailable"}) == 0


@pytest.mark.parametrize(
    "files",
    [
        {"identity": "identity"},
        {"client_crt": "tlscert", "client_key": "key", "root_cas": "teleport-host-ca.crt"},
    ],
    ids=["identity", "trio"],
)
async def test_a_mounted_secret_of_tbots_output_that_is_swapped_takes_over(
    auth: AuthService, redis: Redis, redis_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, *, files: Any
) -> None:
    caplog.set_level(logging.INFO)
    first = AUTHORITY.identity("access-mail", lifetime=timedelta(minutes=50))
    first.write_secret(tmp_path)
    paths = {key: tmp_path / name for key, name in files.items()}
    refreshing = TeleportSettings(addr=auth.address, refresh_identity=True, refresh_identity_interval=SOON, **paths)
    registry = CollectorRegistry()
    async with watching(redis_url, refreshing, registry) as watcher:
        await until_ready(watcher)
        assert expiry(registry) == end_of(first.pair.certificate)
        for rotation in range(3):
            renewed = AUTHORITY.identity(f"bot-{rotation}")
            renewed.write_secret(tmp_path)
            serial = serial_of(renewed.pair.certificate)
            await wait_until(partial(has_shown, auth, serial), "it is shown to Teleport")
            await wait_until(partial(is_renewed, registry, rotation + 1), "the new connection is used")
            assert expiry(registry) == end_of(renewed.pair.certificate) != end_of(first.pair.certificate)
            request_id = auth.create_request()
            await wait_until(partial(is_last, redis, request_id), "it is told")
    assert "are kept" not in caplog.text, "no half of a swap was seen"


async def test_new_credentials_that_teleport_refuses_leave_the_old_connection_in_use(
    auth: AuthService, redis: Redis, redis_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stranger = ClusterAuthority.create("teleport.example.com")
    caplog.set_level(logging.INFO)
    refreshing = settings(auth.address, tmp_path, refresh_identity=True, refresh_identity_interval=SOON)
    async with watching(redis_url, refreshing) as watcher:
        await until_ready(watcher)
        stranger.identity("strange").write_file(tmp_path / "identity")
        await wait_until(lambda: "the connection in use is kept" in caplog.text, "it is said")
        request_id = auth.create_request()
        await wait_until(lambda: [request.id for request in changed(redis)] == [request_id], "it is told")
        assert watcher.ready() is None
        renew(tmp_path)
        await wait_until(
            partial(is_said, caplog, re.compile("connected to cluster .* as renewed")), "the next one is used"
        )
    assert caplog.text.count("the connection in use is kept") == 1


async def test_the_nearing_end_of_a_certificate_is_said_once_at_each_step(
    auth: AuthService, redis_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(credentials, "LOOK_SECONDS", 0.02)
    teleport = settings(auth.address, tmp_path)
    # Dated a minute back, as Teleport does: 5 % of the whole life are left, then 1 %, then nothing.
    AUTHORITY.identity("short", lifetime=timedelta(seconds=3)).write_file(tmp_path / "identity")
    async with watching(redis_url, teleport) as watcher:
        await until_ready(watcher)
        await wait_until(lambda: "certificate expired" in caplog.text, "its end is said")
        assert watcher.ready() is None, "the connection lasts as long as Teleport lets it"
        renew(tmp_path)
        watcher.reload(Settings(teleport=teleport))
        await wait_until(lambda: len(auth.watches) == 1, "the new one is in use")
    assert caplog.text.count("the certificate of user 'short' ends") == 2
    assert caplog.text.count("certificate expired") == 1
    assert "then reload (SIGHUP)" in caplog.text
