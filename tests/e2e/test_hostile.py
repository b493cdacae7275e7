"""A request that was written to do harm: its mails are clean, and it is in nobody's way."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

from redis import Redis
from rq.suspension import resume, suspend

from services.watcher.teleport.pb import types_pb2
from shared.keys import REQUEST_PREFIX
from shared.mail_queue.layout import rq_queue
from simulators.received import ReceivedMail
from simulators.teleport import AuthService
from simulators.teleport.messages import Draft, new_request, put_event
from simulators.world import World
from tests.e2e.installation import installed
from tests.e2e.reading import Page, defects, notices
from tests.waiting import wait_until

ANN = "ann@example.com"

HOSTILE = (
    "\r\nBcc: mallory@evil.example\r\n\r\n"
    "\0\x07\x1b[31m\x7f\x85\u2028\u2029\u202e\u2066\u200f\ufeff"
    "<script>alert(1)</script><img src=x onerror=alert(1)><a href='javascript:alert(1)'>x</a></td></table>"
    "{{ 7 * 7 }}{% raw %} =?utf-8?q?=0D=0ABcc:_mallory@evil.example?=\n.\n%0d%0a"
)
"""Line ends, controls, direction marks, HTML, templates, encoded words, the end of SMTP's DATA."""

FORBIDDEN = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\u200e\u200f\ufeff]")
"""In no text that a person reads."""

ODD_ADDRESSES = ["team/oncall@example.com", "dana@bücher.example"]
"""A slash breaks the Go plugin's record in Teleport, the domain wants IDNA."""

NO_ADDRESSES = [
    "bob",
    "a,b@example.com",
    '"a,b"@example.com',
    f"eve@example.com{HOSTILE}",
    f"{'x' * 300}@example.com",
    "",
]

REVIEWERS = [f"reviewer-{number}@example.com" for number in range(300)]

MEGABYTE = 1_000_000

LOG_LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ (INFO|WARNING|ERROR) (start|watcher|router|mailer): \S.*")


def hostile_request() -> types_pb2.AccessRequestV3:
    """As a hostile, or merely careless, client of Teleport may have made it."""
    draft = Draft(
        user=f"alice{HOSTILE}",
        roles=[f"dev{HOSTILE}", "\n", *[f"role-{number}" for number in range(300)]],
        reason=HOSTILE + "A" * MEGABYTE,
        suggested_reviewers=[*ODD_ADDRESSES, *NO_ADDRESSES, *REVIEWERS],
        resources=[f"/teleport.example.com/node/{HOSTILE}{number}" for number in range(200)],
        ttl=timedelta(hours=1),
        access=timedelta(hours=8),
        approvals=9,
        denials=9,
    )
    return new_request(draft, "hostile-request", datetime.now(UTC))


def show_what_cannot_be_read(auth: AuthService) -> None:
    """Requests that are passed over: a state that nobody knows, an id that is none, a change of nothing."""
    strange = hostile_request()
    strange.Metadata.Name = "strange-state"
    strange.Spec.State = types_pb2.RequestState.ValueType(99)
    auth.put(strange)
    strange.Metadata.Name = f"../{HOSTILE}"
    auth.faults.send(put_event(strange))
    auth.faults.send_unknown_event()


async def test_a_hostile_request_makes_clean_mails_and_stops_nobody(outside: World, tmp_path: Path) -> None:
    configuration = outside.configuration({"*": [ANN]})
    people = {ANN, ODD_ADDRESSES[0], "dana@xn--bcher-kva.example", *REVIEWERS}
    async with installed(tmp_path, configuration) as access_mail:
        mailbox, queue = outside.mailbox, rq_queue(access_mail.redis)
        suspend(access_mail.redis)
        show_what_cannot_be_read(outside.auth)
        outside.auth.put(hostile_request())
        await wait_until(lambda: queue.count == len(people), "a mail for each of the people is in the queue")
        check_memory(access_mail.redis, most_per_mail=2048, mails=len(people))
        resume(access_mail.redis)
        await wait_until(lambda: len(mailbox.mails) == len(people), "everybody has had a mail", 30)
        outside.auth.review("hostile-request", f"eve{HOSTILE}", types_pb2.DENIED, HOSTILE + "B" * MEGABYTE)
        outside.auth.deny("hostile-request", HOSTILE + "C" * MEGABYTE)
        await wait_until(lambda: len(mailbox.mails) == 3 * len(people), "everybody knows of review and denial", 30)

        ordinary = outside.auth.create_request(
            "bob", reason="Just\na question.", resources=["/teleport.example.com/node/x"]
        )
        await wait_until(lambda: notices(mailbox.thread(ordinary)) == ["requested"], "an ordinary request is mailed")
        outside.auth.review(ordinary, "ann", types_pb2.DENIED, "No.\nNo.")
        await wait_until(
            lambda: notices(mailbox.thread(ordinary)) == ["requested", "reviewed-1", "denied"], "and its denial"
        )
        assert {mail.recipient for mail in mailbox.mails} == people
        check_mails(mailbox.thread("hostile-request"), mailbox.thread(ordinary))
        check_log(access_mail.log)
        await wait_until(access_mail.is_idle, "nothing is left to do")
        assert access_mail.dead() == []
        check_memory(access_mail.redis, most_per_mail=512, mails=3 * len(people))


def check_mails(hostile: list[ReceivedMail], ordinary: list[ReceivedMail]) -> None:
    """They are made of nothing that an ordinary request's mails are not made of."""
    assert all("mallory" in mail.text for mail in hostile)  # it is told, but only as text
    pages = [Page(mail.html) for mail in ordinary]
    tags = {tag for page in pages for tag in page.tags}
    attributes = {attribute for page in pages for attribute in page.attributes}
    for mail in hostile:
        assert defects(mail) == []
        assert mail.message.keys() == ordinary[notices(ordinary).index(notices([mail])[0])].message.keys()
        page = Page(mail.html)
        assert page.tags <= tags
        assert page.attributes <= attributes
        assert page.links == ["https://teleport.example.com/web/requests/hostile-request"]
        for text in (mail.text, page.text, *mail.message.values()):
            assert not FORBIDDEN.search(text)
        assert len(mail.raw) < 100_000  # Gmail clips what is longer


def check_log(log: str) -> None:
    """One line each, whatever a request holds, and nobody's address."""
    lines = log.splitlines()
    assert [line for line in lines if not LOG_LINE.fullmatch(line) or FORBIDDEN.search(line)] == []
    assert "@example.com" not in log
    assert len([line for line in lines if "is passed over" in line]) == 2
    assert max(map(len, lines)) < 1000


def check_memory(redis: Redis, *, most_per_mail: int, mails: int) -> None:
    """What a request takes in Redis has a bound, whatever its author has sent: for all its people, and for each."""
    used = {key: int(redis.memory_usage(key, samples=0) or 0) for key in redis.scan_iter(count=1000)}
    memory = {key: size for key, size in used.items() if key.startswith(REQUEST_PREFIX.encode())}
    assert max(memory.values()) < 65536
    assert sum(used.values()) - sum(memory.values()) < most_per_mail * mails
