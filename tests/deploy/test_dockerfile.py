"""The Dockerfile: every builder can build it, and hadolint has nothing to say."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

from tests.e2e.installation import BIN

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
LAST_STAGE = DOCKERFILE.rpartition("\nFROM ")[2]


def test_hadolint_finds_nothing() -> None:
    done = subprocess.run([BIN / "hadolint", ROOT / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_it_needs_no_builder_in_particular() -> None:
    assert not re.search(r"(?m)^# *syntax|--mount=|--chmod|--link|<<|--from=[^b]", DOCKERFILE)
    assert all(" --require-hashes " in line for line in joined_lines() if "-r requirements/" in line)


def joined_lines() -> list[str]:
    """The Dockerfile's instructions and the commands in them, one a line."""
    return DOCKERFILE.replace("\\\n    ", "").splitlines()


def test_the_last_stage_is_the_product_without_simulators() -> None:
    assert "simulators" not in LAST_STAGE
    assert "--from=build /opt" in LAST_STAGE
    assert 'ENTRYPOINT ["access-mail"]' in LAST_STAGE
    assert "VOLUME /data" in LAST_STAGE


def test_its_python_is_one_that_the_project_supports() -> None:
    (version,) = re.findall(r"(?m)^ARG PYTHON=3\.(\d+)$", DOCKERFILE)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert int(version) >= int(project["requires-python"].removeprefix(">=3."))


def test_the_health_check_is_a_module_that_runs() -> None:
    command = json.loads(DOCKERFILE.partition("HEALTHCHECK ")[2].splitlines()[0].partition("CMD ")[2])
    done = subprocess.run([sys.executable, *command[1:], "http://127.0.0.1:1/"], capture_output=True, check=False)
    assert done.returncode == 1
    assert done.stderr.strip() == b"nobody listens"


def test_the_build_context_holds_what_is_copied_and_no_more() -> None:
    let_in = set(re.findall(r"(?m)^!(.+)$", (ROOT / ".dockerignore").read_text()))
    copied = {
        word.partition("/")[0]
        for line in re.findall(r"(?m)^COPY (?!--from)(.+) \S+$", DOCKERFILE)
        for word in line.split()
    }
    assert copied == let_in
    assert (ROOT / ".dockerignore").read_text().splitlines()[1] == "*"
