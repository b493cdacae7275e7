"""What a relay's answers mean: the table of examples that operators meet, and its laws for all others."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.mailer.errors import DeliveryError, Held, Refusal, Refused, Trouble, Unavailable
from services.mailer.transports.smtp_answers import (
    PREPARATION,
    TRANSACTION,
    BrokenOffError,
    Fate,
    Meaning,
    Reply,
    Stage,
    judged,
    meaning,
    unanswered,
)

LATER, DEAD, HELD = Fate.LATER, Fate.DEAD, Fate.HELD
CONNECT, GREETING, TLS, EHLO, AUTH, MAIL, RCPT, DATA, CONTENT = Stage

EXAMPLES = [
    # before MAIL
    (GREETING, "421 4.7.0 Too many connections", HELD, Trouble.BUSY),
    (GREETING, "554 5.7.1 No SMTP service here", HELD, Trouble.CONNECT),
    (GREETING, "450 4.3.2 All screening ports are busy", HELD, Trouble.BUSY),
    (GREETING, "220-", HELD, Trouble.CONNECT),
    (EHLO, "550 Bad HELO", HELD, Trouble.CONNECT),
    (EHLO, "421 4.3.2 Shutting down", HELD, Trouble.BUSY),
    (TLS, "454 4.7.0 TLS not available", HELD, Trouble.TLS),
    (TLS, "501 No parameters allowed", HELD, Trouble.TLS),
    (AUTH, "535 5.7.8 Authentication failed", HELD, Trouble.CREDENTIALS),
    (AUTH, "535 Incorrect authentication data", HELD, Trouble.CREDENTIALS),
    (AUTH, "534 5.7.9 Mechanism too weak", HELD, Trouble.CREDENTIALS),
    (AUTH, "432 4.7.12 A password transition is needed", HELD, Trouble.CREDENTIALS),
    (AUTH, "432 4.3.2 Concurrent connections limit exceeded", HELD, Trouble.BUSY),
    (AUTH, "454 4.7.0 Temporary authentication failure", HELD, Trouble.TEMPORARY),
    (AUTH, "421 4.7.0 Too many errors", HELD, Trouble.BUSY),
    # the login is not enough
    (MAIL, "530 5.7.0 Must issue a STARTTLS command first", HELD, Trouble.CREDENTIALS),
    (MAIL, "530 5.7.57 Client not authenticated to send mail", HELD, Trouble.CREDENTIALS),
    (MAIL, "554 5.7.0 Not authenticated", HELD, Trouble.CREDENTIALS),
    (MAIL, "550 5.7.8 Log in", HELD, Trouble.CREDENTIALS),
    (MAIL, "538 5.7.11 Encryption required", HELD, Trouble.CREDENTIALS),
    (RCPT, "530 Authentication required", LATER, Trouble.CREDENTIALS),
    (DATA, "535 5.7.8 Log in", LATER, Trouble.CREDENTIALS),
    (CONTENT, "530 5.7.1 Authentication required", LATER, Trouble.CREDENTIALS),
    # the relay's limits
    (MAIL, "421 4.4.2 Idle too long", LATER, Trouble.BUSY),
    (MAIL, "450 4.7.1 Error: too much mail from 192.0.2.1", LATER, Trouble.BUSY),
    (MAIL, "451 4.3.2 Please try again later", LATER, Trouble.BUSY),
    (DATA, "432 4.3.2 Concurrent connections limit exceeded", LATER, Trouble.BUSY),
    (RCPT, "451 4.4.5 System is congested", LATER, Trouble.BUSY),
    (RCPT, "421 Closing", LATER, Trouble.BUSY),
    (CONTENT, "421 4.3.2 Shutting down", LATER, Trouble.BUSY),
    # this mail's own, for now
    (MAIL, "452 4.3.1 Insufficient system storage", LATER, Trouble.TEMPORARY),
    (RCPT, "450 4.7.1 Greylisted", LATER, Trouble.TEMPORARY),
    (RCPT, "450 4.2.1 Mailbox disabled", LATER, Trouble.TEMPORARY),
    (RCPT, "452 4.2.2 Mailbox full", LATER, Trouble.TEMPORARY),
    (CONTENT, "451 4.3.0 Milter is away", LATER, Trouble.TEMPORARY),
    (CONTENT, "452 Disk full", LATER, Trouble.TEMPORARY),
    (CONTENT, "450 5.7.1 Reply code and enhanced code disagree", LATER, Trouble.TEMPORARY),
    # never
    (MAIL, "552 5.3.4 Message size exceeds fixed limit", DEAD, Refusal.MESSAGE_REFUSED),
    (MAIL, "552 Too large", DEAD, Refusal.MESSAGE_REFUSED),
    (MAIL, "554 5.3.4 Too large", DEAD, Refusal.MESSAGE_REFUSED),
    (MAIL, "550 5.7.1 Client may not send as this sender", DEAD, Refusal.SENDER_REFUSED),
    (MAIL, "553 5.1.8 Bad sender's system address", DEAD, Refusal.SENDER_REFUSED),
    (MAIL, "500 5.3.0 Error: command failed", DEAD, Refusal.SENDER_REFUSED),
    (MAIL, "550 5.6.7 SMTPUTF8 is needed", DEAD, Refusal.NO_SMTPUTF8),
    (RCPT, "553 5.6.7 SMTPUTF8 is needed", DEAD, Refusal.NO_SMTPUTF8),
    (RCPT, "550 5.1.1 No such user", DEAD, Refusal.RECIPIENT_REFUSED),
    (RCPT, "554 5.7.1 Relay access denied", DEAD, Refusal.RECIPIENT_REFUSED),
    (RCPT, "552 5.2.2 Mailbox full", DEAD, Refusal.RECIPIENT_REFUSED),
    (RCPT, "550 4.2.1 Reply code and enhanced code disagree", DEAD, Refusal.RECIPIENT_REFUSED),
    (DATA, "554 5.5.1 Error: no valid recipients", DEAD, Refusal.MESSAGE_REFUSED),
    (CONTENT, "550 5.7.1 Looks like spam", DEAD, Refusal.MESSAGE_REFUSED),
    (CONTENT, "552 5.3.4 Too large", DEAD, Refusal.MESSAGE_REFUSED),
    (CONTENT, "554 5.2.2 Mailbox full", DEAD, Refusal.RECIPIENT_REFUSED),
    (CONTENT, "550 5.1.10 Recipient not found", DEAD, Refusal.RECIPIENT_REFUSED),
    (CONTENT, "550 5.1.8 Sender is blocked", DEAD, Refusal.MESSAGE_REFUSED),
    (CONTENT, "554 Transaction failed", DEAD, Refusal.MESSAGE_REFUSED),
    # nonsense
    (MAIL, "503 5.5.1 Nested MAIL command", LATER, Trouble.PROTOCOL),
    (MAIL, "354 Go on", LATER, Trouble.PROTOCOL),
    (DATA, "250 Fine", LATER, Trouble.PROTOCOL),
    (CONTENT, "354 Go on", LATER, Trouble.PROTOCOL),
    (CONTENT, "999 What?", LATER, Trouble.PROTOCOL),
]


def reply(text: str) -> Reply:
    code, _, rest = text.partition(" ")
    return Reply(int(code.rstrip("-")), rest)


@pytest.mark.parametrize(("stage", "answer", "fate", "reason"), EXAMPLES, ids=str)
def test_an_answer_means(stage: Stage, answer: str, fate: Fate, reason: Trouble | Refusal) -> None:
    found = reply(answer)
    assert meaning(stage, found.code, found.enhanced) == Meaning(fate, reason)
    kinds: dict[Fate, type[DeliveryError]] = {LATER: Unavailable, DEAD: Refused, HELD: Held}
    error = judged(stage, found)
    assert isinstance(error, kinds[fate])
    assert isinstance(error, Unavailable | Held | Refused)
    assert (error.reason, error.code) == (reason, found.code)


codes = st.integers(min_value=0, max_value=999)
enhanced_codes = st.just("") | st.from_regex(r"[245]\.[0-9]{1,3}\.[0-9]{1,3}", fullmatch=True)
stages = st.sampled_from(list(Stage))


@given(stages, codes, enhanced_codes)
def test_every_answer_means_exactly_one_thing(stage: Stage, code: int, enhanced: str) -> None:
    found = meaning(stage, code, enhanced)
    assert isinstance(found.reason, Refusal) is (found.fate is DEAD)
    error = judged(stage, Reply(code, f"{enhanced} text"))
    assert isinstance(error, Unavailable | Held | Refused)


@given(st.sampled_from(PREPARATION), codes, enhanced_codes)
def test_what_precedes_mail_is_never_a_mails_fault(stage: Stage, code: int, enhanced: str) -> None:
    assert meaning(stage, code, enhanced).fate is HELD


@given(st.sampled_from(TRANSACTION), codes, enhanced_codes)
def test_only_5yz_kills(stage: Stage, code: int, enhanced: str) -> None:
    found = meaning(stage, code, enhanced)
    if code // 100 == 4:
        assert found.fate is LATER
    if code // 100 == 5:
        disagreement = code == 503 and stage is not CONTENT
        other_login = code in (530, 534, 535, 538) and stage is not MAIL
        assert found.fate is LATER if disagreement or other_login else found.fate in (DEAD, HELD)
    else:
        assert found.fate is LATER


@given(st.sampled_from([RCPT, DATA, CONTENT]), st.sampled_from([550, 551, 552, 553, 554]), enhanced_codes)
def test_what_concerns_one_mail_holds_no_other(stage: Stage, code: int, enhanced: str) -> None:
    assert meaning(stage, code, enhanced).fate is DEAD


@pytest.mark.parametrize(("stage", "perhaps"), [(MAIL, False), (RCPT, False), (DATA, False), (CONTENT, True)])
@pytest.mark.parametrize("trouble", [Trouble.TIMEOUT, Trouble.CONNECTION_LOST, Trouble.PROTOCOL])
def test_silence_after_the_content_alone_leaves_a_mail_in_doubt(
    stage: Stage, trouble: Trouble, *, perhaps: bool
) -> None:
    error = unanswered(stage, BrokenOffError(trouble, "nothing"))
    assert isinstance(error, Unavailable)
    assert (error.reason, error.perhaps, error.code) == (trouble, perhaps, None)


@pytest.mark.parametrize(
    ("stage", "trouble", "reason"),
    [
        (CONNECT, Trouble.TIMEOUT, Trouble.CONNECT),
        (GREETING, Trouble.CONNECTION_LOST, Trouble.CONNECT),
        (EHLO, Trouble.PROTOCOL, Trouble.CONNECT),
        (TLS, Trouble.CONNECTION_LOST, Trouble.TLS),
        (CONNECT, Trouble.TLS, Trouble.TLS),
        (AUTH, Trouble.TIMEOUT, Trouble.TIMEOUT),
        (AUTH, Trouble.CONNECTION_LOST, Trouble.CONNECTION_LOST),
    ],
)
def test_silence_before_mail_holds_all(stage: Stage, trouble: Trouble, reason: Trouble) -> None:
    error = unanswered(stage, BrokenOffError(trouble, "nothing"))
    assert isinstance(error, Held)
    assert error.reason is reason


@pytest.mark.parametrize(
    ("text", "enhanced"),
    [
        ("5.1.1 no such user", "5.1.1"),
        ("4.7.500", "4.7.500"),
        ("", ""),
        ("version 5.1.1", ""),
        ("5.1.1.1 is an address", ""),
        ("6.1.1 is none", ""),
        ("5.1234.1 is none", ""),
    ],
)
def test_an_enhanced_code_begins_the_answer(text: str, enhanced: str) -> None:
    assert Reply(550, text).enhanced == enhanced


def test_an_answer_is_kept_as_one_short_line() -> None:
    assert str(Reply(550, "5.1.1 no\n5.1.1 such\x1b[1m user")) == "550 5.1.1 no 5.1.1 such [1m user"
    assert len(str(Reply(550, "x" * 10_000))) == 500
