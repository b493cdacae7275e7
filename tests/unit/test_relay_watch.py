"""What a mailer says about a held relay."""

import logging

import pytest

from services.mailer.relay_watch import RelayWatch
from shared.mail_queue.mailer_end import Claims
from shared.relay import RelayState
from tests.counting import CountingMetrics


def test_a_relays_answer_is_logged_without_the_address_in_it(caplog: pytest.LogCaptureFixture) -> None:
    state = RelayState(held="credentials", detail="530 5.7.1 <ann@example.com>: log in first, bob@example.org")
    with caplog.at_level(logging.INFO):
        RelayWatch(CountingMetrics()).sees(Claims([], [], pause=1, is_probe=False, relay=state))
    (said,) = caplog.messages
    assert "530 5.7.1 <address>: log in first, <address>)" in said
    assert "example" not in said
