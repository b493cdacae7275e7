"""What a Teleport proxy says about itself to everybody: which cluster it is of, and how it is reached."""

import asyncio
import json
import ssl
from dataclasses import dataclass
from http import HTTPStatus

import h11

from services.watcher.teleport.forward_proxy import ForwardProxy, Refusal
from services.watcher.teleport.http_exchange import HttpExchange
from services.watcher.teleport.reach import reach

DISCOVERY_SECONDS = 5

PATH = "/webapi/find"


@dataclass(frozen=True)
class TeleportProxy:
    """A proxy's answer. It decides which route is tried, never whom we trust."""

    cluster_name: str
    tls_routing: bool


async def discover(host: str, port: int, by: ForwardProxy | None) -> TeleportProxy | None:
    """Ask as Teleport's own clients do. None: what is there does not answer as a proxy that this host can verify.

    Raises `Refusal` if the forward proxy does not let us.
    """
    try:
        async with asyncio.timeout(DISCOVERY_SECONDS):
            found = json.loads(await _get(host, port, by))
        return TeleportProxy(str(found["cluster_name"]), bool(found["proxy"].get("tls_routing_enabled")))
    except Refusal:
        raise  # it refuses every route alike
    except (OSError, h11.RemoteProtocolError, ValueError, LookupError, TypeError, AttributeError):
        return None


async def _get(host: str, port: int, by: ForwardProxy | None) -> bytes:
    """Raises `ValueError` for an answer that is an error."""
    line = await reach(host, port, by)
    try:
        await line.writer.start_tls(ssl.create_default_context(), server_hostname=host)
        exchange = HttpExchange(line.reader, line.writer)
        status, _ = await exchange.ask("GET", PATH, host, port, [("Connection", "close")])
        if status != HTTPStatus.OK:
            raise ValueError(status)
        return await exchange.body()
    finally:
        await line.close()
