"""The house rules that no linter knows."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PRODUCT = [path for folder in ("services", "shared", "console") for path in (ROOT / folder).rglob("*.py")]
PROTOS = Path("services/watcher/teleport/pb")


def test_pickle_is_nowhere() -> None:
    found = [path for path in PRODUCT if re.search(r"\bimport (pickle|dill|marshal|shelve)\b", path.read_text())]
    assert found == []


def test_locks_name_no_registry() -> None:
    for lock in (ROOT / "requirements").glob("*.txt"):
        assert not re.search(r"https?://|--(extra-)?index-url|--find-links", lock.read_text()), lock


def test_every_pinned_package_has_hashes() -> None:
    for lock in (ROOT / "requirements" / f"{name}.txt" for name in ("build", "demo", "dev", "runtime")):
        packages = re.findall(r"(?m)^[a-zA-Z0-9].*$", lock.read_text())
        assert packages
        assert all(line.endswith("\\") for line in packages), f"{lock}: a pin without hashes"


def test_the_readme_names_targets_that_exist() -> None:
    targets = set(re.findall(r"(?m)^([a-z-]+):", (ROOT / "Makefile").read_text()))
    named = set(re.findall(r"\bmake ([a-z-]+)", (ROOT / "README.md").read_text()))
    assert named
    assert named <= targets


@pytest.mark.parametrize("service", ["watcher", "router", "mailer"])
def test_a_service_runs_as_a_module(service: str) -> None:
    command = [sys.executable, "-P", "-m", f"services.{service}", "--help"]
    assert f"Run the {service}" in subprocess.run(command, capture_output=True, text=True, check=True).stdout


BUILD = """
import sys
from prometheus_client import CollectorRegistry
from services.mailer.mailroom import Mailroom
from services.mailer.metrics import Metrics
from services.mailer.settings import MailerConfiguration
from shared.settings import Settings
settings = Settings.model_validate({{"delivery": {{"sender": "access@example.com"}}, **{section}}})
Mailroom.from_settings(MailerConfiguration.of(settings), Metrics(CollectorRegistry()))
print([name for name in ("aiosmtplib", "httpx") if name in sys.modules])
"""


@pytest.mark.parametrize(
    ("section", "library"),
    [
        ({"smtp": {"host": "relay.example.com"}}, "aiosmtplib"),
        ({"mailgun": {"domain": "mg.example.com", "private_key": "secret"}}, "httpx"),
    ],
)
def test_a_mailer_loads_its_own_transport_alone(section: dict[str, object], library: str) -> None:
    """The other one's library would cost it time at each start, and memory for ever."""
    command = [sys.executable, "-P", "-c", BUILD.format(section=section)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == f"{[library]}\n"


def test_generated_messages_are_those_of_the_protos(tmp_path: Path) -> None:
    protos = sorted(str(path.relative_to(ROOT)) for path in (ROOT / PROTOS).glob("*.proto"))
    subprocess.run(
        [sys.executable, "-m", "grpc_tools.protoc", "-I", ".", f"--python_out={tmp_path}", *protos],
        cwd=ROOT,
        check=True,
    )
    for generated in (tmp_path / PROTOS).glob("*_pb2.py"):
        assert generated.read_text() == (ROOT / PROTOS / generated.name).read_text(), f"{generated.name}: make protos"


def test_no_file_is_an_empty_stub() -> None:
    empty = [path for path in PRODUCT if not path.read_text().strip() and "pb" not in path.parts]
    assert empty == []
