"""A small web page that shows what a simulated post office has taken: people, their threads, and each mail.

Mails are hostile text here: everything is escaped, their HTML stands in a sandbox, and no script of theirs can run.
"""

import base64
import hashlib
import json
from collections import Counter
from functools import partial
from html import escape
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from string import Template
from typing import Any, Protocol, Self
from urllib.parse import quote, unquote

from simulators.received import PostOffice, ReceivedMail, about, threads
from simulators.web import WebServer

PAGE = Template(Path(__file__).with_name("inbox.html").read_text(encoding="utf-8"))

SCRIPT = """
const known = Number(document.querySelector("header small").textContent.split(" ")[0]);
setInterval(async () => {
  const reply = await fetch("/count.json");
  if (await reply.json() !== known) location.reload();
}, 2000);
"""

SECURITY = {
    # A frame's srcdoc inherits this policy: the mail may style itself, and neither load nor run anything.
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    f"script-src 'sha256-{base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()}'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}

SHOWN_HEADERS = (
    "from",
    "to",
    "reply-to",
    "date",
    "message-id",
    "in-reply-to",
    "references",
    "auto-submitted",
    "list-id",
)
OWN_HEADERS = ("x-access-mail-", "x-teleport-")


class Office(PostOffice, Protocol):
    """A post office that may forget its oldest mails."""

    @property
    def forgotten(self) -> int:
        """How many of them it does not hold any more."""


class Inbox:
    """The page of one post office, served in threads as long as the `with` block lasts. `url` is its address."""

    def __init__(self, office: Office, *, host: str = "127.0.0.1", port: int = 0) -> None:
        handler: Any = partial(Visit, office)
        self._server = WebServer(host, port, handler)
        self.url = self._server.url

    def __enter__(self) -> Self:
        self._server.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.__exit__()


class Visit(BaseHTTPRequestHandler):
    """Answers one browser."""

    def __init__(self, office: Office, *args: Any) -> None:
        self.office = office
        super().__init__(*args)

    def do_GET(self) -> None:
        """Answer with the page that the path names, or 404."""
        mails = list(self.office.mails)
        match unquote(self.path).strip("/").split("/"):
            case [""]:
                self._page(mails, overview(threads(mails)), "")
            case ["people", person]:
                theirs = [thread for thread in threads(mails) if thread[0].recipient == person]
                self._page(mails, overview(theirs), person)
            case ["threads", name] if found := _named(name, mails):
                thread = next(thread for thread in threads(mails) if found in thread)
                self._page(mails, conversation(thread), thread[0].recipient)
            case ["mails", name] if found := _named(name, mails):
                self._answer("text/plain; charset=utf-8", found.raw)
            case ["requests", name] if name.endswith(".json"):
                told = about(mails, name.removesuffix(".json"))
                self._answer("application/json", json.dumps([as_json(mail) for mail in told]).encode())
            case ["mails.json"]:
                self._answer("application/json", json.dumps([as_json(mail) for mail in mails]).encode())
            case ["count.json"]:
                self._answer("application/json", json.dumps(self.office.forgotten + len(mails)).encode())
            case _:
                self.send_error(HTTPStatus.NOT_FOUND)

    def _page(self, mails: list[ReceivedMail], content: str, person: str) -> None:
        page = PAGE.substitute(
            title=escape(f"Inbox of {person}" if person else "Inbox"),
            count=f"{self.office.forgotten + len(mails)} mails",
            kept=f", of which the newest {len(mails)} are kept" if self.office.forgotten else "",
            people=people(mails, person),
            content=content or '<p class="soft">No mail yet.</p>',
            script=SCRIPT,
        )
        self._answer("text/html; charset=utf-8", page.encode("utf-8", "replace"))

    def _answer(self, content_type: str, body: bytes) -> None:
        self.send_response(HTTPStatus.OK)
        for name, value in {**SECURITY, "Content-Type": content_type, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing: the paths name people."""


def _named(name: str, mails: list[ReceivedMail]) -> ReceivedMail | None:
    return next((mail for mail in mails if mail.name == name), None)


def people(mails: list[ReceivedMail], chosen: str) -> str:
    """Whoever has mail, with links to their threads."""
    counted = sorted(Counter(mail.recipient for mail in mails).items())
    return "".join(
        f'<a href="/people/{quote(person, safe="")}"{" aria-current=page" if person == chosen else ""}>'
        f'<span>{escape(person)}</span><span class="soft">{count}</span></a>'
        for person, count in counted
    )


def overview(shown: list[list[ReceivedMail]]) -> str:
    """One row for each thread, the one with the newest mail first."""
    newest_first = sorted(shown, key=lambda thread: max(mail.arrived for mail in thread), reverse=True)
    return "".join(
        f'<a class="row" href="/threads/{thread[0].name}"><b>{escape(thread[0].subject)}</b>'
        f'<span class="soft">{len(thread)}</span><span class="soft">{escape(thread[0].recipient)}</span>'
        f'<span class="soft">{max(mail.arrived for mail in thread):%H:%M:%S} UTC</span></a>'
        for thread in newest_first
    )


def conversation(thread: list[ReceivedMail]) -> str:
    """The mails of one thread, each with its headers, text and HTML."""
    heading = f"<h1>{escape(thread[0].subject)}</h1>"
    return heading + "".join(letter(mail) for mail in thread)


def letter(mail: ReceivedMail) -> str:
    """One mail."""
    rows = "".join(
        f"<tr><th scope=row>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in notable_headers(mail)
    )
    frame = f'<iframe sandbox title="HTML part" srcdoc="{escape(mail.html)}"></iframe>' if mail.html else ""
    return (
        f'<article class="mail"><h2>{escape(mail.subject)}</h2><table>{rows}</table>'
        f'<div class="parts">{frame}<pre>{escape(mail.text)}</pre></div>'
        f'<a href="/mails/{mail.name}">Source</a></article>'
    )


def notable_headers(mail: ReceivedMail) -> list[tuple[str, str]]:
    """The headers that matter to whoever looks at a notification, decoded."""
    return [
        (name, value)
        for name, value in mail.headers
        if name.lower() in SHOWN_HEADERS or name.lower().startswith(OWN_HEADERS)
    ]


def as_json(mail: ReceivedMail) -> dict[str, Any]:
    """A mail for programs."""
    return {
        "sender": mail.sender,
        "recipient": mail.recipient,
        "subject": mail.subject,
        "message_id": mail.message_id,
        "references": mail.references,
        "headers": mail.headers,
        "text": mail.text,
        "html": mail.html,
        "arrived": mail.arrived.isoformat(),
        "connection": mail.connection,
        "tls": mail.tls,
        "user": mail.user,
    }
