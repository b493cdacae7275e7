"""Logs as text, one line each: `2026-11-24T13:00:00Z INFO watcher: message`, whatever the message holds."""

import logging
import sys
import time

from shared.mail import one_line
from shared.settings import LogSettings, SettingsError
from shared.settings_values import LogSeverity

LONGEST_LINE = 10_000
"""Characters, a traceback included."""

LEVELS = {
    LogSeverity.DEBUG: logging.DEBUG,
    LogSeverity.INFO: logging.INFO,
    LogSeverity.WARN: logging.WARNING,
    LogSeverity.ERROR: logging.ERROR,
}

CHATTY = ("aiosmtplib", "asyncio", "grpc", "httpcore", "httpx", "rq")
"""Libraries that tell of every call, some with addresses in it: from them only what is wrong."""


def configure_logging(settings: LogSettings, service: str) -> None:
    """Log as the settings say, from now on. Called again, it opens a log file again (after it was moved away).

    Raises `SettingsError` if the file cannot be written; the logs then stay as they are.
    """
    handler = _handler(settings.output)
    handler.setFormatter(OneLine(service))
    # RQ gives loggers of its own a level, and the root's does not bind those.
    handler.setLevel(LEVELS[settings.severity])
    handler.addFilter(_is_worth_a_line)
    root = logging.getLogger()
    for old in [old for old in root.handlers if isinstance(old.formatter, OneLine)]:
        root.removeHandler(old)
        old.close()
    root.addHandler(handler)
    root.setLevel(LEVELS[settings.severity])
    logging.captureWarnings(True)


def _handler(output: str) -> logging.Handler:
    match output:
        case "stderr":
            return logging.StreamHandler(sys.stderr)
        case "stdout":
            return logging.StreamHandler(sys.stdout)
        case file:
            try:
                return logging.FileHandler(file, encoding="utf-8")
            except OSError as error:
                raise SettingsError(
                    [f"log.output: {file} cannot be written ({error.strerror}); check path and mode"]
                ) from error


def _is_worth_a_line(record: logging.LogRecord) -> bool:
    """Asked here and not by the loggers' levels, which RQ sets as it likes."""
    return record.levelno >= logging.WARNING or record.name.partition(".")[0] not in CHATTY


class OneLine(logging.Formatter):
    """One line per record, in UTC: what comes from outside can neither start a line nor turn one around."""

    converter = staticmethod(time.gmtime)

    def __init__(self, service: str) -> None:
        super().__init__(f"%(asctime)s %(levelname)s {service}: %(message)s", "%Y-%m-%dT%H:%M:%SZ")

    def format(self, record: logging.LogRecord) -> str:
        """The record's line, its traceback behind it."""
        text = super().format(record).replace("\n", " | ")
        # a lone surrogate could not be written at all
        return one_line(text.encode(errors="backslashreplace").decode(), LONGEST_LINE)
