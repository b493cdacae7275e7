"""The HTTP proxy between this host and Teleport, where the environment names one, and the way through it (CONNECT)."""

import base64
import errno
from asyncio import StreamReader, StreamWriter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from urllib.parse import unquote, urlsplit

import h11

CHUNK_BYTES = 4096
DEFAULT_PORT = 80


class Refusal(ConnectionError):
    """Somebody on the way says no, and will as long as nobody changes something; the text says who and what."""

    def __init__(self, text: str) -> None:
        super().__init__(errno.ECONNREFUSED, text)


@dataclass(frozen=True)
class HttpProxy:
    """One HTTP proxy. Who prints it sees where it is, never its password."""

    host: str
    port: int
    user: str = field(repr=False)
    password: str = field(repr=False)

    def __str__(self) -> str:
        return authority(self.host, self.port)

    @property
    def url(self) -> str:
        """Its URL without credentials."""
        return f"http://{self}"


def http_proxy(host: str, port: int, proxies: Mapping[str, str]) -> HttpProxy | None:
    """Which proxy leads to `host`? None: none is needed. `proxies` is what `getproxies_environment()` has found.

    Read as Teleport's own clients do (golang.org/x/net/http/httpproxy): loopback never, then NO_PROXY, then
    HTTPS_PROXY, then HTTP_PROXY. Raises `Refusal` for a URL that cannot be used.
    """
    url = proxies.get("https") or proxies.get("http")
    if not url or _is_exempt(host.lower(), port, proxies.get("no", "")):
        return None
    # The URL may hold a password. TLS in TLS, as https:// would need, asyncio does not do reliably before Python 3.12.
    fault = Refusal("HTTPS_PROXY (or HTTP_PROXY) must be http://[USER:PASSWORD@]HOST:PORT, or NO_PROXY exempt Teleport")
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        name, number = parts.hostname, parts.port
    except ValueError:
        raise fault from None
    if not name or parts.scheme != "http":
        raise fault
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    return HttpProxy(name, number or DEFAULT_PORT, user, password)


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
    if entry.startswith((".", "*.")):  # the domain's members, not itself
        return host.endswith(entry.removeprefix("*"))
    return bool(entry) and (host == entry or host.endswith(f".{entry}"))


def _address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None


async def connect_through(proxy: HttpProxy, host: str, port: int, reader: StreamReader, writer: StreamWriter) -> None:
    """Ask the proxy to lead this connection on to `host` (RFC 9110, 9.3.6). Raises `Refusal`, `ConnectionError`."""
    target = authority(host, port)
    headers = [("Host", target)]
    if proxy.user:
        credentials = base64.b64encode(f"{proxy.user}:{proxy.password}".encode()).decode()
        headers.append(("Proxy-Authorization", f"Basic {credentials}"))
    http = h11.Connection(h11.CLIENT)
    request = http.send(h11.Request(method="CONNECT", target=target, headers=headers))
    writer.write((request or b"") + (http.send(h11.EndOfMessage()) or b""))
    await writer.drain()
    try:
        status, reason = await _answer(http, reader)
    except h11.RemoteProtocolError as error:
        raise Refusal(f"{proxy} answers CONNECT with something else than HTTP") from error
    if status in range(200, 300):
        return
    text = f"the HTTP proxy {proxy} does not lead on: {status} {reason}"
    # 5xx: what is behind the proxy may be back in a moment.
    raise Refusal(text) if status < 500 else ConnectionError(errno.ECONNREFUSED, text)  # noqa: PLR2004 5xx


async def _answer(http: h11.Connection, reader: StreamReader) -> tuple[int, str]:
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            http.receive_data(await reader.read(CHUNK_BYTES))
        elif isinstance(event, h11.Response):
            return event.status_code, bytes(event.reason).decode("latin-1")
        elif not isinstance(event, h11.InformationalResponse):
            raise ConnectionError(errno.ECONNRESET, "the HTTP proxy closed the connection")


def authority(host: str, port: int) -> str:
    """`host:port` as URLs write it."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
