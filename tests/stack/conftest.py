"""One engine and one stack for all tests of this folder."""

import re
from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.stack.engine import Engine, engine
from tests.stack.stack import ROOT, UP, Stack

COMMIT = "0123abc"


@pytest.fixture(scope="session")
def docker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """An engine that has the public images, or stand-ins for them."""
    with engine(tmp_path_factory.mktemp("engine")) as docker:
        (python,) = re.findall(r"(?m)^ARG PYTHON=(.+)$", (ROOT / "Dockerfile").read_text())
        foreign = re.findall(r"(?m)^    image: (\S+:\S+)$", (ROOT / "docker-compose.yml").read_text())
        docker.insist_on([f"python:{python}-slim", *(one for one in foreign if not one.startswith("grafana/"))])
        yield docker


@pytest.fixture(scope="session")
def stack(docker: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The demo with three mailers, as a newcomer starts it; its story has been told once and is over."""
    with closing(Stack(docker, tmp_path_factory.mktemp("access-mail-test-"), COMMIT)) as stack:
        try:
            stack.compose("--profile", "demo", "build")  # an image of an earlier run may be here
            stack.compose(*UP)
            stack.compose("--profile", "demo", "stop", "story")
            stack.mails_of_the_story = stack.mails()
            yield stack
        finally:
            print(stack.compose("--profile", "demo", "logs", "--no-color", "--tail", "200"))  # noqa: T201 - shown where a test has failed
