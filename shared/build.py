"""Which build of Access Mail this is: what `access-mail version` prints and `access_mail_build_info` carries."""

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version

from prometheus_client import CollectorRegistry, Info

COMMIT_VARIABLE = "ACCESS_MAIL_COMMIT"
"""Set in images: the commit that they are built from."""


@dataclass(frozen=True)
class Build:
    """What tells one build from another."""

    version: str
    commit: str | None
    """None: not built as an image."""
    python: str


def this_build(environ: Mapping[str, str]) -> Build:
    """The build that runs in this environment."""
    return Build(version("access-mail"), environ.get(COMMIT_VARIABLE) or None, platform.python_version())


def register_build(registry: CollectorRegistry, build: Build, service: str) -> None:
    """Tell Prometheus of it, and so of each process that lives."""
    Info("access_mail_build", "Which build this service is; 1 for each process", registry=registry).info(
        {
            "version": build.version,
            "commit": build.commit or "unknown",
            "python": build.python,
            "service": service,
        }
    )
