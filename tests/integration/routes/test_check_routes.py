"""`access-mail check` tells by which way it has reached the Auth Service."""

import asyncio
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE
from pathlib import Path

import pytest

from simulators.load_balancer import LoadBalancer
from simulators.proxy import Proxy
from tests.integration.test_check import FILE

SECONDS = 60


async def teleport_line(address: str, redis_url: str, folder: Path) -> str:
    """What `check` says of Teleport first; no relay is there."""
    file = folder / "access-mail.toml"
    file.write_text(FILE.format(directory=folder, teleport=address, relay=1, redis=redis_url, password="x"))
    command = [sys.executable, "-P", "-m", "console", "check", "-c", str(file)]
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("ACCESS_MAIL", "NOTIFY_"))}
    process = await asyncio.create_subprocess_exec(*command, env=environ, stdout=PIPE, stderr=DEVNULL)
    async with asyncio.timeout(SECONDS):
        output, _ = await process.communicate()
    return next(line for line in output.decode().splitlines() if " teleport: " in line)


@pytest.mark.usefixtures("trusted_web", "identity")
async def test_the_way_through_a_proxy_is_told(proxy: Proxy, redis_url: str, tmp_path: Path) -> None:
    line = await teleport_line(proxy.address, redis_url, tmp_path)
    assert line.startswith("ok   teleport: cluster teleport.example.com, version ")
    assert f"(through a proxy (TLS routing) to {proxy.address})" in line


@pytest.mark.usefixtures("trusted_web", "identity")
async def test_the_way_past_a_load_balancer_is_told(balancer: LoadBalancer, redis_url: str, tmp_path: Path) -> None:
    line = await teleport_line(balancer.address, redis_url, tmp_path)
    assert line.startswith("ok   teleport: cluster teleport.example.com, version ")
    assert f"(through a proxy (connection upgrade) to {balancer.address})" in line
