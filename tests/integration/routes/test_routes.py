"""Every way to the Auth Service, and what is said when none leads there."""

import asyncio
import re
import socket
import ssl
import stat
import sys
import tempfile
from asyncio.subprocess import DEVNULL
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path

import pytest
from grpc import StatusCode

from services.watcher.teleport.access_request import SightedRequest
from services.watcher.teleport.client import TeleportClient
from services.watcher.teleport.connect import connect, parse_address
from services.watcher.teleport.dial import Route, describe
from services.watcher.teleport.errors import TeleportRefused, TeleportUnavailable
from services.watcher.teleport.identity import Identity
from services.watcher.teleport.pb import auth_pb2
from services.watcher.teleport.tunnel import Tunnel
from services.watcher.teleport.undecodable import Undecodable
from shared.events import AccessRequest, RequestState
from shared.settings import TeleportSettings
from simulators.certificates import ClusterAuthority
from simulators.proxy import Proxy
from simulators.teleport import AuthService
from tests.integration.watching import AUTHORITY

STRANGER = ClusterAuthority.create("teleport.example.com")


@pytest.fixture(autouse=True)
def nothing_left_behind(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No tunnel's folder outlives its test."""
    tmp_path_factory.getbasetemp()  # pytest's own folder is not to be made in ours
    folder = Path(tempfile.mkdtemp(prefix="t"))
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield
    folder.rmdir()


def issued(authority: ClusterAuthority, folder: Path, lifetime: timedelta = timedelta(hours=1)) -> Identity:
    path = authority.identity("access-mail", roles=["access-mail"], lifetime=lifetime).write_file(folder / "identity")
    return Identity.load(TeleportSettings(identity=path))


async def test_the_auth_service_is_reached_directly(auth: AuthService, identity: Identity) -> None:
    async with await TeleportClient.open(Route("direct", "127.0.0.1", auth.port, ("h2",)), identity) as client:
        server = await client.ping()
    assert server.cluster.name == "teleport.example.com"
    assert server.cluster.reviews_in_web
    assert server.version == "18.2.8"


async def test_an_auth_services_address_just_works(auth: AuthService, identity: Identity) -> None:
    connection = await connect(auth.address, identity)
    async with connection.client:
        assert connection.server.cluster.name == "teleport.example.com"
        assert connection.route.name == "direct"


@pytest.mark.usefixtures("trusted_web")
async def test_a_proxy_that_is_asked_leads_to_its_cluster(proxy: Proxy, identity: Identity) -> None:
    connection = await connect(proxy.address, identity)
    async with connection.client:
        assert connection.route.name == "through a proxy (TLS routing)"
        assert connection.server.cluster.name == "teleport.example.com"
        assert proxy.tunnels == 1


async def test_a_proxy_with_a_web_certificate_that_nobody_knows_works_too(proxy: Proxy, identity: Identity) -> None:
    connection = await connect(proxy.address, identity)
    async with connection.client:
        assert connection.route.name == "through a proxy (TLS routing)"


@pytest.mark.usefixtures("trusted_web")
async def test_a_proxy_without_tls_routing_is_told_so_with_what_to_do(proxy: Proxy, identity: Identity) -> None:
    proxy.separate()
    with pytest.raises(TeleportRefused) as caught:
        await connect(proxy.address, identity)
    assert str(caught.value) == (
        f"{proxy.address} is a proxy without TLS routing (proxy_listener_mode: separate); set teleport.addr to the"
        " Auth Service, or proxy_listener_mode to multiplex"
    )


async def test_one_that_this_host_cannot_ask_is_refused_with_the_way_to_ask_it(
    proxy: Proxy, identity: Identity
) -> None:
    proxy.separate()
    with pytest.raises(TeleportRefused) as caught:
        await connect(proxy.address, identity)
    assert re.fullmatch(
        rf"no route leads to {proxy.address}: direct, through a proxy \(TLS routing\): the server's certificate is not"
        r" of the identity's cluster \(.*\); through a proxy \(connection upgrade\): this host does not trust the web"
        r" certificate of localhost \(.*\); name a file with its CA in SSL_CERT_FILE",
        str(caught.value),
    )


async def test_nobody_there_names_each_route_and_its_reason(identity: Identity, unused_port: int) -> None:
    with pytest.raises(TeleportUnavailable) as caught:
        await connect(f"127.0.0.1:{unused_port}", identity)
    assert str(caught.value) == (
        f"no route leads to 127.0.0.1:{unused_port}: direct, through a proxy (TLS routing),"
        " through a proxy (connection upgrade): Connection refused"
    )


@pytest.fixture
async def unused_port() -> int:
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    port: int = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    return port


async def test_a_server_of_another_cluster_is_refused(auth: AuthService, tmp_path: Path) -> None:
    with pytest.raises(TeleportRefused, match="not of the identity's cluster"):
        await connect(auth.address, issued(STRANGER, tmp_path))


@asynccontextmanager
async def server(folder: Path, alpn: str) -> AsyncIterator[Route]:
    """A server with a host certificate of the cluster that takes clients of another cluster only."""
    host = AUTHORITY.host_certificate()
    (folder / "host.pem").write_bytes(host.key + host.certificate)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "host.pem")
    context.load_verify_locations(cadata=STRANGER.user_ca.pem.decode())
    context.verify_mode = ssl.CERT_REQUIRED
    context.set_alpn_protocols([alpn])
    with socket.create_server(("127.0.0.1", 0)) as listener:
        # blocking: asyncio's server side closes without sending the alert
        visit = asyncio.create_task(asyncio.to_thread(take_one, listener, context))
        yield Route("direct", "127.0.0.1", listener.getsockname()[1], ("h2",))
        await visit


def take_one(listener: socket.socket, context: ssl.SSLContext) -> None:
    connection, _ = listener.accept()
    with connection, suppress(ssl.SSLError, ConnectionError), context.wrap_socket(connection, server_side=True) as tls:
        tls.recv(1)


async def test_a_server_that_refuses_our_certificate_says_so_after_the_handshake(
    identity: Identity, tmp_path: Path
) -> None:
    async with server(tmp_path, "h2") as route, await TeleportClient.open(route, identity) as client:
        with pytest.raises(TeleportRefused, match=r"refused our certificate or protocol .*unknown ca"):
            await client.ping()


async def test_a_server_without_http2_is_told_so(identity: Identity, tmp_path: Path) -> None:
    async with server(tmp_path, "http/1.1") as route:
        with pytest.raises(TeleportUnavailable, match="does not offer HTTP/2"):
            await TeleportClient.open(route, identity)


async def test_the_socket_is_ours_alone_and_holds_no_key(auth: AuthService, identity: Identity) -> None:
    tunnel = await Tunnel.open(Route("direct", "127.0.0.1", auth.port, ("h2",)), identity)
    folder = tunnel.socket.parent
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert [path.name for path in folder.iterdir()] == ["grpc"]
    await tunnel.close()
    assert not folder.exists()


async def test_the_socket_serves_one_connection_only(auth: AuthService, identity: Identity) -> None:
    tunnel = await Tunnel.open(Route("direct", "127.0.0.1", auth.port, ("h2",)), identity)
    async with TeleportClient(tunnel) as client:
        await client.ping()
        with pytest.raises(FileNotFoundError):
            await asyncio.open_unix_connection(tunnel.socket)
        assert not tunnel.socket.parent.exists()
        await client.ping()


async def test_the_socket_serves_our_own_process_only(auth: AuthService, identity: Identity) -> None:
    tunnel = await Tunnel.open(Route("direct", "127.0.0.1", auth.port, ("h2",)), identity)
    async with TeleportClient(tunnel) as client:
        program = "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); s.recv(1)"
        other = await asyncio.create_subprocess_exec(sys.executable, "-c", program, str(tunnel.socket), stderr=DEVNULL)
        async with asyncio.timeout(10):
            assert await other.wait() in (0, 1), "it was cut off"
        assert (await client.ping()).cluster.name == "teleport.example.com"


def test_a_name_with_several_addresses_fails_in_words() -> None:
    one = "[Errno 111] Connect call failed ('::1', 3025, 0, 0)"
    other = "[Errno 111] Connect call failed ('127.0.0.1', 3025)"
    assert describe(OSError(f"Multiple exceptions: {one}, {other}")) == "Connection refused"


async def test_a_listing_of_hundreds_comes_in_pages_and_whole(auth: AuthService, identity: Identity) -> None:
    ids = {auth.create_request() for _ in range(250)}
    connection = await connect(auth.address, identity)
    async with connection.client as client:
        pages = [page async for page in client.requests()]
    assert [len(page) for page in pages] == [100, 100, 50]
    assert {request.id for page in pages for request in page if isinstance(request, SightedRequest)} == ids


async def test_an_older_cluster_lists_as_a_stream(auth: AuthService, identity: Identity) -> None:
    auth.faults.unimplemented.add("ListAccessRequests")
    ids = {auth.create_request() for _ in range(120)}
    connection = await connect(auth.address, identity)
    async with connection.client as client:
        found = [request async for page in client.requests() for request in page]
        one = await client.request(min(ids))
        none = await client.request("unknown")
    assert {request.id for request in found if isinstance(request, SightedRequest)} == ids
    assert isinstance(one, SightedRequest)
    assert one.id == min(ids)
    assert none is None


async def test_a_page_of_more_than_four_mebibytes_is_read(auth: AuthService, identity: Identity) -> None:
    for _ in range(3):
        auth.create_request(reason="x" * 2_000_000)
    connection = await connect(auth.address, identity)
    async with connection.client as client:
        found = [request async for page in client.requests() for request in page]
    whole = [request.whole() for request in found if isinstance(request, SightedRequest)]
    assert [len(request.request_reason) for request in whole] == [4096] * 3


async def test_a_watch_tells_what_happens_from_now_on(auth: AuthService, identity: Identity) -> None:
    auth.create_request()
    connection = await connect(auth.address, identity)
    async with connection.client as client, client.watch() as events:
        request_id = auth.create_request(user="bob")
        auth.faults.send_unknown_event()
        strange = auth.get(request_id)
        strange.Spec.State = 9  # type: ignore[assignment]  # no state that any version knows
        auth.put(strange)
        auth.approve(request_id)
        first, unknown, undecodable, approved = [await anext(events) for _ in range(4)]
    assert isinstance(first, AccessRequest)
    assert (first.id, first.user, first.state) == (request_id, "bob", RequestState.PENDING)
    assert unknown is None
    assert isinstance(undecodable, Undecodable)
    assert isinstance(approved, AccessRequest)
    assert approved.state is RequestState.APPROVED


async def test_a_watch_that_ends_cleanly_is_unavailable_too(auth: AuthService, identity: Identity) -> None:
    connection = await connect(auth.address, identity)
    async with connection.client as client, client.watch() as events:
        auth.faults.end_streams()
        with pytest.raises(TeleportUnavailable, match="ended the watch"):
            await anext(events)


@pytest.mark.parametrize("code", [StatusCode.UNAVAILABLE, StatusCode.UNKNOWN, StatusCode.CANCELLED])
async def test_a_watch_that_is_cut_off_is_unavailable(auth: AuthService, identity: Identity, code: StatusCode) -> None:
    connection = await connect(auth.address, identity)
    async with connection.client as client, client.watch() as events:
        auth.faults.end_streams(code, "backlog was not processed")
        with pytest.raises(TeleportUnavailable, match="backlog was not processed"):
            await anext(events)


async def test_a_role_that_may_not_read_is_refused(auth: AuthService, identity: Identity) -> None:
    auth.faults.denied_kinds.add("access_request")
    connection = await connect(auth.address, identity)
    async with connection.client as client:
        with pytest.raises(TeleportRefused, match="does not let this role watch access_request"):
            async with client.watch():
                pass


async def test_a_watch_that_begins_with_another_event_is_unavailable(auth: AuthService, identity: Identity) -> None:
    auth.faults.first_event = auth_pb2.Event(Type=auth_pb2.PUT)
    connection = await connect(auth.address, identity)
    async with connection.client as client:
        with pytest.raises(TeleportUnavailable, match="another event than INIT"):
            async with client.watch():
                pass


async def test_a_watch_whose_init_is_late_is_given_up(
    auth: AuthService, identity: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.watcher.teleport.client.INIT_SECONDS", 0.2)
    auth.faults.delays["WatchEvents"] = 5
    connection = await connect(auth.address, identity)
    async with connection.client as client:
        with pytest.raises(TeleportUnavailable, match="did not begin within"):
            async with client.watch():
                pass


@pytest.mark.parametrize(
    "address", ["", "localhost", "https://localhost:1", "a@b:1", "localhost:x", ":3025", "a:1/x", "a..b:1", "[::1:1"]
)
def test_what_is_no_address_is_told(address: str) -> None:
    with pytest.raises(ValueError, match="must be host:port"):
        parse_address(address)


def test_addresses_may_be_ipv6() -> None:
    assert parse_address("[::1]:3025") == ("::1", 3025)
    assert str(Route("direct", "::1", 3025, ())) == "direct to [::1]:3025"
