"""docs/kubernetes.md as its reader follows it."""

import re
import shutil
from pathlib import Path

from tests.deploy.manifests import ROOT

GUIDE = (ROOT / "docs/kubernetes.md").read_text()

PROVIDED = {"access-mail-identity": "identity", "access-mail-relay": "password", "access-mail-redis": "password"}
"""Secret and key: what whoever installs the base creates by hand, or lets tbot write."""


def guide_overlay(directory: Path) -> Path:
    """The overlay that the guide tells to write, beside a copy of the base."""
    shutil.copytree(ROOT / "k8s", directory / "k8s")
    overlay = directory / "k8s/overlays/production"
    overlay.mkdir(parents=True)
    files = re.findall(r"(?ms)^```\w+\n# k8s/overlays/production/(\S+)\n(.*?)^```", GUIDE)
    assert {name for name, _ in files} == {"kustomization.yaml", "teleport-email.toml"}
    for name, text in files:
        (overlay / name).write_text(text)
    return overlay


def scrape_configuration() -> str:
    """What the guide tells to put into prometheus.yml."""
    (text,) = re.findall(r"(?ms)^```yaml\n(scrape_configs:\n.*?)^```", GUIDE)
    return str(text)
