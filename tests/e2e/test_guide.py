"""The complete example of the Go plugin's guide, with Mailgun and with SMTP: the right people get the right mails.

The files run as they stand but for host names and paths. What only a test needs comes by the environment: another
base URL for Mailgun, a throw-away CA for the relay.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC
from pathlib import Path

import pytest

from services.watcher.teleport.pb import types_pb2
from simulators.mailgun import Mailgun
from simulators.received import PostOffice
from simulators.teleport import AuthService
from simulators.world import CLUSTER, World
from tests.e2e.course import Course
from tests.e2e.installation import installed
from tests.relay_tls import relay_certificate

TELEPORT = """
# /etc/teleport-email.toml
[teleport]
# Auth/Proxy server address: port 3025 for Auth, 3080 or 443 for the proxy.
addr = "teleport.example.com:443"
identity = "/var/lib/teleport/plugins/email/auth_id" # Identity file
refresh_identity = true                              # Refresh the identity file on a periodic basis.
"""

MAILGUN = """
[mailgun]
domain = "sandbox.mailgun.example.org"
# private_key = "key-..."
private_key_file = "/var/lib/teleport/plugins/email/secret"
"""

SMTP = """
[smtp]
host = "smtp.example.com"
port = 587
username = "username@example.com"
# password = ""
password_file = "/var/lib/teleport/plugins/email/secret"
starttls_policy = "mandatory"
"""

REST = """
[delivery]
sender = "noreply@example.com" # From: email address

[role_to_recipients]
"dev" = "dev-manager@example.com"
"*" = ["security@example.com", "executive-team@example.com"]

[log]
output = "stderr" # Logger output. Could be "stdout", "stderr" or "/var/lib/teleport/email.log"
severity = "INFO" # Logger severity. Could be "INFO", "ERROR", "DEBUG" or "WARN".
"""

SECRET = "a throw-away secret"
LINK = f"https://{CLUSTER}/web/requests/"

MANAGER = {"dev-manager@example.com": "role:dev"}
DEVELOPERS = MANAGER | {"carol@example.com": "suggested-reviewer"}
EVERYBODY_ELSE = {"security@example.com": "default", "executive-team@example.com": "default"}
"""Addresses, and why they are told."""


@dataclass(frozen=True)
class Post:
    """The way of the mails: its section of the file, what only a test needs, and where they arrive."""

    section: str
    environ: Mapping[str, str]
    office: PostOffice
    user: str
    """Who must have logged in."""


@contextmanager
def by_mailgun(outside: World, tmp_path: Path) -> Iterator[Post]:
    """Mailgun with the key of the file, over HTTPS."""
    del outside  # its mailbox stays empty
    server, ca_file = relay_certificate(tmp_path)
    with Mailgun(domain="sandbox.mailgun.example.org", key=SECRET, tls=server) as mailgun:
        environ = {"ACCESS_MAIL__MAILGUN__BASE_URL": mailgun.url, "SSL_CERT_FILE": str(ca_file)}
        yield Post(MAILGUN, environ, mailgun, "api")


@contextmanager
def by_smtp(outside: World, tmp_path: Path) -> Iterator[Post]:
    """A relay that wants STARTTLS before anything else, and the password of the file."""
    mailbox = outside.mailbox
    mailbox.tls, ca_file = relay_certificate(tmp_path)
    mailbox.encryption = "required"
    mailbox.users["username@example.com"] = SECRET
    section = replaced(SMTP, {'"smtp.example.com"': f'"{mailbox.host}"', "587": str(mailbox.port)})
    yield Post(section, {"ACCESS_MAIL__SMTP__CA_FILE": str(ca_file)}, mailbox, "username@example.com")


def replaced(text: str, replacements: Mapping[str, str]) -> str:
    """The text with other host names and paths; each must stand in it."""
    for old, new in replacements.items():
        assert old in text
        text = text.replace(old, new)
    return text


def guide(outside: World, post: Post, tmp_path: Path) -> str:
    """The whole file, for this machine."""
    secret = tmp_path / "secret"
    secret.write_text(f"{SECRET}\n")
    places = {
        "teleport.example.com:443": outside.proxy.address,
        "/var/lib/teleport/plugins/email/auth_id": str(outside.identity),
        "/var/lib/teleport/plugins/email/secret": str(secret),
    }
    return replaced(TELEPORT + post.section + REST, places)


def time_of_review(auth: AuthService, request_id: str, number: int) -> str:
    """When it was made, as mails have it."""
    made = auth.get(request_id).Spec.Reviews[number - 1].Created.ToDatetime(UTC)
    return f"{made:%Y-%m-%d %H:%M} UTC"


async def approved_by_reviews(auth: AuthService, office: PostOffice) -> Course:
    """Two reviewers approve, as two are needed."""
    reason = "INC-4711: the shop is down, I must edit its configuration."
    request_id = auth.create_request(
        "alice", ["dev"], reason=reason, suggested_reviewers=["carol@example.com", "dave"], approvals=2
    )
    course = Course(office, request_id, DEVELOPERS)
    new = ("alice", "dev", reason, LINK + request_id)
    await course.tells("requested", *new, "⏳ PENDING")
    auth.review(request_id, "ann", types_pb2.APPROVED, "Go ahead.")
    await course.tells("reviewed-1", "ann", time_of_review(auth, request_id, 1), "✅ APPROVED", "Go ahead.")
    auth.review(request_id, "bob", types_pb2.APPROVED, "Mind the caches.")
    course.expects("reviewed-2", "bob", "✅ APPROVED", "Mind the caches.")
    await course.tells("approved", *new, "✅ APPROVED", "Mind the caches.")
    return course


async def denied_by_a_review(auth: AuthService, office: PostOffice) -> Course:
    """One reviewer denies, which settles it."""
    request_id = auth.create_request("alice", ["dev"], reason="Out of curiosity.")
    course = Course(office, request_id, MANAGER)
    new = ("alice", "dev", "Out of curiosity.", LINK + request_id)
    await course.tells("requested", *new, "⏳ PENDING")
    auth.review(request_id, "ann", types_pb2.DENIED, "Not today.")
    course.expects("reviewed-1", "ann", time_of_review(auth, request_id, 1), "❌ DENIED", "Not today.")
    await course.tells("denied", *new, "❌ DENIED", "Not today.")
    return course


async def approved_by_an_administrator(auth: AuthService, office: PostOffice) -> Course:
    """Without any review, for two roles that share their recipients."""
    request_id = auth.create_request("bob", ["dba", "auditor"], reason="Monthly report")
    course = Course(office, request_id, EVERYBODY_ELSE)
    new = ("bob", "dba", "auditor", "Monthly report", LINK + request_id)
    await course.tells("requested", *new, "⏳ PENDING")
    auth.approve(request_id, "Until noon.")
    await course.tells("approved", *new, "✅ APPROVED", "Until noon.")
    return course


async def denied_by_an_administrator(auth: AuthService, office: PostOffice) -> Course:
    """Without any review, for a role of its own recipients and one of all others'."""
    request_id = auth.create_request("bob", ["dev", "dba"])
    course = Course(office, request_id, MANAGER | EVERYBODY_ELSE)
    new = ("bob", "dev", "dba", LINK + request_id)
    await course.tells("requested", *new, "⏳ PENDING")
    auth.deny(request_id, "Use the read-only replica.")
    await course.tells("denied", *new, "❌ DENIED", "Use the read-only replica.")
    return course


async def promoted(auth: AuthService, office: PostOffice) -> Course:
    """To an access list."""
    request_id = auth.create_request("erin", ["dev"], reason="I am on call now.")
    course = Course(office, request_id, MANAGER)
    new = ("erin", "dev", "I am on call now.", LINK + request_id)
    await course.tells("requested", *new, "⏳ PENDING")
    auth.promote(request_id, "Shop engineers", author="ann", reason="For good.")
    course.expects("reviewed-1", "ann", "✅ PROMOTED", "For good.")
    await course.tells("promoted", *new, "✅ PROMOTED", "Shop engineers", "For good.")
    return course


async def expired(auth: AuthService, office: PostOffice) -> Course:
    """Nobody looks."""
    request_id = auth.create_request("frank", ["dba"], reason="Whenever you like.")
    course = Course(office, request_id, EVERYBODY_ELSE)
    new = ("frank", "dba", "Whenever you like.")
    await course.tells("requested", *new, LINK + request_id, "⏳ PENDING")
    auth.expire(request_id)
    await course.tells("expired", *new, "⌛ EXPIRED")
    return course


STORIES = (
    approved_by_reviews,
    denied_by_a_review,
    approved_by_an_administrator,
    denied_by_an_administrator,
    promoted,
    expired,
)


@pytest.mark.parametrize("way", [by_mailgun, by_smtp])
async def test_the_guides_file_runs_as_it_stands_and_tells_the_right_people(
    outside: World, tmp_path: Path, way: Callable[[World, Path], AbstractContextManager[Post]]
) -> None:
    with way(outside, tmp_path) as post:
        async with installed(tmp_path, guide(outside, post, tmp_path), post.environ) as access_mail:
            courses = [await story(outside.auth, post.office) for story in STORIES]
            for course in courses:
                course.check(post.user)
            assert len(post.office.mails) == sum(course.mails for course in courses)
            assert access_mail.dead() == []
            assert "proxy" in access_mail.log
            assert "WARNING router: " + courses[0].request_id + ": 1 suggested reviewers are no e-mail addresses" in (
                access_mail.log
            )
            check_privacy(access_mail.log)


def check_privacy(log: str) -> None:
    """Neither addresses nor secrets are in a log."""
    assert SECRET not in log
    assert [line for line in log.splitlines() if "@" in line] == []


async def test_where_the_cluster_has_no_reviews_in_the_web_the_mail_shows_commands(
    outside: World, tmp_path: Path
) -> None:
    outside.auth.ping.ServerFeatures.AdvancedAccessWorkflows = False
    with by_smtp(outside, tmp_path) as post:
        async with installed(tmp_path, guide(outside, post, tmp_path), post.environ):
            request_id = outside.auth.create_request("alice", ["dev"])
            course = Course(post.office, request_id, MANAGER)
            approve, deny = (f"tsh request review --{verb} {request_id}" for verb in ("approve", "deny"))
            await course.tells("requested", "alice", "dev", "⏳ PENDING", approve, deny)
            outside.auth.deny(request_id)
            await course.tells("denied", "alice", "dev", "❌ DENIED")
            course.check(post.user)
            new, denied = course.thread("dev-manager@example.com")
            assert "https:" not in new.text + denied.text
            assert "tsh request" not in denied.text + denied.html
