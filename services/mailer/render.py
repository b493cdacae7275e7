"""A mail's facts become a letter: subject, text, HTML and header fields, by the templates beside this file."""

import re
from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import TypeVar

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template, select_autoescape

from services.mailer import untrusted
from services.mailer.mime import Letter, Mailbox, Page
from services.mailer.wording import WHY, Wording, why, wording
from shared.mail import Mail, Notice, NoticeKind, Recipient, Why, mail_id
from shared.memory import RequestFacts

TEMPLATES = Path(__file__).parent / "templates"

FOLDERS = {NoticeKind.REQUESTED: "requested", NoticeKind.REVIEWED: "reviewed"}
"""Of the notices that do not end a request; all others share one folder."""

AUTOMATIC = (
    ("Auto-Submitted", "auto-generated"),  # RFC 3834: nobody is to answer by machine
    ("X-Auto-Response-Suppress", "OOF, AutoReply, DR, RN, NRN"),  # MS-OXCMAIL; without NDR: bounces are wanted
)


STORIES_KEPT = 8
"""The mails of a request are claimed together: what they share is told once for all of them."""

REASONS_KEPT = 4
"""Of a request, for which people are told."""

K = TypeVar("K")
V = TypeVar("V")


@dataclass(frozen=True)
class _Story:
    """What a mail says, but for the reason why its reader is told."""

    facts: RequestFacts
    """Of which it is made: it is of no use for others, however equal their names are."""
    words: Wording
    subject: str
    text: str
    html: str
    pages: OrderedDict[tuple[Why, str, str], Page] = field(default_factory=OrderedDict)
    """By that reason: its kind, role and rule."""


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
            cache_size=-1,  # and few: a plain dict holds them all, without turns to take
        )
        self._templates.globals.clear()  # no template needs them, and each rendering would copy them
        self._stories: OrderedDict[tuple[str, str, int], _Story] = OrderedDict()

    def render(self, mail: Mail, facts: RequestFacts, now: float) -> Letter:
        """The letter, dated `now` (seconds since the epoch): the same facts at the same time give the same letter."""
        domain = facts.message_id_domain or self._message_id_domain
        page = self._page(mail, facts, int(now))
        return Letter(page, mail.recipient.address, f"{mail.id}@{domain}", _references(mail, domain))

    def _page(self, mail: Mail, facts: RequestFacts, second: int) -> Page:
        """A mailer that claims the mails of a request together reads its facts once: one object for all of them."""
        key = (mail.request_id, str(mail.notice), second)
        story = self._stories.get(key)
        if story is None or story.facts is not facts:
            story = _keep(self._stories, key, self._tell(mail, facts, second), STORIES_KEPT)
        told = mail.recipient
        reason = (told.why, told.role, told.rule)
        page = story.pages.get(reason)
        return page or _keep(story.pages, reason, self._complete(story, mail, second), REASONS_KEPT)

    def _tell(self, mail: Mail, facts: RequestFacts, second: int) -> _Story:
        words = wording(mail.request_id, mail.notice, facts, datetime.fromtimestamp(second, UTC))
        subject = self._fill(mail.notice, "subject.txt", words).strip()
        text, html = (self._fill(mail.notice, file, words) for file in ("body.txt", "body.html"))
        return _Story(facts, words, subject, text, html)

    def _complete(self, story: _Story, mail: Mail, second: int) -> Page:
        """The story with the reason why this recipient is told."""
        reason = why(mail.recipient, story.words.user)
        domain = story.facts.message_id_domain or self._message_id_domain
        return Page(
            sender=self._sender,
            subject=story.subject,
            date=datetime.fromtimestamp(second, UTC),
            list_id=f"access-requests.{_label(story.words.cluster)}.{domain}",
            marks=(*AUTOMATIC, *_marks(mail)),
            text=story.text.replace(WHY, reason),
            html=story.html.replace(WHY, escape(reason)),
        )

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
    return (
        ("X-Access-Mail-Request", mail.request_id),
        ("X-Access-Mail-Notice", str(mail.notice)),
        ("X-Access-Mail-Reason", _reason(mail.recipient)),
    )


def _reason(recipient: Recipient) -> str:
    """Why the recipient is told, as filters read it."""
    name = {Why.ROLE: recipient.role, Why.RULE: recipient.rule}.get(recipient.why)
    return recipient.why.value if name is None else f"{recipient.why}:{untrusted.line(name, 256)}"


def _keep(kept: OrderedDict[K, V], key: K, value: V, most: int) -> V:
    """Forgets what was kept first if it is too much."""
    kept[key] = value
    if len(kept) > most:
        kept.popitem(last=False)
    return value
