"""What mails say: all facts of the request, and nothing that a stranger's text could make of them."""

import re
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.mailer.mime import Letter, Mailbox, write
from services.mailer.render import REASONS_KEPT, STORIES_KEPT, Renderer
from shared.events import AccessRequest, Cluster, RequestState, Resource, Review, Threshold
from shared.mail import Recipient, Why
from shared.memory import RequestFacts
from tests.claimed_mails import BOB, CLAIMED_AT, CREATED, FACTS, REQUEST_ID, REVIEWS, facts, mail

SENDER = Mailbox("Teleport access", "access@example.com")
RENDERER = Renderer(SENDER, "example.com")
CLIPPED_BY_GMAIL = 102_400
NOW = CLAIMED_AT.timestamp()

LINK = f"https://teleport.example.com/web/requests/{REQUEST_ID}"
TSH = (f"tsh request review --approve {REQUEST_ID}", f"tsh request review --deny {REQUEST_ID}")


def render(notice: str = "requested", known: RequestFacts | None = None, recipient: Recipient = BOB) -> Letter:
    return RENDERER.render(mail(notice, recipient), known or facts(), NOW)


class Html(HTMLParser):
    """What a reader sees of it, and what tags and links it has."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.seen: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(re.sub(r"<style>.*?</style>", "", html, flags=re.DOTALL))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.seen.append(" " if tag in {"br", "td", "p"} else "")

    def handle_data(self, data: str) -> None:
        self.seen.append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self.seen).split())

    @property
    def links(self) -> list[str | None]:
        return [attributes.get("href") for tag, attributes in self.tags if tag == "a"]


def texts(letter: Letter) -> tuple[str, str]:
    """Both parts, as their readers see them."""
    return " ".join(letter.page.text.split()), Html(letter.page.html).text


REQUESTED = ("⏳ PENDING", REQUEST_ID, "prod", "alice", "editor, db-admin", "The billing job hangs", "node ip-10-0-0-1")
TIMES = (
    "2026-11-24 14:03 UTC",
    "2026-11-24 22:03 UTC (8 hours)",
    "2026-11-24 15:03 UTC (1 hour after this mail)",
    "0 of 2 approvals",
)


@pytest.mark.parametrize("fact", [*REQUESTED, *TIMES, *TSH])
def test_a_request_states_every_fact_in_both_parts(fact: str) -> None:
    assert all(fact in text for text in texts(render()))


def test_it_links_to_the_web_ui_and_to_nothing_else() -> None:
    letter = render(
        known=facts(request_reason="see https://evil.example/ and <a href='https://evil.example/'>this</a>")
    )
    assert Html(letter.page.html).links == [LINK]
    assert LINK in letter.page.text.split()


def test_the_link_keeps_a_port_that_is_not_443() -> None:
    cluster = Cluster(name="prod", proxy_public_addr="teleport.example.com:3080", reviews_in_web=True)
    text = render(known=facts(cluster=cluster)).page.text
    assert f"https://teleport.example.com:3080/web/requests/{REQUEST_ID}" in text


def test_without_reviews_in_the_web_ui_there_are_the_commands_alone() -> None:
    cluster = Cluster(name="prod", proxy_public_addr="teleport.example.com:443")
    letter = render(known=facts(cluster=cluster))
    assert Html(letter.page.html).links == []
    assert all(command in text for command in TSH for text in texts(letter))


@pytest.mark.parametrize("fact", ["dave denies the access request of alice", "❌ DENIED by dave", "not on a Friday"])
def test_a_review_states_who_when_what_and_why(fact: str) -> None:
    for text in texts(render("reviewed-2", facts(reviews=REVIEWS))):
        assert fact in text
        assert "2026-11-24 14:03 UTC" in text
        assert "1 of 2 approvals, 1 denial" in text
        assert "Other reviews" in text
        assert "✅ APPROVED by carol" in text


def test_a_review_of_a_state_that_is_not_known_is_told_as_such() -> None:
    review = Review(position=1, author="carol", proposed_state=None)
    assert "❔ UNKNOWN by carol" in render("reviewed-1", facts(reviews=(review,))).page.text


@pytest.mark.parametrize(
    ("notice", "state", "status", "headline"),
    [
        ("approved", RequestState.APPROVED, "✅ APPROVED", "The access request of alice is approved"),
        ("denied", RequestState.DENIED, "❌ DENIED", "The access request of alice is denied"),
        (
            "promoted",
            RequestState.PROMOTED,
            "✅ PROMOTED",
            "The access request of alice is promoted to the access list On call",
        ),
    ],
)
def test_a_resolution_states_status_reason_and_reviews(
    notice: str, state: RequestState, status: str, headline: str
) -> None:
    known = facts(state=state, resolve_reason="as agreed", reviews=REVIEWS, access_list="On call")
    for text in texts(render(notice, known)):
        assert all(fact in text for fact in (status, headline, "as agreed", "carol", "dave", "The billing job hangs"))
        assert "tsh request" not in text
        assert LINK in (*text.split(), *Html(render(notice, known).page.html).links)


def test_an_end_without_a_decision_says_so() -> None:
    for text in texts(render("expired", facts(gone=True))):
        assert "⌛ EXPIRED" in text
        assert "it expired or was deleted" in text
        assert "Review by" not in text


def test_what_teleport_has_no_more_is_not_linked_to() -> None:
    letter = render("expired", facts(gone=True))
    assert Html(letter.page.html).links == []
    assert LINK not in letter.page.text
    settled = render("denied", facts(state=RequestState.DENIED))
    assert Html(settled.page.html).links == [LINK], "Teleport keeps it until it expires"


@pytest.mark.parametrize(
    ("notice", "known"),
    [("denied", {"state": RequestState.DENIED}), ("expired", {"gone": True}), ("expired", {})],
)
def test_where_there_will_be_no_access_no_end_of_it_is_named(notice: str, known: dict[str, Any]) -> None:
    assert all("Access until" not in text for text in texts(render(notice, facts(**known))))
    assert all("Access until" in text for text in texts(render("approved", facts(state=RequestState.APPROVED))))


def test_an_end_of_which_nothing_else_is_known_is_told_all_the_same() -> None:
    letter = render("expired", RequestFacts(gone=True))
    assert letter.page.subject == f"Re: Access request {REQUEST_ID}"
    assert all("⌛ EXPIRED" in text and REQUEST_ID in text for text in texts(letter))


@pytest.mark.parametrize(
    ("recipient", "sentence", "mark"),
    [
        (BOB, "you are a recipient of requests for the role editor", "role:editor"),
        (Recipient(address="b@example.com", why=Why.DEFAULT), "you are a default recipient", "default"),
        (
            Recipient(address="b@example.com", why=Why.SUGGESTED_REVIEWER),
            "alice suggested you as a reviewer",
            "suggested-reviewer",
        ),
        (Recipient(address="b@example.com", why=Why.ANNOUNCED), "you were told of this request before", "announced"),
        (
            Recipient(address="b@example.com", why=Why.RULE, rule="db\nadmins"),
            "the Access Monitoring Rule db admins names you",
            "rule:db admins",
        ),
    ],
)
def test_it_says_why_one_gets_it(recipient: Recipient, sentence: str, mark: str) -> None:
    letter = render(recipient=recipient)
    assert all(f"You get this mail because {sentence}" in text for text in texts(letter))
    assert ("X-Access-Mail-Reason", mark) in letter.page.marks


def test_all_mails_of_a_thread_share_a_subject_and_refer_to_its_root_and_first_mail() -> None:
    first, later = render(), render("approved", facts(state=RequestState.APPROVED))
    thread = f"{REQUEST_ID}-{BOB.hash}@example.com"
    assert first.page.subject == f"Access request {REQUEST_ID} on prod"
    assert later.page.subject == f"Re: {first.page.subject}"
    assert first.references == (thread,)
    assert later.references == (thread, first.message_id)
    assert first.message_id == f"{REQUEST_ID}-requested-{BOB.hash}@example.com"
    assert later.message_id == f"{REQUEST_ID}-approved-{BOB.hash}@example.com"


def test_a_thread_keeps_the_domain_that_it_began_with() -> None:
    known = facts().model_copy(update={"message_id_domain": "old.example"})
    letter = render("approved", known)
    assert {identifier.rpartition("@")[2] for identifier in (letter.message_id, *letter.references)} == {"old.example"}


def test_machines_are_told_what_it_is() -> None:
    letter = render("reviewed-2", facts(reviews=REVIEWS))
    assert dict(letter.page.marks) == {
        "Auto-Submitted": "auto-generated",
        "X-Auto-Response-Suppress": "OOF, AutoReply, DR, RN, NRN",
        "X-Access-Mail-Request": REQUEST_ID,
        "X-Access-Mail-Notice": "reviewed-2",
        "X-Access-Mail-Reason": "role:editor",
    }
    assert letter.page.list_id == "access-requests.prod.example.com"


def test_the_same_facts_at_the_same_time_give_the_same_letter() -> None:
    assert render() == render()
    assert render().page.date == datetime(2026, 11, 24, 14, 3, 30, tzinfo=UTC)


TOLD = st.builds(
    Recipient,
    address=st.sampled_from(["ann@example.com", "bob@example.com"]),
    why=st.sampled_from(list(Why)),
    role=st.sampled_from(["", "editor"]),
    rule=st.sampled_from(["", "on-call", "<&>"]),
)
KNOWN = [facts(), facts(request_reason="another"), facts(), FACTS]


@given(st.lists(st.tuples(st.sampled_from(["requested", "approved"]), TOLD, st.sampled_from(KNOWN)), max_size=8))
def test_what_was_rendered_for_one_is_never_told_to_another(mails: list[tuple[str, Recipient, RequestFacts]]) -> None:
    busy = Renderer(SENDER, "example.com")
    for notice, recipient, known in mails:
        fresh = Renderer(SENDER, "example.com")
        told = mail(notice, recipient)
        assert busy.render(told, known, CLAIMED_AT.timestamp()) == fresh.render(told, known, CLAIMED_AT.timestamp())


def test_people_who_are_told_for_different_reasons_share_a_story() -> None:
    renderer = Renderer(SENDER, "example.com")
    for role in ("editor", "db-admin", "editor"):
        renderer.render(mail(recipient=Recipient(address="b@example.com", why=Why.ROLE, role=role)), FACTS, NOW)
    (story,) = renderer._stories.values()
    assert len(story.pages) == 2


def test_a_renderer_keeps_few_stories_and_few_pages_of_each() -> None:
    renderer = Renderer(SENDER, "example.com")
    for second in range(3 * STORIES_KEPT):
        for number in range(3 * REASONS_KEPT):
            told = Recipient(address="b@example.com", why=Why.ROLE, role=f"role{number}")
            renderer.render(mail(recipient=told), FACTS, NOW + second)
    assert len(renderer._stories) == STORIES_KEPT
    assert {len(story.pages) for story in renderer._stories.values()} == {REASONS_KEPT}


def test_a_reason_is_quoted_line_by_line_without_what_deceives_the_eye() -> None:
    letter = render(known=facts(request_reason="Please\r\n\r\n\r\n\r\n-- \napprove \u202e fdp.exe\x00\x1b[31m"))
    assert "Reason, in the words of alice:\n> Please\n>\n> --\n> approve  fdp.exe[31m\n" in letter.page.text


def test_a_long_list_of_resources_is_cut_and_counted() -> None:
    resources = tuple(Resource(cluster="leaf", kind="db", name=f"pg-{number}") for number in range(50))
    for text in texts(render(known=facts(resources=resources, resource_count=143))):
        assert "db pg-9 on leaf … and 133 more" in text
        assert "pg-10" not in text


def test_several_thresholds_are_named_for_which_counts_is_not_known() -> None:
    thresholds = (Threshold(name="default", approve=1, deny=1), Threshold(name="strict", approve=2))
    text = render(known=facts(thresholds=thresholds, reviews=REVIEWS[:1])).page.text
    assert "1 approval, 0 denials" in text
    assert "default: settled by 1 approval or 1 denial" in text
    assert "strict: settled by 2 approvals" in text


def test_html_fits_every_client_and_loads_nothing() -> None:
    html = render("reviewed-2", facts(reviews=REVIEWS, resolve_reason="x")).page.html
    parsed = Html(html)
    assert ("html", {"lang": "en"}) in parsed.tags
    assert not {"img", "script", "link", "iframe", "form"}.intersection(tag for tag, _ in parsed.tags)
    assert "url(" not in html
    assert "prefers-color-scheme: dark" in html
    layout = [attributes for tag, attributes in parsed.tags if tag == "table" and attributes.get("width")]
    assert layout
    assert all(attributes["role"] == "presentation" for attributes in layout)


def test_the_largest_mail_is_not_clipped() -> None:
    name, reason = "<" * 256, "&\n" * 1000
    reviews = tuple(
        Review(position=number, author=name, proposed_state=RequestState.DENIED, reason="'" * 2000, created=CREATED)
        for number in range(1, 21)
    )
    resource = Resource(cluster=name, kind=name, name=name, sub_resource=name)
    known = facts(
        user=name,
        roles=(name,) * 100,
        request_reason="'" * 2000,
        resolve_reason=reason,
        reviews=reviews,
        resources=(resource,) * 50,
        resource_count=5000,
        thresholds=(Threshold(name=name, approve=9, deny=9),) * 20,
        access_list=name,
        state=RequestState.PROMOTED,
    )
    for notice in ("reviewed-20", "promoted"):
        assert len(render(notice, known).page.html.encode()) < CLIPPED_BY_GMAIL


hostile = st.one_of(
    st.text(),
    st.text(alphabet="\r\n\t\0\x0b\x85\u2028\u202e\u2066\u200f\ud800<>&'\"=?{}%@ ab", max_size=80),
    st.sampled_from(
        ["\r\nBcc: eve@example.com\r\n", "</td><script>alert(1)</script>", "{{ 7 * 7 }}", "=?utf-8?q?=0A?="]
    ),
)

requests = st.builds(
    AccessRequest,
    id=st.just(REQUEST_ID),
    user=hostile,
    roles=st.lists(hostile, max_size=3).map(tuple),
    state=st.sampled_from(RequestState),
    created=st.none() | st.just(CREATED),
    access_expires=st.none() | st.just(CREATED + timedelta(days=3, minutes=1)),
    request_expires=st.none() | st.just(CREATED),
    request_reason=hostile,
    resolve_reason=hostile,
    reviews=st.lists(
        st.builds(
            Review,
            position=st.just(1),
            author=hostile,
            proposed_state=st.none() | st.sampled_from(RequestState),
            reason=hostile,
            created=st.none() | st.just(CREATED),
        ),
        min_size=1,
        max_size=2,
    ).map(tuple),
    review_count=st.integers(min_value=0, max_value=99),
    resources=st.lists(
        st.builds(Resource, cluster=hostile, kind=hostile, name=hostile, sub_resource=hostile), max_size=2
    ).map(tuple),
    resource_count=st.integers(min_value=0, max_value=99),
    thresholds=st.lists(
        st.builds(Threshold, name=hostile, approve=st.integers(0, 3), deny=st.integers(0, 3)), max_size=2
    ).map(tuple),
    access_list=hostile,
)
clusters = st.builds(Cluster, name=hostile, proxy_public_addr=hostile, reviews_in_web=st.booleans())
recipients = st.builds(Recipient, address=st.just("bob@example.com"), why=st.sampled_from(Why), role=hostile)
notices = st.sampled_from(["requested", "reviewed-1", "approved", "denied", "promoted", "expired"])

DECEIVING = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\u200e\u200f\ud800-\udfff]")
TAGS = Html(render("reviewed-2", facts(reviews=REVIEWS, request_reason="two\nlines")).page.html).tags


@given(notices, requests, clusters, recipients, st.booleans())
def test_no_text_breaks_a_mail(
    notice: str,
    request: AccessRequest,
    cluster: Cluster,
    recipient: Recipient,
    gone: bool,  # noqa: FBT001 # drawn
) -> None:
    letter = render(notice, RequestFacts(request=request, cluster=cluster, gone=gone), recipient)
    write(letter)
    assert not DECEIVING.search(letter.page.text + letter.page.html)
    parsed = Html(letter.page.html)
    assert {tag for tag, _ in parsed.tags} <= {tag for tag, _ in TAGS}
    styled = {"class", "style", "href"}
    assert all(set(attributes) <= styled for tag, attributes in parsed.tags if tag in {"a", "span", "p", "blockquote"})
    assert all(str(link).endswith(f"/web/requests/{REQUEST_ID}") for link in parsed.links)


def test_what_a_record_began_is_answered_there() -> None:
    root, first = render("reviewed-1").references
    recorded = BOB.model_copy(update={"announced_in": "2H1A8Q9XYZ.3W5E1@host"})
    assert render("reviewed-1", recipient=recorded).references == (root, "2H1A8Q9XYZ.3W5E1@host")
    unknown = BOB.model_copy(update={"announced_in": ""})
    assert render("reviewed-1", recipient=unknown).references == (root,)
    assert first == render("requested").message_id


def test_names_that_people_know_stand_beside_the_ids() -> None:
    known = facts()
    assert known.request is not None
    named = known.request.model_copy(
        update={
            "resources": (
                Resource(cluster="prod", kind="node", name="5f1e", friendly_name="web-1"),
                Resource(cluster="prod", kind="app", name="wiki"),
            ),
            "logins_by_role": {"editor": ("ubuntu", *(f"user{n}" for n in range(12))), "db-admin": ()},
        }
    )
    for text in texts(render(known=known.model_copy(update={"request": named}))):
        assert "node web-1 (5f1e)" in text
        assert "app wiki" in text
        assert "editor: ubuntu, user0" in text
        assert "… and 3 more" in text
        assert "db-admin:" not in text


def test_roles_and_reviewers_that_were_cut_are_counted() -> None:
    known = facts()
    assert known.request is not None
    many = known.request.model_copy(
        update={
            "roles": tuple(f"role{n}" for n in range(100)),
            "role_count": 120,
            "suggested_reviewers": ("carol@example.com",),
            "suggested_reviewer_count": 3,
        }
    )
    for text in texts(render(known=known.model_copy(update={"request": many}))):
        assert "… and 100 more" in text
        assert "2 suggested reviewers, for there are too many" in text
