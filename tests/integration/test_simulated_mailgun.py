"""The simulated Mailgun answers as Mailgun does, and as its script says, to real clients."""

import asyncio
import ssl
from collections.abc import Iterator
from email.message import EmailMessage
from email.policy import SMTP
from pathlib import Path
from typing import Any

import httpx
import pytest

from simulators.mailgun import Answer, Mailgun
from tests.relay_tls import relay_tls

BOB, CAROL = "bob@example.com", "carol@example.com"
MIME = "/v3/example.com/messages.mime"


@pytest.fixture
def mailgun() -> Iterator[Mailgun]:
    """Mailgun for example.com, whose key is `key-1`."""
    with Mailgun(domain="example.com", key="key-1") as mailgun:
        yield mailgun


def raw_mail(message_id: str = "<1@example.com>") -> bytes:
    message = EmailMessage(policy=SMTP)
    message["Subject"], message["From"], message["Message-ID"] = "Grüße", "Alice <alice@example.com>", message_id
    message.set_content("Hello\n--\nboundary\n")
    message.add_alternative("<p>Hello", subtype="html")
    message.set_boundary("boundary")
    return message.as_bytes()


def post(
    mailgun: Mailgun,
    *,
    path: str = MIME,
    to: str | list[str] = BOB,
    key: str = "key-1",
    raw: bytes | None = None,
    verify: ssl.SSLContext | None = None,
    timeout: float = 5,
    more: dict[str, str] | None = None,
) -> httpx.Response:
    """Send a mail on a fresh connection."""
    files = {"message": ("message.eml", raw or raw_mail())}
    data = {"to": to, **(more or {})}
    return httpx.post(
        mailgun.url + path, auth=("api", key), data=data, files=files, verify=verify or True, timeout=timeout
    )


def test_a_mime_mail_is_recorded_byte_for_byte_for_each_recipient(mailgun: Mailgun) -> None:
    reply = post(mailgun, to=[BOB, f"Carol <{CAROL}>, dan@example.com"])
    assert (reply.status_code, reply.json()) == (200, {"id": "<1@example.com>", "message": "Queued. Thank you."})
    assert [mail.recipient for mail in mailgun.mails] == [BOB, CAROL, "dan@example.com"]
    mail = mailgun.mails[0]
    assert (mail.raw, mail.sender, mail.user, mail.tls) == (raw_mail(), "alice@example.com", "api", False)
    assert (mail.subject, mail.text, mail.html) == ("Grüße", "Hello\n--\nboundary\n", "<p>Hello\n")


def test_a_mail_in_fields_becomes_a_message(mailgun: Mailgun) -> None:
    fields = {"from": "a@example.com", "to": BOB, "subject": "Grüße", "text": "Hello", "h:X-Own": "1"}
    files = {name: (None, value) for name, value in {**fields, "html": "<p>Hello"}.items()}
    reply = httpx.post(f"{mailgun.url}/v3/example.com/messages", auth=("api", "key-1"), files=files)
    assert reply.json()["id"].endswith("@example.com>")
    mail = mailgun.mails[0]
    assert (mail.sender, mail.recipient, mail.message["to"]) == ("a@example.com", BOB, BOB)
    assert (mail.subject, mail.text, mail.html, mail.message["x-own"]) == ("Grüße", "Hello\n", "<p>Hello\n", "1")


def test_test_mode_delivers_nothing(mailgun: Mailgun) -> None:
    assert post(mailgun, more={"o:testmode": "yes"}).status_code == 200
    assert (len(mailgun.mails), len(mailgun.test_mails)) == (0, 1)


@pytest.mark.parametrize(
    ("wrong", "status", "message"),
    [
        ({"key": "key-2"}, 401, "Invalid private key"),
        ({"path": "/v3/example.org/messages.mime"}, 404, "Domain not found: example.org"),
        ({"path": "/v3/elsewhere"}, 404, "Not Found"),
        ({"to": ""}, 400, "to parameter is missing"),
    ],
)
def test_a_wrong_call_is_refused(mailgun: Mailgun, wrong: dict[str, Any], status: int, message: str) -> None:
    reply = post(mailgun, **wrong)
    assert (reply.status_code, reply.json()) == (status, {"message": message})
    assert mailgun.mails == []


def test_a_mail_without_sender_is_refused(mailgun: Mailgun) -> None:
    reply = post(mailgun, raw=b"Subject: x\r\n\r\nHello")
    assert (reply.status_code, reply.json()["message"]) == (400, "from parameter is missing")


def test_the_script_is_followed_as_often_as_it_says(mailgun: Mailgun) -> None:
    mailgun.answers.append(Answer(429, "slow down", retry_after="7", times=2))
    mailgun.answers.append(Answer(400, "not a valid address", recipient="carol@*"))
    replies = [post(mailgun) for _ in range(3)]
    assert [reply.status_code for reply in replies] == [429, 429, 200]
    assert (replies[0].headers["retry-after"], replies[0].json()) == ("7", {"message": "slow down"})
    assert (post(mailgun, to=CAROL).status_code, mailgun.answers[1].given) == (400, 1)
    assert [mail.recipient for mail in mailgun.mails] == [BOB]


@pytest.mark.parametrize(("status", "taken"), [(200, 1), (500, 0)])
def test_a_cut_connection_may_or_may_not_have_delivered(mailgun: Mailgun, status: int, taken: int) -> None:
    mailgun.answers.append(Answer(status, drop=True, times=1))
    with pytest.raises(httpx.RemoteProtocolError):
        post(mailgun)
    assert len(mailgun.mails) == taken
    post(mailgun)
    assert mailgun.duplicates() == ({("<1@example.com>", BOB): 2} if taken else {})


def test_a_slow_answer_outlasts_the_client_and_not_the_server() -> None:
    with Mailgun(domain="example.com", key="key-1") as mailgun:
        mailgun.answers.append(Answer(delay=60))
        with pytest.raises(httpx.ReadTimeout):
            post(mailgun, timeout=0.2)
    assert len(mailgun.mails) == 1


async def test_connections_are_kept_and_cut_when_it_stops_and_it_comes_back_at_its_port() -> None:
    mailgun = Mailgun(domain="example.com", key="key-1")
    async with httpx.AsyncClient(auth=("api", "key-1"), timeout=5) as client:
        with mailgun:
            url = mailgun.url + MIME

            async def send(number: int) -> int:
                files = {"message": ("message.mime", raw_mail(f"<{number}@example.com>"))}
                return (await client.post(url, data={"to": BOB}, files=files)).status_code

            for number in range(3):
                assert await send(number) == 200
            assert {mail.connection for mail in mailgun.mails} == {1}
            assert set(await asyncio.gather(*map(send, range(3, 300)))) == {200}
            assert (len(mailgun.mails), mailgun.duplicates()) == (300, {})
        with pytest.raises(httpx.TransportError):
            await send(300)
        with mailgun:
            assert mailgun.url + MIME == url
            assert await send(301) == 200


def test_it_speaks_tls(tmp_path: Path) -> None:
    server, trusting = relay_tls(tmp_path)
    with Mailgun(domain="example.com", key="key-1", tls=server) as mailgun:
        with pytest.raises(httpx.ConnectError):
            httpx.post(mailgun.url + MIME, verify=ssl.create_default_context())
        assert post(mailgun, verify=trusting).status_code == 200
    assert mailgun.mails[0].tls
