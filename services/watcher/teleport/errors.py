"""The watcher's one vocabulary of failure towards Teleport, and what the errors of gRPC mean in it.

TeleportError                  Teleport did not do what it was asked for
├── TeleportUnavailable        nobody answers, or the answer was cut off: try again soon
└── TeleportRefused            Teleport answers no: try again slowly, an operator must change something
    ├── TeleportNotFound       … because what the call is about does not exist
    ├── TeleportConflict       … because somebody else has changed it since it was read
    ├── TeleportInvalid        … because what is to be written is too large, or otherwise not to its taste
    └── TeleportUnimplemented  … because its version does not know the call
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import grpc
from google.protobuf.message import DecodeError
from grpc import aio

from services.watcher.teleport.dial import describe, is_refusal
from services.watcher.teleport.tunnel import Tunnel


class TeleportError(Exception):
    """Teleport did not do what it was asked for."""


class TeleportUnavailable(TeleportError):
    """Nobody answered, or the answer was cut off: the same may work in a moment."""


class TeleportRefused(TeleportError):
    """Teleport said no: the same will not work until somebody changes a permission, credentials or the address."""


class TeleportNotFound(TeleportRefused):
    """What the call is about does not exist."""


class TeleportConflict(TeleportRefused):
    """What was to be changed is not what it was when it was read (Teleport: CompareFailed)."""


class TeleportInvalid(TeleportRefused):
    """What is to be written cannot be, such as a record that would be too large (Teleport: BadParameter)."""


class TeleportUnimplemented(TeleportRefused):
    """This version of Teleport does not know the call."""


REFUSALS: dict[grpc.StatusCode, type[TeleportRefused]] = {
    grpc.StatusCode.PERMISSION_DENIED: TeleportRefused,
    grpc.StatusCode.UNAUTHENTICATED: TeleportRefused,
    grpc.StatusCode.INVALID_ARGUMENT: TeleportInvalid,
    grpc.StatusCode.FAILED_PRECONDITION: TeleportConflict,
    grpc.StatusCode.NOT_FOUND: TeleportNotFound,
    grpc.StatusCode.UNIMPLEMENTED: TeleportUnimplemented,
}
"""All other codes may be gone in a moment, UNKNOWN too: so a server ends the watch of a slow client."""

SILENT = "Teleport does not answer in time"

_GOAWAY = re.compile(r"GOAWAY received[^)]{0,200}")
"""Why the server has ended the connection, by its own account (RFC 9113, 6.8), as gRPC quotes it; a line of it."""


@contextmanager
def translated(tunnel: Tunnel) -> Iterator[None]:
    """Raise the errors of a call through this tunnel as ours."""
    try:
        yield
    except aio.AioRpcError as error:
        raise _of_call(error, tunnel) from error
    except DecodeError as error:
        raise TeleportUnavailable("Teleport's answer is none that is known here") from error
    except TimeoutError as error:
        raise TeleportUnavailable(SILENT) from error


def of_connection(error: Exception) -> TeleportError:
    """What ended a connection, or hindered it."""
    return (TeleportRefused if is_refusal(error) else TeleportUnavailable)(describe(error))


def _of_call(error: aio.AioRpcError, tunnel: Tunnel) -> TeleportError:
    code, details = error.code(), error.details() or "no reason given"
    if code in REFUSALS:
        return REFUSALS[code](f"{code.name}: {details}")
    if goaway := _GOAWAY.search(details):  # what becomes of the connection then is no news
        return TeleportUnavailable(f"Teleport closed the connection ({goaway[0].strip()})")
    if tunnel.failure is not None:
        return of_connection(tunnel.failure)
    if tunnel.has_ended:
        return TeleportUnavailable("Teleport closed the connection")  # details are about the near end, which is ours
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return TeleportUnavailable(SILENT)
    return TeleportUnavailable(f"{code.name}: {details}")
