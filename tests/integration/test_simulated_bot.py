"""A bot's file holds an identity that the watcher can use, also after the simulated cluster was started anew."""

import signal
import socketserver
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler
from pathlib import Path
from threading import Thread

from services.watcher.teleport.identity import Identity
from shared.settings import TeleportSettings
from simulators.certificates import ClusterAuthority
from tests.waiting import wait_for


@contextmanager
def served(directory: Path) -> Iterator[str]:
    """`python -m http.server`, in a thread: the directory's URL."""
    handler = partial(SimpleHTTPRequestHandler, directory=str(directory))
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def is_of(file: Path, authority: ClusterAuthority) -> bool:
    """Does the watcher find an identity there that this cluster has issued?"""
    return file.exists() and identity(file).authorities == authority.host_ca.pem


def identity(file: Path) -> Identity:
    return Identity.load(TeleportSettings(addr="127.0.0.1:3025", identity=file))


def test_a_bot_fetches_an_identity_and_the_one_of_a_cluster_that_was_started_anew(tmp_path: Path) -> None:
    before, after = ClusterAuthority.create("teleport.example.com"), ClusterAuthority.create("teleport.example.com")
    source, file = tmp_path / "cluster", tmp_path / "identity"
    source.mkdir()
    with served(source) as url:
        command = [sys.executable, "-m", "simulators.bot", "--from", f"{url}/identity", "--file", str(file)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as bot:
            assert bot.stdout is not None
            assert bot.stderr is not None
            assert "404" in bot.stderr.readline()
            for authority in (before, after):
                authority.identity("access-mail", roles=["access-mail"]).write_file(source / "identity")
                wait_for(partial(is_of, file, authority), "the bot has written the cluster's identity")
            assert (identity(file).user, file.stat().st_mode & 0o777) == ("access-mail", 0o600)
            bot.send_signal(signal.SIGTERM)
            written = f"a new identity is in {file}\n"
            assert bot.stdout.read() == written + written + "stopped\n"
        assert bot.returncode == 0
