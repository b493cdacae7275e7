"""`python -m services.router`: the router as a process."""

from services.router.service import Router
from shared.lifecycle import main

if __name__ == "__main__":
    main("router", Router.from_settings)
