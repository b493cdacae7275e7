"""Whoever takes a connection and then says nothing is given up in time, and it is told which way that was."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ssl import SSLContext

import pytest

from services.watcher.teleport import connect as connect_module
from services.watcher.teleport import dial, discovery
from services.watcher.teleport.connect import connect
from services.watcher.teleport.errors import TeleportUnavailable
from services.watcher.teleport.identity import Identity
from simulators.proxy_web import tls_context
from simulators.teleport import AuthService
from tests.integration.watching import AUTHORITY

DIRECT, ROUTING = "direct", "through a proxy (TLS routing)"
UPGRADE = "through a proxy (connection upgrade)"
LONGEST = 20
"""Seconds: far more than all deadlines of a test together, and less than those that are not shortened."""


@pytest.fixture(autouse=True)
def short_deadlines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery, "DISCOVERY_SECONDS", 0.2)
    monkeypatch.setattr(dial, "DIAL_SECONDS", 0.3)
    monkeypatch.setattr(connect_module, "PING_SECONDS", 0.4)


@asynccontextmanager
async def silent(tls: SSLContext | None = None) -> AsyncIterator[str]:
    """Where somebody listens, and says nothing beyond what TLS itself says."""
    over = asyncio.Event()

    async def visit(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await over.wait()
        writer.close()

    server = await asyncio.start_server(visit, "127.0.0.1", 0, ssl=tls)
    try:
        yield f"localhost:{server.sockets[0].getsockname()[1]}"
    finally:
        over.set()
        server.close()
        await server.wait_closed()


async def failure(address: str, identity: Identity) -> str:
    """What is said of the routes there."""
    async with asyncio.timeout(LONGEST):
        with pytest.raises(TeleportUnavailable) as caught:
            await connect(address, identity)
    return str(caught.value).removeprefix(f"no route leads to {address}: ")


async def test_who_says_nothing_at_all_is_given_up_on_each_route(identity: Identity) -> None:
    async with silent() as address:
        assert await failure(address, identity) == f"{DIRECT}, {ROUTING}, {UPGRADE}: no answer within 0.3 s"


@pytest.mark.usefixtures("trusted_web")
async def test_who_says_nothing_after_the_web_handshake_is_given_up_too(identity: Identity) -> None:
    async with silent(tls_context(AUTHORITY.web_certificate(), [])) as address:
        assert (await failure(address, identity)).endswith(f"; {UPGRADE}: no answer within 0.3 s")


async def test_an_auth_service_that_answers_no_call_is_given_up_too(auth: AuthService, identity: Identity) -> None:
    auth.faults.delays["Ping"] = 60
    assert (await failure(auth.address, identity)).startswith(
        f"{DIRECT}, {ROUTING}: Teleport does not answer in time; "
    )
