"""Who we are to Teleport: the key, certificates and CAs of an identity file (tctl, tbot) or of a PEM trio."""

import shlex
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from cryptography.x509.oid import NameOID, ObjectIdentifier

from shared.settings import SettingsError, TeleportSettings
from shared.settings_files import NamedFile

CLUSTER_OID = ObjectIdentifier("1.3.9999.1.7")
"""Subject attribute in which Teleport writes the name of the cluster that issued a certificate."""

RENEW = "write a new one with `tctl auth sign --user=USER --out=FILE`, or let tbot keep it fresh"


class IdentityError(Exception):
    """The credentials cannot be used: which key and file, what is wrong, what to do. Never contains key material."""


@dataclass(frozen=True)
class Identity:
    """Credentials as Teleport issued them. Two that are equal open the same doors."""

    key: bytes = field(repr=False)
    """PEM of the private key."""
    certificates: bytes = field(repr=False)
    """PEM of the client certificate and what its issuer added to it."""
    authorities: bytes = field(repr=False)
    """PEM of the host CAs: nothing else vouches for the Auth Service."""
    user: str
    roles: tuple[str, ...]
    cluster: str
    issuer: str
    not_before: datetime
    not_after: datetime
    source: str
    """The file that holds the certificate, and the key that names it: for messages."""

    @classmethod
    def load(cls, settings: TeleportSettings) -> "Identity":
        """Read what `[teleport]` names. Raises `IdentityError` if it is missing, damaged or expired."""
        files = _files_of(settings)
        if not settings.allow_key_readable_by_others:
            _insist_on_privacy(files.key)
        identity = _from_file(files.key) if settings.identity else _from_trio(files)
        identity.ensure_valid(datetime.now(UTC))
        return identity

    @property
    def renewal(self) -> str:
        """What to do against its end."""
        return RENEW.replace("--user=USER", f"--user={shlex.quote(self.user)}")

    def ensure_valid(self, now: datetime) -> None:
        """Raise `IdentityError` if the certificate is not valid at `now`."""
        whose = f"that of user {self.user!r}, issued by cluster {self.issuer!r}"
        if now >= self.not_after:
            ended = f"{self.not_after:%Y-%m-%d %H:%M:%S} UTC"
            raise IdentityError(f"{self.source}: certificate expired: {whose}, ended {ended}; {self.renewal}")
        if now < self.not_before:
            begins = f"{self.not_before:%Y-%m-%d %H:%M:%S} UTC"
            raise IdentityError(f"{self.source}: certificate not valid yet: {whose}, begins {begins}; set the clock")


@dataclass(frozen=True)
class _Files:
    """What `[teleport]` names: an identity file is all three."""

    key: NamedFile
    certificates: NamedFile
    authorities: NamedFile


def _files_of(settings: TeleportSettings) -> _Files:
    if settings.identity:
        identity = NamedFile("teleport.identity", settings.identity)
        return _Files(identity, identity, identity)
    if not (settings.client_key and settings.client_crt and settings.root_cas):
        raise IdentityError("teleport: no credentials; set identity, or client_key, client_crt and root_cas")
    return _Files(
        key=NamedFile("teleport.client_key", settings.client_key),
        certificates=NamedFile("teleport.client_crt", settings.client_crt),
        authorities=NamedFile("teleport.root_cas", settings.root_cas),
    )


def _mode(file: NamedFile) -> int:
    """Of the file itself: Kubernetes mounts secrets as symbolic links."""
    try:
        return file.path.stat().st_mode
    except OSError as error:
        raise IdentityError(str(file.unreadable(error))) from error


def _insist_on_privacy(file: NamedFile) -> None:
    """A group may read the key, as Kubernetes' `fsGroup` has it; everybody may not."""
    mode = _mode(file)
    if stat.S_ISREG(mode) and mode & stat.S_IROTH:
        raise IdentityError(
            f"{file}: the private key is readable by every user of this host (mode {stat.S_IMODE(mode):04o});"
            f" `chmod o= {file.path}` (in Kubernetes: defaultMode 0440), or set teleport.allow_key_readable_by_others"
        )


def _from_file(file: NamedFile) -> Identity:
    """Read an identity file: of its PEM blocks the first is the key, the second the certificate, the others CAs."""
    if stat.S_ISDIR(_mode(file)):
        raise IdentityError(f"{file}: is a directory; name the file in it, which tbot calls {file.path / 'identity'}")
    blocks = list(_pem_blocks(file))
    if len(blocks) < 2:  # noqa: PLR2004 the two that every identity begins with
        raise IdentityError(f"{file}: no identity file, it lacks a private key or a TLS certificate; {RENEW}")
    if len(blocks) == 2:  # noqa: PLR2004 nothing follows those two
        raise IdentityError(f"{file}: no CA certificate, so that the server cannot be verified; {RENEW}")
    key, certificate, *authorities = blocks
    return _identity(key, certificate, b"".join(authorities), _Files(file, file, file))


def _from_trio(files: _Files) -> Identity:
    return _identity(_pem(files.key), _pem(files.certificates), _pem(files.authorities), files)


def _pem(file: NamedFile) -> bytes:
    blocks = b"".join(_pem_blocks(file))
    if not blocks:
        raise IdentityError(f"{file}: no PEM block; is it the right file?")
    return blocks


def _pem_blocks(file: NamedFile) -> Iterator[bytes]:
    """Give each PEM block; lines outside of them (SSH certificates and CAs) are of no use to gRPC."""
    try:
        lines = file.content().splitlines()
    except SettingsError as error:
        raise IdentityError(str(error)) from error
    block: list[bytes] = []
    for line in map(bytes.strip, lines):
        starts = line.startswith(b"-----BEGIN ")
        if starts and block:
            break
        if starts or block:
            block.append(line)
        if block and line.startswith(b"-----END "):
            yield b"\n".join(block) + b"\n"
            block = []
    if block:
        raise IdentityError(f"{file}: unterminated PEM block, the file is damaged or was read half written; {RENEW}")


def _identity(key: bytes, certificates: bytes, authorities: bytes, files: _Files) -> Identity:
    leaf = _certificates(certificates, files.certificates)[0]
    _certificates(authorities, files.authorities)
    if _public_half(key, files.key) != leaf.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo):
        raise IdentityError(
            f"{files.key}: the private key does not belong to the certificate in {files.certificates.path}"
        )
    issuer = _first(leaf.issuer, NameOID.ORGANIZATION_NAME) or _first(leaf.issuer, NameOID.COMMON_NAME)
    return Identity(
        key=key,
        certificates=certificates,
        authorities=authorities,
        user=_first(leaf.subject, NameOID.COMMON_NAME),
        # All roles stand in one set, whose order means nothing.
        roles=tuple(sorted(_texts(leaf.subject, NameOID.ORGANIZATION_NAME))),
        cluster=_first(leaf.subject, CLUSTER_OID) or issuer,
        issuer=issuer,
        not_before=leaf.not_valid_before_utc,
        not_after=leaf.not_valid_after_utc,
        source=str(files.certificates),
    )


def _certificates(pem: bytes, file: NamedFile) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise IdentityError(f"{file}: a certificate in it cannot be read; {RENEW}") from error


def _public_half(key: bytes, file: NamedFile) -> bytes:
    try:
        private_key = load_pem_private_key(key, password=None)
    except TypeError as error:
        raise IdentityError(f"{file}: the private key has a passphrase, which Teleport's never have") from error
    except (ValueError, UnsupportedAlgorithm):
        # Without its cause: a parser's message might quote what it could not read.
        raise IdentityError(f"{file}: the private key cannot be read; {RENEW}") from None
    return private_key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _texts(name: x509.Name, oid: ObjectIdentifier) -> list[str]:
    return [str(attribute.value) for attribute in name.get_attributes_for_oid(oid)]


def _first(name: x509.Name, oid: ObjectIdentifier) -> str:
    return next(iter(_texts(name, oid)), "")
