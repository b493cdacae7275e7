"""A throw-away Teleport cluster's certificate authorities, and the credentials that it hands to people and bots.

Three authorities, as in a cluster: the host CA signs the Auth Service, the user CA signs people and bots, and the
web CA stands for whatever public CA signs the proxy's web certificate. Nothing here outlives its process.
"""

import ipaddress
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    SSHCertificateBuilder,
    SSHCertificateType,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

HOST_NAMES = ("teleport.cluster.local", "*.teleport.cluster.local")
"""SANs of every Auth Service's certificate (Teleport: `constants.APIDomain`)."""

CLUSTER_NAME_ATTRIBUTE = x509.ObjectIdentifier("1.3.9999.1.7")
"""Subject attribute that names a user certificate's cluster (Teleport: `tlsca.TeleportClusterASN1ExtensionOID`)."""

CLOCK_SKEW = timedelta(minutes=1)
"""Teleport dates its certificates this much back."""

AUTHORITY_LIFETIME = timedelta(days=3650)

AUTHORITY_USAGE = x509.KeyUsage(
    digital_signature=True,
    key_cert_sign=True,
    crl_sign=True,
    key_encipherment=False,
    content_commitment=False,
    data_encipherment=False,
    key_agreement=False,
    encipher_only=False,
    decipher_only=False,
)


PrivateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey
"""What Teleport's suites of algorithms use."""


@dataclass(frozen=True)
class KeyPair:
    """A private key (RSA in PKCS #1, others in PKCS #8) and its certificate, both PEM."""

    key: bytes
    certificate: bytes


@dataclass(frozen=True)
class Trio:
    """Paths of the three PEM files that Teleport's configuration calls by these names."""

    client_key: Path
    client_crt: Path
    root_cas: Path


@dataclass(frozen=True)
class Identity:
    """One user's or bot's credentials: for TLS, for SSH, and whom to trust."""

    pair: KeyPair
    ssh_certificate: str
    """One line in the style of `authorized_keys`."""
    ssh_authority: str
    """One `@cert-authority` line."""
    host_authority: bytes
    """PEM certificates of the host CA, against which the Auth Service is verified."""

    def file_text(self) -> str:
        """An identity file as `tctl auth sign` and `tbot` write it: key, SSH, TLS certificate, SSH CAs, TLS CAs."""
        parts = [
            self.pair.key.decode(),
            f"{self.ssh_certificate}\n",
            self.pair.certificate.decode(),
            f"{self.ssh_authority}\n",
            self.host_authority.decode(),
        ]
        return "".join(parts)

    def write_file(self, path: Path) -> Path:
        """Put the identity file at `path`, replacing the one there in one step as `tbot` does. Returns `path`."""
        return write_private(path, self.file_text().encode())

    def write_trio(self, directory: Path) -> Trio:
        """Put the identity as three PEM files into `directory`, under the names that `tbot` gives them."""
        return Trio(
            client_key=write_private(directory / "key", self.pair.key),
            client_crt=write_private(directory / "tlscert", self.pair.certificate),
            root_cas=write_private(directory / "teleport-host-ca.crt", self.host_authority),
        )

    def write_secret(self, volume: Path, mode: int = 0o440) -> Path:
        """Show what `tbot` writes as Kubernetes shows a Secret that is mounted at `volume`. Returns the identity file.

        The files are links into `..data`, a link itself, which a renewal turns to another directory in one step.
        """
        fresh = Path(tempfile.mkdtemp(prefix="..2026_", dir=volume))
        self.write_file(fresh / "identity")
        self.write_trio(fresh)
        for file in fresh.iterdir():
            file.chmod(mode)
        link = volume / "..data_tmp"
        link.symlink_to(fresh.name)
        link.rename(volume / "..data")
        for file in fresh.iterdir():
            if not (volume / file.name).is_symlink():
                (volume / file.name).symlink_to(Path("..data") / file.name)
        return volume / "identity"


@dataclass(frozen=True)
class Authority:
    """One certificate authority."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @classmethod
    def create(cls, name: str) -> Self:
        """Make a self-signed authority whose CN and O are `name`, as Teleport names its own after the cluster."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name(
            [x509.NameAttribute(NameOID.ORGANIZATION_NAME, name), x509.NameAttribute(NameOID.COMMON_NAME, name)]
        )
        now = datetime.now(UTC)
        builder = x509.CertificateBuilder(
            issuer_name=subject,
            subject_name=subject,
            not_valid_before=now - CLOCK_SKEW,
            not_valid_after=now + AUTHORITY_LIFETIME,
        )
        builder = _identified(builder, key, key)
        certificate = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        return cls(certificate.add_extension(AUTHORITY_USAGE, critical=True).sign(key, hashes.SHA256()), key)

    @property
    def pem(self) -> bytes:
        """The authority's own certificate."""
        return self.certificate.public_bytes(Encoding.PEM)

    def issue(
        self,
        subject: x509.Name,
        begins: datetime,
        ends: datetime,
        *,
        names: Iterable[x509.GeneralName] = (),
        key: PrivateKey | None = None,
    ) -> KeyPair:
        """Sign a certificate for TLS clients and servers, over this key or a new one."""
        key = key or ec.generate_private_key(ec.SECP256R1())
        builder = x509.CertificateBuilder(
            issuer_name=self.certificate.subject, subject_name=subject, not_valid_before=begins, not_valid_after=ends
        )
        builder = _identified(builder, key, self.key)
        purposes = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        alternatives = list(names)
        if alternatives:
            builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        certificate = builder.sign(self.key, hashes.SHA256())
        return KeyPair(key=_pem(key), certificate=certificate.public_bytes(Encoding.PEM))


@dataclass(frozen=True)
class ClusterAuthority:
    """All authorities of one cluster."""

    cluster_name: str
    host_ca: Authority
    user_ca: Authority
    web_ca: Authority

    @classmethod
    def create(cls, cluster_name: str) -> Self:
        """Make new authorities for a cluster of this name."""
        return cls(
            cluster_name=cluster_name,
            host_ca=Authority.create(cluster_name),
            user_ca=Authority.create(cluster_name),
            web_ca=Authority.create(f"web of {cluster_name}"),
        )

    def host_certificate(self) -> KeyPair:
        """Key and certificate of an Auth Service, valid for a day."""
        begins, ends = _lifetime(timedelta(days=1))
        return self.host_ca.issue(_common_name("auth"), begins, ends, names=map(x509.DNSName, HOST_NAMES))

    def web_certificate(self) -> KeyPair:
        """Key and certificate of a proxy's web port, for this host and the cluster's name, valid for a day."""
        begins, ends = _lifetime(timedelta(days=1))
        loopback = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
        names = [x509.DNSName("localhost"), x509.DNSName(self.cluster_name), loopback]
        return self.web_ca.issue(_common_name("localhost"), begins, ends, names=names)

    def identity(
        self,
        user: str,
        *,
        roles: Sequence[str] = (),
        lifetime: timedelta = timedelta(hours=1),
        key: PrivateKey | None = None,
    ) -> Identity:
        """Credentials of a user or bot, over a new key if none is given. With a negative `lifetime` they are over."""
        begins, ends = _lifetime(lifetime)
        pair = self.user_ca.issue(self._user_name(user, roles), begins, ends, key=key)
        host_key = self.host_ca.key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
        return Identity(
            pair=pair,
            ssh_certificate=self._ssh_certificate(pair, user, begins, ends),
            ssh_authority=f"@cert-authority {self.cluster_name},*.{self.cluster_name} {host_key} type=host",
            host_authority=self.host_ca.pem,
        )

    def _user_name(self, user: str, roles: Sequence[str]) -> x509.Name:
        # Teleport puts all roles into one multi-valued RDN: their order means nothing.
        parts = [x509.RelativeDistinguishedName([x509.NameAttribute(NameOID.COMMON_NAME, user)])]
        if roles:
            values = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, role) for role in roles]
            parts.append(x509.RelativeDistinguishedName(values))
        cluster = x509.NameAttribute(CLUSTER_NAME_ATTRIBUTE, self.cluster_name)
        return x509.Name([*parts, x509.RelativeDistinguishedName([cluster])])

    def _ssh_certificate(self, pair: KeyPair, user: str, begins: datetime, ends: datetime) -> str:
        key = x509.load_pem_x509_certificate(pair.certificate).public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey)
        builder = SSHCertificateBuilder().public_key(key).type(SSHCertificateType.USER).serial(0)
        builder = builder.key_id(user.encode()).valid_principals([b"-teleport-internal-join"])
        builder = builder.valid_after(int(begins.timestamp())).valid_before(int(ends.timestamp()))
        return builder.sign(self.user_ca.key).public_bytes().decode()


def _lifetime(lifetime: timedelta) -> tuple[datetime, datetime]:
    now = datetime.now(UTC)
    ends = now + lifetime
    # A certificate that has ended must have begun before it did.
    return min(now, ends) - CLOCK_SKEW, ends


def _common_name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _identified(
    builder: x509.CertificateBuilder, key: PrivateKey, signer: ec.EllipticCurvePrivateKey
) -> x509.CertificateBuilder:
    """Put the key and its identifiers in, which OpenSSL's strict checks ask for (RFC 5280, 4.2.1)."""
    own = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    signed_by = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
    builder = builder.public_key(key.public_key()).serial_number(x509.random_serial_number())
    return builder.add_extension(own, critical=False).add_extension(signed_by, critical=False)


def _pem(key: PrivateKey) -> bytes:
    form = PrivateFormat.TraditionalOpenSSL if isinstance(key, rsa.RSAPrivateKey) else PrivateFormat.PKCS8
    return key.private_bytes(Encoding.PEM, form, NoEncryption())


def write_private(path: Path, content: bytes) -> Path:
    """Replace `path` in one step by a file that only its owner may read."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)
    fresh.touch(mode=0o600)
    fresh.write_bytes(content)
    fresh.replace(path)
    return path
