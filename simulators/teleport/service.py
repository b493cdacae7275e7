"""The simulated Auth Service on the network: gRPC over TLS, for clients that the cluster's user CA has signed."""

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import datetime
from types import TracebackType
from typing import Self

import grpc
from grpc import aio

from services.watcher.teleport.pb.accounts_pb2_grpc import add_UsersServiceServicer_to_server
from services.watcher.teleport.pb.auth_pb2_grpc import add_AuthServiceServicer_to_server
from services.watcher.teleport.pb.rules_pb2_grpc import add_AccessMonitoringRulesServiceServicer_to_server
from services.watcher.teleport.pb.users_pb2_grpc import add_UserLoginStateServiceServicer_to_server
from simulators.certificates import ClusterAuthority
from simulators.teleport.api import KNOWN_KINDS, AuthApi, LoginStatesApi, RulesApi, UsersApi
from simulators.teleport.cluster import Cluster, utc_now
from simulators.teleport.latin_1 import Spoiler
from simulators.teleport.rbac import LIST_USER_GROUPS, PREVIEW, Permission, RoleBasedAccess

EXPIRY_POLL_SECONDS = 0.1
RULES_SERVICE = "teleport.accessmonitoringrules.v1.AccessMonitoringRulesService"

SERVER_OPTIONS = (
    # Another process on the same port is an error, not a colleague.
    ("grpc.so_reuseport", 0),
    # Teleport punishes clients that ping more often than once a minute with GOAWAY too_many_pings.
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 60_000),
    ("grpc.keepalive_permit_without_calls", 1),
)


class AuthService(Cluster):
    """A cluster that can be reached at `address` while it is started. What it knows survives a stop."""

    def __init__(
        self,
        authority: ClusterAuthority,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        """Prepare a service at this address and port; with 0 the first start chooses one, later ones keep it."""
        super().__init__(authority.cluster_name, clock)
        self.authority = authority
        self.access = RoleBasedAccess()
        self.host = host
        self.port = port
        self._server: aio.Server | None = None
        self._expiry: asyncio.Task[None] | None = None

    @property
    def address(self) -> str:
        """Where it listens, as `host:port`."""
        return f"{self.host}:{self.port}"

    def allow_only(self, permissions: Iterable[Permission]) -> None:
        """Let every caller's role allow this and nothing else, in calls and in watches from now on."""
        self.access.allowed = frozenset(permissions)
        self.faults.denied_kinds = {kind for kind in KNOWN_KINDS if self.access.lacks([(kind, "read")])}
        self.directory.shows_resources = not self.access.lacks([PREVIEW])
        self.directory.denied = {"user_group"} if self.access.lacks(LIST_USER_GROUPS) else set()

    async def start(self) -> None:
        """Begin to answer on the running loop. Raises `RuntimeError` if the port is taken."""
        host = self.authority.host_certificate()
        credentials = grpc.ssl_server_credentials(
            [(host.key, host.certificate)],
            root_certificates=self.authority.user_ca.pem,
            require_client_auth=True,
        )
        self._server = aio.server(interceptors=[self.access], options=SERVER_OPTIONS)
        auth, rules = AuthApi(self), RulesApi(self)
        add_AuthServiceServicer_to_server(auth, self._server)
        add_UsersServiceServicer_to_server(UsersApi(self), self._server)
        add_UserLoginStateServiceServicer_to_server(LoginStatesApi(self), self._server)
        add_AccessMonitoringRulesServiceServicer_to_server(rules, self._server)
        spoiler = Spoiler(self.faults.latin_1)
        # In place of some of those above.
        self._server.add_registered_method_handlers("proto.AuthService", spoiler.of_auth(auth))
        self._server.add_registered_method_handlers(RULES_SERVICE, spoiler.of_rules(rules))
        self.port = self._server.add_secure_port(self.address, credentials)
        await self._server.start()
        self._expiry = asyncio.create_task(self._expire())

    async def stop(self) -> None:
        """Go away as a service that is restarted: open streams end with UNAVAILABLE, the port refuses."""
        assert self._server is not None, "the service was not started"
        assert self._expiry is not None, "the service was not started"
        await self._server.stop(grace=None)
        self._expiry.cancel()
        with suppress(asyncio.CancelledError):
            await self._expiry

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def _expire(self) -> None:
        while True:
            self.expire_due()
            await asyncio.sleep(EXPIRY_POLL_SECONDS)
