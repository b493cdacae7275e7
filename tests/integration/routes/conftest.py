"""A cluster, what may stand before it, and who wants to get there."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.watcher.teleport.identity import Identity
from shared.settings import TeleportSettings
from simulators.load_balancer import LoadBalancer
from simulators.proxy import Proxy
from simulators.teleport import AuthService
from tests.integration.watching import AUTHORITY


@pytest.fixture
async def auth() -> AsyncIterator[AuthService]:
    async with AuthService(AUTHORITY) as service:
        yield service


@pytest.fixture
async def proxy(auth: AuthService) -> AsyncIterator[Proxy]:
    async with Proxy(AUTHORITY, auth.address) as service:
        yield service


@pytest.fixture
async def balancer(proxy: Proxy) -> AsyncIterator[LoadBalancer]:
    async with LoadBalancer(AUTHORITY, proxy.port) as service:
        yield service


@pytest.fixture
def identity(tmp_path: Path) -> Identity:
    file = AUTHORITY.identity("access-mail", roles=["access-mail"]).write_file(tmp_path / "identity")
    return Identity.load(TeleportSettings(identity=file))


@pytest.fixture
def trusted_web(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This host knows the CA of web certificates."""
    path = tmp_path / "web-ca.pem"
    path.write_bytes(AUTHORITY.web_ca.pem)
    monkeypatch.setenv("SSL_CERT_FILE", str(path))


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever this machine itself needs."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
