"""Files that the configuration names: each fault says by which key, which file, what is wrong and what to do."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from shared.settings import SettingsError
from shared.settings_files import NamedFile

NOBODY = 65534


@contextmanager
def not_as_root() -> Iterator[None]:
    """Root may read everything."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(user)


def fault_of(path: Path) -> str:
    """What is said of it where it is to hold a secret."""
    with pytest.raises(SettingsError) as caught:
        NamedFile("smtp.password_file", path).secret()
    (fault,) = caught.value.faults
    beginning = f"smtp.password_file: {path}: "
    assert fault.startswith(beginning)
    return fault.removeprefix(beginning)


def test_a_secret_is_read_without_the_white_space_around_it(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("  hunter2\n\n")
    assert NamedFile("smtp.password_file", tmp_path / "secret").secret().get_secret_value() == "hunter2"


def test_what_is_not_there_is_to_be_put_there(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "absent", tmp_path / "file" / "secret"):
        assert fault_of(path) == "does not exist; mend the path, or put the file there"


def test_a_directory_is_no_file(tmp_path: Path) -> None:
    assert fault_of(tmp_path) == "is a directory; name the file in it"


@pytest.mark.parametrize("locked", ["secret", "."])
def test_who_may_not_read_it_is_told_as_whom(tmp_path: Path, locked: str) -> None:
    (tmp_path / "secret").write_text("hunter2")
    (tmp_path / locked).chmod(0)
    try:
        with not_as_root():
            user = os.geteuid()
            told = fault_of(tmp_path / "secret")
    finally:
        (tmp_path / locked).chmod(0o700)
    assert told == (
        f"may not be read by user {user}, as whom this runs; mend its owner or mode, or those of a directory above it"
    )


def test_other_trouble_is_told_in_the_systems_words(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert fault_of(tmp_path / "loop").startswith("cannot be read (Too many levels of symbolic links); ")


@pytest.mark.parametrize("content", [b"", b" \n"])
def test_an_empty_file_holds_no_secret(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "secret").write_bytes(content)
    assert fault_of(tmp_path / "secret").startswith("is empty; write into it")


def test_what_is_no_text_is_not_quoted(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"hunter2\xff")
    assert fault_of(tmp_path / "secret") == "is not UTF-8; write the secret as text"
