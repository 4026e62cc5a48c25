"""Export: every conversation that meets the conditions, once, in order, whatever goes on meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from s3conv import Archive, AsyncArchive, ConversationState, CorruptError, IndexDamagedError, UnavailableError
from s3conv.bridge import TaskRunner, ThreadRunner, run_sync
from s3conv.core import exporting, maintaining, merging
from s3conv.core.exporting import DIGEST, SeenIds
from s3conv.core.folding import fold
from s3conv.core.log import list_log, read_intents
from s3conv.core.segments import IndexCache
from s3conv.format.document import Document
from s3conv.format.entry import Intent, encode_intent, entry_of
from s3conv.format.keys import LOG, digest_of, document_key, intent_key, log_prefix
from tests.core.conftest import NoWait, open_scripted
from tests.core.stores import ScriptedStore

DAY = datetime(2025, 3, 1, tzinfo=UTC)


def start(conversation_id: str, day: int = 0, **metadata: Any) -> ConversationState:
    state = ConversationState.start(conversation_id, system="You are helpful", metadata=metadata)
    state.created_at = state.updated_at = DAY + timedelta(days=day)
    return state


def ids(documents: Iterator[Document]) -> list[str]:
    return [document.conversation_id for document in documents]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of three rows or so, segments of two blocks, one block a request, so that few rows make a whole index."""
    monkeypatch.setattr("s3conv.format.blocks.BLOCK", 600)
    monkeypatch.setattr(merging, "SEGMENT", 600)
    monkeypatch.setattr(merging, "MAX_SEGMENT", 600)
    monkeypatch.setattr(exporting, "STREAMED", 1)


def spread(monkeypatch: pytest.MonkeyPatch) -> tuple[Archive, ScriptedStore]:
    """60 conversations of 3 users: in base, mid, the tail and the log, each holding what the others have an older
    revision of."""
    archive, store = open_scripted("metadata.user_id")
    everyone = [start(f"c{n:02}", (n * 7) % 60, user_id=f"user{n % 3}") for n in range(60)]
    for full_tail, full_mid, some in ((0, 0, everyone), (0, 10**9, everyone[::2]), (10**9, 10**9, everyone[::3])):
        monkeypatch.setattr(maintaining, "FULL_TAIL", full_tail)
        monkeypatch.setattr(maintaining, "FULL_MID", full_mid)
        for state in some:
            state.add_message("user", "more")
        archive.save_many(some)
        archive.maintain()
    archive.save_many(everyone[::5])
    stats = archive.stats()
    assert all(run.rows for run in stats.runs.values())
    assert stats.open_intents
    store.reset()
    return Archive(store, NoWait()), store  # one that remembers nothing of the index


def fetched(store: ScriptedStore) -> int:
    """How many documents were fetched."""
    return sum(kind == "get" and key.startswith("conversations/") for kind, key in list(store.log))


def in_order(archive: Archive) -> list[str]:
    """All ids in the order of their sort keys, by the lists."""
    entries = archive.list(limit=1000).items
    return [
        entry.conversation_id
        for entry in sorted(
            entries, key=lambda one: (one.metadata.get("user_id") or "", one.created, one.conversation_id)
        )
    ]


# --- what comes, and in which order ---------------------------------------------------------------------------------


def test_each_matching_conversation_comes_whole_oldest_first(archive: Archive) -> None:
    archive.save_many([start("b", 2, team="x"), start("a", 1, team="x"), start("c", 0, team="y")])
    documents = list(archive.export({"metadata.team": "x"}))
    assert [document.conversation_id for document in documents] == ["a", "b"]
    assert documents[0].state() == archive.load("a")


@pytest.mark.usefixtures("small")
def test_all_runs_and_the_log_come_as_one_in_the_order_of_the_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    archive, store = spread(monkeypatch)
    exported = list(archive.export())
    assert [document.conversation_id for document in exported] == in_order(archive)
    assert len(exported) == 60
    for document in exported:
        loaded = archive.load(document.conversation_id)
        assert loaded == document.state()
    store.reset()
    assert len(ids(archive.export({"metadata.user_id": "user1"}))) == 20
    assert fetched(store) == 20  # no document is opened for nothing


@pytest.mark.parametrize("folded", [False, True])
def test_what_has_moved_comes_at_its_new_place(folded: bool) -> None:
    archive, _ = open_scripted("metadata.user_id")
    archive.save_many([start(f"{user}{n}", n, user_id=user) for user in "bmy" for n in range(2)])
    archive.maintain()
    for conversation_id, user in (("b0", "z"), ("y1", "a")):
        with archive.edit(conversation_id) as state:
            state.metadata["user_id"] = user
    if folded:
        archive.maintain()
    assert ids(archive.export()) == ["y1", "b1", "m0", "m1", "y0", "b0"]
    assert ids(archive.export({"metadata.user_id": "b"})) == ["b1"]
    assert ids(archive.export({"metadata.user_id": "a"})) == ["y1"]


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    "where",
    [
        {"metadata.user_id": "user2", "created_at": {"gte": DAY + timedelta(days=10), "lt": DAY + timedelta(days=40)}},
        {"updated_at": {"gte": DAY + timedelta(days=30)}},
        {"message_count": {"gte": 3}},
        {"conversation_id": {"prefix": "c1"}},
        {"metadata.user_id": "nobody"},
    ],
)
def test_a_filter_gives_what_a_list_gives(monkeypatch: pytest.MonkeyPatch, where: dict[str, Any]) -> None:
    archive, _ = spread(monkeypatch)
    listed = {entry.conversation_id for entry in archive.list(where, limit=1000).items}
    exported = ids(archive.export(where))
    assert sorted(exported) == sorted(listed)
    assert exported == [one for one in in_order(archive) if one in listed]


def test_a_condition_on_metadata_that_was_cut_asks_the_document(archive: Archive, store: ScriptedStore) -> None:
    long = "x" * 9000
    archive.save_many([start("a", 0, z="yes" + long), start("b", 1, z="no" + long), start("c", 2, z="yes")])
    store.reset()
    assert ids(archive.export({"metadata.z": {"prefix": "yes"}})) == ["a", "c"]
    assert fetched(store) == 3


def test_skipped_ids_are_not_fetched(archive: Archive, store: ScriptedStore) -> None:
    archive.save_many([start("a", 0), start("b", 1), start("c", 2)])
    store.reset()
    assert ids(archive.export(skip={"b"})) == ["a", "c"]
    assert not any(key.endswith("/b.json.zst") for _, key in store.log)


def test_asynchronously(archive: Archive, store: ScriptedStore) -> None:
    archive.save_many([start("a", 0), start("b", 1)])

    async def exported() -> list[str]:
        reader = AsyncArchive(store, TaskRunner())
        return [document.conversation_id async for document in reader.export(skip=["a"])]

    assert asyncio.run(exported()) == ["b"]


# --- what goes on meanwhile -----------------------------------------------------------------------------------------


def test_what_is_deleted_meanwhile_is_left_out(archive: Archive) -> None:
    archive.save_many([start("a", 0), start("b", 1)])
    exported = archive.export()
    assert next(exported).conversation_id == "a"
    archive.delete("b")
    assert list(exported) == []


def test_what_is_changed_meanwhile_comes_as_it_is_then_or_not_at_all(archive: Archive) -> None:
    archive.save_many([start(one, n, team="x") for n, one in enumerate("abc")])
    archive.maintain()
    exported = archive.export({"metadata.team": "x"})
    assert next(exported).conversation_id == "a"
    for conversation_id, team in (("b", "x"), ("c", "y")):
        with archive.edit(conversation_id) as state:
            state.add_message("user", "new")
            state.metadata["team"] = team
    (document,) = exported
    assert document.conversation_id == "b"
    assert [message.content for message in document.state().get_current_messages()][-1] == "new"


@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.parametrize(("old", "new"), [("m", "a"), ("m", "z"), ("b", "z"), ("y", "a")])
def test_what_moves_to_another_partition_meanwhile_comes_once(old: str, new: str, folded: bool) -> None:
    archive, _ = open_scripted("metadata.user_id")
    archive.save_many([start(f"{user}{n}", n, user_id=user) for user in "bmy" for n in range(3)])
    if folded:
        archive.maintain()
    exported = archive.export()
    seen = [next(exported).conversation_id for _ in range(4)]  # all of b's, and the first of m's
    with archive.edit(f"{old}1") as state:
        state.metadata["user_id"] = new
    archive.maintain()
    seen += ids(exported)
    assert sorted(seen) == sorted(f"{user}{n}" for user in "bmy" for n in range(3))


def test_a_writer_that_lost_or_died_changes_nothing(archive: Archive, store: ScriptedStore) -> None:
    archive.save(start("c", 5, team="x"))
    archive.maintain()
    for revision, write, day in ((1, "aa", 1), (2, "bb", 9)):
        loser = start("c", day, team="y")
        intent = Intent(entry=entry_of(loser, revision, 100, None), write=write)
        run_sync(store.inner.put(intent_key(log_prefix("null"), "c", revision, write), encode_intent(intent)))
    dead = Intent(entry=entry_of(start("dead"), 1, 100, None), write="cc")
    run_sync(store.inner.put(intent_key(log_prefix("null"), "dead", 1, "cc"), encode_intent(dead)))
    assert ids(archive.export()) == ["c"]
    assert ids(archive.export({"metadata.team": "x"})) == ["c"]  # what it says, whoever is about to change it
    assert ids(archive.export({"metadata.team": "y"})) == []


@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.parametrize("announced", ["a move", "a change", "a delete"])
def test_what_is_announced_and_not_made_hides_nothing(announced: str, folded: bool) -> None:
    archive, store = open_scripted("metadata.user_id")
    archive.save_many([start("c", user_id="a", team="x"), start("d", 1, user_id="a", team="y")])
    if folded:
        archive.maintain()
    other = Archive(store, NoWait())
    state = other.load("c")
    assert state is not None
    state.metadata["user_id" if announced == "a move" else "team"] = "b"
    store.fail("put", document_key("c"), RuntimeError("killed"))
    with pytest.raises(RuntimeError, match="killed"):
        other.delete("c") if announced == "a delete" else other.save(state)
    assert archive.list({"metadata.user_id": "a", "metadata.team": "x"}).items == []  # a list believes it for a minute
    assert sorted(ids(archive.export())) == ["c", "d"]
    assert ids(archive.export({"metadata.user_id": "a", "metadata.team": "x"})) == ["c"]
    assert ids(archive.export({"metadata.team": "x", "created_at": {"lte": DAY}})) == ["c"]
    assert ids(archive.export({"metadata.user_id": "b"})) == []
    assert ids(archive.export({"metadata.team": "b"})) == []
    store.reset()
    assert ids(archive.export({"conversation_id": "d"})) == ["d"]
    assert fetched(store) == 1  # what is about another id is not opened


def test_a_new_save_that_lost_hides_nothing(archive: Archive, store: ScriptedStore) -> None:
    archive.save(start("c", team="x"))
    archive.maintain()
    lost = Intent(entry=entry_of(start("c", team="y"), 1, 100, None), write="aa")
    run_sync(store.inner.put(intent_key(log_prefix("null"), "c", 1, "aa"), encode_intent(lost)))
    assert ids(archive.export({"metadata.team": "x"})) == ["c"]


def test_a_filter_opens_no_new_conversation_that_does_not_meet_it(archive: Archive, store: ScriptedStore) -> None:
    archive.save_many([start("a", team="x"), start("b", team="y")])
    store.reset()
    assert ids(archive.export({"metadata.team": "x"})) == ["a"]
    assert fetched(store) == 1


def test_what_moves_while_the_index_is_read_comes_once() -> None:
    """The list of the log has no move yet; the manifest has its row, and not the one that shadows the old place."""
    archive, store = open_scripted("metadata.user_id")
    archive.save(start("c", user_id="a"))
    other, late = Archive(store.inner, NoWait()), IndexCache()
    listed = run_sync(list_log(other._context, LOG))  # by a fold that then takes its time
    run_sync(read_intents(other._context, late.log, listed))
    archive.maintain()

    def move() -> None:
        with other.edit("c") as state:
            state.metadata["user_id"] = "b"
        run_sync(fold(other._context, late, listed))

    store.before("get", "index/manifest.json", move)
    assert ids(archive.export()) == ["c"]


def overtake(archive: Archive, store: ScriptedStore, meanwhile: Callable[[], object]) -> None:
    """A day of maintenance: what the manifest named until now is replaced and gone."""
    meanwhile()
    before = store.keys("index/segments/")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(maintaining, "FULL_TAIL", 0)
        patch.setattr(maintaining, "FULL_MID", 0)
        archive.save(start("zz", 400, user_id="zz"))
        archive.maintain()
    manifest = run_sync(store.inner.get("index/manifest.json"))
    assert manifest is not None
    run_sync(store.inner.delete([key for key in before if key.split("/")[-1][:26].encode() not in manifest.body]))


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("at", [1, 20, 45])
def test_an_export_that_takes_days_gives_each_once(monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """Conversations move over the place where it is, in both directions, and the index is replaced under it."""
    archive, store = spread(monkeypatch)
    wanted = set(in_order(Archive(store, NoWait())))
    exported = archive.export()
    seen = [next(exported).conversation_id for _ in range(at)]

    def move() -> None:
        for number in range(0, 60, 4):
            with other.edit(f"c{number:02}") as state:
                state.metadata["user_id"] = "user" + "210"[number % 3]

    other = Archive(store, NoWait())
    overtake(other, store, move)
    store.reset()
    seen += ids(exported)
    assert ("get", "index/manifest.json") in store.log  # it had to begin again
    assert len(seen) == len(set(seen))
    assert wanted <= set(seen) <= {*wanted, "zz"}


@pytest.mark.usefixtures("small")
def test_an_export_that_is_overtaken_for_ever_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    archive, store = spread(monkeypatch)
    monkeypatch.setattr(exporting, "check_overtaken", _nothing)
    run_sync(store.inner.delete(store.keys("index/segments/")))
    with pytest.raises(UnavailableError, match="changed under"):
        list(archive.export())


async def _nothing(*_: object) -> None:
    return None


# --- damage, and what is held in memory -----------------------------------------------------------------------------


def test_a_segment_that_is_named_and_missing_is_damage(archive: Archive, store: ScriptedStore) -> None:
    archive.save(start("a"))
    archive.maintain()
    (segment,) = store.keys("index/segments/")
    run_sync(store.inner.delete([segment]))
    with pytest.raises(IndexDamagedError, match=segment):
        list(archive.export())


def test_a_document_that_the_index_has_and_the_store_has_not_is_damage(archive: Archive, store: ScriptedStore) -> None:
    archive.save_many([start("a", 0), start("b", 1), start("c", 2)])
    archive.maintain()
    run_sync(store.inner.delete([document_key("b")]))
    exported = archive.export()
    assert next(exported).conversation_id == "a"
    with pytest.raises(CorruptError, match=r"/b\.json\.zst is missing.*restore it"):
        list(exported)
    assert ids(archive.export(skip=["b"])) == ["a", "c"]


def test_a_damaged_document_is_an_error_that_names_it(archive: Archive, store: ScriptedStore) -> None:
    archive.save(start("a"))
    (whole,) = archive.export()
    found = run_sync(store.inner.get(document_key("a")))
    assert found is not None
    passed = 0
    for place in range(len(found.body)):
        body = bytearray(found.body)
        body[place] ^= 4
        run_sync(store.inner.put(document_key("a"), bytes(body)))
        outcome = outcome_of(archive)
        passed += outcome == whole.line  # zstd has a few bits that say nothing
        assert outcome == whole.line or "/a.json.zst" in str(outcome)
    assert passed <= 8


def outcome_of(archive: Archive) -> bytes | str:
    """The one line of an export, or why there is none."""
    try:
        (document,) = archive.export()
    except CorruptError as error:
        return str(error)
    return document.line


def test_no_more_than_a_window_of_documents_is_read_ahead(archive: Archive, store: ScriptedStore) -> None:
    archive.save_many([start(f"c{n:03}", n) for n in range(100)])
    archive.maintain()
    store.fan_out = 8
    runner = ThreadRunner(8)
    try:
        exported = Archive(store, runner).export()
        store.reset()
        for number in range(1, 60):
            next(exported)
            assert fetched(store) <= number + 8
        assert len(ids(exported)) == 41
    finally:
        runner.close()


def test_ids_that_were_seen_are_known_again() -> None:
    seen = SeenIds()
    for number in range(0, 2000, 2):
        seen.add(digest_of(f"conversation {number}"))
    assert len(seen) == 1000
    assert [n for n in range(2000) if f"conversation {n}" in seen] == list(range(0, 2000, 2))
    seen.add(digest_of("conversation 1"))  # after some were asked for
    assert "conversation 1" in seen
    again = SeenIds()
    assert "ü" not in again
    again.add_all(b"".join(digest_of(one)[:DIGEST] for one in ("ü", "a", "b")))
    assert all(one in again for one in ("ü", "a", "b"))
    assert "u" not in again


def test_ids_are_told_apart_by_16_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of them the same is another id: what an export leaves out it must have given."""
    digests = {"a": b"x" * 16, "b": b"x" * 8 + b"y" * 8, "c": b"x" * 15 + b"y"}
    monkeypatch.setattr(exporting, "digest_of", lambda one: digests[one] + b"rest")
    seen = SeenIds()
    seen.add(digests["a"])
    assert [one for one in "abc" if one in seen] == ["a"]


def test_the_end_of_one_id_and_the_beginning_of_the_next_are_no_id(monkeypatch: pytest.MonkeyPatch) -> None:
    digests = {"a": b"xxxx" + b"y" * 12, "b": b"xxxx" + b"z" * 12, "over": b"xxxy" + b"y" * 11 + b"x"}
    monkeypatch.setattr(exporting, "digest_of", lambda one: digests[one])
    seen = SeenIds()
    seen.add(digests["a"])
    seen.add(digests["b"])
    assert (digests["a"] + digests["b"]).find(digests["over"]) == 1
    assert [one for one in digests if one in seen] == ["a", "b"]
