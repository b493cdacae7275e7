"""All that the product talks to, on this machine, and the product itself as its user starts it."""

import asyncio
import os
import re
import sys
from asyncio.subprocess import STDOUT, Process
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from simulators.certificates import ClusterAuthority
from simulators.mailbox import Mailbox
from simulators.proxy import Proxy
from simulators.teleport import AuthService

CLUSTER = "teleport.example.com"
READY = re.compile(r"start: ready: watcher (\S+), router (\S+), mailer (\S+), redis (\S+)")
POLL_SECONDS = 0.05


@dataclass(frozen=True)
class World:
    """A Teleport cluster with its proxy, and a mailbox that takes everything."""

    auth: AuthService
    proxy: Proxy
    mailbox: Mailbox
    identity: Path

    def configuration(self, role_to_recipients: Mapping[str, Sequence[str]]) -> str:
        """A configuration file for this world, in the words of the Go plugin's."""
        roles = "\n".join(f'"{role}" = {list(addresses)}' for role, addresses in role_to_recipients.items())
        return f"""
[teleport]
addr = "{self.proxy.address}"
identity = "{self.identity}"
refresh_identity = true

[smtp]
host = "{self.mailbox.host}"
port = {self.mailbox.port}
starttls_policy = "disabled"

[delivery]
sender = "Teleport access requests <access@{CLUSTER}>"

[role_to_recipients]
{roles}

[log]
output = "stderr"
severity = "INFO"
"""


@asynccontextmanager
async def world(directory: Path) -> AsyncIterator[World]:
    """Run the outside world; its credentials are written into the directory."""
    authority = ClusterAuthority.create(CLUSTER)
    identity = authority.identity("access-mail", roles=["access-mail"]).write_file(directory / "identity")
    async with (
        AuthService(authority) as auth,
        Proxy(authority, auth.address) as proxy,
        Mailbox() as mailbox,
    ):
        yield World(auth, proxy, mailbox, identity)


@dataclass(frozen=True)
class Places:
    """Where the running product can be looked at."""

    watcher: str
    router: str
    mailer: str
    redis: str


class Product:
    """`access-mail start` as a process; what it says is in `log`."""

    def __init__(self, process: Process, log: Path) -> None:
        self.process = process
        self.log = log

    async def ready(self, seconds: float = 60) -> Places:
        """Wait until all services are at work. Raises `RuntimeError` with what it said if they are not."""
        async with asyncio.timeout(seconds):
            while self.process.returncode is None:
                found = READY.search(self.log.read_text())
                if found:
                    return Places(*found.groups())
                await asyncio.sleep(POLL_SECONDS)
        raise RuntimeError(f"`access-mail start` has ended:\n{self.log.read_text()}")

    async def stop(self) -> int:
        """End it as systemd does; its exit code."""
        if self.process.returncode is None:
            self.process.terminate()
        return await self.process.wait()


@asynccontextmanager
async def product(
    config: Path, data_dir: Path, log: Path, environ: Mapping[str, str] | None = None
) -> AsyncIterator[Product]:
    """Run `access-mail start` on free ports, as long as the block lasts."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("ACCESS_MAIL", "NOTIFY_"))}
    ports = [word for service in ("watcher", "router", "mailer") for word in ("--probe-port", service, "0")]
    arguments = ["start", "-c", str(config), "--data-dir", str(data_dir), *ports]
    with log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",
            "-m",
            "console",
            *arguments,
            env={**clean, **(environ or {})},
            stdout=output,
            stderr=STDOUT,
        )
    running = Product(process, log)
    try:
        yield running
    finally:
        await running.stop()
