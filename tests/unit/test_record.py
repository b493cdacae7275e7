"""The record as the Go plugin writes it, byte for byte, and as it is read from Teleport's own bytes."""

from typing import cast

import pytest

from services.watcher.record import News, Resolution, Thread, announced, as_go_writes, merged
from services.watcher.teleport.pb import types_pb2
from shared.events import Announced, AnnouncedThread
from tests.contracts.golden import message

ANN = Thread("ann@example.com", "2026-03-03 09:15:01.500000 +0000 UTC", "r1-requested-0123456789ab@example.com")


def entry(name: str) -> dict[str, str]:
    item = cast("types_pb2.PluginDataV3", message(name))
    return dict(item.Spec.Entries["email"].Data)


def test_a_record_of_the_go_plugin_names_its_threads() -> None:
    assert announced(entry("plugin_data")) == Announced(
        threads=(
            AnnouncedThread(address="carol@example.com", message_id="2H1A8Q9XYZ.3W5E1@host"),
            AnnouncedThread(address="dave@example.com", message_id="2H1A8Q9XYZ.3W5E2@host"),
        ),
        review_count=1,
        user="alice",
        roles=("access", "editor"),
        request_reason="because",
    )


def test_the_oldest_form_names_one_person_without_a_message() -> None:
    known = announced(entry("plugin_data_legacy"))
    assert known is not None
    assert known.threads == (AnnouncedThread(address="carol@example.com"),)


def test_a_record_that_the_go_plugin_wrote_before_it_sent_names_nobody() -> None:
    assert announced({"user": "alice", "roles": "editor", "reviews_count": "1"}) is None


def test_the_seven_texts_are_those_of_the_go_plugin() -> None:
    news = News(
        user="alice",
        roles=("access", "editor"),
        request_reason="because",
        threads=(ANN, Thread("bob@example.com", "t", "m@h")),
        review_count=2,
        resolution=Resolution.APPROVED,
        resolve_reason="fine, go ahead",
    )
    assert merged({}, news) == {
        "user": "alice",
        "roles": "access,editor",
        "request_reason": "because",
        "reviews_count": "2",
        "resolution": "APPROVED",
        "resolve_reason": "fine, go ahead",
        "email_threads": f"ann@example.com/{ANN.told}/{ANN.message_id},bob@example.com/t/m@h",
    }


def test_the_first_receipt_is_written_as_the_go_plugin_writes_a_new_request() -> None:
    update = cast("types_pb2.PluginDataUpdateParams", message("plugin_data_update"))
    news = News(user="alice", roles=("editor",), threads=(Thread("a@example.com", "t", "m@h"),))
    assert merged({}, news) == dict(update.Set)


@pytest.mark.parametrize("address", ['"a,b"@example.com', "a/b@example.com", ""])
def test_an_address_that_would_break_the_list_is_left_out(address: str) -> None:
    after = merged({}, News(threads=(ANN, Thread(address, "t", "m@h"))))
    assert after["email_threads"] == ANN.encoded


@pytest.mark.parametrize(
    ("before", "news", "after"),
    [
        ("", Resolution.APPROVED, "APPROVED"),
        ("APPROVED", Resolution.DENIED, "DENIED"),
        ("DENIED", Resolution.APPROVED, "DENIED"),
        ("EXPIRED", Resolution.APPROVED, "EXPIRED"),
        ("SOMETHING", Resolution.DENIED, "SOMETHING"),
    ],
)
def test_a_resolution_gives_way_to_what_overrules_it(before: str, news: Resolution, after: str) -> None:
    entry = {"resolution": before, "resolve_reason": "old"}
    changed = merged(entry, News(resolution=news, resolve_reason="new"))
    assert (changed["resolution"], changed["resolve_reason"]) == (after, "old" if before == after else "new")


def test_an_id_that_could_break_a_header_is_no_id() -> None:
    known = announced({"email_threads": "a@example.com/t/x> <y@h,b@example.com/t/m@h"})
    assert known is not None
    assert [thread.message_id for thread in known.threads] == ["", "m@h"]


def test_times_are_written_as_go_does() -> None:
    assert as_go_writes(1772529301.5) == "2026-03-03 09:15:01.500000 +0000 UTC"
