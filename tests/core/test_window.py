"""The activity window: what it saves, and how far a list may be behind because of it. DESIGN.md, section 6."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from s3conv import Archive, ConversationState, CorruptError, InvalidInputError, S3ConversationStorage, UnavailableError
from s3conv.bridge import run_sync
from s3conv.core.window import MARGIN
from s3conv.format.codec import compress, decompress
from s3conv.format.document import decode_document
from s3conv.format.entry import BATCH
from s3conv.format.keys import document_key
from s3conv.store import open_store
from tests.core.conftest import NoWait
from tests.core.stores import ScriptedStore

WINDOW = 60.0


@dataclass
class Clocks:
    """The store's clock, and the callers'."""

    store: float = 1_800_000_000.0
    wall: float = 500.0

    def advance(self, seconds: float) -> None:
        self.store += seconds
        self.wall += seconds


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> Clocks:
    clocks = Clocks()
    monkeypatch.setattr("s3conv.store.memory.time", SimpleNamespace(time=lambda: clocks.store))
    return clocks


@pytest.fixture
def store(clocks: Clocks) -> ScriptedStore:
    store = ScriptedStore(open_store("memory://"))
    Archive.create(store, partition_by="metadata.user_id")
    return store


def opened(store: ScriptedStore, clocks: Clocks, window: float = WINDOW) -> Archive:
    """An archive as another process opens it; its descriptor is known."""
    archive = Archive(store, NoWait(), activity_window=window)
    archive._context.wall_clock = lambda: clocks.wall
    run_sync(archive._context.descriptor())
    store.reset()
    return archive


@pytest.fixture
def archive(store: ScriptedStore, clocks: Clocks) -> Archive:
    return opened(store, clocks)


def start(conversation_id: str = "c", **metadata: Any) -> ConversationState:
    return ConversationState.start(conversation_id, system="Hi", metadata={"user_id": "alice", **metadata})


def say(state: ConversationState, text: str = "more") -> ConversationState:
    state.add_message("user", text)
    return state


def intents(store: ScriptedStore) -> int:
    return len(store.keys("index/log/"))


def counts_listed(archive: Archive) -> list[int]:
    return [entry.message_count for entry in archive.list().items]


# --- what it saves ---------------------------------------------------------------------------------------------------


def test_saves_inside_the_window_are_1_put(archive: Archive, store: ScriptedStore, clocks: Clocks) -> None:
    state = start()
    archive.save(state)
    assert store.counts == {"put": 2}
    for _ in range(5):
        store.reset()
        clocks.advance(9)
        archive.save(say(state))
        assert store.counts == {"put": 1}
    clocks.advance(20)  # 65 seconds after it began
    store.reset()
    archive.save(say(state))
    assert store.counts == {"put": 2}
    store.reset()
    archive.save(say(state))  # the window that this one began
    assert store.counts == {"put": 1}


def test_without_a_window_every_save_announces_itself(store: ScriptedStore, clocks: Clocks) -> None:
    archive = opened(store, clocks, window=0)
    state = start()
    for _ in range(3):
        store.reset()
        archive.save(say(state))
        assert store.counts == {"put": 2}


def test_a_turn_of_another_process_is_1_get_and_1_put(archive: Archive, store: ScriptedStore, clocks: Clocks) -> None:
    archive.save(start())
    clocks.advance(30)
    clocks.wall = 123.0  # another machine
    other = opened(store, clocks)
    with other.edit("c", fresh=True) as state:
        say(state)
    assert store.counts == {"get": 1, "put": 1}
    clocks.advance(29)
    store.reset()
    with other.edit("c", fresh=True) as state:
        say(state)
    assert store.counts == {"get": 1, "put": 1}
    clocks.advance(2)
    store.reset()
    with other.edit("c", fresh=True) as state:
        say(state)
    assert store.counts == {"get": 1, "put": 2}


def test_a_merge_inside_the_window_needs_no_intent_either(archive: Archive, store: ScriptedStore) -> None:
    archive.save(start())
    one, other = archive.load("c"), archive.load("c")
    assert one is not None
    assert other is not None
    archive.save(say(one, "one"))
    store.reset()
    archive.save(say(other, "other"), on_conflict="merge")
    assert store.counts == {"put": 2, "get": 1}  # refused, looked at, written
    assert intents(store) == 1
    assert sum(1 for _ in other.message_tree.walk()) == 3


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state.metadata.update(title="new"),
        lambda state: state.metadata.update(n=1.0),  # it was 1: not the same JSON
        lambda state: state.metadata.clear() or state.metadata.update(user_id="alice"),
        lambda state: setattr(state, "created_at", state.created_at - timedelta(days=1)),
    ],
)
def test_what_is_not_activity_is_announced(archive: Archive, store: ScriptedStore, change: Any) -> None:
    state = start(n=1)
    archive.save(state)
    change(state)
    store.reset()
    archive.save(state)
    assert store.counts == {"put": 2}


def test_a_move_is_announced_under_both_partitions(archive: Archive, store: ScriptedStore) -> None:
    state = start()
    archive.save(state)
    state.metadata["user_id"] = "bob"
    store.reset()
    archive.save(state)
    assert store.counts == {"put": 3}


def test_delete_and_save_many_announce_themselves(archive: Archive, store: ScriptedStore) -> None:
    state = start()
    archive.save(state)
    store.reset()
    archive.save_many([say(state)])
    assert store.counts == {"put": 2}
    store.reset()
    archive.save(say(state))
    assert store.counts == {"put": 2}  # the batch does not speak for what follows
    store.reset()
    archive.delete("c")
    assert store.counts == {"get": 1, "put": 2}
    archive.save(start())
    assert counts_listed(archive) == [1]


def test_a_save_of_a_process_without_a_window_ends_it(archive: Archive, store: ScriptedStore, clocks: Clocks) -> None:
    archive.save(start())
    with opened(store, clocks, window=0).edit("c") as state:
        say(state)
    assert store.counts == {"get": 1, "put": 2}
    with opened(store, clocks).edit("c") as state:
        say(state)
    assert store.counts == {"get": 1, "put": 2}


def test_the_storage_interface_has_a_window_of_its_own(store: ScriptedStore, clocks: Clocks) -> None:
    async def scenario() -> None:
        storage: S3ConversationStorage[ConversationState] = S3ConversationStorage(opened(store, clocks, window=0))
        state = start()
        await storage.save_conversation(state)
        store.reset()
        await storage.save_conversation(say(state))
        assert store.counts == {"put": 1}
        storage = S3ConversationStorage(opened(store, clocks), activity_window=0)
        await storage.save_conversation(say(state))
        assert store.counts == {"put": 2}

    run_sync(scenario())


# --- what the documents and intents say ------------------------------------------------------------------------------


def test_the_document_says_until_when_its_intent_speaks(archive: Archive, store: ScriptedStore, clocks: Clocks) -> None:
    state = start()
    archive.save(state)
    until = datetime.fromtimestamp(clocks.store + WINDOW, UTC)
    for revision in (1, 2):
        found = run_sync(store.get(document_key("c")))
        assert found is not None
        stamp = decode_document(found.body, "c", "c").stamp
        assert (stamp.revision, stamp.speaks_until) == (revision, until.isoformat(timespec="microseconds")[:-6] + "Z")
        clocks.advance(10)
        archive.save(say(state))


def test_the_size_in_the_index_is_that_of_the_document(archive: Archive, store: ScriptedStore, clocks: Clocks) -> None:
    state = start()
    for _ in range(2):
        entry = archive.save(say(state))
        found = run_sync(store.get(document_key("c")))
        assert found is not None
        assert entry.size == len(found.body)
    clocks.advance(WINDOW + MARGIN + 1)
    archive.maintain()
    assert [row.size for row in archive.list().items] == [entry.size]


# --- clocks that cannot be relied on ---------------------------------------------------------------------------------


def test_a_clock_that_was_set_back_means_announcing(archive: Archive, store: ScriptedStore, clocks: Clocks) -> None:
    state = start()
    archive.save(state)
    clocks.wall -= 1
    store.reset()
    archive.save(say(state))
    assert store.counts == {"put": 2}


def test_who_was_late_without_knowing_announces_afterwards(
    archive: Archive, store: ScriptedStore, clocks: Clocks
) -> None:
    state = start()
    archive.save(state)
    clocks.store += WINDOW + 61  # our clock stood still: a frozen machine
    store.reset()
    archive.save(say(state))
    assert [key.split("/")[0] for _, key in store.log] == ["conversations", "index"]
    assert counts_listed(opened(store, clocks)) == [2]


def test_who_is_only_a_little_late_need_not(archive: Archive, store: ScriptedStore, clocks: Clocks) -> None:
    state = start()
    archive.save(state)
    clocks.store += WINDOW + 59
    store.reset()
    archive.save(say(state))
    assert store.counts == {"put": 1}


def test_who_wakes_up_late_announces_before_it_sends_again(
    archive: Archive, store: ScriptedStore, clocks: Clocks
) -> None:
    state = start()
    archive.save(state)
    store.reset()
    store.fail("put", "conversations/", UnavailableError("no answer"), applied=False)
    store.before("put", "conversations/", lambda: None)
    store.faults[0].do = lambda: clocks.advance(WINDOW + 61)
    archive.save(say(state))
    assert [key.split("/")[0] for _, key in store.log] == ["conversations", "index", "conversations"]


def test_a_loser_takes_back_no_intent_that_is_not_its_own(archive: Archive, store: ScriptedStore) -> None:
    state = start()
    archive.save(state)
    with opened(store, Clocks(wall=500.0)).edit("c") as other:
        say(other, "other")
    with pytest.raises(Exception, match="expected revision 1"):
        archive.save(say(state))
    assert intents(store) == 1
    assert counts_listed(archive) == [1]  # as the intent says, for as long as it speaks


# --- how far a list may be behind ------------------------------------------------------------------------------------


def test_a_list_shows_the_conversation_at_once_and_its_activity_later(
    archive: Archive, store: ScriptedStore, clocks: Clocks
) -> None:
    state = start()
    archive.save(state)
    clocks.advance(5)
    archive.save(say(state))
    reader = opened(store, clocks)
    assert counts_listed(reader) == [1]  # what was announced
    clocks.advance(56)  # an old intent is confirmed by the document, which knows better
    assert counts_listed(reader) == [2]
    clocks.advance(WINDOW + MARGIN)
    assert counts_listed(reader) == [2]


def test_after_the_window_and_its_margin_a_list_shows_what_the_documents_say(
    store: ScriptedStore, clocks: Clocks
) -> None:
    writer, reader = opened(store, clocks), opened(store, clocks)
    state = start()
    writer.save(state)
    clocks.advance(59)
    writer.save(say(state))  # one second before the window ends
    clocks.store += 2
    assert counts_listed(reader) == [2]  # asked once; what came of it is remembered
    clocks.store += 55
    writer.save(say(state))  # its clock stood still, and it was acknowledged in time to be unannounced
    assert intents(store) == 1
    assert counts_listed(reader) == [2]
    clocks.advance(MARGIN)
    assert counts_listed(reader) == [3]
    store.reset()
    assert counts_listed(reader) == [3]
    assert store.counts == {"list": 1, "get": 1}  # and that is final: nothing is asked again


def test_a_reader_asks_about_a_speaking_intent_twice_at_most(
    archive: Archive, store: ScriptedStore, clocks: Clocks
) -> None:
    states = [start(f"c{number}") for number in range(10)]
    for state in states:
        archive.save(state)
        archive.save(say(state))
    reader = opened(store, clocks)
    reader.list()
    asked = []
    for _ in range(20):
        clocks.advance(61)
        store.reset()
        assert len(reader.list().items) == 10
        asked.append(store.counts["head"])
    assert [number for number in asked if number] == [10, 10]


def test_fold_leaves_a_speaking_intent_alone_and_then_believes_the_document(
    archive: Archive, store: ScriptedStore, clocks: Clocks
) -> None:
    state = start()
    archive.save(state)
    clocks.advance(5)
    archive.save(say(state))
    clocks.advance(WINDOW + MARGIN - 6)
    done = opened(store, clocks).maintain()
    assert (done.folded, done.pending) == (0, 1)
    clocks.advance(2)
    done = opened(store, clocks).maintain()
    assert (done.folded, done.pending) == (1, 0)
    assert intents(store) == 0
    assert counts_listed(opened(store, clocks)) == [2]


def test_fold_waits_with_all_intents_of_a_conversation_that_one_speaks_for(
    archive: Archive, store: ScriptedStore, clocks: Clocks
) -> None:
    state = start()
    archive.save(state)
    state.metadata["title"] = "new"
    opened(store, clocks, window=0).save(state)
    assert intents(store) == 2
    assert archive.maintain().pending == 2
    archive.delete("c")
    assert archive.maintain().pending == 3
    assert archive.list().items == []
    clocks.advance(WINDOW + MARGIN + 1)
    assert archive.maintain().folded == 3
    assert archive.list().items == []


@pytest.mark.parametrize("later", [1.0, 55.0, 100.0])
@pytest.mark.parametrize("field", ["updated_at", "message_count", "branch_count", "size"])
def test_an_export_by_activity_asks_the_document(
    archive: Archive, store: ScriptedStore, clocks: Clocks, field: str, later: float
) -> None:
    state = start()
    archive.save(state)
    before = archive.list().items[0]
    for text in ("one", "two"):
        state.add_message("user", text, parent="")
    archive.save(state)
    clocks.advance(later)
    other = opened(store, clocks)
    more = {"gt": {"updated_at": before.updated_at}.get(field, getattr(before, field))}
    for _ in range(2):  # also when it has been asked before
        assert [found.conversation_id for found in other.export({field: more})] == ["c"]
        assert list(other.export({field: {"lte": more["gt"]}})) == []
    store.reset()
    assert list(other.export({field: more, "metadata.user_id": "bob"})) == []
    assert "conversations/" not in str(store.log)


# --- hostile input ---------------------------------------------------------------------------------------------------


def put_speaks_until(store: ScriptedStore, value: str) -> None:
    found = run_sync(store.get(document_key("c")))
    assert found is not None
    raw = decompress(found.body, "c")
    start = raw.index(b'"speaks_until":"') + len(b'"speaks_until":"')
    run_sync(store.put(document_key("c"), compress(raw[:start] + value.encode() + raw[start + 27 :])))


def test_a_window_without_end_is_not_believed(archive: Archive, store: ScriptedStore) -> None:
    archive.save(start())
    put_speaks_until(store, "9999-12-31T00:00:00.000000Z")
    store.reset()
    with archive.edit("c") as state:
        say(state)
    assert store.counts == {"get": 1, "put": 2}


@pytest.mark.parametrize("value", ["soon", "2026-13-31T00:00:00.000000Z", "2026-12-31T00:00:00.000000+", ""])
def test_a_time_that_is_none_is_a_corrupt_document(archive: Archive, store: ScriptedStore, value: str) -> None:
    archive.save(start())
    put_speaks_until(store, value)
    with pytest.raises(CorruptError, match="speaks_until"):
        archive.load("c")


@pytest.mark.parametrize("window", [-1, 3601, float("nan"), "60", None])
def test_a_window_that_is_none_is_refused(window: Any) -> None:
    with pytest.raises(InvalidInputError, match="activity_window"):
        Archive.open("memory://", activity_window=window)


def test_many_conversations_of_one_window_are_folded_whole(
    archive: Archive, store: ScriptedStore, clocks: Clocks
) -> None:
    states = [start(f"c{number}") for number in range(BATCH // 10)]
    for state in states:
        archive.save(state)
    for turn in range(3):
        clocks.advance(15)
        for state in states[turn::2]:
            archive.save(say(state))
    clocks.advance(WINDOW + MARGIN + 1)
    assert archive.maintain().folded == len(states)
    expected = {state.conversation_id: sum(1 for _ in state.message_tree.walk()) for state in states}
    assert {entry.conversation_id: entry.message_count for entry in archive.iterate()} == expected
