"""Threads of six notices each: a request, four reviews, a resolution."""

from collections.abc import Iterable
from datetime import UTC, datetime

from redis import Redis

from shared import keys
from shared.events import RequestState, Review
from shared.mail import Recipient, Why
from shared.memory import RequestMemory
from simulators.received import ReceivedMail
from tests.mails import mail, memory, put

COURSE = ("requested", "reviewed-1", "reviewed-2", "reviewed-3", "reviewed-4", "approved")


class Threads:
    """One request and one person each."""

    def __init__(self, redis: Redis, number: int) -> None:
        self._redis = redis
        self.number = number

    @property
    def _people(self) -> list[Recipient]:
        return [Recipient(address=f"p{n}@example.com", why=Why.DEFAULT) for n in range(self.number)]

    def open(self) -> None:
        """The request and its reviews."""
        self._put(COURSE[:5], RequestState.PENDING)

    def open_more(self, number: int) -> None:
        """So many more threads."""
        first, self.number = self.number, self.number + number
        self._put(COURSE[:5], RequestState.PENDING, first)

    def settle(self) -> None:
        """The resolution."""
        self._put(COURSE[5:], RequestState.APPROVED)

    def _put(self, notices: Iterable[str], state: RequestState, first: int = 0) -> None:
        for number, person in enumerate(self._people[first:], first):
            request_id = f"r{number}"
            put(self._redis, [mail(notice, person, request_id) for notice in notices], _memory(state, request_id))

    def perhaps_announced(self) -> set[str]:
        """The people of whose first mail nobody knows whether the relay took it."""
        first = {person.address: mail(COURSE[0], person, f"r{number}").id for number, person in enumerate(self._people)}
        return {
            person for person, id_ in first.items() if self._redis.hget(keys.RECEIPT_PREFIX + id_, "perhaps") == b"1"
        }

    @staticmethod
    def told(mails: Iterable[ReceivedMail]) -> dict[str, list[str]]:
        """Person → notices in the order of arrival."""
        found: dict[str, list[str]] = {}
        for one in mails:
            _, _, rest = one.message_id.strip("<>").partition("@")[0].partition("-")
            found.setdefault(one.recipient, []).append(rest.rpartition("-")[0])
        return found


def _memory(state: RequestState, request_id: str) -> RequestMemory:
    remembered = memory(state, request_id)
    assert remembered.facts.request is not None
    reviews = tuple(
        Review(position=n, author=f"carol{n}", proposed_state=RequestState.APPROVED, created=datetime.now(UTC))
        for n in range(1, 5)
    )
    request = remembered.facts.request.model_copy(update={"reviews": reviews, "review_count": len(reviews)})
    return remembered.model_copy(update={"facts": remembered.facts.model_copy(update={"request": request})})
