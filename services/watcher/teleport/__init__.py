"""Everything that knows how Teleport talks: credentials, the way to its Auth Service, the calls, the messages."""

import os

# gRPC's core writes to stderr past all logging, and reads this when it is first imported: below this package.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
