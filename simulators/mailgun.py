"""Mailgun's calls to send mail, on a real socket: takes mails, and answers otherwise as a script of answers tells it.

Follows Mailgun's "Send an email" and "Send an email in MIME format" (API v3).
"""

import json
import ssl
import uuid
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.message import EmailMessage
from email.parser import BytesHeaderParser, HeaderParser
from email.policy import HTTP, SMTP
from email.utils import getaddresses, parseaddr
from fnmatch import fnmatchcase
from functools import partial
from hmac import compare_digest
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import Any, Self

from simulators.received import ReceivedMail, about, duplicates
from simulators.web import WebServer

__all__ = ["Answer", "Mailgun", "ReceivedMail"]

Fields = Mapping[str, Sequence[bytes]]
"""The fields of a form; one name may stand several times."""


@dataclass
class Answer:
    """An answer in place of the ordinary one. The first that fits is given, `times` times."""

    status: int = 200
    """With 200 the mail is taken before anything else happens."""
    message: str = ""
    """Stands in the JSON of the answer as Mailgun's own messages do."""
    retry_after: str = ""
    """The header Retry-After: seconds or a date (RFC 9110 §10.2.3)."""
    recipient: str = "*"
    """Whom it concerns: an address or a pattern such as `*@example.com`."""
    delay: float = 0
    """Seconds before the answer leaves."""
    drop: bool = False
    """The connection is cut instead. With status 200 this is the lost answer."""
    times: int | None = None
    """How often it is given; None: for ever."""
    given: int = field(default=0, init=False)
    """How often it has been."""

    def fits(self, recipients: Sequence[str]) -> bool:
        """Is it to be given now?"""
        exhausted = self.times is not None and self.given >= self.times
        concerned = self.recipient == "*" or any(fnmatchcase(address, self.recipient) for address in recipients)
        return concerned and not exhausted


ORDINARY = Answer()


class Mailgun:
    """Mailgun for one domain, served in threads as long as the `with` block lasts; started again, at the same port.

    `url` is what stands in place of `https://api.mailgun.net`. `mails` and `answers` may be read and changed meanwhile.
    """

    def __init__(
        self, *, domain: str, key: str, host: str = "127.0.0.1", port: int = 0, tls: ssl.SSLContext | None = None
    ) -> None:
        self.domain = domain
        self.key = key
        self.host = host
        self.port = port
        self.tls = tls
        self.url = ""
        self.answers: list[Answer] = []
        self.mails: list[ReceivedMail] = []
        self.test_mails: list[ReceivedMail] = []
        """Mails with `o:testmode`: accepted and not delivered."""
        self.requests = 0
        self._server: WebServer | None = None

    @property
    def connections(self) -> int:
        """How many connections there have been since it was started."""
        return self.server.connections

    @property
    def server(self) -> WebServer:
        """What serves it now."""
        assert self._server is not None, "it was not started"
        return self._server

    def duplicates(self) -> dict[tuple[str, str], int]:
        """How often (Message-ID, recipient) was taken, for those that were taken more than once."""
        return duplicates(self.mails)

    def thread(self, request_id: str, recipient: str = "*") -> list[ReceivedMail]:
        """Mails about one Access Request in the order of arrival; `recipient` may be a pattern."""
        return about(self.mails, request_id, recipient)

    def __enter__(self) -> Self:
        handler: Any = partial(Call, self)
        self._server = WebServer(self.host, self.port, handler, self.tls).__enter__()
        self.port, self.url = self._server.server_port, self._server.url
        return self

    def __exit__(self, *_: object) -> None:
        self.server.__exit__()

    def authorized(self, header: str) -> bool:
        """Is this HTTP Basic with the user `api` and the key?"""
        expected = "Basic " + b64encode(f"api:{self.key}".encode()).decode()
        return compare_digest(header.encode(), expected.encode())

    def take(self, call: "Call", raw: bytes, sender: str, recipients: Sequence[str], form: Fields) -> None:
        """Record a mail, once for each recipient."""
        mails = self.test_mails if form.get("o:testmode", [b"no"])[-1] in (b"yes", b"true", b"True") else self.mails
        for recipient in recipients:
            mail = ReceivedMail(
                sender=sender,
                recipient=recipient,
                raw=raw,
                arrived=datetime.now(UTC),
                connection=call.number,
                tls=self.tls is not None,
                user="api",
            )
            mails.append(mail)


class Call(BaseHTTPRequestHandler):
    """The calls of one connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def __init__(self, mailgun: Mailgun, request: Any, client_address: Any, server: WebServer) -> None:
        self.mailgun = mailgun
        self.number = server.open[request]
        super().__init__(request, client_address, server)

    def do_POST(self) -> None:
        """Take a mail, or refuse it."""
        self.mailgun.requests += 1
        form = parse_form(self.headers["content-type"], self.rfile.read(int(self.headers["content-length"])))
        recipients = addresses(form, "to")
        answer = next((answer for answer in self.mailgun.answers if answer.fits(recipients)), ORDINARY)
        answer.given += 1
        if answer.status == HTTPStatus.OK:
            status, content = self._ordinary(form, recipients)
        else:
            status, content = answer.status, {"message": answer.message}
        self.mailgun.server.closing.wait(answer.delay)
        if answer.drop:
            self.close_connection = True
        else:
            self._say(status, content, answer.retry_after)

    def _ordinary(self, form: Fields, recipients: Sequence[str]) -> tuple[int, dict[str, str]]:
        """Mailgun's own answer: status and content."""
        if not self.mailgun.authorized(self.headers.get("authorization", "")):
            return HTTPStatus.UNAUTHORIZED, {"message": "Invalid private key"}
        match self.path.strip("/").split("/"):
            case ["v3", self.mailgun.domain, "messages.mime"]:
                raw = form.get("message", [b""])[0]
            case ["v3", self.mailgun.domain, "messages"]:
                raw = compose(form)
            case ["v3", domain, "messages" | "messages.mime"]:
                return HTTPStatus.NOT_FOUND, {"message": f"Domain not found: {domain}"}
            case _:
                return HTTPStatus.NOT_FOUND, {"message": "Not Found"}
        if not recipients:
            return HTTPStatus.BAD_REQUEST, {"message": "to parameter is missing"}
        headers = BytesHeaderParser().parsebytes(raw)
        _, sender = parseaddr(str(headers.get("from", "")))
        if not sender:
            return HTTPStatus.BAD_REQUEST, {"message": "from parameter is missing"}
        self.mailgun.take(self, raw, sender, recipients, form)
        identifier = headers.get("message-id") or f"<{uuid.uuid4().hex}@{self.mailgun.domain}>"
        return HTTPStatus.OK, {"id": str(identifier), "message": "Queued. Thank you."}

    def _say(self, status: int, content: Mapping[str, str], retry_after: str) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if retry_after:
            self.send_header("Retry-After", retry_after)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing: whoever wants to know looks at the mails."""


def parse_form(content_type: str, body: bytes) -> Fields:
    """Read multipart/form-data (RFC 7578); files byte for byte, which the e-mail parser would not do."""
    kind = HeaderParser(policy=HTTP).parsestr(f"Content-Type: {content_type}\n\n")
    delimiter = b"\r\n--" + str(kind.get_boundary("")).encode()
    form = dict[str, list[bytes]]()
    for part in (b"\r\n" + body).split(delimiter)[1:-1]:
        head, _, value = part.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        headers = BytesHeaderParser(policy=HTTP).parsebytes(head)
        form.setdefault(headers["content-disposition"].params["name"], []).append(value)
    return form


def addresses(form: Fields, name: str) -> list[str]:
    """The bare addresses in a field, which may list several and stand several times."""
    values = [value.decode() for value in form.get(name, [])]
    return [address for _, address in getaddresses(values) if address]


def compose(form: Fields) -> bytes:
    """The mail that Mailgun makes of `from`, `to`, `subject`, `text`, `html` and `h:` fields."""
    message = EmailMessage(policy=SMTP)
    for name, values in form.items():
        if name in ("from", "to", "subject") or name.startswith("h:"):
            message[name.removeprefix("h:")] = ", ".join(value.decode() for value in values)
    message.set_content(b"".join(form.get("text", [])).decode())
    if "html" in form:
        message.add_alternative(form["html"][0].decode(), subtype="html")
    return message.as_bytes()
