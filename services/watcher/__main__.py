"""`python -m services.watcher`: the watcher as a process."""

from services.watcher.service import Watcher
from shared.lifecycle import main

if __name__ == "__main__":
    main("watcher", Watcher.from_settings)
