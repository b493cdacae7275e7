"""The web inbox shows people, threads and mails, and gives hostile mails no room."""

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from html.parser import HTMLParser

import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from simulators.inbox import Inbox, as_json, letter
from simulators.mailbox import Mailbox
from simulators.received import ReceivedMail, about, duplicates, threads

ALICE, BOB = "alice@example.com", "bob@example.com"
NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


def mail(
    message_id: str, *references: str, recipient: str = ALICE, subject: str = "Request", html: str = ""
) -> ReceivedMail:
    message = EmailMessage()
    message["Subject"], message["From"], message["To"] = subject, "mailer@example.com", ALICE
    message["X-Access-Mail-Event"] = "requested"
    message["Message-ID"] = f"<{message_id}@x>"
    if references:
        message["References"] = " ".join(f"<{reference}@x>" for reference in references)
    message.set_content("text of " + message_id)
    if html:
        message.add_alternative(html, subtype="html")
    arrived = NOON + timedelta(seconds=len(message_id))
    return ReceivedMail(
        sender="", recipient=recipient, raw=message.as_bytes(), arrived=arrived, connection=1, tls=False
    )


@pytest.fixture
def mailbox() -> Mailbox:
    """A mailbox that need not listen."""
    return Mailbox()


@pytest.fixture
def browser(mailbox: Mailbox) -> Iterator[httpx.Client]:
    """Looks at its inbox."""
    with Inbox(mailbox) as inbox, httpx.Client(base_url=inbox.url, timeout=5) as browser:
        yield browser


def test_people_threads_and_mails_can_be_walked_through(mailbox: Mailbox, browser: httpx.Client) -> None:
    assert "No mail yet" in browser.get("/").text
    mailbox.mails += [mail("r-1", "root"), mail("other", recipient=BOB, subject="Else"), mail("r-2", "root", "r-1")]
    overview = browser.get("/").text
    assert '<a href="/people/alice%40example.com"><span>alice@example.com</span><span class="soft">2</span>' in overview
    assert overview.index(">Else<") < overview.index(">Request<"), "the newest thread comes first"
    person = browser.get("/people/alice%40example.com").text
    assert ">Request<" in person
    assert ">Else<" not in person
    thread = browser.get(f"/threads/{mailbox.mails[0].name}").text
    assert thread.index("text of r-1") < thread.index("text of r-2")
    assert "<th scope=row>X-Access-Mail-Event</th><td>requested</td>" in thread
    last = mailbox.mails[2]
    assert f'<a href="/mails/{last.name}">Source</a>' in thread
    assert browser.get(f"/mails/{last.name}").content == last.raw


def test_only_the_newest_mails_are_kept_all_are_counted_and_links_to_them_stay() -> None:
    mailbox = Mailbox(keep=2)
    with Inbox(mailbox) as inbox, httpx.Client(base_url=inbox.url, timeout=5) as browser:
        mailbox.take(first := mail("r-1"))
        mailbox.take(second := mail("s-1", subject="Second"))
        assert "<small>2 mails</small>" in browser.get("/").text
        mailbox.take(mail("t-1", subject="Third"))
        assert "<small>3 mails, of which the newest 2 are kept</small>" in browser.get("/").text
        assert browser.get("/count.json").json() == 3
        assert len(browser.get("/mails.json").json()) == 2
        assert browser.get(f"/threads/{first.name}").status_code == 404
        assert "text of s-1" in browser.get(f"/threads/{second.name}").text


def test_programs_read_json(mailbox: Mailbox, browser: httpx.Client) -> None:
    mailbox.mails.append(mail("r-1", "root", html="<p>hi"))
    (found,) = browser.get("/mails.json").json()
    assert (found["recipient"], found["message_id"], found["references"]) == (ALICE, "<r-1@x>", ["<root@x>"])
    assert (found["text"], found["html"], browser.get("/count.json").json()) == ("text of r-1\n", "<p>hi\n", 1)


def test_programs_can_ask_for_the_mails_about_one_request(mailbox: Mailbox, browser: httpx.Client) -> None:
    mailbox.mails += [mail("r1-requested-0", "r1-root"), mail("r2-requested-0"), mail("r1-denied-0", recipient=BOB)]
    found = browser.get("/requests/r1.json").json()
    assert [(one["message_id"], one["recipient"]) for one in found] == [
        ("<r1-requested-0@x>", ALICE),
        ("<r1-denied-0@x>", BOB),
    ]
    assert browser.get("/requests/r3.json").json() == []


@pytest.mark.parametrize("path", ["/threads/0", "/mails/0", "/mails/-1", "/mails/x", "/elsewhere"])
def test_what_is_not_there_is_not_found(browser: httpx.Client, path: str) -> None:
    assert browser.get(path).status_code == 404


def test_no_script_of_a_mail_may_run(mailbox: Mailbox, browser: httpx.Client) -> None:
    mailbox.mails.append(mail("r-1", html="<script>alert(1)</script>"))
    name = mailbox.mails[0].name
    reply = browser.get(f"/threads/{name}")
    assert "default-src 'none'" in reply.headers["content-security-policy"]
    assert "unsafe-inline'; img-src" in reply.headers["content-security-policy"], "styles only"
    assert browser.get(f"/mails/{name}").headers["content-type"].startswith("text/plain")
    assert browser.get(f"/mails/{name}").headers["x-content-type-options"] == "nosniff"


class Elements(HTMLParser):
    """The elements and attributes of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, tuple[str, ...]]] = []
        self.framed = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Remember it."""
        self.found.append((tag, tuple(name for name, _ in attrs)))
        self.framed += dict(attrs).get("srcdoc") or ""


hostile = st.text(st.sampled_from("<>\"'&/= \tscriptonload;é\u202e\x00"), max_size=60) | st.just(
    "</pre></iframe><script>"
)


@given(subject=hostile, html=hostile, address=hostile)
def test_hostile_text_adds_no_element_to_the_page(subject: str, html: str, address: str) -> None:
    page, ordinary = Elements(), Elements()
    page.feed(letter(mail("r-1", subject=subject.replace("\x00", ""), html=html + ".", recipient="x" + address)))
    ordinary.feed(letter(mail("r-1", subject="Request", html="<p>.")))
    assert page.found == ordinary.found
    assert page.framed == (html + ".\n").replace("\r", "\n")


MALFORMED = [
    *("<", "@", ":", ";", "[", "(", "=?nope?q?", "?=", "\\", "\xff", "\x00", "a", "charset=", "boundary=x", "name*0*="),
    *("text/plain", "text/html", "multipart/alternative", "base64", "utf-16", "undefined"),
]
NAMES = ["To", "From", "Date", "Message-ID", "References", "Subject", "Content-Type", "Content-Transfer-Encoding"]
malformed_headers = st.tuples(st.sampled_from(NAMES), st.lists(st.sampled_from(MALFORMED), max_size=6).map("".join))


@given(headers=st.lists(malformed_headers, max_size=4), body=st.sampled_from(["", "=ZZ", "--x\r\n\r\nhi", "\xff"]))
@example(headers=[("To", "x<")], body="")  # the standard parser fails at these
@example(headers=[("Message-ID", "<")], body="")
@example(headers=[("Content-Type", "text/plain; charset=nope")], body="hi")
def test_a_malformed_mail_is_shown_like_any_other(headers: list[tuple[str, str]], body: str) -> None:
    raw = "".join(f"{name}: {value}\r\n" for name, value in headers) + "\r\n" + body
    malformed = replace(mail("r-1"), raw=raw.encode("latin-1"))
    assert len(malformed.headers) == len(headers)
    page = Elements()
    page.feed(letter(malformed))
    assert page.found[-1] == ("a", ("href",))
    assert json.loads(json.dumps(as_json(malformed)))["recipient"] == ALICE


def test_a_thread_shows_an_answer_after_what_it_answers() -> None:
    late, early, second, alone = (
        mail("r-3", "root", "r-1", "r-2"),
        mail("r-1", "root"),
        mail("r-2", "root", "r-1"),
        mail("r-1", "root", recipient=BOB),
    )
    assert threads([late, early, second, alone]) == [[early, second, late], [alone]]


def test_mails_that_refer_to_each_other_are_all_shown() -> None:
    circle = [mail("a", "root", "b"), mail("b", "root", "a"), mail("c", "root", "c")]
    assert {mail.message_id for mail in threads(circle)[0]} == {"<a@x>", "<b@x>", "<c@x>"}


def test_mails_about_a_request_are_known_by_their_thread_even_if_a_relay_replaced_their_ids() -> None:
    mails = [mail("r1-requested-h"), mail("ses", "r1-h"), mail("r12-requested-h"), mail("r1-denied-g", recipient=BOB)]
    assert about(mails, "r1") == [mails[0], mails[1], mails[3]]
    assert about(mails, "r1", BOB) == [mails[3]]


def test_the_same_mail_to_two_people_is_no_duplicate() -> None:
    assert duplicates([mail("a"), mail("a", recipient=BOB)]) == {}
    assert duplicates([mail("a"), mail("a"), mail("a", recipient=BOB)]) == {("<a@x>", ALICE): 2}
