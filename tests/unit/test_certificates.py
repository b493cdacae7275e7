"""A simulated cluster's credentials have the shape that Teleport gives them."""

import ssl
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import SSHCertificate, load_pem_private_key, load_ssh_public_identity
from cryptography.x509.oid import NameOID

from simulators.certificates import CLUSTER_NAME_ATTRIBUTE, ClusterAuthority, KeyPair

AUTHORITY = ClusterAuthority.create("teleport.example.com")


def certificate(pair: KeyPair) -> x509.Certificate:
    """Read a key pair's certificate."""
    return x509.load_pem_x509_certificate(pair.certificate)


def test_a_user_certificate_names_user_roles_and_cluster() -> None:
    issued = certificate(AUTHORITY.identity("access-mail", roles=["reader", "auditor"]).pair)
    subject = issued.subject
    assert [name.value for name in subject.get_attributes_for_oid(NameOID.COMMON_NAME)] == ["access-mail"]
    roles = next(rdn for rdn in subject.rdns if rdn.get_attributes_for_oid(NameOID.ORGANIZATION_NAME))
    assert {name.value for name in roles} == {"reader", "auditor"}
    (cluster,) = subject.get_attributes_for_oid(CLUSTER_NAME_ATTRIBUTE)
    assert cluster.value == "teleport.example.com"
    issued.verify_directly_issued_by(AUTHORITY.user_ca.certificate)


@pytest.mark.parametrize("lifetime", [timedelta(hours=1), timedelta(seconds=5), timedelta(days=-3)])
def test_a_user_certificate_has_any_lifetime_even_a_past_one(lifetime: timedelta) -> None:
    issued = certificate(AUTHORITY.identity("access-mail", lifetime=lifetime).pair)
    assert abs(issued.not_valid_after_utc - (datetime.now(UTC) + lifetime)) < timedelta(minutes=1)
    assert issued.not_valid_before_utc < issued.not_valid_after_utc
    assert issued.not_valid_before_utc <= datetime.now(UTC)


def test_an_identity_file_has_teleports_layout_and_is_private(tmp_path: Path) -> None:
    identity = AUTHORITY.identity("access-mail")
    path = identity.write_file(tmp_path / "identity")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    text = path.read_text()
    marks = ["PRIVATE KEY-----", "-cert-v01@openssh.com ", "BEGIN CERTIFICATE", "@cert-authority ", "BEGIN CERTIFICATE"]
    positions = [text.index(mark) for mark in marks[:4]]
    assert positions == sorted(positions)
    assert text.rindex(marks[4]) > positions[3]
    key = load_pem_private_key(identity.pair.key, None)
    assert key.public_key() == certificate(identity.pair).public_key()


def test_the_ssh_certificate_is_of_the_same_key_and_signed() -> None:
    identity = AUTHORITY.identity("access-mail")
    ssh = load_ssh_public_identity(identity.ssh_certificate.encode())
    assert isinstance(ssh, SSHCertificate)
    ssh.verify_cert_signature()
    assert ssh.key_id == b"access-mail"
    assert ssh.public_key() == certificate(identity.pair).public_key()


def test_the_trio_loads_into_a_tls_context(tmp_path: Path) -> None:
    trio = AUTHORITY.identity("access-mail").write_trio(tmp_path)
    context = ssl.create_default_context(cafile=trio.root_cas)
    context.load_cert_chain(trio.client_crt, trio.client_key)
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o600}


def test_a_new_identity_replaces_the_file_in_one_step(tmp_path: Path) -> None:
    path = AUTHORITY.identity("first").write_file(tmp_path / "identity")
    with path.open() as before:
        AUTHORITY.identity("second").write_file(path)
        assert before.read() != path.read_text()
    assert [entry.name for entry in tmp_path.iterdir()] == ["identity"]


def test_hosts_have_the_names_that_clients_ask_for() -> None:
    host = certificate(AUTHORITY.host_certificate()).extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert host.value.get_values_for_type(x509.DNSName) == ["teleport.cluster.local", "*.teleport.cluster.local"]
    web = certificate(AUTHORITY.web_certificate()).extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert web.value.get_values_for_type(x509.DNSName) == ["localhost", "teleport.example.com"]
    assert [str(address) for address in web.value.get_values_for_type(x509.IPAddress)] == ["127.0.0.1"]
