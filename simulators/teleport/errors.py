"""What the simulated cluster refuses, and with which gRPC status it says so."""

from grpc import StatusCode


class TraceError(Exception):
    """A call is refused. Teleport's `trace` errors reach a client as a plain status and text.

    NotFound → NOT_FOUND, AlreadyExists → ALREADY_EXISTS, AccessDenied → PERMISSION_DENIED,
    BadParameter → INVALID_ARGUMENT, CompareFailed → FAILED_PRECONDITION, ConnectionProblem → UNAVAILABLE.
    """

    def __init__(self, code: StatusCode, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text
