"""`python -m simulators.teleport` is a cluster that the credentials it writes can reach."""

import asyncio
import re
import signal
import subprocess
import sys
from pathlib import Path

from simulators.certificates import Identity, KeyPair
from tests.integration.teleport_client import PING, client

PEM_BLOCK = re.compile(rb"-----BEGIN [^-]+-----.+?-----END [^-]+-----\n", re.DOTALL)


def test_it_prints_where_it_is_and_writes_credentials_that_work(tmp_path: Path) -> None:
    options = ["--port", "0", "--proxy-port", "0", "--directory", str(tmp_path)]
    command = [sys.executable, "-m", "simulators.teleport", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        printed = dict(process.stdout.readline().split()[:2] for _ in range(3))
        key, certificate, host_authority = PEM_BLOCK.findall(Path(printed["identity"]).read_bytes())
        identity = Identity(KeyPair(key, certificate), "", "", host_authority)
        assert asyncio.run(public_address(identity, printed["auth"])) == printed["proxy"]
        process.send_signal(signal.SIGINT)
        assert process.stdout.read() == "stopped\n"
    assert process.returncode == 0


async def public_address(identity: Identity, address: str) -> str:
    """Ask the cluster where its proxy is."""
    async with client(identity, address) as stub:
        return (await stub.Ping(PING)).ProxyPublicAddr
