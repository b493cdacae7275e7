"""`access-mail configure`: a commented example of the configuration file, written from the model itself."""

import json
from collections.abc import Iterator
from datetime import timedelta
from enum import Enum
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from shared.settings import ANY_ROLE, Settings

INTRODUCTION = """\
# Access Mail. Every value can also be given by the environment: smtp.port as ACCESS_MAIL__SMTP__PORT.
# Lines with a single '#' before a key show its default.
"""

ALTERNATIVES = {"mailgun": "In place of [smtp]:"}
"""Sections that another one of the example excludes."""


def example() -> str:
    """A whole file: what must be given is there with an example's value, all else is commented out."""
    lines = [INTRODUCTION]
    tables = []
    for name, field in Settings.model_fields.items():
        section = _section(field)
        if section is not None:
            tables.append("\n".join(_table(name, section)))
        elif name != "role_to_recipients":
            lines.append("\n".join(_key(name, field)) + "\n")
    tables.append(_role_map())
    return "\n".join([*lines, "\n\n".join(tables)]) + "\n"


def _role_map() -> str:
    description = Settings.model_fields["role_to_recipients"].description
    return (
        f'[role_to_recipients]\n## {description}\n"{ANY_ROLE}" = ["security@example.com"]\n# "dba" = "dba@example.com"'
    )


def _table(name: str, section: type[BaseModel]) -> Iterator[str]:
    excluded = name in ALTERNATIVES
    if excluded:
        yield f"## {ALTERNATIVES[name]}"
    yield f"# [{name}]" if excluded else f"[{name}]"
    for key, field in section.model_fields.items():
        if not (field.description or "").startswith("deprecated"):
            described, line = _key(key, field)
            yield described
            yield f"# {line.removeprefix('# ')}" if excluded else line


def _key(key: str, field: FieldInfo) -> tuple[str, str]:
    """What the key means, and its line: with the example where it has one, else with the default."""
    if field.examples:
        return f"## {field.description}", f"{key} = {_toml(field.examples[0])}"
    return f"## {field.description}", f"# {key} = {_toml(field.default)}"


def _toml(value: Any) -> str:
    match value:
        case None:
            return '""'
        case Enum():
            return _toml(value.value)
        case timedelta():
            return _toml(_go_duration(value))
        case _:
            return json.dumps(value)  # of text, numbers and truth values the same in TOML


def _go_duration(value: timedelta) -> str:
    minutes, seconds = divmod(value.total_seconds(), 60)
    return f"{minutes:.0f}m" if not seconds else f"{value.total_seconds():g}s"


def _section(field: FieldInfo) -> type[BaseModel] | None:
    choices = getattr(field.annotation, "__args__", (field.annotation,))  # `Section | None`
    return next((one for one in choices if isinstance(one, type) and issubclass(one, BaseModel)), None)
