"""A stand-in for Teleport's Auth Service: real gRPC, real mTLS, real identity files, scripted faults.

`AuthService` is the cluster on the network; its methods are what people do in it, its `faults` what goes wrong.
"""

from simulators.teleport.errors import TraceError
from simulators.teleport.service import AuthService

__all__ = ["AuthService", "TraceError"]
