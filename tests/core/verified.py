"""Archives in memory to damage and verify, and what must hold of one after a repair, told by its documents alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from s3conv import Archive, ConversationState, Entry, StorageError
from s3conv.bridge import run_sync
from s3conv.core import folding, maintaining, merging
from s3conv.core.segments import read_manifest
from s3conv.format.document import decode_document
from s3conv.format.keys import CONVERSATIONS
from s3conv.store.base import StoredObject
from s3conv.store.memory import MemoryStore
from tests.core.conftest import NoWait, open_scripted
from tests.core.stores import ScriptedStore

PARTITION_BY = "metadata.user_id"
DAY = datetime(2025, 3, 1, tzinfo=UTC)
OLD = 2000.0
"""Seconds after which every intent's save is settled."""

Objects = dict[str, StoredObject]
Patch = Callable[[Any, str, Any], None]


def make_small(patch: Patch) -> None:
    """Blocks, segments, `recent` and sorted pieces that are full soon."""
    from s3conv.core import repairing
    from s3conv.format import blocks

    patch(blocks, "BLOCK", 500)
    patch(merging, "SEGMENT", 700)  # two blocks are always more, however well random ids compress
    patch(merging, "MAX_SEGMENT", 700)
    for module in (folding, maintaining):
        patch(module, "RECENT_ROWS", 12)
        patch(module, "RECENT_OLDER", 3)
    patch(repairing, "SPILL_ROWS", 9)


def start(conversation_id: str, user: object, minute: int, **metadata: Any) -> ConversationState:
    state = ConversationState.start(conversation_id, system="Hi", metadata={"user_id": user, **metadata})
    state.created_at = state.updated_at = DAY + timedelta(minutes=minute)
    return state


def merge(archive: Archive, target: Any) -> None:
    now = run_sync(read_manifest(archive._context))
    assert run_sync(maintaining.merge(archive._context, archive._cache, now, target))


def build(each: int = 12) -> Objects:
    """An archive with several segments in base and mid, a tail, `recent`, intents, a batch, and moved and deleted ones.

    It is to be made with small sizes; see `make_small`.
    """
    archive, store = open_scripted(PARTITION_BY)
    for number, target in enumerate(("base", "mid", None)):
        name = "abc"[number]
        states = [start(f"{name}{n:02}", f"user{n % 3}", 50 * number + n, title=f"title {n % 4}") for n in range(each)]
        archive.save_many(states)
        for state in states[::5]:
            state.metadata["title"] = "changed"
            archive.save(state)
        archive.delete(f"{name}01")
        with archive.edit("a02") as state:
            state.metadata["user_id"] = f"mover{number}"
        archive.maintain()
        if target:
            merge(archive, target)
    archive.save_many([start(f"d{n}", "user1", 200 + n) for n in range(3)])
    archive.save(start("f", "user2", 220, title="title 3"))
    with archive.edit("b04") as state:
        state.metadata["user_id"] = "mover9"
    archive.delete("a03")
    return dict(space_of(store).objects)


def space_of(store: ScriptedStore) -> Any:
    inner = store.inner
    assert isinstance(inner, MemoryStore)
    return inner._space


def store_with(objects: Mapping[str, StoredObject], clock: float = OLD) -> ScriptedStore:
    """A store in memory that holds these objects, `clock` seconds later."""
    store = ScriptedStore(MemoryStore())
    space = space_of(store)
    space.objects = dict(objects)
    space.keys = sorted(objects)
    store.clock = clock
    return store


def opened(store: ScriptedStore) -> Archive:
    return Archive(store, NoWait())


def put(store: ScriptedStore, key: str, body: bytes | None) -> None:
    """Replace an object whole, by the same kind of write as everybody's, or take it away; it keeps its age."""
    known = space_of(store).objects.get(key)
    if body is None:
        run_sync(store.inner.delete([key]))
        return
    run_sync(store.inner.put(key, body))
    if known is not None:
        now = space_of(store).objects[key]
        space_of(store).objects[key] = StoredObject(body, now.etag, known.last_modified, 0.0, known.metadata)


def documents(store: ScriptedStore) -> dict[str, bytes]:
    """All documents, byte by byte."""
    return {key: one.body for key, one in space_of(store).objects.items() if key.startswith(CONVERSATIONS)}


def truth(store: ScriptedStore, partition_by: str | None = PARTITION_BY) -> dict[str, Entry]:
    """The entries of all live conversations, by a plain reading of the documents that can be read."""
    found = {}
    for key, body in documents(store).items():
        try:
            document = decode_document(body, None, key)
            entry = document.entry(partition_by)
        except StorageError:
            continue
        if not document.deleted:
            found[document.conversation_id] = entry
    return found


def assert_lists_say_the_truth(store: ScriptedStore) -> None:
    """Every kind of list shows what the documents say, and nothing else."""
    expected = truth(store)
    archive = opened(store)
    assert {entry.conversation_id: entry for entry in archive.iterate()} == expected
    newest = archive.list(limit=8).items
    assert [entry.updated for entry in newest] == sorted((one.updated for one in expected.values()), reverse=True)[:8]
    assert all(expected[entry.conversation_id] == entry for entry in newest)
    for user in {entry.metadata.get("user_id") for entry in expected.values()} | {"user0", "user1", "mover0", "mover1"}:
        shown = {entry.conversation_id: entry for entry in archive.iterate({PARTITION_BY: user})}
        assert shown == {one: entry for one, entry in expected.items() if entry.metadata.get("user_id") == user}
