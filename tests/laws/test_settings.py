"""Whatever stands in the configuration: it is read or refused in one line per fault, and no secret is repeated."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from shared.addresses import is_address, parse_sender
from shared.settings import Settings, SettingsError
from shared.settings_reading import load_settings

SECRET = "correct horse battery staple"

UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""The laws write files and draw whole trees: how long that takes is a matter of the machine."""

leaves = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just(SECRET) | st.emails() | st.dates()
)
values = st.recursive(leaves, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=5)
sections = st.sampled_from(sorted(Settings.model_fields)) | st.text(max_size=8)


def keys_of(section: str) -> st.SearchStrategy[str]:
    """Keys that the section knows, and others."""
    annotation = Settings.model_fields[section].annotation if section in Settings.model_fields else None
    known = [key for kind in (annotation, *getattr(annotation, "__args__", ())) for key in fields_of(kind)]
    return st.sampled_from(["*", *known]) | st.text(max_size=8)


def fields_of(kind: Any) -> list[str]:
    return list(getattr(kind, "model_fields", {}))


@st.composite
def trees(draw: st.DrawFn) -> dict[str, Any]:
    names = draw(st.lists(sections, unique=True, max_size=5))
    return {name: draw(st.dictionaries(keys_of(name), values, max_size=5) | values) for name in names}


def environment_of(tree: dict[str, Any]) -> dict[str, str]:
    """The tree as variables, as far as an environment can hold it."""
    pairs = {
        f"ACCESS_MAIL__{name}__{key}".upper(): value if isinstance(value, str) else json.dumps(value, default=str)
        for name, table in tree.items()
        if isinstance(table, dict)
        for key, value in table.items()
    }
    return {name: value for name, value in pairs.items() if "\0" not in name + value and "=" not in name}


def toml(value: Any) -> str:
    """The value as TOML writes it inline; its basic strings are JSON's, but for DEL."""
    match value:
        case dict():
            return "{" + ", ".join(f"{toml(key)} = {toml(inner)}" for key, inner in value.items()) + "}"
        case list():
            return "[" + ", ".join(map(toml, value)) + "]"
        case str():
            return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
        case bool() | None:
            return "true" if value else "false"
        case _:
            return str(value)


def refusal(file: Path | None, environ: dict[str, str]) -> SettingsError | None:
    try:
        load_settings(file, environ)
    except SettingsError as error:
        return error
    return None


@UNHURRIED
@given(trees())
def test_any_environment_is_read_or_refused_in_lines_without_secrets(tree: dict[str, Any]) -> None:
    assume(all(SECRET not in name for name in environment_of(tree)))
    error = refusal(None, environment_of(tree))
    if error is not None:
        assert error.faults
        assert SECRET not in str(error)
        assert error.__cause__ is None, "pydantic's text quotes values"
        assert all(len(fault.splitlines()) == 1 and len(fault) <= 500 for fault in error.faults)


@UNHURRIED
@given(trees())
def test_any_file_is_read_or_refused_in_lines_without_secrets(
    tmp_path_factory: pytest.TempPathFactory, tree: dict[str, Any]
) -> None:
    file = tmp_path_factory.getbasetemp() / "tree.toml"
    file.write_text("".join(f"{toml(name)} = {toml(value)}\n" for name, value in tree.items()), encoding="utf-8")
    assume(SECRET not in "".join(name for table in tree.values() if isinstance(table, dict) for name in table))
    error = refusal(file, {})
    if error is not None:
        assert "not valid TOML" not in str(error)
        assert SECRET not in str(error)
        assert all(len(fault.splitlines()) == 1 and len(fault) <= 500 for fault in error.faults)


@UNHURRIED
@given(st.binary() | st.text().map(str.encode))
def test_any_bytes_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    file = tmp_path_factory.getbasetemp() / "any.toml"
    file.write_bytes(content)
    error = refusal(file, {})
    if error is not None:
        assert all(fault.startswith(f"{file}: ") and len(fault.splitlines()) == 1 for fault in error.faults)


SECRETS = ["smtp.password", "mailgun.private_key", "redis.url"]


@UNHURRIED
@given(st.sampled_from(SECRETS), st.sampled_from([0, 1.5, True, [SECRET], {"x": SECRET}]))
def test_a_secret_of_any_kind_is_not_repeated(
    tmp_path_factory: pytest.TempPathFactory, key: str, value: object
) -> None:
    section, name = key.split(".")
    shown = json.dumps(value).replace('{"x": ', "{x = ")
    file = tmp_path_factory.getbasetemp() / "secret.toml"
    file.write_text(f"[{section}]\n{name} = {shown}\n{name}x = '{SECRET}'\n")
    with pytest.raises(SettingsError) as caught:
        load_settings(file, {})
    assert SECRET not in str(caught.value)
    assert str(key) in str(caught.value)


@given(st.emails() | st.text())
def test_every_address_is_its_own_sender(text: str) -> None:
    if is_address(text):
        assert parse_sender(text) == ("", text)


def test_secrets_do_not_show_in_a_settings_repr() -> None:
    environ = {"ACCESS_MAIL__SMTP__HOST": "h", "ACCESS_MAIL__SMTP__PASSWORD": SECRET}
    loaded = load_settings(None, environ)
    assert loaded.smtp is not None
    assert loaded.smtp.password == SecretStr(SECRET)
    assert SECRET not in repr(loaded)
