"""Credentials of all forms are read, and whatever is wrong with them is said in words that help."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from services.watcher.credentials import step_of
from services.watcher.teleport.identity import Identity, IdentityError
from shared.settings import TeleportSettings
from simulators.certificates import ClusterAuthority, PrivateKey

AUTHORITY = ClusterAuthority.create("teleport.example.com")
ISSUED = AUTHORITY.identity("access-mail", roles=["reviewer", "access-mail"])


def write(path: Path, text: str) -> TeleportSettings:
    path.touch(mode=0o600)
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
    assert sentence.startswith(
        f"teleport.identity: {path}: certificate expired: that of user 'access-mail', issued by cluster"
    )
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
        ("", "is empty"),
        ("nothing", "no identity file"),
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
    with pytest.raises(IdentityError, match=r"teleport\.identity: .*/missing: does not exist"):
        Identity.load(TeleportSettings(identity=tmp_path / "missing"))


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        (lambda trio: trio.client_key.write_text("nothing"), r"teleport\.client_key: .*: no PEM block"),
        (lambda trio: trio.client_crt.unlink(), r"teleport\.client_crt: .*: does not exist"),
        (lambda trio: trio.root_cas.write_text(KEY), r"teleport\.root_cas: .* cannot be read"),
        (lambda trio: trio.client_key.write_text(OTHER_KEY), r"teleport\.client_key: .* does not belong"),
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


RSA = rsa.generate_private_key(65537, 2048)
KEYS: dict[str, PrivateKey] = {
    "rsa": RSA,
    "ecdsa": ec.generate_private_key(ec.SECP256R1()),
    "ed25519": ed25519.Ed25519PrivateKey.generate(),
}


@pytest.mark.parametrize("kind", KEYS)
def test_keys_of_all_of_teleports_kinds_are_read(tmp_path: Path, kind: str) -> None:
    issued = AUTHORITY.identity("access-mail", key=KEYS[kind])
    identity = Identity.load(TeleportSettings(identity=issued.write_file(tmp_path / "identity")))
    assert identity.key == issued.pair.key
    assert (b"RSA" in identity.key) is (kind == "rsa")


def test_an_rsa_key_may_be_in_either_form(tmp_path: Path) -> None:
    pair = AUTHORITY.identity("access-mail", key=RSA).pair
    modern = RSA.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    text = modern + pair.certificate + ISSUED.host_authority
    assert Identity.load(write(tmp_path / "identity", text.decode())).key == modern


@pytest.mark.parametrize("mode", [0o400, 0o440, 0o600, 0o660])
def test_a_group_may_read_the_key(tmp_path: Path, mode: int) -> None:
    path = ISSUED.write_file(tmp_path / "identity")
    path.chmod(mode)
    assert Identity.load(TeleportSettings(identity=path)).user == "access-mail"


def test_a_key_that_everybody_may_read_is_refused_unless_that_is_allowed(tmp_path: Path) -> None:
    path = ISSUED.write_file(tmp_path / "identity")
    path.chmod(0o644)
    with pytest.raises(IdentityError) as caught:
        Identity.load(TeleportSettings(identity=path))
    assert str(caught.value) == (
        f"teleport.identity: {path}: the private key is readable by every user of this host (mode 0644);"
        f" `chmod o= {path}` (in Kubernetes: defaultMode 0440), or set teleport.allow_key_readable_by_others"
    )
    assert Identity.load(TeleportSettings(identity=path, allow_key_readable_by_others=True)).user == "access-mail"


def test_of_three_files_only_the_key_is_private(tmp_path: Path) -> None:
    trio = ISSUED.write_trio(tmp_path)
    settings = TeleportSettings(client_key=trio.client_key, client_crt=trio.client_crt, root_cas=trio.root_cas)
    trio.client_crt.chmod(0o644)
    trio.root_cas.chmod(0o644)
    assert Identity.load(settings).user == "access-mail"
    trio.client_key.chmod(0o604)
    with pytest.raises(IdentityError, match=r"key: the private key is readable by every user"):
        Identity.load(settings)


def test_a_kubernetes_secret_is_judged_by_the_file_behind_its_links(tmp_path: Path) -> None:
    path = ISSUED.write_secret(tmp_path)
    assert Identity.load(TeleportSettings(identity=path)).user == "access-mail"
    AUTHORITY.identity("renewed").write_secret(tmp_path)
    assert Identity.load(TeleportSettings(identity=path)).user == "renewed"
    AUTHORITY.identity("open").write_secret(tmp_path, mode=0o644)
    with pytest.raises(IdentityError, match="defaultMode 0440"):
        Identity.load(TeleportSettings(identity=path))


def test_tbots_directory_in_place_of_its_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(IdentityError, match=f"a directory; name the file in it, which tbot calls {tmp_path}/identity"):
        Identity.load(TeleportSettings(identity=tmp_path))


@pytest.mark.parametrize(
    ("left", "step"), [(0.5, None), (0.21, None), (0.2, 0.2), (0.11, 0.2), (0.04, 0.05), (0.005, 0.01), (-1, 0.0)]
)
def test_the_end_of_a_certificate_comes_in_steps(tmp_path: Path, left: float, step: float | None) -> None:
    identity = Identity.load(TeleportSettings(identity=ISSUED.write_file(tmp_path / "identity")))
    lifetime = identity.not_after - identity.not_before
    assert step_of(identity, identity.not_after - left * lifetime) == step
