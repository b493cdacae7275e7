"""A record is one line, whatever it holds."""

import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.logs import OneLine, configure_logging
from shared.settings import LogSettings, SettingsError
from shared.settings_values import LogSeverity

log = logging.getLogger("services.example")

A_LINE = re.compile(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ (DEBUG|INFO|WARNING|ERROR) router: .*\n")


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Path]:
    """A log file; logging is put back as it was."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield tmp_path / "log"
    for handler in [handler for handler in root.handlers if handler not in handlers]:
        root.removeHandler(handler)
        handler.close()
    root.setLevel(level)
    logging.captureWarnings(False)


def test_a_line_has_time_severity_service_and_message(file: Path) -> None:
    configure_logging(LogSettings(output=str(file)), "router")
    log.info("routed %d", 3)
    assert A_LINE.fullmatch(file.read_text())
    assert file.read_text().endswith(" INFO router: routed 3\n")


def test_severity_hides_what_is_below_it_and_libraries_tell_only_what_is_wrong(file: Path) -> None:
    configure_logging(LogSettings(output=str(file), severity=LogSeverity.DEBUG), "router")
    logging.getLogger("httpx").info("hidden")
    logging.getLogger("rq.worker").warning("shown 1")
    log.debug("shown 2")
    configure_logging(LogSettings(output=str(file), severity=LogSeverity.ERROR), "router")
    logging.getLogger("rq.worker").warning("hidden")
    log.warning("hidden")
    log.error("shown 3")
    assert [line.split(": ")[1] for line in file.read_text().splitlines()] == ["shown 1", "shown 2", "shown 3"]


def test_a_traceback_stands_on_the_line_of_its_message(file: Path) -> None:
    configure_logging(LogSettings(output=str(file)), "router")
    try:
        "".index("two\nlines".partition("t")[1])
    except ValueError:
        log.exception("failed")
    assert A_LINE.fullmatch(file.read_text())
    assert "failed | Traceback" in file.read_text()
    assert file.read_text().endswith("ValueError: substring not found\n")


@given(st.text(st.characters()))
def test_no_text_makes_a_second_line(text: str) -> None:
    record = logging.LogRecord("x", logging.INFO, "x.py", 1, "%s", (text,), None)
    line = OneLine("router").format(record)
    assert len(line.encode().decode().splitlines()) == 1
    assert not re.search("[\u202a-\u202e\u2066-\u2069]", line)


def test_a_file_that_was_moved_away_is_opened_again(file: Path) -> None:
    configure_logging(LogSettings(output=str(file)), "router")
    log.info("before")
    file.rename(file.with_suffix(".1"))
    configure_logging(LogSettings(output=str(file)), "router")
    log.info("after")
    assert file.with_suffix(".1").read_text().endswith("before\n")
    assert file.read_text().endswith("after\n")


def test_a_file_that_cannot_be_written_leaves_the_log_as_it_is(file: Path) -> None:
    configure_logging(LogSettings(output=str(file)), "router")
    with pytest.raises(SettingsError, match=r"log\.output: /dev/null/log cannot be written \(Not a directory\)"):
        configure_logging(LogSettings(output="/dev/null/log"), "router")
    log.info("still here")
    assert file.read_text().endswith("still here\n")
