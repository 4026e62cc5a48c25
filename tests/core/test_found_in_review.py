"""Cases that a simulation of many writers, faults and pauses found, and promises that are close to them."""

from __future__ import annotations

import asyncio
import dataclasses
import os
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from s3conv import (
    AccessDeniedError,
    Archive,
    AsyncArchive,
    ConflictError,
    ConversationState,
    CredentialsError,
    InvalidInputError,
    OutcomeUnknownError,
    PartialSaveError,
    UnavailableError,
)
from s3conv.bridge import ThreadRunner, ordered_map, run_sync
from s3conv.format.codec import MAX_DEPTH
from s3conv.format.entry import decode_log_object
from s3conv.store import PreconditionFailed, open_store
from tests.core.conftest import NoWait, open_scripted
from tests.core.stores import ScriptedStore


def start(conversation_id: str = "c", **metadata: Any) -> ConversationState:
    state = ConversationState.start(conversation_id, system="You are helpful", metadata=metadata)
    state.add_message("user", "Hello")
    return state


def loaded(archive: Archive, conversation_id: str = "c") -> ConversationState:
    state = archive.load(conversation_id)
    assert state is not None
    return state


def said(state: ConversationState) -> set[object]:
    return {node.data.message.content for node in state.message_tree.walk()}


def test_a_committed_save_stays_saved_and_listed_when_its_late_announcement_fails(
    archive: Archive, store: ScriptedStore
) -> None:
    def late() -> None:
        store.clock = 61
        store.fail("put", "batch.", UnavailableError("no answer"))

    store.before("put", "conversations/", late)
    state = start()
    assert archive.save(state).revision == 1
    store.clock = 0
    assert archive.count() == 1
    assert archive.save(state).revision == 2


def test_a_new_state_that_was_merged_with_a_live_one_does_not_bring_it_back_once_that_is_deleted(
    archive: Archive, store: ScriptedStore
) -> None:
    other = Archive(store.inner, NoWait())
    first = start()
    other.save(first)
    first.add_message("assistant", "theirs")
    other.save(first)
    ours = ConversationState.from_dict(first.to_dict())
    ours.add_message("user", "ours")
    # The first PUT meets the live conversation, the second one what was deleted since.
    store.before("put", "index/log/", lambda: None)
    store.before("put", "index/log/", lambda: other.delete("c"))
    with pytest.raises(ConflictError) as caught:
        archive.save(ours, "merge")
    assert caught.value.deleted
    assert archive.load("c") is None


def test_save_many_creates_again_what_was_deleted_as_save_does(archive: Archive, store: ScriptedStore) -> None:
    other = Archive(store.inner, NoWait())
    other.save(start())
    other.delete("c")

    def delete_again() -> None:
        other.save(start())
        other.delete("c")

    # Between the batch's write, which meets a tombstone, and the one of its own that follows.
    store.before("put", ".json.zst", lambda: None)
    store.before("put", "conversations/", lambda: None)
    store.before("put", "conversations/", delete_again)
    (entry,) = archive.save_many([start()])
    assert entry.revision == 5


def test_a_conversation_that_was_created_with_unknown_outcome_and_then_deleted_stays_deleted(
    archive: Archive, store: ScriptedStore
) -> None:
    state = start()
    store.fail("put", "conversations/", UnavailableError("no answer"), applied=True)
    store.fail("put", "conversations/", UnavailableError("no answer"), times=99)
    with pytest.raises(OutcomeUnknownError):
        archive.save(state)
    store.faults.clear()
    assert archive.delete("c")
    with pytest.raises(ConflictError) as caught:
        archive.save(state)
    assert caught.value.deleted


def test_a_merge_that_could_not_be_saved_does_not_take_their_change_for_ours_the_next_time(
    archive: Archive, store: ScriptedStore
) -> None:
    archive.save(start(k=1))
    ours, theirs = loaded(archive), loaded(archive)
    theirs.metadata["k"] = 2
    archive.save(theirs)
    ours.add_message("assistant", "ours")
    store.before("put", "conversations/", lambda: None)
    store.fail("put", "conversations/", AccessDeniedError("403"))
    with pytest.raises(AccessDeniedError):
        archive.save(ours, "merge")
    theirs.metadata["k"] = 3
    archive.save(theirs)
    archive.save(ours, "merge")
    assert loaded(archive).metadata == {"k": 3}


def test_a_save_that_was_cancelled_after_it_was_sent_is_known_to_the_next_one(store: ScriptedStore) -> None:
    class Cancelled(BaseException):
        pass

    archive = Archive(store, NoWait())
    state = start()
    store.fail("put", "conversations/", Cancelled(), applied=True)  # type: ignore[arg-type]  # as CancelledError is
    with pytest.raises(Cancelled):
        archive.save(state)
    state.add_message("assistant", "Hi!")
    assert archive.save(state).revision == 2


def test_a_save_in_a_task_that_is_cancelled_can_be_repeated() -> None:
    async def scenario() -> None:
        archive = await AsyncArchive.create(open_store("memory://"))
        state = start()
        task = asyncio.ensure_future(archive.save(state))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await archive.save(state)
        assert await archive.count() == 1

    asyncio.run(scenario())


@pytest.mark.parametrize("depth", [MAX_DEPTH, 400, 5_000])
def test_what_is_nested_too_deeply_for_a_reader_is_refused_when_it_is_saved(archive: Archive, depth: int) -> None:
    nested: list[Any] = []
    for _ in range(depth):
        nested = [nested]
    with pytest.raises(InvalidInputError, match=f"nested too deeply: at most {MAX_DEPTH}"):
        archive.save(start(deep=nested))
    assert archive.count() == 0


def test_what_may_be_saved_is_listed_and_loaded_from_a_deep_stack_too(archive: Archive) -> None:
    nested: list[Any] = []
    for _ in range(MAX_DEPTH - 3):
        nested = [nested]
    archive.save_many([start(deep=nested)])

    def from_below(frames: int) -> int:
        return from_below(frames - 1) if frames else len(archive.list().items) + (archive.load("c") is not None)

    assert from_below(300) == 2


def test_a_small_log_object_that_unpacks_to_very_much_is_refused() -> None:
    import zstandard

    body = zstandard.ZstdCompressor().compress(b'{"format":1,"kind":"intent","x":[' + b"[]," * 20_000_000 + b"[]]}")
    assert len(body) < 20_000
    with pytest.raises(Exception, match=r"the object says that it holds .* at most 16,777,216"):
        decode_log_object(body, "the object")


def test_an_announcement_is_as_old_as_the_older_of_its_two_parts(store: ScriptedStore) -> None:
    archive, store = open_scripted("metadata.user_id")
    state = start(user_id="alice")
    archive.save(state)
    state.metadata["user_id"] = "bob"
    wall = [1000.0]
    archive._context.wall_clock = lambda: wall[0]
    store.before("put", "index/log/", lambda: None)
    store.before("put", "index/log/", lambda: wall.__setitem__(0, 1061.0))  # asleep between the two parts
    store.reset()
    archive.save(state)
    # Both parts are announced again: a reader of either partition must not find only one that is too old to count.
    assert store.counts == {"put": 2 + 2 + 1}


@pytest.mark.parametrize("error", [AccessDeniedError("403"), CredentialsError("expired")])
def test_a_refusal_that_cannot_be_looked_into_is_unknown(
    archive: Archive, store: ScriptedStore, error: Exception
) -> None:
    archive.save(start())
    state = loaded(archive)
    state.add_message("assistant", "Hi!")
    log = len(store.keys("index/log/"))
    # It was delivered twice: the answer is that of the second time.
    store.fail("put", "conversations/", PreconditionFailed("412"), applied=True)
    store.fail("get", "conversations/", error)
    with pytest.raises(OutcomeUnknownError):
        archive.save(state)
    assert len(store.keys("index/log/")) == log + 1  # the write was made: its announcement must stay


def test_what_fails_while_an_announcement_is_taken_back_does_not_hide_the_conflict(
    archive: Archive, store: ScriptedStore
) -> None:
    archive.save(start())
    store.fail("delete", "index/log/", CredentialsError("expired"))
    with pytest.raises(ConflictError):
        archive.save(start())


def test_an_announcement_of_which_a_part_failed_is_taken_back() -> None:
    archive, store = open_scripted("metadata.user_id")
    state = start(user_id="alice")
    archive.save(state)
    log = store.keys("index/log/")
    state.metadata["user_id"] = "bob"
    store.before("put", "index/log/", lambda: None)
    store.fail("put", "index/log/", AccessDeniedError("403"))
    with pytest.raises(AccessDeniedError):
        archive.save(state)
    assert store.keys("index/log/") == log


def test_batches_that_were_announced_before_one_failed_are_taken_back() -> None:
    archive, store = open_scripted("metadata.user_id")
    store.before("put", "batch.", lambda: None)
    store.fail("put", "batch.", AccessDeniedError("403"))
    with pytest.raises((AccessDeniedError, PartialSaveError)):
        archive.save_many([start("a", user_id="alice"), start("b", user_id="bob")])
    assert store.keys("index/log/") == []


def test_keys_of_several_types_do_not_stop_a_merge(archive: Archive) -> None:
    archive.save(start())
    ours, theirs = loaded(archive), loaded(archive)
    theirs.add_message("assistant", [{"type": "x", "n": 1}])
    archive.save(theirs)
    ours.add_message("assistant", [{1: "one", "b": "two"}])
    archive.save(ours, "merge")
    assert len(list(loaded(archive).message_tree.walk())) == 4


def test_after_an_overwrite_of_unknown_outcome_a_merge_keeps_what_the_others_saved(
    archive: Archive, store: ScriptedStore
) -> None:
    archive.save(start(ours=1))
    ours, theirs = loaded(archive), loaded(archive)
    theirs.metadata["theirs"] = 1
    archive.save(theirs)
    ours.add_message("assistant", "ours")
    store.before("put", "conversations/", lambda: None)
    store.fail("put", "conversations/", UnavailableError("no answer"), times=99)
    with pytest.raises(OutcomeUnknownError):
        archive.save(ours, "overwrite")
    store.faults.clear()
    archive.save(ours, "merge")
    assert loaded(archive).metadata == {"ours": 1, "theirs": 1}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_process_has_threads_of_its_own() -> None:
    async def one(number: int) -> int:
        return number

    async def use(runner: ThreadRunner) -> int:
        return sum([number async for number in ordered_map(runner, one, range(4), 2)])

    runner = ThreadRunner(2)
    assert run_sync(use(runner)) == 6
    child = os.fork()
    if child == 0:
        os._exit(run_sync(use(runner)))  # a pool without threads would wait for ever
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 6
    runner.close()


def test_an_object_around_the_partitions_value_makes_no_archive_unreadable() -> None:
    archive, store = open_scripted("metadata.user.id")
    user = {"id": "alice", "picture": "x" * 9_000}
    archive.save(start("small", user={"id": "alice"}))
    archive.save(start("large", user={**user, "picture": "x" * 17 * 2**20}))
    archive.save_many([start(f"one of many {number}", user={**user, "number": number}) for number in range(3)])

    def check() -> None:
        reader = Archive(store.inner, NoWait())
        alice = {"metadata.user.id": "alice"}
        assert reader.count(alice) == reader.count({"metadata.user": {"exists": True}}) == 5
        assert [one.conversation_id for one in reader.list({**alice, "metadata.user.number": 2}).items] == [
            "one of many 2"
        ]
        assert reader.count({"metadata.user.picture": {"exists": False}}) == 1
        assert reader.count({"metadata.user.id": "bob"}) == 0
        assert sum(1 for _ in reader.export(alice)) == 5

    check()
    assert archive.maintain().folded == 5
    check()
    moved = loaded(archive, "large")
    moved.metadata["user"]["id"] = "bob"
    archive.save(moved)
    archive.delete("one of many 0")
    for _ in range(2):
        reader = Archive(store.inner, NoWait())
        assert [one.conversation_id for one in reader.list({"metadata.user.id": "bob"}).items] == ["large"]
        assert reader.count({"metadata.user.id": "alice"}) == 3
        archive.maintain()
    assert archive.verify().differences == []


def spoil(value: object) -> None:
    """Change all that can be changed in a value, however deep inside."""
    if isinstance(value, dict):
        spoil(list(value.values()))
        value["tenant"] = "mallory"
        value.pop("secret", None)
    elif isinstance(value, list):
        for one in value:
            spoil(one)
        value.append("spoilt")
    elif isinstance(value, msgspec.Struct):
        spoil([getattr(value, name) for name in value.__struct_fields__])
    elif dataclasses.is_dataclass(value):
        spoil([getattr(value, field.name) for field in dataclasses.fields(value)])
    elif isinstance(value, ConversationState):
        spoil([value.metadata, [node.data for node in value.message_tree.walk()]])


@pytest.mark.parametrize("clock", [0, 61])
def test_what_a_caller_does_with_what_was_given_to_him_changes_no_archive(clock: int) -> None:
    archive, store = open_scripted("metadata.tenant")

    def state(number: int) -> ConversationState:
        nested = {"list": [{"a": 1}], "secret": [2]}
        large = {"text": "x" * 10_000} if number % 2 else {}
        return start(f"c{number}", tenant="alice", secret="s", nested=nested, zlarge=large)

    def everything() -> Iterator[object]:
        alice = {"metadata.tenant": "alice"}
        for consistency in ("latest", "snapshot"):
            for where in (None, alice, {"metadata.zlarge.text": {"exists": True}}):
                for order in ("-updated_at", "updated_at", "metadata.nested", "metadata.zlarge"):
                    yield archive.list(where, order=order, limit=3, consistency=consistency)
                    yield list(archive.iterate(where, order=order, consistency=consistency))
        yield list(archive.load_many([f"c{number}" for number in range(6)]))
        yield [archive.load("c0"), archive.stats(), archive.verify()]
        yield list(archive.export(alice))

    expected = {f"c{number}": state(number).metadata for number in range(6)}
    for number in (0, 1):
        spoil(archive.save(state(number)))
    spoil(archive.save_many([state(2), state(3)]))
    store.clock = clock
    spoil(list(everything()))
    archive.maintain()
    spoil(archive.save_many([state(4), state(5)]))
    with archive.edit("c0") as edited:
        edited.add_message("user", "And now?")
    spoil(edited)
    spoil(list(everything()))
    archive.maintain()
    spoil(list(everything()))
    for again in (archive, Archive(store, NoWait())):
        entries = {entry.conversation_id: entry.metadata for entry in again.iterate({"metadata.tenant": "alice"})}
        for conversation_id, metadata in expected.items():
            whole = {name: value for name, value in metadata.items() if name in entries[conversation_id]}
            assert entries[conversation_id] == whole
            assert len(whole) >= 3
            assert loaded(again, conversation_id).metadata == metadata
        assert len(entries) == again.count() == 6
    assert not archive.verify().differences
