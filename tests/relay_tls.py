"""TLS for the two ends of a conversation with a simulated relay."""

import ssl
from pathlib import Path

from simulators.certificates import ClusterAuthority


def relay_tls(folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Contexts of a relay at 127.0.0.1 or localhost, and of a client that trusts nobody else."""
    server, ca_file = relay_certificate(folder)
    return server, ssl.create_default_context(cafile=ca_file)


def relay_certificate(folder: Path) -> tuple[ssl.SSLContext, Path]:
    """Context of a relay at 127.0.0.1 or localhost, and the PEM file of the CA that has signed its certificate."""
    cluster = ClusterAuthority.create("relay")
    pair = cluster.web_certificate()
    file, ca_file = folder / "relay.pem", folder / "relay-ca.pem"
    file.write_bytes(pair.key + pair.certificate)
    ca_file.write_bytes(cluster.web_ca.pem)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(file)
    return server, ca_file
