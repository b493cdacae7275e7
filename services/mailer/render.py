"""A mail's facts become a letter: subject, text, HTML and header fields, by the templates beside this file."""

import re
from collections import OrderedDict
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template, select_autoescape

from services.mailer import untrusted
from services.mailer.mime import Letter, Mailbox
from services.mailer.wording import Wording, wording
from shared.mail import Mail, Notice, NoticeKind, Why, mail_id
from shared.memory import RequestFacts

TEMPLATES = Path(__file__).parent / "templates"

FOLDERS = {NoticeKind.REQUESTED: "requested", NoticeKind.REVIEWED: "reviewed"}
"""Of the notices that do not end a request; all others share one folder."""

AUTOMATIC = (
    ("Auto-Submitted", "auto-generated"),  # RFC 3834: nobody is to answer by machine
    ("X-Auto-Response-Suppress", "OOF, AutoReply, DR, RN, NRN"),  # MS-OXCMAIL; without NDR: bounces are wanted
)


PAGES_KEPT = 64
"""More than the mails that are claimed at once: what the recipients of a request share is rendered once."""


@dataclass(frozen=True)
class _Page:
    """What a mail says, the same to all recipients who are told for the same reason."""

    facts: RequestFacts
    """Of which it is made: it is of no use for others, however equal their names are."""
    words: Wording
    subject: str
    text: str
    html: str


class Renderer:
    """Knows the templates and whom mails come from. Rendering reads no clock."""

    def __init__(self, sender: Mailbox, message_id_domain: str) -> None:
        """`message_id_domain`: of Message-IDs where a request's memory names none."""
        self._sender = sender
        self._message_id_domain = message_id_domain
        self._templates = Environment(
            loader=FileSystemLoader(TEMPLATES),
            autoescape=select_autoescape(["html"]),
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,  # the templates are part of the program
        )
        self._pages: OrderedDict[tuple[str, Notice, Why, str, datetime], _Page] = OrderedDict()

    def render(self, mail: Mail, facts: RequestFacts, now: float) -> Letter:
        """The letter, dated `now` (seconds since the epoch): the same facts at the same time give the same letter."""
        date = datetime.fromtimestamp(int(now), UTC)
        page = self._page(mail, facts, date)
        domain = facts.message_id_domain or self._message_id_domain
        return Letter(
            sender=self._sender,
            recipient=mail.recipient.address,
            subject=page.subject,
            date=date,
            message_id=f"{mail.id}@{domain}",
            references=_references(mail, domain),
            list_id=f"access-requests.{_label(page.words.cluster)}.{domain}",
            marks=(*AUTOMATIC, *_marks(mail)),
            text=page.text,
            html=page.html,
        )

    def _page(self, mail: Mail, facts: RequestFacts, date: datetime) -> _Page:
        """A mailer that claims the mails of a request together reads its facts once: one object for all of them."""
        key = (mail.request_id, mail.notice, mail.recipient.why, mail.recipient.role, date)
        page = self._pages.get(key)
        if page is None or page.facts is not facts:
            words = wording(mail, facts, date)
            subject = self._fill(mail.notice, "subject.txt", words).strip()
            text, html = (self._fill(mail.notice, file, words) for file in ("body.txt", "body.html"))
            page = self._pages[key] = _Page(facts, words, subject, text, html)
            if len(self._pages) > PAGES_KEPT:
                self._pages.popitem(last=False)
        return page

    def _fill(self, notice: Notice, file: str, words: Wording) -> str:
        template: Template = self._templates.get_template(f"{FOLDERS.get(notice.kind, 'resolved')}/{file}")
        return template.render(mail=words, kind=notice.kind.value)


def _references(mail: Mail, domain: str) -> tuple[str, ...]:
    """The thread's root, which no mail ever is, so that a thread holds where a relay rewrites Message-IDs.

    Later mails refer to the thread's first one as well; its id is computed, not looked up. Where Teleport's record
    tells of the first mail, which another Redis or the Go plugin has sent, its id is the recorded one.
    """
    root = f"{mail.thread}@{domain}"
    if mail.notice.kind is NoticeKind.REQUESTED:
        return (root,)
    recorded = mail.recipient.announced_in
    if recorded is not None:
        return (root, recorded) if recorded else (root,)
    first = mail_id(mail.request_id, Notice(kind=NoticeKind.REQUESTED), mail.recipient)
    return (root, f"{first}@{domain}")


def _label(cluster: str) -> str:
    """The cluster's name as labels of a List-Id (RFC 2919 §2)."""
    label = re.sub(r"[^a-z0-9]*\.[^a-z0-9]*", ".", re.sub(r"[^a-z0-9.]+", "-", cluster.lower())).strip(".-")
    return label or "teleport"


def _marks(mail: Mail) -> tuple[tuple[str, str], ...]:
    """What filters can sort by."""
    why = mail.recipient.why
    name = {Why.ROLE: mail.recipient.role, Why.RULE: mail.recipient.rule}.get(why)
    reason = why.value if name is None else f"{why}:{untrusted.line(name, 256)}"
    return (
        ("X-Access-Mail-Request", mail.request_id),
        ("X-Access-Mail-Notice", str(mail.notice)),
        ("X-Access-Mail-Reason", reason),
    )
