"""How a person's mail program sees a mail: the text that its HTML shows, and whatever is wrong with it."""

from html.parser import HTMLParser

from simulators.received import ReceivedMail


class Page(HTMLParser):
    """HTML as it is shown: its text, and of what it is made."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.links: list[str] = []
        self._texts: list[str] = []
        self.feed(html)
        self.close()

    @property
    def text(self) -> str:
        """All its text, with single spaces."""
        return in_a_row(" ".join(self._texts))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note the tag."""
        self.tags.add(tag)
        self.attributes.update(name for name, _ in attrs)
        self.links += [value or "" for name, value in attrs if name in ("href", "src")]

    def handle_data(self, data: str) -> None:
        """Note the text."""
        self._texts.append(data)


def in_a_row(text: str) -> str:
    """The text with single spaces in place of all white space."""
    return " ".join(text.split())


def defects(mail: ReceivedMail) -> list[str]:
    """What the standard parser objects to, in the whole, its parts and each header field."""
    parts = list(mail.message.walk())
    found = [defect for part in parts for defect in part.defects]
    found += [defect for part in parts for field in part.values() for defect in getattr(field, "defects", ())]
    return [repr(defect) for defect in found]


def notices(mails: list[ReceivedMail]) -> list[str]:
    """What the mails tell, in their order."""
    return [mail.message["X-Access-Mail-Notice"] for mail in mails]
