"""The watcher's part of the configuration: every fault names its keys and what to do."""

from pathlib import Path
from typing import Any

import pytest

from services.watcher.settings import WatcherConfiguration
from shared.settings import Settings, SettingsError, TeleportSettings

FILE = Path("/nowhere")
TRIO = {"client_key": FILE, "client_crt": FILE, "root_cas": FILE}


def faults(**teleport: Any) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        WatcherConfiguration.of(Settings(teleport=TeleportSettings(**teleport)))
    return caught.value.faults


@pytest.mark.parametrize(
    "teleport",
    [{"identity": FILE}, {"identity": FILE, "refresh_identity": True}, TRIO, {**TRIO, "refresh_identity": True}],
)
def test_an_identity_file_or_three_pem_files_are_enough(teleport: dict[str, Any]) -> None:
    settings = TeleportSettings(**teleport)
    assert WatcherConfiguration.of(Settings(teleport=settings)).teleport == settings


def test_without_the_section_nothing_is_known() -> None:
    with pytest.raises(SettingsError, match="teleport: missing; give addr and identity"):
        WatcherConfiguration.of(Settings())


def test_no_credentials_at_all() -> None:
    sentence = (
        "teleport.identity: missing, there are no credentials; give it,"
        " or teleport.client_key, teleport.client_crt and teleport.root_cas"
    )
    assert faults() == [sentence]


def test_a_partial_trio_names_what_is_missing() -> None:
    sentence = (
        "teleport.client_crt: missing; give teleport.client_crt and teleport.root_cas,"
        " or teleport.identity in place of all three"
    )
    assert faults(client_key=FILE) == [sentence]


def test_both_ways_at_once() -> None:
    assert faults(identity=FILE, client_key=FILE, root_cas=FILE) == [
        "teleport.identity: given together with teleport.client_key, teleport.root_cas; keep one of the two ways"
    ]


@pytest.mark.parametrize("addr", ["localhost", "https://proxy:443", "a@b:1"])
def test_an_address_that_is_none(addr: str) -> None:
    assert faults(identity=FILE, addr=addr) == [
        "teleport.addr: must be host:port; give the Auth Service's (port 3025) or the proxy's (443 or 3080)"
    ]


def test_all_faults_are_told_at_once() -> None:
    assert len(faults(client_key=FILE, identity=FILE, addr="localhost")) == 2
