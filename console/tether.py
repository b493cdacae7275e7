"""Runs a command that does not outlive the process that asked for it: `python tether.py PARENT COMMAND ARGUMENT…`.

A script of the standard library alone, because it stands before each child of `access-mail start`, also before Valkey.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
"""prctl(2), Linux: the signal that the kernel sends us when our parent dies. It outlives execve(2)."""


def tie_to(parent: int) -> None:
    """End this process by SIGTERM when its parent does; at once if that has died already. Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        sys.exit(f"process {parent}, which was to be our parent, has ended")


if __name__ == "__main__":
    # A reload that is asked for while the command still starts must not end it.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    tie_to(int(sys.argv[1]))
    os.execv(sys.argv[2], sys.argv[2:])  # noqa: S606 - the caller's own command, no shell
