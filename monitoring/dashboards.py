"""`make dashboards`: writes the boards into the files that Grafana is provisioned with."""

from collections.abc import Mapping
from pathlib import Path

from monitoring.mailer_board import UID as MAILER
from monitoring.mailer_board import mailer_board
from monitoring.pipeline_board import UID as PIPELINE
from monitoring.pipeline_board import pipeline_board

FOLDER = Path(__file__).parents[1] / "k8s/monitoring/dashboards"


def boards() -> Mapping[str, str]:
    """File name → JSON."""
    return {f"{PIPELINE}.json": pipeline_board(), f"{MAILER}.json": mailer_board()}


if __name__ == "__main__":
    for name, text in boards().items():
        (FOLDER / name).write_text(text)
