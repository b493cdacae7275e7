"""A file that is not there is told by the key that names it: by `check`, and where the service that reads it starts."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from prometheus_client import CollectorRegistry

from console.check import check
from services.mailer.service import Mailer
from services.router.service import Router
from services.watcher.service import Watcher
from shared.settings import ServiceName, Settings, SettingsError
from shared.settings_reading import load_settings
from simulators.certificates import ClusterAuthority

START: dict[ServiceName, Callable[[Settings, CollectorRegistry], object]] = {
    "watcher": Watcher.from_settings,
    "router": Router.from_settings,
    "mailer": Mailer.from_settings,
}

AUTHORITY = ClusterAuthority.create("teleport.example.com")

REDIS = 'redis.url = "unix:///nowhere.sock"'
REDIS_TLS = "rediss://127.0.0.1:1"
TO_ALL = """
delivery.sender = "access@example.com"
role_to_recipients."*" = "all@example.com"
"""
IDENTITY = 'teleport.addr = "127.0.0.1:1"\nteleport.identity = "{folder}/identity"\n'
TRIO = """
teleport.addr = "127.0.0.1:1"
teleport.client_key = "{folder}/key"
teleport.client_crt = "{folder}/tlscert"
teleport.root_cas = "{folder}/teleport-host-ca.crt"
"""
SMTP = 'smtp.host = "127.0.0.1"\nsmtp.port = 1\n'
ACCESS = 'smtp.username = "access"\n'
CERTIFICATE = 'smtp.client_cert_file = "{folder}/tlscert"\n'
MAILGUN = 'mailgun.domain = "mg.example.com"\n'


class Case(NamedTuple):
    """A configuration of which one file is missing."""

    service: ServiceName
    key: str
    name: str
    text: str

    def __str__(self) -> str:
        return f"{self.service}-{self.key}"


NONE = '"{folder}/none"\n'

CASES = [
    Case("watcher", "teleport.identity", "identity", IDENTITY + REDIS),
    Case("watcher", "teleport.client_key", "key", TRIO + REDIS),
    Case("watcher", "teleport.client_crt", "tlscert", TRIO + REDIS),
    Case("watcher", "teleport.root_cas", "teleport-host-ca.crt", TRIO + REDIS),
    Case("watcher", "redis.password_file", "none", f"{IDENTITY}redis.password_file = {NONE}{REDIS}"),
    Case("router", "redis.password_file", "none", f"{TO_ALL}redis.password_file = {NONE}{REDIS}"),
    Case(
        "router", "redis.url, ssl_ca_certs", "none", f'{TO_ALL}redis.url = "{REDIS_TLS}?ssl_ca_certs={{folder}}/none"'
    ),
    Case("router", "redis.url, ssl_keyfile", "none", f'{TO_ALL}redis.url = "{REDIS_TLS}?ssl_keyfile={{folder}}/none"'),
    Case("mailer", "redis.password_file", "none", f"{TO_ALL}{SMTP}redis.password_file = {NONE}{REDIS}"),
    Case("mailer", "smtp.password_file", "none", f"{TO_ALL}{SMTP}{ACCESS}smtp.password_file = {NONE}{REDIS}"),
    Case("mailer", "smtp.oauth_token_file", "none", f"{TO_ALL}{SMTP}{ACCESS}smtp.oauth_token_file = {NONE}{REDIS}"),
    Case("mailer", "smtp.ca_file", "none", f"{TO_ALL}{SMTP}smtp.ca_file = {NONE}{REDIS}"),
    Case("mailer", "smtp.client_cert_file", "tlscert", f"{TO_ALL}{SMTP}{CERTIFICATE}{REDIS}"),
    Case("mailer", "smtp.client_key_file", "none", f"{TO_ALL}{SMTP}{CERTIFICATE}smtp.client_key_file = {NONE}{REDIS}"),
    Case("mailer", "mailgun.private_key_file", "none", f"{TO_ALL}{MAILGUN}mailgun.private_key_file = {NONE}{REDIS}"),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_file_that_is_not_there_is_told_by_its_key(
    case: Case, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    issued = AUTHORITY.identity("access-mail")
    issued.write_file(tmp_path / "identity")
    issued.write_trio(tmp_path)
    missing, file = tmp_path / case.name, tmp_path / "access-mail.toml"
    missing.unlink(missing_ok=True)
    file.write_text(case.text.format(folder=tmp_path))
    fault = f"{case.key}: {missing}: does not exist; mend the path, or put the file there"
    with pytest.raises(SettingsError) as caught:
        START[case.service](load_settings(file, {}), CollectorRegistry())
    assert caught.value.faults == [fault]
    assert check(file, case.service) == 1
    (line,) = [line for line in capsys.readouterr().out.splitlines() if str(missing) in line]
    assert line.endswith(f": {fault}")
