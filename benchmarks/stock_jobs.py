"""The same mail as an ordinary RQ job: rendered as ours, sent by the standard library.

As a program it is RQ's own worker with this module loaded, as RQ advises: else each forked child would load it anew.
"""

import os
import smtplib
import ssl
from functools import cache

from rq.cli.cli import main

from benchmarks.sample import SENDER, content
from shared.mail import Mail
from shared.memory import RequestFacts


def send_on_a_new_connection(mail: str, facts: str) -> None:
    """As a job of RQ's forking worker must: nothing outlives it."""
    with connect() as relay:
        _send(relay, mail, facts)


def send_on_a_kept_connection(mail: str, facts: str) -> None:
    """As a job can in a process that runs many."""
    _send(_kept(), mail, facts)


@cache
def _kept() -> smtplib.SMTP:
    return connect()


def connect() -> smtplib.SMTP:
    """A connection to the relay that the environment names, secured and logged in where it says so."""
    relay = smtplib.SMTP(os.environ["BENCHMARK_RELAY_HOST"], int(os.environ["BENCHMARK_RELAY_PORT"]))
    ca_file = os.environ.get("BENCHMARK_RELAY_CA")
    if ca_file:
        relay.starttls(context=ssl.create_default_context(cafile=ca_file))
        relay.login("access-mail", "secret")
    return relay


def _send(relay: smtplib.SMTP, mail: str, facts: str) -> None:
    parsed = Mail.model_validate_json(mail)
    raw = content(parsed, RequestFacts.model_validate_json(facts))
    relay.sendmail(SENDER, [parsed.recipient.address], raw)


if __name__ == "__main__":
    main()
