"""The record in Teleport: what is written can be read again, and nothing that stands in it is ever lost or bent."""

from hypothesis import given
from hypothesis import strategies as st

from services.watcher.record import KEYS, News, Resolution, Thread, announced, merged, threads_of
from services.watcher.teleport.pb import types_pb2

PLAIN = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
ANY = st.one_of(st.text(st.characters(), max_size=30), st.sampled_from(["a,b@x", "a/b@x", '"a,b/c"@x', "\ud800@x", ""]))
"""Protobuf has no surrogates; whatever else may be an address."""

RECORDED = st.builds(lambda *parts: "/".join(parts), PLAIN, PLAIN, PLAIN)
ENTRIES = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys((*KEYS, "email", "timestamp"), PLAIN)
    | {
        "email_threads": st.lists(RECORDED, max_size=4).map(",".join),
        "reviews_count": st.one_of(st.integers(0, 10**12).map(str), PLAIN),
        "resolution": st.one_of(st.sampled_from(["", *Resolution]), PLAIN),
    },
)
NEWS = st.builds(
    News,
    user=PLAIN,
    roles=st.lists(ANY, max_size=3).map(tuple),
    request_reason=PLAIN,
    threads=st.lists(st.builds(Thread, ANY, ANY, ANY), max_size=4).map(tuple),
    review_count=st.integers(0, 30),
    resolution=st.one_of(st.none(), st.sampled_from(Resolution)),
    resolve_reason=PLAIN,
)


def can_stand(thread: Thread) -> bool:
    """Is it one that the Go plugin reads as it was meant?"""
    parts = (thread.address, thread.told, thread.message_id)
    is_text = all(part.encode(errors="ignore").decode() == part for part in parts)
    return is_text and bool(thread.address) and not set("".join(parts)) & set(",/")


@given(NEWS)
def test_what_is_written_is_read_again(news: News) -> None:
    entry = merged({}, news)
    assert set(entry) == set(KEYS)
    standing = {thread.address: thread for thread in news.threads if can_stand(thread)}
    assert {thread.address: thread for thread in threads_of(entry)} == standing
    known = announced(entry)
    if known is None:
        assert not standing
        return
    assert known.user == news.user
    assert known.request_reason == news.request_reason
    assert known.review_count == news.review_count
    assert known.resolution == (news.resolution.value.lower() if news.resolution else "")
    assert set(known.roles) <= set(news.roles)


@given(ENTRIES, NEWS)
def test_nothing_that_stands_there_is_taken_back(entry: dict[str, str], news: News) -> None:
    after = merged(entry, news)
    known = {thread.address: thread for thread in threads_of(entry)}
    now = {thread.address: thread for thread in threads_of(entry | after)}
    assert {address: now[address] for address in known} == known
    assert after["email_threads"].startswith(entry.get("email_threads", ""))
    for key in ("user", "roles", "request_reason"):
        assert after[key] == entry.get(key) or not entry.get(key)


@given(ENTRIES, NEWS)
def test_writing_the_same_again_changes_nothing(entry: dict[str, str], news: News) -> None:
    once = entry | merged(entry, news)
    assert merged(once, news) == {key: once[key] for key in KEYS}


@given(ENTRIES, NEWS)
def test_a_record_can_be_sent(entry: dict[str, str], news: News) -> None:
    after = merged(entry, news)
    update = types_pb2.PluginDataUpdateParams(Kind="access_request", Set=after)
    assert dict(types_pb2.PluginDataUpdateParams.FromString(update.SerializeToString()).Set) == after


@given(ANY, NEWS)
def test_no_address_makes_the_record_name_somebody_else(address: str, news: News) -> None:
    before = merged({}, news)
    after = merged(before, News(threads=(Thread(address, "now", "id@host"),)))
    added = {t.address for t in threads_of(after)} - {t.address for t in threads_of(before)}
    assert added <= {address}


@given(st.dictionaries(st.sampled_from([*KEYS, "email", "timestamp"]), PLAIN))
def test_no_record_makes_reading_fail(entry: dict[str, str]) -> None:
    known = announced(entry)
    for thread in known.threads if known else ():
        assert not set(thread.message_id) & set("<> \r\n\0")
