"""The proxy between this host and Teleport, where the environment names one (HTTPS_PROXY, NO_PROXY)."""

import errno
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from urllib.parse import unquote, urlsplit

DEFAULT_PORTS = {"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080}

LONGEST_SOCKS_CREDENTIAL = 255
"""RFC 1929, 2."""


class Refusal(ConnectionError):
    """Somebody on the way says no, and will as long as nobody changes something; the text says who and what."""

    def __init__(self, text: str) -> None:
        super().__init__(errno.ECONNREFUSED, text)


@dataclass(frozen=True)
class ForwardProxy:
    """One proxy. Who prints it sees where it is and who has named it, never its credentials."""

    scheme: str
    host: str
    port: int
    variable: str
    """Of the environment, that names it."""
    user: str = field(default="", repr=False)
    password: str = field(default="", repr=False)

    def __str__(self) -> str:
        return f"{self.scheme}://{authority(self.host, self.port)} ({self.variable})"

    @property
    def speaks_socks(self) -> bool:
        """SOCKS 5? HTTP if not."""
        return self.scheme.startswith("socks")


def forward_proxy(host: str, port: int, proxies: Mapping[str, str]) -> ForwardProxy | None:
    """Which proxy leads to `host`? None: none is needed. `proxies` is what `getproxies_environment()` has found.

    Read as Teleport's own clients do (golang.org/x/net/http/httpproxy): loopback never, then NO_PROXY, then
    HTTPS_PROXY, then HTTP_PROXY. Raises `Refusal` for a URL that cannot be used.
    """
    variable, url = ("HTTPS_PROXY", proxies["https"]) if proxies.get("https") else ("HTTP_PROXY", proxies.get("http"))
    if not url or _is_exempt(host.lower(), port, proxies.get("no", "")):
        return None
    # The URL, which may hold a password, is not repeated.
    fault = Refusal(
        f"{variable} must be [SCHEME://][USER:PASSWORD@]HOST[:PORT] with one of {', '.join(DEFAULT_PORTS)} for SCHEME,"
        " or NO_PROXY exempt Teleport"
    )
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        name, number = parts.hostname, parts.port
    except ValueError:
        raise fault from None
    if not name or parts.scheme not in DEFAULT_PORTS:
        raise fault
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    proxy = ForwardProxy(parts.scheme, name, number or DEFAULT_PORTS[parts.scheme], variable, user, password)
    if proxy.speaks_socks and not all(map(_fits_socks, (user, password))):
        raise Refusal(f"{variable}: a SOCKS proxy takes at most 255 ASCII characters as USER, and as PASSWORD")
    return proxy


def _fits_socks(credential: str) -> bool:
    return credential.isascii() and len(credential) <= LONGEST_SOCKS_CREDENTIAL


def _is_exempt(host: str, port: int, no_proxy: str) -> bool:
    address = _address(host)
    if host == "localhost" or (address is not None and address.is_loopback):
        return True
    return any(_covers(entry.strip().lower(), host, port, address) for entry in no_proxy.split(","))


def _covers(entry: str, host: str, port: int, address: IPv4Address | IPv6Address | None) -> bool:
    """One entry of NO_PROXY: `*`, an address, a network, or a domain; a port may follow an address or a domain."""
    if entry == "*":
        return True
    if address is not None:
        with suppress(ValueError):  # no network, so perhaps an address with a port
            return address in ip_network(entry, strict=False)
    name, colon, wanted = entry.rpartition(":")
    if colon and wanted.isdecimal():
        if int(wanted) != port:
            return False
        entry = name
    if address is not None and address == _address(entry.removeprefix("[").removesuffix("]")):
        return True
    if entry.startswith((".", "*.")):  # the domain's members, not itself
        return host.endswith(entry.removeprefix("*"))
    return bool(entry) and (host == entry or host.endswith(f".{entry}"))


def _address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None


def authority(host: str, port: int) -> str:
    """`host:port` as URLs write it."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
