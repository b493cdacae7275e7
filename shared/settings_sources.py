"""The TOML file and the environment that overrides it, merged into one tree whose values know where they stand."""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ENVIRONMENT_PREFIX = "ACCESS_MAIL__"
"""`ACCESS_MAIL__SMTP__PORT` stands for `smtp.port`; an empty variable is one that is not set."""

_DELIMITER = "__"
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")

Location = tuple[str | int, ...]
"""Where a value stands in the tree: keys of tables, positions in lists."""


@dataclass(frozen=True)
class Sources:
    """What was read, before anybody has looked whether it makes sense."""

    tree: dict[str, Any]
    file: Path | None
    variables: Mapping[Location, str]
    """The environment variable of each value that one has set."""

    def name(self, location: Location) -> str:
        """The value's place as its reader knows it: an environment variable, or file and key path."""
        for end in range(len(location), 0, -1):
            variable = self.variables.get(location[:end])
            if variable is not None:
                return f"environment: {_path(variable, location[end:])}"
        return f"{self.file or 'environment'}: {key_path(location)}"


class FileFault(Exception):
    """The file cannot be read at all."""


def read_sources(file: Path | None, environ: Mapping[str, str]) -> Sources:
    """Read the file, if one is given, and lay the environment over it. Raises `FileFault`."""
    tree = _read(file) if file is not None else {}
    variables: dict[Location, str] = {}
    for variable in sorted(environ):
        if variable.startswith(ENVIRONMENT_PREFIX) and environ[variable]:
            path = variable.removeprefix(ENVIRONMENT_PREFIX).lower().split(_DELIMITER)
            variables[_set(tree, path, environ[variable])] = variable
    return Sources(tree, file, variables)


def key_path(location: Location) -> str:
    """The location in TOML's words: `role_to_recipients."*"[0]`."""
    return _path("", location)


def _path(path: str, location: Location) -> str:
    for step in location:
        if isinstance(step, int):
            path += f"[{step}]"
        else:
            key = step if _BARE_KEY.fullmatch(step) else f'"{step}"'
            path += f".{key}" if path else key
    return path


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_bytes().decode())
    except FileNotFoundError:
        raise FileFault(f"{file}: does not exist; name another with -c, or write one from `configure`") from None
    except OSError as error:
        raise FileFault(f"{file}: cannot be read ({error.strerror}); check the file's owner and mode") from error
    except UnicodeDecodeError as error:
        raise FileFault(f"{file}: byte {error.start} is not UTF-8; save the file as UTF-8") from None
    except RecursionError:
        raise FileFault(f"{file}: nested too deeply; no setting is a list of lists") from None
    except ValueError as error:
        # TOMLDecodeError, which names line and column, or Python's refusal of a number with thousands of digits
        raise FileFault(f"{file}: not valid TOML: {error}") from None


def _set(tree: dict[str, Any], path: list[str], value: str) -> Location:
    """Put the value at its path; where the file has no table on the way, the file's value stays and is the fault."""
    table = tree
    for key in path[:-1]:
        inner = table.setdefault(key, {})
        if not isinstance(inner, dict):
            break
        table = inner
    else:
        table[path[-1]] = value
    return tuple(path)
