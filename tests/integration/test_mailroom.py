"""The way of a mail through the mailroom, from its claim to what became of it, with a real relay at its end."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from services.mailer.mailroom import Mailroom
from services.mailer.metrics import Metrics
from services.mailer.mime import Mailbox as Sender
from services.mailer.settings import MailerConfiguration
from shared.events import RequestState
from shared.mail import Dead, Delivered, Dropped, Held, Later, Met, Outcome, Receipt, Recipient, Verdict, Why
from shared.settings import Settings, SettingsError
from simulators.mailbox import Mailbox, Rule
from simulators.mailgun import Answer, Mailgun
from tests.claimed_mails import BOB, CLAIMED_AT, CREATED, REQUEST_ENDS, REQUEST_ID, REVIEWS, claimed, facts, mail
from tests.scripted_relay import Line, ScriptedRelay
from tests.waiting import wait_until

DELIVERY = {"sender": "Zugriff für alle <access@bücher.example>"}


def held() -> bool:
    return True


@pytest.fixture
async def mailbox() -> AsyncIterator[Mailbox]:
    """A relay that takes everything, in the clear."""
    async with Mailbox() as mailbox:
        yield mailbox
        await wait_until(lambda: not mailbox.open, "the relay is left")


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@asynccontextmanager
async def mailroom(registry: CollectorRegistry, **sections: Any) -> AsyncIterator[Mailroom]:
    settings = Settings.model_validate({"delivery": DELIVERY} | sections)
    mailroom = Mailroom.from_settings(MailerConfiguration.of(settings), Metrics(registry))
    try:
        yield mailroom
    finally:
        await mailroom.close()


def smtp(mailbox: Mailbox, **options: Any) -> dict[str, Any]:
    return {"host": "localhost", "port": mailbox.port, "starttls_policy": "disabled"} | options


async def test_a_mail_goes_out_and_its_verdict_is_the_relays_answer(
    mailbox: Mailbox, registry: CollectorRegistry
) -> None:
    async with mailroom(registry, smtp=smtp(mailbox)) as room:
        verdict = await room.deliver(claimed(), held)
    assert verdict == Delivered("250 2.0.0 OK: mail 1")
    received = mailbox.mails[0]
    assert (received.sender, received.recipient) == ("access@xn--bcher-kva.example", "bob@example.com")
    assert received.message["from"].addresses[0].display_name == "Zugriff für alle"
    assert received.message["date"].datetime == CLAIMED_AT
    assert received.message_id == f"<{mail().id}@xn--bcher-kva.example>"
    assert received.subject == f"Access request {REQUEST_ID} on prod"
    assert "The billing job hangs" in received.text
    assert "The billing job hangs" in received.html
    assert mailbox.thread(REQUEST_ID) == [received]


async def test_the_mails_of_a_thread_find_each_other(mailbox: Mailbox, registry: CollectorRegistry) -> None:
    settled = facts(state=RequestState.APPROVED, reviews=REVIEWS)
    async with mailroom(registry, smtp=smtp(mailbox)) as room:
        await room.deliver(claimed(), held)
        await room.deliver(claimed("reviewed-1", facts(reviews=REVIEWS)), held)
        await room.deliver(claimed("approved", settled), held)
    first, review, resolution = mailbox.mails
    assert first.message["in-reply-to"] == f"<{mail().thread}@xn--bcher-kva.example>"
    assert review.references == resolution.references == (*first.references, first.message_id)
    assert review.subject == resolution.subject == f"Re: {first.subject}"


async def test_a_retried_mail_is_the_same_mail(mailbox: Mailbox, registry: CollectorRegistry) -> None:
    async with mailroom(registry, smtp=smtp(mailbox)) as room:
        for _ in range(2):
            await room.deliver(claimed(attempts=1), held)
    assert list(mailbox.duplicates().values()) == [2]
    assert mailbox.mails[0].raw == mailbox.mails[1].raw


async def test_where_all_mailers_share_connections_none_is_kept_for_long(
    mailbox: Mailbox, registry: CollectorRegistry
) -> None:
    async with mailroom(registry, smtp=smtp(mailbox), mailer={"connections_of_all": 2}) as room:
        await room.deliver(claimed(), held)
        assert mailbox.open
        await wait_until(lambda: not mailbox.open, "the relay is left, for others")


async def test_an_unwanted_mail_reaches_no_relay(mailbox: Mailbox, registry: CollectorRegistry) -> None:
    async with mailroom(registry, smtp=smtp(mailbox)) as room:
        assert await room.deliver(claimed(receipt=Receipt(Outcome.DELIVERED)), held) == Dropped("already_settled")
        late = claimed(now=(REQUEST_ENDS + timedelta(hours=1)).timestamp())
        assert await room.deliver(late, held) == Dead("expired_unsent")
    assert mailbox.connections == 0


async def test_a_refusal_is_a_dead_letter_with_the_relays_answer(mailbox: Mailbox, registry: CollectorRegistry) -> None:
    mailbox.rules = [Rule("rcpt", "550 5.1.1 no such user")]
    async with mailroom(registry, smtp=smtp(mailbox)) as room:
        assert await room.deliver(claimed(), held) == Dead("recipient_refused", "550 5.1.1 no such user")


async def test_a_refusal_of_our_own_address_is_no_dead_letter(mailbox: Mailbox, registry: CollectorRegistry) -> None:
    mailbox.rules = [Rule("mail", "550 5.7.1 sender not allowed")]
    async with mailroom(registry, smtp=smtp(mailbox)) as room:
        verdict = await room.deliver(claimed(), held)
    assert isinstance(verdict, Later)
    assert (verdict.reason, verdict.met) == ("sender_refused", Met.REFUSED_US)


async def test_a_login_that_is_wanted_for_one_recipient_holds_nobody_else(
    mailbox: Mailbox, registry: CollectorRegistry
) -> None:
    mailbox.rules = [Rule("rcpt", "530 5.7.1 log in first", recipient=BOB.address)]
    async with mailroom(registry, smtp=smtp(mailbox)) as room:
        verdict = await room.deliver(claimed(), held)
        assert isinstance(verdict, Later)
        assert (verdict.reason, verdict.met) == ("credentials", Met.REFUSED_US)
        ann = mail(recipient=Recipient(address="ann@example.com", why=Why.DEFAULT))
        assert isinstance(await room.deliver(claimed(mail=ann), held), Delivered)
    assert mailbox.connections == 2, "another login may do"


@pytest.mark.parametrize("address", ["bob", "b" * 260 + "@example.com", "bob@" + "ü" * 70 + ".example"])
async def test_an_address_that_is_none_is_a_dead_letter(
    mailbox: Mailbox, registry: CollectorRegistry, address: str
) -> None:
    nobody = mail(recipient=Recipient(address=address, why=Why.DEFAULT))
    async with mailroom(registry, smtp=smtp(mailbox)) as room:
        verdict = await room.deliver(claimed(mail=nobody), held)
    assert isinstance(verdict, Dead)
    assert (verdict.reason, mailbox.connections) == ("address_invalid", 0)


async def test_trouble_is_a_pause_that_grows_and_keeps_the_relays_hint(
    mailbox: Mailbox, registry: CollectorRegistry
) -> None:
    mailbox.rules = [Rule("rcpt", "450 4.2.0 greylisted", times=2), Rule("rcpt", "450 4.2.0 try again in 300 seconds")]
    async with mailroom(registry, smtp=smtp(mailbox), mailer={"first_pause": "10s", "longest_pause": "1m"}) as room:
        verdicts = [await room.deliver(claimed(attempts=attempts), held) for attempts in (0, 1, 2)]
    first, second, third = (verdict for verdict in verdicts if isinstance(verdict, Later))
    assert {first.reason, second.reason, third.reason} == {"temporary"}
    assert first.pause <= 10
    assert second.pause <= 40
    assert 300 <= third.pause <= 330
    assert third.detail == "450 4.2.0 try again in 300 seconds"


async def test_a_busy_relay_is_no_failure_of_a_mail_and_its_pause_grows_with_time(
    mailbox: Mailbox, registry: CollectorRegistry
) -> None:
    mailbox.rules = [Rule("mail", "450 4.7.1 too much mail")]
    async with mailroom(registry, smtp=smtp(mailbox), mailer={"first_pause": "10s"}) as room:
        long_tried = claimed(first_tried=CLAIMED_AT.timestamp() - 3600)
        verdicts = [await room.deliver(long_tried, held) for _ in range(200)]
    pauses = [verdict.pause for verdict in verdicts if isinstance(verdict, Later) and verdict.met is Met.BUSY]
    assert len(pauses) == len(verdicts)
    assert 10 < max(pauses) <= 40, "of two hundred chances one is beyond the first pause"


async def test_a_pause_does_not_pass_the_mails_deadline(mailbox: Mailbox, registry: CollectorRegistry) -> None:
    mailbox.rules = [Rule("rcpt", "450 4.2.0 try again in 3000 seconds")]
    ten_minutes_left = (REQUEST_ENDS - timedelta(minutes=8)).timestamp()
    seconds_left = (REQUEST_ENDS + timedelta(minutes=1, seconds=59)).timestamp()
    async with mailroom(registry, smtp=smtp(mailbox), mailer={"first_pause": "10s"}) as room:
        for now, pause in ((ten_minutes_left, 300), (seconds_left, 5)):
            verdict = await room.deliver(claimed(now=now), held)
            assert isinstance(verdict, Later)
            assert verdict.pause == pause
        revived = await room.deliver(claimed(now=seconds_left, revived=True), held)
        assert isinstance(revived, Later)
        assert revived.pause == 5


async def test_a_relay_that_is_down_makes_no_dead_letter(mailbox: Mailbox, registry: CollectorRegistry) -> None:
    async with mailroom(registry, smtp=smtp(mailbox)) as room:
        await mailbox.stop()
        verdict = await room.deliver(claimed(), held)
        await mailbox.start()
        assert isinstance(verdict, Held)
        assert verdict.reason == "connect"
        assert await room.deliver(claimed(), held) == Delivered("250 2.0.0 OK: mail 1")


async def test_a_lost_answer_is_kept_in_mind(mailbox: Mailbox, registry: CollectorRegistry) -> None:
    mailbox.rules = [Rule("accepted", drop=True)]
    async with mailroom(registry, smtp=smtp(mailbox)) as room:
        verdict = await room.deliver(claimed(), held)
    assert isinstance(verdict, Later)
    assert (verdict.reason, verdict.perhaps) == ("connection_lost", True)


async def test_a_lost_answer_ends_the_mail_where_none_may_come_twice(
    mailbox: Mailbox, registry: CollectorRegistry
) -> None:
    mailbox.rules = [Rule("accepted", drop=True)]
    async with mailroom(registry, smtp=smtp(mailbox), mailer={"on_ambiguous": "dead"}) as room:
        verdict = await room.deliver(claimed(), held)
        assert isinstance(verdict, Dead)
        assert (verdict.reason, verdict.perhaps, len(mailbox.mails)) == ("ambiguous", True, 1)
        left_by_the_dead = await room.deliver(claimed(perhaps=True), held)
        assert isinstance(left_by_the_dead, Dead)
        assert (left_by_the_dead.reason, left_by_the_dead.perhaps, len(mailbox.mails)) == ("ambiguous", True, 1)
        mailbox.rules = []
        assert isinstance(await room.deliver(claimed(revived=True), held), Delivered)


async def test_a_mail_that_surely_did_not_leave_is_tried_again_even_where_none_may_come_twice(
    mailbox: Mailbox, registry: CollectorRegistry
) -> None:
    mailbox.rules = [Rule("rcpt", drop=True)]
    async with mailroom(registry, smtp=smtp(mailbox), mailer={"on_ambiguous": "dead"}) as room:
        assert isinstance(await room.deliver(claimed(), held), Later)


async def test_a_lost_claim_ends_it_without_a_mail_and_without_a_pause(
    mailbox: Mailbox, registry: CollectorRegistry
) -> None:
    async with mailroom(registry, smtp=smtp(mailbox)) as room:
        assert await room.deliver(claimed(), lambda: False) == Later(0, "claim_lost")
    assert mailbox.mails == []


async def test_a_cancellation_passes_through(mailbox: Mailbox, registry: CollectorRegistry) -> None:
    rule = Rule("rcpt", delay=60)
    mailbox.rules = [rule]
    async with mailroom(registry, smtp=smtp(mailbox)) as room:
        sending = asyncio.create_task(room.deliver(claimed(), held))
        await wait_until(lambda: rule.obeyed, "the relay dawdles")
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
    assert registry.get_sample_value("access_mail_mailer_mails_in_flight") == 0


async def test_no_more_connections_than_configured_are_open_at_once(
    mailbox: Mailbox, registry: CollectorRegistry
) -> None:
    async with mailroom(registry, smtp=smtp(mailbox), mailer={"connections": 2}) as room:
        await asyncio.gather(*(room.deliver(claimed(), held) for _ in range(10)))
    assert (len(mailbox.mails), mailbox.connections) == (10, 2)


@pytest.mark.parametrize(
    ("options", "name"), [({}, "xn--bcher-kva.example"), ({"ehlo_name": "mailer.example.net"}, "mailer.example.net")]
)
async def test_the_relay_is_greeted_with_the_name_that_is_configured(
    registry: CollectorRegistry, options: dict[str, str], name: str
) -> None:
    async def script(line: Line) -> None:
        line.say("220 relay.test")
        assert await line.hear() == f"EHLO {name.upper()}"
        line.say("421 enough")

    async with ScriptedRelay(script) as relay:
        section = {"host": "localhost", "port": relay.port, "starttls_policy": "disabled"} | options
        async with mailroom(registry, smtp=section) as room:
            assert isinstance(await room.deliver(claimed(), held), Held)


async def test_mailgun_is_a_relay_like_any_other(registry: CollectorRegistry) -> None:
    with Mailgun(domain="mg.example.com", key="secret") as mailgun:
        section = {"domain": "mg.example.com", "private_key": "secret", "base_url": mailgun.url}
        async with mailroom(registry, mailgun=section) as room:
            assert isinstance(await room.deliver(claimed(), held), Delivered)
        assert mailgun.mails[0].message_id == f"<{mail().id}@xn--bcher-kva.example>"


async def test_the_relay_can_be_asked_and_told_to_read_its_files_again(
    mailbox: Mailbox, registry: CollectorRegistry, tmp_path: Path
) -> None:
    file = tmp_path / "password"
    file.write_text("secret")
    mailbox.users = {"alice": "secret"}
    async with mailroom(registry, smtp=smtp(mailbox, username="alice", password_file=file)) as room:
        assert (await room.relay.check()).startswith("220 ")
        room.relay.reload()
        file.unlink()
        with pytest.raises(SettingsError):
            room.relay.reload()


# -- what is counted


async def test_answers_of_the_relay_are_counted_by_class(mailbox: Mailbox, registry: CollectorRegistry) -> None:
    mailbox.rules = [
        Rule("rcpt", "550 5.1.1 no such user", times=1),
        Rule("rcpt", "450 4.2.0 later", times=1),
        Rule("rcpt", drop=True, times=1),
    ]
    async with mailroom(registry, smtp=smtp(mailbox)) as room:
        for _ in range(4):
            await room.deliver(claimed(), held)
    classes = ("2xx", "3xx", "4xx", "5xx", "none")
    name = "access_mail_mailer_relay_answers_total"
    assert [registry.get_sample_value(name, {"class": class_}) for class_ in classes] == [1, 0, 1, 1, 1]


async def test_a_mail_that_is_not_sent_because_of_a_pause_has_not_met_the_relay(registry: CollectorRegistry) -> None:
    with Mailgun(domain="mg.example.com", key="secret") as mailgun:
        mailgun.answers = [Answer(429, retry_after="120")]
        section = {"domain": "mg.example.com", "private_key": "secret", "base_url": mailgun.url}
        async with mailroom(registry, mailgun=section) as room:
            verdicts = [await room.deliver(claimed(), held) for _ in range(2)]
        assert mailgun.requests == 1
    met = [(verdict.reason, verdict.met) for verdict in verdicts if isinstance(verdict, Later)]
    assert met == [("busy", Met.BUSY), ("busy", Met.NOT)]
    name = "access_mail_mailer_relay_answers_total"
    assert [registry.get_sample_value(name, {"class": class_}) for class_ in ("4xx", "none")] == [1, 0]


def test_answers_in_doubt_are_counted_whatever_becomes_of_their_mails(registry: CollectorRegistry) -> None:
    metrics = Metrics(registry)
    for verdict in (Later(1, "timeout", perhaps=True), Dead("ambiguous", perhaps=True), Later(1, "timeout")):
        metrics.settled(verdict, claimed(), CLAIMED_AT.timestamp())
    assert registry.get_sample_value("access_mail_mailer_ambiguous_answers_total") == 2


def test_every_outcome_is_there_from_the_start_and_counted(registry: CollectorRegistry) -> None:
    metrics, name = Metrics(registry), "access_mail_mailer_mails_total"
    verdicts: list[Verdict] = [Delivered("250 ok"), Later(1, "tls"), Dropped("settled"), Dead("too_late")]
    labels = [("delivered", "accepted"), ("later", "tls"), ("dropped", "settled"), ("dead", "too_late")]
    for expected in (0, 1):
        counts = [registry.get_sample_value(name, {"outcome": o, "reason": reason}) for o, reason in labels]
        assert counts == [expected] * 4
        for verdict in verdicts:
            metrics.settled(verdict, claimed(), CLAIMED_AT.timestamp())
        assert registry.get_sample_value(name, {"outcome": "dropped", "reason": "canceled"}) == expected
        metrics.canceled(1)


def test_the_time_from_request_to_acceptance_is_that_of_first_mails(registry: CollectorRegistry) -> None:
    metrics, name = Metrics(registry), "access_mail_request_to_accept_seconds"
    accepted_at = (CREATED + timedelta(seconds=40)).timestamp()
    for mail_ in (claimed(), claimed("reviewed-1", facts(reviews=REVIEWS)), claimed(known=None), None):
        metrics.settled(Delivered("250 ok"), mail_, accepted_at)
    assert registry.get_sample_value(f"{name}_count") == 1
    assert registry.get_sample_value(f"{name}_sum") == 40
    assert registry.get_sample_value("access_mail_mailer_last_success_timestamp_seconds") == accepted_at


# -- what the mailer needs of the configuration


def configuration(**sections: Any) -> MailerConfiguration:
    return MailerConfiguration.of(Settings.model_validate(sections))


SMTP = {"host": "localhost"}


@pytest.mark.parametrize(
    ("sections", "faults"),
    [
        ({}, ["smtp: no relay", "delivery.sender: "]),
        (
            {"smtp": SMTP, "mailgun": {"domain": "d", "private_key": "k"}, "delivery": DELIVERY},
            ["mailgun: there are two"],
        ),
        ({"mailgun": {"domain": "d"}, "delivery": DELIVERY}, ["mailgun.private_key: missing"]),
        ({"smtp": SMTP | {"username": "alice"}, "delivery": DELIVERY}, ["smtp.password: missing"]),
        ({"smtp": SMTP | {"password": "secret"}, "delivery": DELIVERY}, ["smtp.username: missing"]),
        ({"smtp": SMTP | {"oauth_token_file": "/token"}, "delivery": DELIVERY}, ["smtp.username: missing"]),
        (
            {"smtp": SMTP | {"username": "a", "password": "b", "oauth_token_file": "/token"}, "delivery": DELIVERY},
            ["smtp.oauth_token_file: there is a password as well"],
        ),
        (
            {"smtp": SMTP | {"client_key_file": "/key"}, "delivery": DELIVERY},
            ["smtp.client_cert_file: missing"],
        ),
        (
            {"smtp": SMTP, "delivery": DELIVERY | {"message_id_domain": "a b"}},
            ["delivery.message_id_domain: no domain"],
        ),
    ],
)
def test_what_is_missing_is_told_in_one_line_each(sections: dict[str, Any], faults: list[str]) -> None:
    with pytest.raises(SettingsError) as caught:
        configuration(**sections)
    assert len(caught.value.faults) == len(faults)
    assert all(told.startswith(fault) for told, fault in zip(caught.value.faults, faults, strict=True))


def test_a_sender_and_a_relay_without_a_login_are_enough() -> None:
    found = configuration(smtp=SMTP, delivery={"sender": "access@example.com"})
    assert (found.sender, found.message_id_domain) == (Sender("", "access@example.com"), "example.com")


def test_the_domain_of_message_ids_may_be_another() -> None:
    delivery = {"sender": "access@example.com", "message_id_domain": "ids.example.org"}
    assert configuration(smtp=SMTP, delivery=delivery).message_id_domain == "ids.example.org"
