"""What a list shows: every acknowledged save, no dead one, in order, by pages; and never a shorter list in silence."""

from __future__ import annotations

import base64
import json
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from s3conv import (
    AccessDeniedError,
    Archive,
    ConversationState,
    CorruptError,
    IndexDamagedError,
    InvalidInputError,
    UnavailableError,
    UnsupportedFormatError,
)
from s3conv.bridge import run_sync
from s3conv.core import index
from s3conv.format.document import NOTHING
from s3conv.format.entry import Intent, encode_intent, entry_of, index_time
from s3conv.format.keys import intent_key, log_prefix
from tests.core.conftest import NoWait, open_scripted
from tests.core.stores import ScriptedStore

DAY = datetime(2025, 3, 1, tzinfo=UTC)


def start(conversation_id: str, day: int = 0, **metadata: Any) -> ConversationState:
    state = ConversationState.start(conversation_id, system="You are helpful", metadata=metadata)
    state.created_at = state.updated_at = DAY + timedelta(days=day)
    return state


def ids(archive: Archive, **options: Any) -> list[str]:
    return [entry.conversation_id for entry in archive.list(**options).items]


def announce(store: ScriptedStore, state: ConversationState, revision: int, write: str) -> str:
    """Put an intent into the log as a writer does that goes no further."""
    intent = Intent(entry=entry_of(state, revision, 100, None), write=write)
    key = intent_key(log_prefix("null"), state.conversation_id, revision, write)
    run_sync(store.inner.put(key, encode_intent(intent)))
    return key


# --- what counts ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hints", [True, False])
def test_the_newest_revision_counts_whatever_the_store_remembers(
    archive: Archive, store: ScriptedStore, hints: bool
) -> None:
    store.hints = hints
    state = start("c", title="old")
    archive.save(state)
    state.metadata["title"] = "new"
    archive.save(state)
    for clock in (0, 61):
        store.clock = clock
        (entry,) = archive.list().items
        assert (entry.revision, entry.metadata) == (2, {"title": "new"})


def test_an_old_announcement_without_its_document_does_not_count(archive: Archive, store: ScriptedStore) -> None:
    announce(store, start("dead"), 1, "aa")
    state = start("c", title="committed")
    archive.save(state)
    state.metadata["title"] = "never committed"
    announce(store, state, 2, "bb")
    assert archive.list({"conversation_id": "c"}).items[0].metadata == {"title": "never committed"}
    store.clock = 61
    assert [(entry.conversation_id, entry.metadata) for entry in archive.list().items] == [
        ("c", {"title": "committed"})
    ]


@pytest.mark.parametrize("hints", [True, False])
def test_of_two_announcements_of_one_revision_the_document_tells_which_won(
    archive: Archive, store: ScriptedStore, hints: bool
) -> None:
    store.hints = hints
    state = start("c", title="winner")
    archive.save(state)
    announce(store, start("c", title="loser"), 1, "ff")
    assert archive.list().items[0].metadata == {"title": "winner"}


def test_a_document_that_is_ahead_of_its_announcements_has_the_last_word(
    archive: Archive, store: ScriptedStore
) -> None:
    state = start("c", title="old")
    archive.save(state)
    log = store.keys("index/log/")
    state.metadata["title"] = "new"
    state.add_message("user", "more")
    archive.save(state)
    run_sync(store.inner.delete([key for key in store.keys("index/log/") if key not in log]))
    store.clock = 61
    (entry,) = archive.list().items
    assert (entry.revision, entry.message_count, entry.metadata) == (2, 2, {"title": "new"})


def test_a_confirmation_is_remembered_and_a_doubt_is_not(archive: Archive, store: ScriptedStore) -> None:
    archive.save(start("c"))
    announce(store, start("dead"), 1, "aa")
    store.clock = 61
    archive.count()
    store.reset()
    assert archive.count() == 1
    assert store.counts == {"list": 1, "get": 1, "head": 1}  # the manifest; the dead one


def test_a_deleted_conversation_is_not_listed(archive: Archive, store: ScriptedStore) -> None:
    archive.save_many([start("a"), start("b")])
    archive.delete("a")
    for clock in (0, 61):
        store.clock = clock
        assert ids(archive) == ["b"]


# --- costs ----------------------------------------------------------------------------------------------------------


def test_a_list_costs_one_list_the_manifest_and_new_announcements(archive: Archive, store: ScriptedStore) -> None:
    for number in range(5):
        archive.save(start(f"c{number}"))
    store.reset()
    assert archive.count() == 5
    assert store.counts == {"list": 1, "get": 1 + 5}
    store.reset()
    archive.save(start("another"))
    store.reset()
    assert archive.count() == 6
    assert store.counts == {"list": 1, "get": 1 + 1}
    store.reset()
    archive.list({"metadata.x": {"exists": False}}, limit=3)
    assert store.counts == {"list": 1, "get": 1}


def test_the_log_is_listed_before_the_manifest_is_read(archive: Archive, store: ScriptedStore) -> None:
    archive.save(start("c"))
    store.reset()
    archive.count()
    assert [kind for kind, _ in store.log[:2]] == ["list", "get"]
    assert store.log[1][1] == "index/manifest.json"


def test_a_list_of_one_partition_reads_no_others_announcements() -> None:
    archive, store = open_scripted("metadata.user_id")
    for user in ("alice", "bob", "carol"):
        for number in range(4):
            archive.save(start(f"{user}{number}", user_id=user))
    store.reset()
    assert len(ids(archive, where={"metadata.user_id": "bob"})) == 4
    assert store.counts == {"list": 1, "get": 1 + 4}


@pytest.mark.parametrize(
    ("value", "same"), [("5", ["text"]), (5, ["int", "float"]), (None, ["null"]), (True, ["true"]), ([1], ["list"])]
)
def test_partition_values_keep_their_types(value: object, same: list[str]) -> None:
    archive, _ = open_scripted("metadata.user_id")
    values = {"text": "5", "int": 5, "float": 5.0, "null": None, "true": True, "list": [1], "dict": {"a": 1}}
    for name, user in values.items():
        archive.save(start(name, user_id=user))
    archive.save(start("missing"))
    assert sorted(ids(archive, where={"metadata.user_id": value})) == sorted(same)
    assert archive.count() == 8


def test_more_announcements_than_one_page_are_all_read(archive: Archive, store: ScriptedStore) -> None:
    for number in range(1005):
        announce(store, start(f"c{number}"), 1, "aa")
    store.reset()
    assert archive.count() == 1005
    assert store.counts["list"] == 2


# --- selecting, ordering, paging ------------------------------------------------------------------------------------


def test_the_default_order_is_newest_first_and_equal_times_by_id(archive: Archive) -> None:
    archive.save_many([start("b", 1), start("a", 1), start("new", 2), start("old", 0)])
    assert ids(archive) == ["new", "a", "b", "old"]
    assert ids(archive, order="updated_at") == ["old", "a", "b", "new"]
    assert ids(archive, order="-conversation_id", limit=2) == ["old", "new"]
    assert ids(archive, limit=2, offset=1) == ["a", "b"]


def test_pages_by_cursor_show_each_conversation_once(archive: Archive) -> None:
    archive.save_many([start(f"c{number:02}", number % 3, rank=number % 4) for number in range(25)])
    for order in ("-updated_at", "metadata.rank", "-metadata.rank", "conversation_id", "message_count"):
        seen: list[str] = []
        after = None
        while True:
            page = archive.list(order=order, limit=4, after=after)
            seen += [entry.conversation_id for entry in page.items]
            after = page.next
            if after is None:
                break
        assert seen == [entry.conversation_id for entry in archive.iterate(order=order)]
        assert len(set(seen)) == 25


def test_a_cursor_belongs_to_its_filter_and_order(archive: Archive) -> None:
    archive.save_many([start(f"c{number}", team="x") for number in range(5)])
    cursor = archive.list({"metadata.team": "x"}, limit=2).next
    for options in (
        {"where": {"metadata.team": "y"}},
        {"where": {"metadata.team": "x"}, "order": "updated_at"},
        {},
    ):
        with pytest.raises(InvalidInputError, match="another filter or order"):
            archive.list(after=cursor, **options)
    with pytest.raises(InvalidInputError, match="expected a cursor"):
        archive.list(after="nonsense")


MEDDLED = st.text(st.sampled_from("0123456789-:.TZ24\u0662"), max_size=28) | st.builds(
    lambda at, one: f"{index_time(DAY)[:at]}{one}{index_time(DAY)[at + 1 :]}",
    st.integers(0, 27),
    st.characters(codec="utf-8"),
)


@pytest.mark.parametrize("order", ["-updated_at", "updated_at", "-created_at", "metadata.user_id", "-size"])
def test_a_cursor_that_was_meddled_with_is_refused_or_gives_a_page(order: str) -> None:
    archive, _ = open_scripted("metadata.user_id")
    for name in "abc":
        archive.save(start(name, user_id="alice"))
    archive.maintain()
    where = {"metadata.user_id": "alice"}
    cursor = archive.list(where, order, limit=1).next or ""
    found = json.loads(base64.urlsafe_b64decode(cursor + "=="))[0]

    @given(st.integers(0, 5), MEDDLED | st.integers() | st.floats(allow_nan=False) | st.booleans() | st.none())
    @example(4, "abc")
    @example(4, "0000-01-01T00:00:00.000000Z")
    @example(0, 0)
    @example(3, 5)
    def meddle(rank: int, position: object) -> None:
        forged = base64.urlsafe_b64encode(json.dumps([found, rank, position, "b"]).encode()).decode()
        with suppress(InvalidInputError):
            assert len(archive.list(where, order, limit=2, after=forged.rstrip("=")).items) <= 2

    meddle()


def test_times_compare_as_instants_however_they_are_given(archive: Archive) -> None:
    archive.save_many([start("before", 0), start("at", 1), start("after", 2)])
    noon = DAY + timedelta(days=1)
    for time in (noon, noon.replace(tzinfo=None), noon.isoformat(), "2025-03-02T02:00:00+02:00"):
        assert ids(archive, where={"updated_at": {"gte": time}}, order="updated_at") == ["at", "after"]
        assert ids(archive, where={"created_at": time}) == ["at"]


def test_metadata_keys_match_exactly_first_and_then_as_a_path(archive: Archive) -> None:
    exact: Any = {"a.b": 2}
    archive.save_many([start("path", a={"b": 1}), start("exact", **exact), start("both", **exact, a={"b": 1})])
    assert ids(archive, where={"metadata.a.b": 1}) == ["path"]
    assert ids(archive, where={"metadata.a.b": 2}, order="conversation_id") == ["both", "exact"]


def test_metadata_that_did_not_fit_the_entry_is_answered_by_the_document(
    archive: Archive, store: ScriptedStore
) -> None:
    archive.save(start("big", blob="x" * 9000, note="y" * 8180, zz="last"))
    archive.save(start("small", zz="first"))
    store.reset()
    assert ids(archive, where={"metadata.zz": "last"}) == ["big"]
    assert store.counts["get"] == 1 + 2 + 1
    assert ids(archive, where={"metadata.blob": {"prefix": "xxx"}}) == ["big"]
    assert ids(archive, where={"metadata.blob": {"exists": False}}) == ["small"]
    assert ids(archive, where={"metadata.nothing": {"ne": 1}}, order="conversation_id") == ["big", "small"]
    assert ids(archive, order="metadata.blob") == ["small", "big"]
    assert archive.count({"metadata.zz": {"exists": True}}) == 2


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"limit": 0}, "limit"),
        ({"limit": True}, "limit"),
        ({"offset": -1}, "offset"),
        ({"order": "title"}, r"metadata\.<path>"),
        ({"where": {"user_id": 1}}, r"metadata\.<path>"),
        ({"where": {"metadata.x": {"like": 1}}}, "operator 'like'"),
        ({"where": {"updated_at": "yesterday"}}, "yesterday"),
        ({"where": "title=x"}, "conditions by field"),
    ],
)
def test_a_list_that_makes_no_sense_is_refused_by_name(archive: Archive, options: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidInputError, match=named):
        archive.list(**options)


# --- damage ---------------------------------------------------------------------------------------------------------


def test_a_missing_manifest_is_damage(archive: Archive, store: ScriptedStore) -> None:
    run_sync(store.inner.delete(["index/manifest.json"]))
    with pytest.raises(IndexDamagedError, match=r"index/manifest\.json is missing.*verify --repair"):
        archive.list()


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'{"format":1,"kind":"manifest"}', b'"x"'])
def test_a_manifest_that_is_none_is_damage(archive: Archive, store: ScriptedStore, body: bytes) -> None:
    run_sync(store.inner.put("index/manifest.json", body))
    with pytest.raises(IndexDamagedError, match=r"manifest\.json"):
        archive.list()


def test_a_manifest_of_the_future_is_refused_by_name(archive: Archive, store: ScriptedStore) -> None:
    for body, named in (
        (b'{"format":2,"kind":"manifest"}', "format 2"),
        (b'{"format":1,"kind":"manifest","requires":["bloom"]}', "bloom"),
    ):
        run_sync(store.inner.put("index/manifest.json", body))
        with pytest.raises(UnsupportedFormatError, match=named):
            archive.list()


@pytest.mark.parametrize("spoil", [lambda body: body[:-4], lambda body: b"", lambda body: b"x" + body])
def test_a_corrupt_announcement_is_an_error_that_names_it(archive: Archive, store: ScriptedStore, spoil: Any) -> None:
    archive.save(start("c"))
    (key,) = store.keys("index/log/")
    run_sync(store.inner.put(key, spoil(store.inner._space.objects[key].body)))  # type: ignore[attr-defined]  # memory
    with pytest.raises(IndexDamagedError, match=key):
        Archive(store, NoWait()).list()


def test_a_strange_object_in_the_log_is_an_error_that_names_it(archive: Archive, store: ScriptedStore) -> None:
    run_sync(store.inner.put("index/log/0000/readme.txt", b"hello"))
    with pytest.raises(IndexDamagedError, match=r"readme\.txt"):
        archive.list()


def test_a_list_that_is_overtaken_begins_again(archive: Archive, store: ScriptedStore) -> None:
    archive.save(start("a"))
    key = announce(store, start("b"), 1, "aa")
    store.before("get", key, lambda: run_sync(store.inner.delete([key])))
    assert ids(archive) == ["a"]
    assert store.counts["list"] == 2


def test_a_list_that_is_overtaken_again_and_again_gives_up(
    archive: Archive, store: ScriptedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index, "RESTARTS", 3)
    for number in range(5):
        key = announce(store, start(f"c{number}"), 1, "aa")
        store.before("get", key, lambda key=key: run_sync(store.inner.delete([key])))  # type: ignore[misc]  # default
    with pytest.raises(UnavailableError, match="3 reads"):
        archive.list()


def test_errors_of_the_store_are_not_shorter_lists(archive: Archive, store: ScriptedStore) -> None:
    archive.save(start("c"))
    for kind, part in (("list", "index/log/"), ("get", "manifest"), ("get", "index/log/")):
        store.fail(kind, part, AccessDeniedError("403"))
        with pytest.raises(AccessDeniedError):
            Archive(store, NoWait()).list()


def test_a_corrupt_document_is_an_error_that_names_it(archive: Archive, store: ScriptedStore) -> None:
    archive.save(start("c"))
    (key,) = store.keys("conversations/")
    body = store.inner._space.objects[key].body  # type: ignore[attr-defined]  # a MemoryStore's
    for spoiled in (body[:-1], body[:40], b"", b"not zstd", body + b"x"):
        run_sync(store.inner.put(key, spoiled))
        for operation in (lambda: archive.load("c"), lambda: archive.delete("c"), lambda: list(archive.export())):
            with pytest.raises(CorruptError, match=key):
                operation()
        run_sync(store.inner.put(key, body))
    assert archive.load("c") is not None


def test_documents_that_changed_places_are_noticed(archive: Archive, store: ScriptedStore) -> None:
    archive.save_many([start("a"), start("b")])
    one, other = store.keys("conversations/")
    objects = store.inner._space.objects  # type: ignore[attr-defined]  # a MemoryStore's
    objects[one], objects[other] = objects[other], objects[one]
    with pytest.raises(CorruptError, match="holds conversation 'b'; expected 'a'"):
        archive.load("a")


def test_the_first_write_of_a_conversation_is_revision_1() -> None:
    assert NOTHING.next("x").revision == 1
