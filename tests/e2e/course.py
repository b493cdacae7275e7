"""The course of one request as its people's mails tell it, and what must be true of every such thread."""

from collections.abc import Mapping

from simulators.received import PostOffice, ReceivedMail, about
from simulators.world import CLUSTER
from tests.e2e.reading import Page, defects, in_a_row, notices
from tests.waiting import wait_until

SENDER = "noreply@example.com"


class Course:
    """What happens to one request, whom it concerns, and what each of their mails must say."""

    def __init__(self, office: PostOffice, request_id: str, people: Mapping[str, str]) -> None:
        self.request_id = request_id
        self._office = office
        self._people = people
        self._facts: dict[str, tuple[str, ...]] = {}

    def thread(self, address: str) -> list[ReceivedMail]:
        """The mails to this person, in the order of their arrival."""
        return about(self._office.mails, self.request_id, address)

    @property
    def mails(self) -> int:
        """How many there must be."""
        return len(self._people) * len(self._facts)

    def expects(self, notice: str, *facts: str) -> None:
        """Each of the people must have a mail with this notice and these facts, after those before."""
        self._facts[notice] = facts

    async def tells(self, notice: str, *facts: str) -> None:
        """Expect this too, and wait until all that is expected has come."""
        self.expects(notice, *facts)
        expected = list(self._facts)
        await wait_until(
            lambda: all(notices(self.thread(address)) == expected for address in self._people),
            f"{', '.join(self._people)} have had {', '.join(expected)}",
        )

    def check(self, user: str) -> None:
        """Nobody else was told, each thread holds together, and each mail says what it must.

        `user`: who must have logged in at the relay.
        """
        assert {mail.recipient for mail in about(self._office.mails, self.request_id)} == set(self._people)
        for address, why in self._people.items():
            thread = self.thread(address)
            check_headers(thread, self.request_id, why, user)
            for mail, facts in zip(thread, self._facts.values(), strict=True):
                check_facts(mail, (self.request_id, CLUSTER, *facts))


def check_headers(thread: list[ReceivedMail], request_id: str, why: str, user: str) -> None:
    """The mails of a thread belong together, and tell a filter what they are."""
    first, *others = thread
    subject = f"Access request {request_id} on {CLUSTER}"
    assert [mail.subject for mail in thread] == [subject, *[f"Re: {subject}" for _ in others]]
    (root,) = first.references
    assert all(mail.references == (root, first.message_id) for mail in others)
    assert len({root, *[mail.message_id for mail in thread]}) == len(thread) + 1
    for mail in thread:
        message = mail.message
        assert defects(mail) == []
        assert (mail.sender, message["From"], message["To"]) == (SENDER, SENDER, mail.recipient)
        assert tuple(str(message["In-Reply-To"]).split()) == mail.references
        assert mail.message_id.startswith(f"<{request_id}-{message['X-Access-Mail-Notice']}-")
        assert mail.message_id.endswith("@example.com>")
        assert message["X-Access-Mail-Request"] == request_id
        assert message["X-Access-Mail-Reason"] == why
        assert message["Auto-Submitted"] == "auto-generated"
        assert mail.tls
        assert mail.user == user


def check_facts(mail: ReceivedMail, facts: tuple[str, ...]) -> None:
    """Both the text and the HTML state them; a link is one that can be clicked."""
    page = Page(mail.html)
    for fact in facts:
        assert fact in in_a_row(mail.text)
        assert fact in (page.links if fact.startswith("https:") else page.text)
