"""Identity files as tctl and tbot write them, whole and damaged."""

from datetime import datetime
from typing import Any

import pytest

from services.watcher.teleport.identity import Identity, IdentityError
from shared.settings import TeleportSettings
from tests.contracts.golden import FOLDER, IDENTITIES

VALID = [identity for identity in IDENTITIES if identity["valid"]]
INVALID = [identity for identity in IDENTITIES if not identity["valid"]]


def name(identity: dict[str, Any]) -> str:
    return str(identity["name"])


def settings(identity: dict[str, Any]) -> TeleportSettings:
    """As git has checked the file out."""
    return TeleportSettings(identity=FOLDER / identity["file"], allow_key_readable_by_others=True)


@pytest.mark.parametrize("expected", VALID, ids=name)
def test_a_valid_identity_file_says_who_we_are(expected: dict[str, Any]) -> None:
    identity = Identity.load(settings(expected))
    assert identity.user == expected["user"]
    assert identity.cluster == expected["cluster"]
    assert sorted(identity.roles) == sorted(expected["roles"])
    assert identity.not_after == datetime.fromisoformat(expected["not_after"])
    assert identity.authorities.count(b"BEGIN CERTIFICATE") == expected["tls_ca_count"]
    assert (b"RSA" in identity.key) is (expected["key_type"] == "rsa")


@pytest.mark.parametrize("expected", INVALID, ids=name)
def test_an_invalid_identity_file_is_refused_with_its_fault(expected: dict[str, Any]) -> None:
    with pytest.raises(IdentityError, match=expected["error"]) as caught:
        Identity.load(settings(expected))
    assert expected["file"] in str(caught.value)
