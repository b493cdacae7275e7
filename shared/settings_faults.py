"""What is wrong with a configuration, one line each: where, what was found, what to do; never a value itself."""

import difflib
from collections.abc import Mapping
from datetime import date, datetime, time
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from shared.mail import one_line
from shared.settings_sources import Location, Sources, key_path

_LONGEST = 500
"""Characters of a line: names of keys are the reader's own text, of any length."""

_EXPECTED = {
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "dict_type": "a table",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "model_type": "a table",
    "path_type": "a path, as text",
    "string_type": "text",
    "string_unicode": "text in UTF-8",
    "tuple_type": "a list",
}
"""pydantic's error types in the words of TOML; the others speak for themselves."""

_KINDS: tuple[tuple[type | tuple[type, ...], str], ...] = (
    (bool, "true or false"),  # before int, whose subclass it is
    (int, "a whole number"),
    (float, "a number"),
    (str, "text"),
    ((list, tuple), "a list"),
    (dict, "a table"),
    ((datetime, date, time), "a date or time"),
)


class SettingsError(Exception):
    """The configuration cannot be used; `faults` says why, one line each, without any secret."""

    def __init__(self, faults: list[str]) -> None:
        self.faults = [_clean(fault) for fault in faults]
        super().__init__("; ".join(self.faults))


def faults_of(error: ValidationError, model: type[BaseModel], sources: Sources) -> list[str]:
    """One line for each thing that the model does not accept."""
    return [_fault(details, model, sources) for details in error.errors(include_url=False)]


def _fault(details: ErrorDetails, model: type[BaseModel], sources: Sources) -> str:
    location: Location = details["loc"]
    return f"{sources.name(location)}: {_problem(details, location, model)}"


def _problem(details: ErrorDetails, location: Location, model: type[BaseModel]) -> str:
    match details["type"]:
        case "extra_forbidden":
            return f"unknown key; {_suggestion(location, model)}"
        case "missing":
            return f"missing; give the {_description(location, model)}"
        case "value_error":
            return str(details["ctx"]["error"])
        case kind if kind.startswith(("greater_than", "less_than")):
            return details["msg"].replace("Input should", "must")
        case kind:
            expected = _EXPECTED.get(kind, details["msg"].removeprefix("Input should be "))
            other = "other " if kind == "enum" and isinstance(details["input"], str) else ""
            return f"{expected} expected, {other}{_kind(details['input'])} found"


def _suggestion(location: Location, model: type[BaseModel]) -> str:
    known = list(_fields(location[:-1], model))
    nearest = difflib.get_close_matches(str(location[-1]), known, n=1)
    if nearest:
        return f"did you mean {key_path((*location[:-1], nearest[0]))}?"
    return f"known here: {', '.join(known)}"


def _description(location: Location, model: type[BaseModel]) -> str:
    return str(_fields(location[:-1], model)[str(location[-1])].description)


def _fields(location: Location, model: type[BaseModel]) -> Mapping[str, Any]:
    """The fields of the section that the location names."""
    for step in location:
        annotation = model.model_fields[str(step)].annotation
        choices = getattr(annotation, "__args__", (annotation,))  # `Section | None`
        model = next(choice for choice in choices if isinstance(choice, type) and issubclass(choice, BaseModel))
    return model.model_fields


def _kind(value: object) -> str:
    return next((name for kind, name in _KINDS if isinstance(value, kind)), "nothing")


def _clean(fault: str) -> str:
    return one_line(fault.encode(errors="replace").decode(), _LONGEST)
