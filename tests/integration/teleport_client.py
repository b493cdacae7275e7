"""A plain gRPC client of the simulated Auth Service, as a test of it needs: real mTLS, no code of the watcher."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import grpc
import pytest
from grpc import aio

from services.watcher.teleport.pb import auth_pb2, auth_pb2_grpc, types_pb2
from simulators.certificates import Identity

if TYPE_CHECKING:
    from services.watcher.teleport.pb.auth_pb2_grpc import AuthServiceAsyncStub

LONGEST_WAIT_SECONDS = 10

PING = auth_pb2.PingRequest()

REQUESTS = auth_pb2.Watch(Kinds=[types_pb2.WatchKind(Kind="access_request")])


@asynccontextmanager
async def client(identity: Identity, address: str) -> "AsyncIterator[AuthServiceAsyncStub]":
    """Offer Teleport's methods as this identity may call them."""
    credentials = grpc.ssl_channel_credentials(
        identity.host_authority, private_key=identity.pair.key, certificate_chain=identity.pair.certificate
    )
    # A connection of its own: gRPC shares them between channels of one target.
    options = [("grpc.ssl_target_name_override", "teleport.cluster.local"), ("grpc.use_local_subchannel_pool", 1)]
    async with aio.secure_channel(address, credentials, options) as channel:
        yield auth_pb2_grpc.AuthServiceStub(channel)


class Watching:
    """One open watch, read event by event."""

    def __init__(self, stub: "AuthServiceAsyncStub", watch: auth_pb2.Watch = REQUESTS) -> None:
        self._call = stub.WatchEvents(watch)

    async def next(self) -> auth_pb2.Event:
        """Return the next event. Raises `EOFError` at the clean end of the stream, `TimeoutError` if there is none."""
        async with asyncio.timeout(LONGEST_WAIT_SECONDS):
            event = await self._call.read()
        if event is aio.EOF:
            raise EOFError
        assert isinstance(event, auth_pb2.Event)
        return event

    def cancel(self) -> None:
        """Hang up."""
        self._call.cancel()


async def opened(stub: "AuthServiceAsyncStub", watch: auth_pb2.Watch = REQUESTS) -> Watching:
    """Return a watch that has had its INIT."""
    watching = Watching(stub, watch)
    assert (await watching.next()).Type == auth_pb2.INIT
    return watching


async def refusal(call: Awaitable[object]) -> grpc.StatusCode:
    """Return the status with which the call is refused."""
    with pytest.raises(aio.AioRpcError) as refused:
        await call
    code: grpc.StatusCode = refused.value.code()
    return code
