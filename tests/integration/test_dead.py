"""`access-mail dead`, on a real Valkey: what was given up is shown, replayed and forgotten, mails and events alike."""

import re
import uuid
from collections.abc import Callable

import pytest
from click.testing import CliRunner, Result
from redis import Redis

from console.dead_commands import dead
from services.mailer.metrics import DEATHS
from shared import keys
from shared.claimed import Claimed
from shared.event_log import GROUP, EventReader
from shared.events import RequestGone
from shared.mail import Dead, Mail, Recipient, Why
from shared.mail_queue.layout import rq_queue
from shared.mail_queue.mailer_end import MailerEnd, Settlement, Swept
from tests.mails import ANN, BOB, mail, put
from tests.queueing import receipt

Run = Callable[..., Result]

REFUSED = Dead("recipient_refused", "550 5.1.1 no such user\nevil: line")


@pytest.fixture
def run(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("ACCESS_MAIL__REDIS__URL", redis_url)
    return lambda *arguments: CliRunner().invoke(dead, arguments)


async def claimed(end: MailerEnd) -> list[Claimed]:
    claims = await end.claim([uuid.uuid4().hex for _ in range(1000)])
    return [job for job in claims.jobs if isinstance(job, Claimed)]


async def bury(end: MailerEnd, verdict: Dead) -> None:
    """Make everything that is in the queue a dead letter."""
    await end.settle([Settlement(job.mail.id, job.execution, job.now, verdict) for job in await claimed(end)])


def bury_an_event(redis: Redis, data: bytes) -> None:
    reader = EventReader(redis, "r1")
    reader.open()
    redis.xadd(keys.EVENTS, {"data": data})
    (delivery,) = reader.new(1, 1)
    reader.bury(delivery, "routing failed 5 times")


async def two_letters(redis: Redis, end: MailerEnd) -> tuple[Mail, Mail]:
    one, other = mail("requested", ANN), mail("requested", BOB, request_id="r2")
    put(redis, [one])
    await bury(end, REFUSED)
    put(redis, [other])
    await bury(end, Dead("expired_unsent"))
    return one, other


async def test_each_dead_letter_has_a_line_that_says_why(redis: Redis, end: MailerEnd, run: Run) -> None:
    one, other = await two_letters(redis, end)
    bury_an_event(redis, RequestGone(request_id="r3").model_dump_json().encode())
    done = run("list")
    first, second, third = done.stdout.splitlines()
    time = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"
    assert re.fullmatch(
        rf"{one.id}  {time}  requested  recipient_refused  1 attempts  550 5.1.1 no such user evil: line", first
    )
    assert re.fullmatch(rf"{other.id}  {time}  requested  expired_unsent  1 attempts", second)
    assert re.fullmatch(rf"\d+-0  {time}  event  unroutable  0 attempts  routing failed 5 times", third)
    assert (done.stderr, done.exit_code) == ("3 dead letters\n", 0)
    assert "@" not in done.stdout


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        (["--reason", "expired_unsent"], ["r2"]),
        (["--request", "r1"], ["r1"]),
        (["--since", "1h"], ["r1", "r2"]),
        (["--since", "1ms"], []),
        (["--reason", "expired_unsent", "--request", "r1"], []),
    ],
)
async def test_filters_narrow_the_list(
    redis: Redis, end: MailerEnd, run: Run, filters: list[str], expected: list[str]
) -> None:
    for letter in await two_letters(redis, end):
        redis.hset(keys.RECEIPT_PREFIX + letter.id, "at", str(float(redis.time()[0]) - 60))
    assert [line.partition("-")[0] for line in run("list", *filters).stdout.splitlines()] == expected


async def test_show_tells_all_of_one_letter(redis: Redis, end: MailerEnd, run: Run) -> None:
    one, _ = await two_letters(redis, end)
    done = run("show", one.id)
    assert done.exit_code == 0
    facts = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    assert facts.pop("died:")
    assert facts == {
        "id:": one.id,
        "request:": "r1",
        "what:": "requested",
        "recipient:": "ann@example.com",
        "reason:": "recipient_refused",
        "detail:": "550 5.1.1 no such user evil: line",
        "attempts:": "1",
        "sent:": "no",
    }


async def test_show_tells_whether_a_replay_may_come_twice(redis: Redis, end: MailerEnd, run: Run) -> None:
    one = mail("requested", ANN)
    put(redis, [one])
    await bury(end, Dead("ambiguous", "the answer was lost", perhaps=True))
    assert "sent:      perhaps" in run("show", one.id).stdout.splitlines()


async def test_a_replayed_mail_is_claimed_again_with_a_fresh_budget(redis: Redis, end: MailerEnd, run: Run) -> None:
    one, other = await two_letters(redis, end)
    done = run("replay", one.id)
    assert (done.stdout, done.exit_code) == ("1 dead letter replayed\n", 0)
    (job,) = await claimed(end)
    assert (job.mail, job.attempts, job.revived) == (one, 0, True)
    assert rq_queue(redis).failed_job_registry.get_job_ids(cleanup=False) == [other.id]
    await end.release([(job.mail.id, job.execution, False)])


async def test_a_dry_run_changes_nothing(redis: Redis, end: MailerEnd, run: Run) -> None:
    await two_letters(redis, end)
    for deed in ("replay", "forget"):
        done = run(deed, "--all", "--dry-run")
        assert done.exit_code == 0
        assert len(done.stdout.splitlines()) == 3
        assert done.stdout.endswith(f"2 dead letters would be {'replayed' if deed == 'replay' else 'forgotten'}\n")
    assert rq_queue(redis).failed_job_registry.get_job_count(cleanup=False) == 2


async def test_a_forgotten_mail_leaves_its_receipt_and_is_not_made_again(
    redis: Redis, end: MailerEnd, run: Run
) -> None:
    one, _ = await two_letters(redis, end)
    assert run("forget", "--all").stdout == "2 dead letters forgotten\n"
    assert rq_queue(redis).failed_job_registry.get_job_count(cleanup=False) == 0
    assert redis.exists(f"rq:job:{one.id}", f"rq:results:{one.id}") == 0
    assert redis.hget(keys.RECEIPT_PREFIX + one.id, "outcome") == b"dead"
    assert put(redis, [one]).existed == 1


async def test_an_event_is_replayed_to_the_routers(redis: Redis, run: Run) -> None:
    event = RequestGone(request_id="r3")
    bury_an_event(redis, event.model_dump_json().encode())
    assert run("replay", "--request", "r3").stdout == "1 dead letter replayed\n"
    (delivery,) = EventReader(redis, "r1").new(10, 1)
    assert delivery.data == event.model_dump_json().encode()
    assert run("list").stdout == ""
    redis.xack(keys.EVENTS, GROUP, delivery.entry)


async def test_an_event_that_nobody_can_read_is_shown_and_can_be_forgotten(redis: Redis, run: Run) -> None:
    bury_an_event(redis, b"\xff{")
    (line,) = run("list").stdout.splitlines()
    assert "event  unroutable" in line
    assert run("forget", line.split()[0]).stdout == "1 dead letter forgotten\n"
    assert run("list").stdout == ""


async def test_a_job_that_is_no_mail_is_shown_too(redis: Redis, end: MailerEnd, run: Run) -> None:
    job = rq_queue(redis).enqueue("os.getcwd", failure_ttl=60)
    claims = await end.claim(["e1"])
    await end.settle([Settlement(job.id, "e1", 0.0, Dead("malformed", "its data is no mail"))])
    assert claims.jobs
    (line,) = run("list").stdout.splitlines()
    assert "  job  malformed  1 attempts  its data is no mail" in line


async def test_a_mail_that_a_stock_worker_failed_is_shown_until_a_mailer_takes_it_back(
    redis: Redis, end: MailerEnd, run: Run
) -> None:
    one = mail("requested", ANN)
    put(redis, [one])
    redis.lpop("rq:queue:mail")
    redis.hset(f"rq:job:{one.id}", "status", "failed")
    redis.expire(f"rq:job:{one.id}", 60)
    redis.zadd("rq:failed:mail", {one.id: 4102444800})
    assert run("list").stdout == f"{one.id}  unknown  requested  unknown  0 attempts\n"
    assert run("forget", "--all").stdout == "0 dead letters forgotten\n", "nobody has given it up"
    assert await end.sweep() == Swept(adopted=1)


FOREIGN = mail("requested", ANN)


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("attempts", b"inf", "  requested  recipient_refused  0 attempts"),
        ("at", b"yesterday", f"{FOREIGN.id}  unknown  requested  recipient_refused  1 attempts"),
        ("reason", b"\xff", "  requested  \ufffd  1 attempts"),
        (None, b"a text", f"{FOREIGN.id}  unknown  requested  unknown  0 attempts"),
    ],
)
async def test_what_another_program_wrote_into_a_receipt_hides_no_letter(
    redis: Redis, end: MailerEnd, run: Run, *, field: str | None, value: bytes, told: str
) -> None:
    await two_letters(redis, end)
    key = keys.receipt(FOREIGN.id)
    if field is None:
        redis.set(key, value, ex=60)
    else:
        redis.hset(key, field, value)
    done = run("list")
    assert (done.exit_code, done.stderr) == (0, "2 dead letters\n")
    assert told in done.stdout


async def test_a_foreign_number_of_attempts_is_not_counted_on_from(redis: Redis, end: MailerEnd) -> None:
    put(redis, [FOREIGN])
    redis.hset(f"rq:job:{FOREIGN.id}", "attempts", b"9" * 30)
    await bury(end, Dead("recipient_refused"))
    assert receipt(redis, FOREIGN)["attempts"] == "1"


async def test_more_letters_than_a_page_are_all_dealt_with(redis: Redis, end: MailerEnd, run: Run) -> None:
    people = [Recipient(address=f"p{number}@example.com", why=Why.DEFAULT) for number in range(1_201)]
    put(redis, [mail("requested", person) for person in people])
    for _ in range(2):
        await bury(end, REFUSED)
    assert len(run("list").stdout.splitlines()) == 1_201
    assert run("replay", "--reason", "recipient_refused").stdout == "1201 dead letters replayed\n"
    assert redis.llen("rq:queue:mail") == 1_201
    for _ in range(2):
        await bury(end, REFUSED)
    assert run("forget", "--all").stdout == "1201 dead letters forgotten\n"


async def test_one_that_is_named_and_is_not_there_is_an_error(redis: Redis, end: MailerEnd, run: Run) -> None:
    one, _ = await two_letters(redis, end)
    for arguments in (["replay", "nobody", one.id, "--dry-run"], ["replay", one.id, "nobody"], ["show", "nobody"]):
        done = run(*arguments)
        assert (done.exit_code, done.stderr) == (1, "nobody is no dead letter\n")
    await bury(end, REFUSED)


@pytest.mark.parametrize(
    "arguments", [["replay"], ["forget"], ["replay", "--all", "id"], ["forget", "--all", "--reason", "x"]]
)
def test_what_is_meant_must_be_said(run: Run, arguments: list[str]) -> None:
    done = run(*arguments)
    assert done.exit_code == 2
    assert "say which" in done.stderr


@pytest.mark.parametrize("arguments", [["list"], ["replay"], ["forget"], ["forget", "--dry-run"]])
@pytest.mark.parametrize("reason", ["recipient_refusd", ""])
async def test_a_reason_that_no_letter_can_have_is_wrong_use(
    redis: Redis, end: MailerEnd, run: Run, arguments: list[str], reason: str
) -> None:
    await two_letters(redis, end)
    done = run(*arguments, "--reason", reason)
    assert (done.exit_code, done.stdout) == (2, "")
    assert f"'{reason}' is none; the reasons are address_invalid, ambiguous, " in done.stderr
    for known in ("recipient_refused", "expired_unsent", "unroutable", "poison"):
        assert known in done.stderr
    assert rq_queue(redis).failed_job_registry.get_job_count(cleanup=False) == 2


async def test_a_reason_of_another_version_is_good_for_as_long_as_a_letter_has_it(
    redis: Redis, end: MailerEnd, run: Run
) -> None:
    put(redis, [mail("requested", ANN)])
    await bury(end, Dead("too_beautiful"))
    assert run("list", "--reason", "too_beautiful", "--request", "another").exit_code == 0
    assert "too_beautiful" in run("list", "--reason", "typo").stderr
    assert run("forget", "--reason", "too_beautiful").stdout == "1 dead letter forgotten\n"
    assert run("forget", "--reason", "too_beautiful").exit_code == 2


async def test_every_reason_that_the_mailer_gives_is_known_without_a_letter(run: Run) -> None:
    for reason in (*DEATHS, "unroutable", "unknown"):
        done = run("list", "--reason", reason)
        assert (done.exit_code, done.stderr) == (0, "0 dead letters\n")


@pytest.mark.parametrize(
    ("request_id", "fault"),
    [
        ("", "is no id of an Access Request"),
        ("r1 ", "is no id of an Access Request"),
        ("r1-requested-0123456789ab", "is the id of a mail, not of an Access Request; give it without --request"),
    ],
)
def test_what_can_be_no_request_is_wrong_use(run: Run, request_id: str, fault: str) -> None:
    for command in ("list", "replay", "forget"):
        done = run(command, "--request", request_id)
        assert (done.exit_code, done.stdout) == (2, "")
        assert f"{request_id!r} {fault}" in done.stderr


def test_a_duration_that_is_none_is_wrong_use(run: Run) -> None:
    done = run("list", "--since", "yesterday")
    assert done.exit_code == 2
    assert "a duration expected" in done.stderr


def test_without_redis_it_says_so(monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    monkeypatch.setenv("ACCESS_MAIL__REDIS__URL", "unix:///nowhere.sock")
    done = run("list")
    assert done.exit_code == 1
    assert done.stderr.startswith("Redis: ")
    assert done.stdout == ""


def test_without_a_valkey_it_names_the_place_where_none_runs(run: Run) -> None:
    done = run("list", "--data-dir", "/nowhere")
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr == "no redis.url is given, and no Valkey runs in /nowhere; name its place with --data-dir\n"
