"""The image by itself: `docker run` as the guide has it, and nothing in it that does not belong there."""

import json
import re
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.stack.conftest import COMMIT
from tests.stack.stack import ROOT, Stack, asked
from tests.waiting import wait_for

IMAGE = "access-mail:local"
INSTALLED = """
import importlib.metadata, importlib.util, json
names = sorted(one.metadata["Name"].lower().replace("_", "-") for one in importlib.metadata.distributions())
print(json.dumps([names, [name for name in ("simulators", "tests", "pip") if importlib.util.find_spec(name)]]))
"""


def test_version_tells_what_this_is(stack: Stack) -> None:
    told = stack.engine.run("run", "--rm", IMAGE, "version")
    assert re.fullmatch(rf"Access Mail {re.escape(version('access-mail'))} \({COMMIT}\), Python 3\.\d+\.\d+\n", told)


def test_the_image_holds_the_product_and_its_pinned_dependencies_alone(stack: Stack) -> None:
    names, strangers = json.loads(stack.engine.run("run", "--rm", "--entrypoint", "python", IMAGE, "-c", INSTALLED))
    pinned = re.findall(r"(?m)^([a-z0-9._-]+)==\S+(?: ; (.+))? \\$", (ROOT / "requirements/runtime.txt").read_text())
    required = {name for name, condition in pinned if not condition}
    assert required | {"access-mail"} <= set(names) <= {name for name, _ in pinned} | {"access-mail"}
    assert strangers == []


def test_the_image_says_what_it_is_and_runs_as_nobody_in_particular(stack: Stack) -> None:
    (image,) = json.loads(stack.engine.run("image", "inspect", IMAGE))
    config = image["Config"]
    assert config["User"] == "10001:10001"
    assert config["Entrypoint"] == ["access-mail"]
    assert config["Volumes"] == {"/data": {}}
    assert config["Labels"]["org.opencontainers.image.revision"] == COMMIT


def test_without_a_configuration_start_says_what_to_do(stack: Stack) -> None:
    with pytest.raises(AssertionError, match=r"/etc/teleport-email.toml: does not exist, .* name a file with -c"):
        stack.engine.run("run", "--rm", IMAGE, "start")


@pytest.fixture
def alone(stack: Stack, tmp_path: Path) -> Iterator[str]:
    """A container of the whole product with its own Valkey, beside the stack and at its Teleport and its relay."""
    text = (ROOT / "deploy/demo/teleport-email.toml").read_text()
    file = tmp_path / "teleport-email.toml"
    file.write_text(text.replace("security@example.com", "alone@example.com").replace("ann@", "alone@"))
    name = f"{stack.project}-alone"
    stack.engine.run(
        "create",
        f"--name={name}",
        f"--network={stack.project}_teleport",
        f"--volume={stack.project}_teleport:/run/teleport:ro",
        f"--volume={file}:/etc/teleport-email.toml:ro",
        "--read-only",
        "--tmpfs=/tmp",
        "--cap-drop=ALL",
        "--health-interval=1s",
        IMAGE,
        "start",
    )
    try:
        stack.engine.run("network", "connect", f"{stack.project}_relay", name)
        yield name
    finally:
        stack.engine.run("rm", "--force", "--volumes", name)


def test_start_needs_nothing_but_a_configuration_and_keeps_its_data(stack: Stack, alone: str) -> None:
    def is_healthy() -> bool:
        return bool(stack.engine.inspect(alone)["State"]["Health"]["Status"] == "healthy")

    rq = ("exec", alone, "rq", "info", "--url", "unix:///data/valkey/valkey.sock")
    stack.engine.run("start", alone)
    wait_for(is_healthy, "the health check is content", timeout=180)
    with stack.people() as people:
        stack.wait_for_mails(asked([people.create_request("bob", ["auditor"])], ["alone@example.com"]))
    wait_for(lambda: "jobs: 1 finished, 0 failed" in stack.engine.run(*rq), "rq tells of the mail")
    stack.engine.run("stop", "--time=20", alone)
    assert stack.engine.inspect(alone)["State"]["ExitCode"] == 0
    stack.engine.run("start", alone)
    wait_for(is_healthy, "it is well after a new start", timeout=180)
    assert "1 workers, 1 queues" in stack.engine.run(*rq)
