"""The files that the configuration names: what they hold, or what is wrong with them, by the key that names them."""

import os
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr

from shared.settings_faults import SettingsError


@dataclass(frozen=True)
class NamedFile:
    """A file, and the key of the configuration that names it. As text it is how a fault of it begins."""

    key: str
    """Such as `smtp.password_file`."""
    path: Path

    def __str__(self) -> str:
        return f"{self.key}: {self.path}"

    def content(self) -> bytes:
        """What it holds. Raises `SettingsError`, also where that is nothing."""
        try:
            content = self.path.read_bytes()
        except OSError as error:
            raise self.unreadable(error) from error
        if not content.strip():
            raise SettingsError([f"{self}: is empty; write into it what belongs there, or name another file"])
        return content

    def secret(self) -> SecretStr:
        """Its text without the white space around it. Raises `SettingsError`."""
        try:
            return SecretStr(self.content().decode().strip())
        except UnicodeDecodeError:
            raise SettingsError([f"{self}: is not UTF-8; write the secret as text"]) from None  # its text quotes it

    def unreadable(self, error: OSError) -> SettingsError:
        """What this error of the operating system means to who has named the file."""
        match error:
            case FileNotFoundError() | NotADirectoryError():
                what = "does not exist; mend the path, or put the file there"
            case PermissionError():
                who = f"user {os.geteuid()}, as whom this runs"
                what = f"may not be read by {who}; mend its owner or mode, or those of a directory above it"
            case IsADirectoryError():
                what = "is a directory; name the file in it"
            case _:
                what = f"cannot be read ({error.strerror}); mend the file, or name another"
        return SettingsError([f"{self}: {what}"])
