"""What a mailer says about a held relay."""

import logging

import pytest

from services.mailer.relay_watch import RelayWatch
from shared.mail_queue.mailer_end import Claims
from shared.relay import RelayState
from tests.counting import CountingMetrics


def seen(watch: RelayWatch, state: RelayState) -> None:
    watch.sees(Claims([], [], canceled=0, faults=[], pause=1, is_probe=False, relay=state))


def test_a_relays_answer_is_logged_without_the_address_in_it(caplog: pytest.LogCaptureFixture) -> None:
    state = RelayState(held="credentials", detail="530 5.7.1 <ann@example.com>: log in first, bob@example.org")
    with caplog.at_level(logging.INFO):
        seen(RelayWatch(CountingMetrics()), state)
    (said,) = caplog.messages
    assert "530 5.7.1 <address>: log in first, <address>)" in said
    assert "example" not in said


def test_a_mailer_that_alone_is_turned_away_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    watch = RelayWatch(CountingMetrics())
    with caplog.at_level(logging.INFO):
        for changed in (1, 2):
            seen(watch, RelayState(turns_us_away="tls", detail="unknown CA, ask <ann@example.com>", changed=changed))
        told = [watch.turns_us_away]
        seen(watch, RelayState(changed=2))
    assert [*told, watch.turns_us_away] == [
        "the relay turns only this mailer away (tls: unknown CA, ask <address>)",
        None,
    ]
    first, last = caplog.messages
    assert first.startswith("the relay turns only this mailer away (tls: unknown CA, ask <address>); others send")
    assert last == "the relay does not turn this mailer away any more"


@pytest.mark.parametrize("between", [RelayState(turns_us_away="busy"), RelayState(held="connect")])
def test_what_comes_between_does_not_hide_the_end_of_being_turned_away(
    caplog: pytest.LogCaptureFixture, between: RelayState
) -> None:
    watch = RelayWatch(CountingMetrics())
    alone = RelayState(turns_us_away="connect", detail="refused")
    with caplog.at_level(logging.INFO):
        for state in (alone, between, alone, between, RelayState(changed=2)):
            seen(watch, state)
    said = [message for message in caplog.messages if "this mailer away" in message]
    first, last = said
    assert first.startswith("the relay turns only this mailer away")
    assert last == "the relay does not turn this mailer away any more"


def test_a_relay_that_is_merely_busy_leaves_a_mailer_ready() -> None:
    watch = RelayWatch(CountingMetrics())
    seen(watch, RelayState(turns_us_away="busy", detail="421 too many connections"))
    assert watch.turns_us_away is None
