"""TLS for the two ends of a conversation with a simulated relay."""

import ssl
from pathlib import Path

from simulators.certificates import ClusterAuthority


def relay_tls(folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Contexts of a relay at 127.0.0.1 or localhost, and of a client that trusts nobody else."""
    cluster = ClusterAuthority.create("relay")
    pair = cluster.web_certificate()
    file = folder / "relay.pem"
    file.write_bytes(pair.key + pair.certificate)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(file)
    return server, ssl.create_default_context(cadata=cluster.web_ca.pem.decode())
