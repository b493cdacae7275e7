"""What is on the stream counts as known until the router's memory says as much, for a while, and within bounds."""

import pytest

from services.watcher import appended
from services.watcher.appended import Appended
from shared.event_log import KnownRequest
from shared.events import AccessRequest, Cluster, RequestChanged, RequestGone, RequestState

CLUSTER = Cluster(name="teleport.example.com")
PENDING, APPROVED = RequestState.PENDING, RequestState.APPROVED


def changed(request_id: str, state: RequestState = PENDING, reviews: int = 0) -> RequestChanged:
    request = AccessRequest(id=request_id, user="alice", roles=("editor",), state=state, review_count=reviews)
    return RequestChanged(request=request, cluster=CLUSTER)


def test_what_was_appended_is_known() -> None:
    notes = Appended()
    notes.note([changed("one", reviews=2), RequestGone(request_id="two")])
    assert notes.added_to({}, ["one", "two", "three"]) == {
        "one": KnownRequest(PENDING, 2, gone=False),
        "two": KnownRequest(None, 0, gone=True),
    }
    assert notes.is_gone("two")
    assert not notes.is_gone("one")


def test_knowledge_only_grows_in_whatever_order_it_comes() -> None:
    notes = Appended()
    notes.note([changed("one", APPROVED, 1), changed("one", PENDING, 0), RequestGone(request_id="one")])
    known = {"one": KnownRequest(PENDING, 3, gone=False)}
    assert notes.added_to(known, ["one"]) == {"one": KnownRequest(APPROVED, 3, gone=True)}


def test_once_the_router_knows_as_much_its_word_alone_counts() -> None:
    notes = Appended()
    notes.note([changed("one")])
    known = {"one": KnownRequest(APPROVED, 1, gone=False)}
    assert notes.added_to(known, ["one"]) == known
    assert notes.added_to({}, ["one"]) == {}, "a router that forgets is told again"


def test_when_the_stream_is_lost_nothing_is_known() -> None:
    notes = Appended()
    notes.note([changed("one")])
    notes.forget()
    assert notes.added_to({}, ["one"]) == {}


def test_after_a_while_it_is_told_again(monkeypatch: pytest.MonkeyPatch) -> None:
    notes = Appended()
    notes.note([changed("one"), RequestGone(request_id="two")])
    monkeypatch.setattr(appended, "SECONDS", -1)
    assert notes.added_to({}, ["one"]) == {}
    assert not notes.is_gone("two")


def test_the_oldest_are_forgotten_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(appended, "KEPT", 2)
    notes = Appended()
    notes.note([changed("one"), changed("two"), changed("one"), changed("three")])
    assert notes.added_to({}, ["one", "two", "three"]).keys() == {"one", "three"}
