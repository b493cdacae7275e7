"""`python -m services.mailer`: a mailer as a process."""

from services.mailer.service import Mailer
from shared.lifecycle import main

if __name__ == "__main__":
    main("mailer", Mailer.from_settings)
