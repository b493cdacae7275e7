"""`python -m services.router`: the router as a process."""

import signal

# Whoever asks for a reload before we can do it must not end us, also not while the imports below take their time.
signal.signal(signal.SIGHUP, signal.SIG_IGN)

from services.router.service import Router
from shared.lifecycle import main

if __name__ == "__main__":
    main("router", Router.from_settings)
