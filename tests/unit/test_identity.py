"""Credentials of all forms are read, and whatever is wrong with them is said in words that help."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from services.watcher.teleport.identity import Identity, IdentityError
from shared.settings import TeleportSettings
from simulators.certificates import ClusterAuthority

AUTHORITY = ClusterAuthority.create("teleport.example.com")
ISSUED = AUTHORITY.identity("access-mail", roles=["reviewer", "access-mail"])


def write(path: Path, text: str) -> TeleportSettings:
    path.write_text(text)
    return TeleportSettings(identity=path)


def test_an_identity_file_says_who_we_are_and_until_when(tmp_path: Path) -> None:
    identity = Identity.load(TeleportSettings(identity=ISSUED.write_file(tmp_path / "identity")))
    assert identity.user == "access-mail"
    assert identity.roles == ("access-mail", "reviewer")
    assert identity.cluster == identity.issuer == "teleport.example.com"
    assert identity.not_before < datetime.now(UTC) < identity.not_after
    assert identity.key == ISSUED.pair.key
    assert identity.certificates == ISSUED.pair.certificate
    assert identity.authorities == ISSUED.host_authority


def test_three_pem_files_are_the_same_credentials(tmp_path: Path) -> None:
    trio = ISSUED.write_trio(tmp_path)
    settings = TeleportSettings(client_key=trio.client_key, client_crt=trio.client_crt, root_cas=trio.root_cas)
    identity = Identity.load(settings)
    assert (identity.user, identity.key, identity.authorities) == (
        "access-mail",
        ISSUED.pair.key,
        ISSUED.host_authority,
    )


def test_the_same_file_gives_the_same_identity_and_a_new_one_another(tmp_path: Path) -> None:
    settings = TeleportSettings(identity=ISSUED.write_file(tmp_path / "identity"))
    first = Identity.load(settings)
    assert Identity.load(settings) == first
    AUTHORITY.identity("access-mail").write_file(tmp_path / "identity")
    assert Identity.load(settings) != first


def test_ssh_lines_may_stand_anywhere_and_lines_may_end_as_on_windows(tmp_path: Path) -> None:
    pair, authority = ISSUED.pair, ISSUED.host_authority.decode()
    text = f"{ISSUED.ssh_authority}\n{pair.key.decode()}{pair.certificate.decode()}what is this\n{authority}"
    settings = write(tmp_path / "identity", (text + ISSUED.ssh_certificate).replace("\n", "\r\n"))
    assert Identity.load(settings).user == "access-mail"


def test_an_expired_certificate_is_refused_with_whose_it_is_since_when_and_what_to_do(tmp_path: Path) -> None:
    expired = AUTHORITY.identity("access-mail", lifetime=timedelta(hours=-1))
    path = expired.write_file(tmp_path / "identity")
    with pytest.raises(IdentityError) as caught:
        Identity.load(TeleportSettings(identity=path))
    ended = datetime.now(UTC) - timedelta(hours=1)
    sentence = str(caught.value)
    assert sentence.startswith(f"{path}: certificate expired: that of user 'access-mail', issued by cluster")
    assert f"{ended:%Y-%m-%d %H:%M}" in sentence
    assert "tctl auth sign" in sentence
    assert "tbot" in sentence


def test_a_certificate_of_the_future_points_at_the_clock(tmp_path: Path) -> None:
    identity = Identity.load(TeleportSettings(identity=ISSUED.write_file(tmp_path / "identity")))
    with pytest.raises(IdentityError, match=r"not valid yet.*set the clock"):
        identity.ensure_valid(identity.not_before - timedelta(seconds=1))


KEY, CERTIFICATE, CA = ISSUED.pair.key.decode(), ISSUED.pair.certificate.decode(), ISSUED.host_authority.decode()
OTHER_KEY = AUTHORITY.identity("other").pair.key.decode()


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "no identity file"),
        (KEY, "no identity file"),
        (KEY + CERTIFICATE, "no CA certificate"),
        (KEY + CERTIFICATE + CA[:-40], "unterminated PEM block"),
        (f"{KEY[:-40]}\n{CERTIFICATE}{CA}", "unterminated PEM block"),
        (OTHER_KEY + CERTIFICATE + CA, "does not belong to the certificate"),
        (CERTIFICATE + KEY + CA, "certificate in it cannot be read"),
        (KEY.replace("M", "?", 1) + CERTIFICATE + CA, "private key cannot be read"),
        (KEY + CERTIFICATE + CA.replace("MII", "", 1), "certificate in it cannot be read"),
    ],
)
def test_a_damaged_file_is_named_with_its_fault_and_without_its_key(tmp_path: Path, text: str, fault: str) -> None:
    settings = write(tmp_path / "identity", text)
    with pytest.raises(IdentityError, match=fault) as caught:
        Identity.load(settings)
    assert str(tmp_path / "identity") in str(caught.value)
    assert KEY.splitlines()[1][:16] not in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(IdentityError, match="missing: No such file"):
        Identity.load(TeleportSettings(identity=tmp_path / "missing"))


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        (lambda trio: trio.client_key.write_text(""), "no PEM block"),
        (lambda trio: trio.client_crt.unlink(), "No such file"),
        (lambda trio: trio.root_cas.write_text(KEY), "cannot be read"),
        (lambda trio: trio.client_key.write_text(OTHER_KEY), "does not belong"),
    ],
)
def test_a_damaged_file_of_the_three_is_named(tmp_path: Path, spoil: Callable[[object], object], fault: str) -> None:
    trio = ISSUED.write_trio(tmp_path)
    spoil(trio)
    with pytest.raises(IdentityError, match=fault):
        Identity.load(TeleportSettings(client_key=trio.client_key, client_crt=trio.client_crt, root_cas=trio.root_cas))


def test_the_key_is_not_shown(tmp_path: Path) -> None:
    identity = Identity.load(TeleportSettings(identity=ISSUED.write_file(tmp_path / "identity")))
    assert "BEGIN" not in repr(identity)
