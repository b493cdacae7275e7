"""How single values of the configuration may be written: the Go plugin's spellings, and the environment's."""

import json
import re
from datetime import timedelta
from enum import StrEnum
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field

from shared.addresses import is_address, parse_sender, wire_domain

DEFAULT_SMTP_PORT = 587

_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h)", re.ASCII)
_LONGEST_DURATION = timedelta(days=3650)
_LONGEST_TEXT = 40

_BASE_URL_EXPECTED = "the URL of a server expected, like https://api.eu.mailgun.net, without a path or a password"
_EHLO_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252}[A-Za-z0-9])?|\[[0-9A-Za-z.:]{2,60}\]")


def parse_duration(value: object) -> timedelta:
    """Go's `time.ParseDuration`; a number without a unit counts nanoseconds, as it does to Go.

    Raises `ValueError` for zero, for what is negative, and beyond ten years: no setting here can mean that.
    """
    if isinstance(value, timedelta):
        return value
    text = f"{value}ns" if isinstance(value, int) and not isinstance(value, bool) else value
    parts = _PART.findall(text) if isinstance(text, str) and len(text) <= _LONGEST_TEXT else []
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError('a duration expected: text of numbers and units (h, m, s, ms), like "90s" or "1m30s"')
    length = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if length > _LONGEST_DURATION.total_seconds() or not timedelta(seconds=length):
        raise ValueError('a duration of more than nothing and less than ten years expected, like "90s" or "1m30s"')
    return timedelta(seconds=length)


def _duration_or_minute(value: object) -> object:
    """The Go plugin takes zero for "not given", and that for a minute."""
    return timedelta(minutes=1) if value in (0, "0", "0s") and not isinstance(value, bool) else value


def _bare_address(value: str) -> str:
    """Raises `ValueError` for anything but one bare address."""
    if not is_address(value):
        raise ValueError("no bare e-mail address; write it like reviewer@example.com, without a display name")
    return value


def _sender(value: str) -> str:
    """Raises `ValueError` for anything but one address, which may have a display name."""
    try:
        _, address = parse_sender(value)
        wire_domain(address.rpartition("@")[2])
    except ValueError as error:
        raise ValueError(f'{error}; write it like access@example.com or "Access <access@example.com>"') from None
    return value


def _listed(value: object) -> object:
    """A list in one text: as JSON, or separated by commas (the environment knows nothing else)."""
    if not isinstance(value, str):
        return value
    parsed = from_json(value)
    return parsed if isinstance(parsed, list) else [part.strip() for part in value.split(",")]


def from_json(value: object) -> object:
    """What a text stands for; one that is not JSON stays as it is, for pydantic to say what is expected."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def _severity(value: object) -> object:
    """Go's spellings, in any letter case."""
    if not isinstance(value, str):
        return value
    return {"warning": "warn", "err": "error"}.get(value.lower(), value.lower())


def _output(value: object) -> object:
    """Go's second and third names of the streams."""
    if not isinstance(value, str):
        return value
    return {"error": "stderr", "2": "stderr", "out": "stdout", "1": "stdout"}.get(value, value)


def _base_url(value: str) -> str:
    """Raises `ValueError` for what is no URL of a server, and for one that would take secrets in the clear."""
    try:
        url = urlsplit(value)
        is_server = bool(url.hostname) and url.port != 0 and "@" not in url.netloc
    except ValueError:  # no port, no IPv6 address
        raise ValueError(_BASE_URL_EXPECTED) from None
    if not is_server or url.scheme not in ("http", "https") or url.path.strip("/") or url.query or url.fragment:
        raise ValueError(_BASE_URL_EXPECTED)
    if url.scheme == "http" and url.hostname not in ("localhost", "127.0.0.1", "::1"):
        raise ValueError("the key would go there in the clear; write https:// in place of http://")
    return f"{url.scheme}://{url.netloc}"


def _ehlo_name(value: str) -> str:
    """Raises `ValueError` for what RFC 5321 §4.1.1.1 has no place for."""
    if not _EHLO_NAME.fullmatch(value):
        raise ValueError("a domain or an address literal expected, like mailer.example.com or [192.0.2.1]")
    return value


def _smtp_port(value: object) -> object:
    """The Go plugin takes zero for "not given"."""
    return DEFAULT_SMTP_PORT if value in (0, "0") and not isinstance(value, bool) else value


Duration = Annotated[timedelta, BeforeValidator(parse_duration)]
"""Written as in Go: `90s`, `1m30s`, `2h`."""

RefreshInterval = Annotated[Duration, BeforeValidator(_duration_or_minute)]

BaseUrl = Annotated[str, AfterValidator(_base_url)]
"""Scheme, host and perhaps a port; without TLS for this host alone."""

EhloName = Annotated[str, AfterValidator(_ehlo_name)]

Port = Annotated[int, Field(ge=0, le=65535)]
"""0: any free one, told in the ready line."""

SmtpPort = Annotated[int, Field(ge=1, le=65535), BeforeValidator(_smtp_port)]

Sender = Annotated[str, AfterValidator(_sender)]
"""One address, which may have a display name."""

Addresses = Annotated[tuple[Annotated[str, AfterValidator(_bare_address)], ...], BeforeValidator(_listed)]
"""A list, one address alone, or in the environment several separated by commas."""

RoleMap = Annotated[dict[str, Addresses], BeforeValidator(from_json)]
"""A table, or in the environment one as JSON."""

Output = Annotated[str, BeforeValidator(_output)]


class LogSeverity(StrEnum):
    """`log.severity`, in any letter case."""

    DEBUG = "debug"
    INFO = "info"
    WARN = "warn"
    ERROR = "error"


class StarttlsPolicy(StrEnum):
    """What to do about STARTTLS (RFC 3207)."""

    MANDATORY = "mandatory"
    OPPORTUNISTIC = "opportunistic"
    DISABLED = "disabled"


class OnAmbiguous(StrEnum):
    """What to do with a mail that the relay may have taken, for its answer was lost."""

    RETRY = "retry"
    DEAD = "dead"


Severity = Annotated[LogSeverity, BeforeValidator(_severity)]


class RuleEffect(StrEnum):
    """`routing.rules`: what recipients of matching Access Monitoring Rules do to those of the role map."""

    REPLACE = "replace"
    ADD = "add"
