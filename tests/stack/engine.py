"""A container engine for the tests: the one that runs, else one of their own, else a loud skip."""

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.installation import BIN
from tests.waiting import wait_for

NOT_TRIED = "THE IMAGE AND THE COMPOSE FILE ARE NOT TRIED: "
STANDINS = Path(__file__).parent / "standins/build.sh"


class Engine:
    """Runs `docker`, with the Compose that `requirements/dev.txt` pins as its plugin."""

    def __init__(self, docker: str, folder: Path, host: Mapping[str, str]) -> None:
        plugins = folder / "docker-config/cli-plugins"
        plugins.mkdir(parents=True)
        (plugins / "docker-compose").symlink_to(BIN / "docker-compose")
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("ACCESS_MAIL", "COMPOSE_"))}
        self.environ = {**clean, **host, "DOCKER_CONFIG": str(plugins.parent), "DOCKER_CLI_HINTS": "false"}
        self._docker = docker

    def run(self, *arguments: str, cwd: Path | None = None, environ: Mapping[str, str] | None = None) -> str:
        """What `docker ARGUMENT…` prints. Fails with what it complained of."""
        command = [self._docker, *arguments]
        whole = {**self.environ, **(environ or {})}
        done = subprocess.run(command, cwd=cwd, env=whole, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"docker {' '.join(arguments)}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def inspect(self, container: str) -> dict[str, Any]:
        """What it knows of the container."""
        (found,) = json.loads(self.run("inspect", container))
        return dict(found)

    def kill_all_in(self, container: str) -> None:
        """Kill a container's processes from inside, as the kernel does when memory is short."""
        command = [self._docker, "exec", container, "sh", "-c", "kill -9 -1"]
        subprocess.run(command, env=self.environ, capture_output=True, check=False)  # the command itself may die too

    def answers(self) -> bool:
        """Is there an engine?"""
        command = [self._docker, "version"]
        return subprocess.run(command, env=self.environ, capture_output=True, check=False).returncode == 0

    def has(self, image: str) -> bool:
        """Is the image here?"""
        return bool(self.run("image", "ls", "--quiet", image).strip())

    def insist_on(self, images: list[str]) -> None:
        """Make stand-ins for those images that are not here."""
        missing = [image for image in images if not self.has(image)]
        if missing and (os.geteuid() != 0 or shutil.which("debootstrap") is None):
            pytest.skip(f"{NOT_TRIED}{missing} are not here; stand-ins need root and debootstrap (`make tools`)")
        if missing:
            done = subprocess.run([STANDINS, *missing], env=self.environ, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout + done.stderr


@contextmanager
def engine(folder: Path) -> Iterator[Engine]:
    """The engine that runs, or one that ends with the block. Skips where neither can be had."""
    docker = shutil.which("docker")
    if docker is None:
        pytest.skip(NOT_TRIED + "docker is not installed (`make tools`)")
    running = Engine(docker, folder / "running", {})
    if running.answers():
        yield running
        return
    dockerd = shutil.which("dockerd")
    if dockerd is None or os.geteuid() != 0:
        pytest.skip(NOT_TRIED + "no engine runs, and only root can start one")
    with tempfile.TemporaryDirectory(prefix="access-mail-engine-") as place:
        own = Engine(docker, folder / "own", {"DOCKER_HOST": f"unix://{place}/docker.sock"})
        with _started(dockerd, Path(place), own):
            yield own


@contextmanager
def _started(dockerd: str, place: Path, own: Engine) -> Iterator[None]:
    mount = shutil.which("cgroupfs-mount")
    if mount is not None:
        subprocess.run([mount], check=False)
    options = {
        "host": f"unix://{place}/docker.sock",
        "data-root": f"{place}/data",
        "exec-root": f"{place}/exec",
        "pidfile": f"{place}/pid",
    }
    command = [dockerd, *(f"--{name}={value}" for name, value in options.items())]
    log = place / "log"
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output) as process:
        try:
            wait_for(lambda: own.answers() or process.poll() is not None, "the engine answers", timeout=60)
            if process.poll() is not None:
                pytest.skip(f"{NOT_TRIED}dockerd ends at once:\n{log.read_text()[-2000:]}")
            yield
        finally:
            process.terminate()
            process.wait(timeout=60)
