"""A mail leaves only on fresh knowledge: where Redis does not say in time what has become of it, it is kept back."""

from collections.abc import Iterator

import pytest

from simulators.mailbox import Mailbox, Rule
from tests.faults.valkey import Valkey
from tests.mails import mail, put
from tests.queueing import receipt
from tests.waiting import wait_for
from tests.working import Running, mailroom, working

ANSWER_SECONDS = 2
"""How long Redis is waited for: longer than the worker's own blocks."""


@pytest.fixture
def mailbox() -> Iterator[Mailbox]:
    with Mailbox().run_in_thread() as mailbox:
        yield mailbox


def at_the_relay(valkey: Valkey, mailbox: Mailbox, seconds: float) -> None:
    """One mail, whose recipient takes the relay so long."""
    put(valkey.redis, [mail("requested")])
    mailbox.rules.append(slow := Rule("rcpt", delay=seconds))
    wait_for(lambda: slow.obeyed == 1, "the relay thinks about the recipient")
    mailbox.rules.clear()


def is_left_without_a_mail(mailbox: Mailbox) -> bool:
    assert not mailbox.mails, "it left on old knowledge"
    return not mailbox.open


def is_sent_once(valkey: Valkey, mailbox: Mailbox, running: Running) -> None:
    wait_for(lambda: receipt(valkey.redis, mail("requested")), "the mail is settled", 20)
    wait_for(lambda: running.worker.trouble is None, "the worker is well", 20)
    assert receipt(valkey.redis, mail("requested"))["perhaps"] == "0"
    assert len(mailbox.mails) == 1


def test_without_redis_a_mail_does_not_leave_and_is_sent_when_redis_is_back(valkey: Valkey, mailbox: Mailbox) -> None:
    with working(valkey.url, mailroom(mailbox)) as running:
        at_the_relay(valkey, mailbox, seconds=4)
        valkey.stop()
        wait_for(lambda: is_left_without_a_mail(mailbox), "the connection is given up")
        valkey.start()
        is_sent_once(valkey, mailbox, running)


def test_a_redis_that_is_silent_keeps_mails_back_after_one_try_to_ask(valkey: Valkey, mailbox: Mailbox) -> None:
    with working(f"{valkey.url}?socket_timeout={ANSWER_SECONDS}", mailroom(mailbox)) as running:
        at_the_relay(valkey, mailbox, seconds=8)
        with valkey.hanging():
            wait_for(lambda: is_left_without_a_mail(mailbox), "the connection is given up", 20)
        is_sent_once(valkey, mailbox, running)


def test_a_redis_that_is_slow_keeps_nothing_back(valkey: Valkey, mailbox: Mailbox) -> None:
    """Otherwise no mail could leave at all whose relay takes its time as well."""
    with working(valkey.url, mailroom(mailbox)) as running:
        at_the_relay(valkey, mailbox, seconds=4)
        with valkey.hanging():
            wait_for(lambda: mailbox.mails, "the mail leaves while Redis is being asked")
        is_sent_once(valkey, mailbox, running)
