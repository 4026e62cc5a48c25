"""What a save promises: nothing lost, nothing doubled, and never a false answer. DESIGN.md, section 6."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import msgspec
import pytest

from s3conv import (
    AccessDeniedError,
    Archive,
    ConflictError,
    ConversationState,
    InvalidInputError,
    NotFoundError,
    OutcomeUnknownError,
    PartialSaveError,
    StorageError,
    UnavailableError,
)
from s3conv.bridge import run_sync
from s3conv.core import commit
from s3conv.core.known import NOTES
from s3conv.format.entry import decode_log_object
from s3conv.format.keys import log_prefix
from s3conv.store import Contended, open_store
from tests.core.conftest import NoWait, open_scripted
from tests.core.stores import ScriptedStore


def start(conversation_id: str = "c", **metadata: object) -> ConversationState:
    state = ConversationState.start(conversation_id, system="You are helpful", metadata=dict(metadata))
    state.add_message("user", "Hello")
    return state


def loaded(archive: Archive, conversation_id: str = "c") -> ConversationState:
    state = archive.load(conversation_id)
    assert state is not None
    return state


def contents(state: ConversationState) -> list[tuple[str, object]]:
    return [(node.data.node_id, node.data.message.content) for node in state.message_tree.walk()]


# --- the answer that got lost ---------------------------------------------------------------------------------------


def test_a_save_whose_answer_was_lost_is_settled_by_the_lineage(archive: Archive, store: ScriptedStore) -> None:
    store.fail("put", "conversations/", UnavailableError("no answer"), applied=True)
    state = start()
    assert archive.save(state).revision == 1
    # Announced, sent, sent again identically, refused, looked at: one version, and no announcement taken back.
    assert store.counts == {"put": 3, "get": 1}
    state.add_message("assistant", "Hi!")
    store.reset()
    assert archive.save(state).revision == 2
    assert store.counts == {"put": 2}
    assert archive.count() == 1


def test_a_save_that_never_arrived_is_sent_again(archive: Archive, store: ScriptedStore) -> None:
    store.fail("put", "conversations/", UnavailableError("no answer"), times=3)
    assert archive.save(start()).revision == 1
    assert store.counts == {"put": 5}


def test_409_means_send_again_and_is_no_conflict(archive: Archive, store: ScriptedStore) -> None:
    store.fail("put", "conversations/", Contended("409"), times=4)
    assert archive.save(start()).revision == 1


def test_when_only_409_comes_nothing_was_saved_and_nothing_stays_announced(
    archive: Archive, store: ScriptedStore
) -> None:
    store.fail("put", "conversations/", Contended("409"), times=99)
    with pytest.raises(UnavailableError, match="409"):
        archive.save(start())
    assert store.keys("index/log/") == []


def test_an_answer_that_never_comes_is_called_unknown_and_the_announcement_stays(
    archive: Archive, store: ScriptedStore
) -> None:
    store.fail("put", "conversations/", UnavailableError("no answer"), times=99)
    with pytest.raises(OutcomeUnknownError, match="load it and look"):
        archive.save(start())
    assert len(store.keys("index/log/")) == 1


@pytest.mark.parametrize("applied", [True, False])
def test_after_an_unknown_outcome_the_same_state_can_be_saved_again(
    archive: Archive, store: ScriptedStore, applied: bool
) -> None:
    state = start()
    archive.save(state)
    state.add_message("assistant", "Hi!")
    store.fail("put", "conversations/", UnavailableError("no answer"), applied=applied, times=1)
    store.fail("put", "conversations/", UnavailableError("no answer"), times=99)
    with pytest.raises(OutcomeUnknownError):
        archive.save(state)
    store.faults.clear()
    state.add_message("user", "And now?")
    archive.save(state)  # on_conflict="raise": our own earlier attempt is not a conflict
    assert loaded(archive) == state
    assert archive.list().items[0].message_count == 4


def test_a_new_state_whose_first_save_stayed_unknown_can_be_saved_again(archive: Archive, store: ScriptedStore) -> None:
    state = start()
    store.fail("put", "conversations/", UnavailableError("no answer"), applied=True, times=1)
    store.fail("put", "conversations/", UnavailableError("no answer"), times=99)
    with pytest.raises(OutcomeUnknownError):
        archive.save(state)
    store.faults.clear()
    assert archive.save(state).revision == 2


def test_a_write_that_was_built_upon_before_its_answer_was_looked_for_is_still_ours(
    archive: Archive, store: ScriptedStore
) -> None:
    state = start()
    archive.save(state)
    state.add_message("assistant", "ours")
    other = Archive(store.inner, NoWait())

    def build_upon() -> None:
        theirs = loaded(other)
        theirs.add_message("user", "theirs")
        other.save(theirs)

    store.fail("put", "conversations/", UnavailableError("no answer"), applied=True)
    store.before("put", "conversations/", build_upon)
    assert archive.save(state).revision == 2
    # It is acknowledged, but no longer current: the next save of this state must not pass over the other's message.
    state.add_message("user", "more")
    with pytest.raises(ConflictError, match="found revision 3"):
        archive.save(state)
    archive.save(state, "merge")
    assert contents(loaded(archive)) == [
        ("", "You are helpful"),
        ("0", "Hello"),
        ("0.0", "ours"),
        ("0.0.0", "theirs"),
        ("0.0.1", "more"),
    ]


def test_too_far_on_to_tell_is_unknown(archive: Archive, store: ScriptedStore) -> None:
    state = start()
    archive.save(state)
    ahead = loaded(archive)
    for number in range(16 + 1):
        ahead.metadata["number"] = number
        archive.save(ahead)
    state.add_message("assistant", "late")
    log = len(store.keys("index/log/"))
    with pytest.raises(OutcomeUnknownError, match="revision 18"):
        archive.save(state)
    assert len(store.keys("index/log/")) == log + 1


@pytest.mark.parametrize("saves", [15, 16, 17, 33])
def test_a_new_state_can_tell_however_far_on_the_document_is(archive: Archive, saves: int) -> None:
    state = start()
    for number in range(saves):
        state.metadata["number"] = number
        archive.save(state)
    with pytest.raises(ConflictError, match=f"found revision {saves} in the archive, expected none"):
        archive.save(start())
    with pytest.raises(ConflictError, match=f"found revision {saves} in the archive, expected none"):
        archive.save_many([start()])
    archive.delete("c")
    assert archive.save(start()).revision == saves + 2
    archive.delete("c")
    assert archive.save_many([start()])[0].revision == saves + 4


def test_a_new_state_that_had_no_answer_before_the_refusal_cannot(archive: Archive, store: ScriptedStore) -> None:
    for _ in range(9):
        archive.save(start())
        archive.delete("c")
    store.fail("put", "conversations/", UnavailableError("no answer"))
    with pytest.raises(OutcomeUnknownError, match="revision 18, too far on to tell"):
        archive.save(start())


def test_one_revision_less_is_a_conflict_and_merge_does_not_mind_either(archive: Archive) -> None:
    state = start()
    archive.save(state)
    ahead = loaded(archive)
    for number in range(16):
        ahead.metadata["number"] = number
        archive.save(ahead)
    state.add_message("assistant", "late")
    with pytest.raises(ConflictError):
        archive.save(state)
    archive.save(ahead)
    assert archive.save(state, "merge").revision == 19
    assert loaded(archive).metadata == {"number": 15}


def test_a_refusal_after_no_answer_is_unknown(archive: Archive, store: ScriptedStore) -> None:
    store.fail("put", "conversations/", UnavailableError("no answer"))
    store.fail("put", "conversations/", AccessDeniedError("403"))
    with pytest.raises(OutcomeUnknownError, match="403"):
        archive.save(start())


def test_a_plain_refusal_is_definite_and_takes_the_announcement_back(archive: Archive, store: ScriptedStore) -> None:
    store.fail("put", "conversations/", AccessDeniedError("403"))
    with pytest.raises(AccessDeniedError):
        archive.save(start())
    assert store.keys("index/log/") == []
    assert archive.count() == 0


def test_a_crash_between_announcement_and_commit_leaves_no_conversation_that_a_list_shows_for_long(
    archive: Archive, store: ScriptedStore
) -> None:
    class Crash(BaseException):
        pass

    store.fail("put", "conversations/", Crash())  # type: ignore[arg-type]  # as a killed process
    with pytest.raises(Crash):
        archive.save(start())
    assert archive.count() == 1  # a save that may be in flight
    store.clock = 61
    assert archive.count() == 0


# --- conflicts ------------------------------------------------------------------------------------------------------


def test_two_states_of_one_conversation_do_not_disturb_each_other(archive: Archive) -> None:
    archive.save(start())
    mine, other = loaded(archive), loaded(archive)
    other.add_message("assistant", "other")
    archive.save(other)
    mine.add_message("assistant", "mine")
    with pytest.raises(ConflictError, match="found revision 2 in the archive, expected revision 1") as caught:
        archive.save(mine)
    assert not caught.value.deleted
    other.add_message("user", "again")
    assert archive.save(other).revision == 3


def test_a_conflict_is_not_applied_and_leaves_no_announcement(archive: Archive, store: ScriptedStore) -> None:
    archive.save(start())
    log = len(store.keys("index/log/"))
    with pytest.raises(ConflictError, match="expected none"):
        archive.save(start())
    assert len(store.keys("index/log/")) == log
    assert archive.list().items[0].revision == 1


def test_merge_keeps_both_continuations_as_branches_and_the_state_holds_them(archive: Archive) -> None:
    archive.save(start())
    mine, other = loaded(archive), loaded(archive)
    other.add_message("assistant", "other")
    other.metadata["title"] = "theirs"
    archive.save(other)
    mine.add_message("assistant", "mine")
    mine.metadata["rating"] = 5
    entry = archive.save(mine, "merge")
    assert (entry.revision, entry.message_count, entry.branch_count) == (3, 4, 2)
    assert contents(mine) == [("", "You are helpful"), ("0", "Hello"), ("0.0", "other"), ("0.1", "mine")]
    assert mine.current_node_id == "0.1"
    assert mine.metadata == {"title": "theirs", "rating": 5}
    assert loaded(archive) == mine


def test_overwrite_builds_on_the_current_revision(archive: Archive) -> None:
    archive.save(start())
    mine, other = loaded(archive), loaded(archive)
    other.add_message("assistant", "other")
    archive.save(other)
    mine.add_message("assistant", "mine")
    assert archive.save(mine, "overwrite").revision == 3
    assert contents(loaded(archive)) == [("", "You are helpful"), ("0", "Hello"), ("0.0", "mine")]


def test_conversations_that_begin_differently_are_not_merged(archive: Archive) -> None:
    archive.save(start())
    with pytest.raises(ConflictError, match="begins with another message"):
        archive.save(ConversationState.start("c", system="Something else"), "merge")


@pytest.mark.parametrize("on_conflict", ["raise", "merge", "overwrite"])
def test_a_deleted_conversation_is_not_brought_back_by_a_state_from_before(archive: Archive, on_conflict: str) -> None:
    state = start()
    archive.save(state)
    archive.delete("c")
    with pytest.raises(ConflictError) as caught:
        archive.save(state, on_conflict)  # type: ignore[arg-type]  # parametrized
    assert caught.value.deleted
    assert archive.load("c") is None


@pytest.mark.parametrize("on_conflict", ["raise", "merge", "overwrite"])
def test_it_is_not_brought_back_into_one_that_was_begun_in_its_place(archive: Archive, on_conflict: str) -> None:
    before = start()
    before.add_message("user", "to be forgotten")
    archive.save(before)
    archive.delete("c")
    archive.save(start())
    for _ in range(20 if on_conflict != "raise" else 5):  # 20: more than a lineage holds
        after = loaded(archive)
        after.add_message("user", "and then?")
        archive.save(after)
    with pytest.raises(ConflictError, match="deleted, and begun again at revision 3") as caught:
        archive.save(before, on_conflict)  # type: ignore[arg-type]  # parametrized
    assert caught.value.deleted
    assert "to be forgotten" not in str(contents(loaded(archive)))
    after.add_message("user", "goes on")
    archive.save(after)  # one that was loaded since is of the living


def save_without_answer(
    archive: Archive, store: ScriptedStore, state: ConversationState, *, applied: bool = True
) -> None:
    """Save a state, without an answer from its document's PUT, which is `applied` or not."""
    store.fail("put", "conversations/", UnavailableError("no answer"), applied=applied)
    store.fail("put", "conversations/", UnavailableError("no answer"), times=9)
    with pytest.raises(OutcomeUnknownError):
        archive.save(state)
    store.faults.clear()


@pytest.mark.parametrize("on_conflict", ["merge", "overwrite"])
def test_one_whose_first_save_was_deleted_unseen_is_not_brought_back_either(
    archive: Archive, store: ScriptedStore, on_conflict: str
) -> None:
    before = start()
    save_without_answer(archive, store, before)
    archive.delete("c")
    archive.save(start())
    with pytest.raises(ConflictError, match="begun again") as caught:
        archive.save(before, on_conflict)  # type: ignore[arg-type]  # parametrized
    assert caught.value.deleted


@pytest.mark.parametrize("begun_again", [False, True])
@pytest.mark.parametrize("on_conflict", ["raise", "merge", "overwrite"])
@pytest.mark.parametrize("saves", [3, 16, 17])
def test_nor_if_so_many_saves_came_between_that_it_cannot_be_told(
    archive: Archive, store: ScriptedStore, saves: int, on_conflict: str, begun_again: bool
) -> None:
    before = start()
    save_without_answer(archive, store, before)
    for number in range(saves):
        with archive.edit("c", fresh=True) as state:
            state.add_message("user", f"number {number}")
    archive.delete("c")
    if begun_again:
        archive.save(ConversationState.start("c", system="begun again"), "merge")
    for _ in range(2):
        with pytest.raises(ConflictError, match="deleted") as caught:
            archive.save(before, on_conflict)  # type: ignore[arg-type]  # parametrized
        assert caught.value.deleted
    state = archive.load("c")  # type: ignore[assignment]  # None, if it was not begun again
    assert contents(state) == [("", "begun again")] if begun_again else state is None


@pytest.mark.parametrize("applied", [True, False])
def test_one_that_had_no_answer_on_a_tombstone_can_be_saved_again_however_old_that_is(
    archive: Archive, store: ScriptedStore, applied: bool
) -> None:
    for _ in range(9):
        archive.save(start())
        archive.delete("c")
    state = start()
    store.before("put", "conversations/", lambda: None)  # it meets the tombstone
    save_without_answer(archive, store, state, applied=applied)
    assert archive.save(state).revision == (20 if applied else 19)
    assert loaded(archive) == state


def test_two_that_create_it_again_at_once_are_merged(archive: Archive) -> None:
    archive.save(start())
    archive.delete("c")
    one = start()
    other = copy.deepcopy(one)
    archive.save(one, "merge")
    other.add_message("user", "me too")
    assert archive.save(other, "merge").revision == 4
    assert "me too" in str(contents(loaded(archive)))


def test_a_new_state_creates_again_and_revisions_go_on(archive: Archive) -> None:
    archive.save(start())
    archive.delete("c")
    assert archive.save(start()).revision == 3
    assert archive.list().items[0].revision == 3


def test_a_document_that_vanished_from_the_store_is_a_conflict(archive: Archive, store: ScriptedStore) -> None:
    from s3conv.bridge import run_sync

    state = start()
    archive.save(state)
    run_sync(store.inner.delete(store.keys("conversations/")))
    with pytest.raises(ConflictError, match="no longer in the store") as caught:
        archive.save(state, "merge")
    assert caught.value.deleted


def test_what_is_known_of_a_state_goes_along_with_its_copies(archive: Archive) -> None:
    state = start()
    archive.save(state)
    copied = copy.deepcopy(state)
    copied.metadata["copied"] = True
    assert archive.save(copied).revision == 2
    pickled = pickle.loads(pickle.dumps(copied))
    pickled.metadata["pickled"] = True
    assert archive.save(pickled).revision == 3


def test_a_state_can_be_saved_into_some_archives_in_turns(archive: Archive) -> None:
    archives = [archive, *(open_scripted()[0] for _ in range(NOTES))]
    state = start()
    for revision in (1, 2):
        for one in archives[:NOTES]:
            assert one.save(state).revision == revision
            state.add_message("user", "more")
        state = pickle.loads(pickle.dumps(state))
    archives[NOTES].save(state)
    with pytest.raises(ConflictError):  # of the archive that it was saved to before all others, nothing is known now
        archive.save(state)


def test_a_copy_of_a_state_does_not_learn_what_becomes_of_the_other(archive: Archive) -> None:
    state = start()
    archive.save(state)
    other = copy.copy(state)
    archive.save(state)
    with pytest.raises(ConflictError, match="found revision 2"):
        archive.save(other)


def test_a_state_can_be_saved_into_another_archive_and_under_another_id(archive: Archive) -> None:
    state = start()
    archive.save(state)
    other, _ = open_scripted()
    assert other.save(state).revision == 1
    state.conversation_id = "copy"
    assert other.save(state).revision == 1
    assert other.count() == 2


def test_an_archive_that_was_copied_to_a_store_with_other_etags_goes_on(archive: Archive, store: ScriptedStore) -> None:
    from s3conv.bridge import run_sync

    class OtherEtags(ScriptedStore):
        async def get(self, key: str, **more):  # type: ignore[no-untyped-def]
            found = await super().get(key, **more)
            return found and msgspec.structs.replace(found, etag=found.etag[::-1], metadata={})

        async def put(self, key: str, body: bytes, *, if_match: str | None = None, **more):  # type: ignore[no-untyped-def]
            return await super().put(key, body, if_match=if_match and if_match[::-1], **more)

    state = start()
    archive.save(state)
    copied = OtherEtags(open_store("memory://"))
    for key in store.keys(""):
        found = run_sync(store.inner.get(key))
        assert found is not None
        run_sync(copied.inner.put(key, found.body))
    there = Archive(copied, NoWait())
    state.add_message("assistant", "Hi!")
    assert there.save(state).revision == 2
    assert there.count() == 1


# --- stale announcements, moves -------------------------------------------------------------------------------------


def test_a_save_that_slept_after_announcing_announces_again_before_it_commits(
    archive: Archive, store: ScriptedStore
) -> None:
    wall = [1000.0]
    archive._context.wall_clock = lambda: wall[0]
    state = start()

    def sleep() -> None:
        wall[0] += 61

    store.fail("put", "conversations/", UnavailableError("no answer"))
    store.faults[-1].do = sleep
    archive.save(state)
    assert [key.split("/")[0] for kind, key in store.log if kind == "put"] == [
        "index",
        "conversations",
        "index",
        "conversations",
    ]
    first, again = store.keys("index/log/")
    assert first != again
    assert archive.list().items[0].revision == 1


def test_a_late_delete_of_the_first_announcement_leaves_the_second(archive: Archive, store: ScriptedStore) -> None:
    doomed: list[str] = []

    def days_pass() -> None:
        doomed.extend(store.keys("index/log/"))  # a fold has given it up, and its delete is on the way
        store.clock = 25 * 3600.0

    store.before("put", "conversations/", days_pass)
    archive.save(start())
    run_sync(store.inner.delete(doomed))
    assert len(archive.list().items) == 1


def test_a_commit_that_the_store_answered_too_late_is_announced_afterwards(
    archive: Archive, store: ScriptedStore
) -> None:
    def late() -> None:
        store.clock = 61

    store.before("put", "conversations/", late)
    archive.save(start())
    assert store.counts == {"put": 3}
    assert store.log[-1][1].startswith("index/log/")


def test_a_prompt_save_is_announced_once(archive: Archive, store: ScriptedStore) -> None:
    store.before("put", "conversations/", lambda: setattr(store, "clock", 59))
    archive.save(start())
    assert store.counts == {"put": 2}


def test_a_move_is_announced_under_both_partitions_and_names_the_old_key() -> None:
    archive, store = open_scripted("metadata.user_id")
    state = start(user_id="alice")
    archive.save(state)
    old = set(store.keys("index/log/"))
    created = state.created_at
    state.metadata["user_id"] = "bob"
    store.reset()
    archive.save(state)
    assert store.counts == {"put": 3}
    new = [key for key in store.keys("index/log/") if key not in old]
    assert len({key.split("/")[2] for key in new}) == 2
    for key in new:
        (intent,) = decode_log_object(store.inner._space.objects[key].body, key)  # type: ignore[attr-defined]  # memory
        assert intent.replaces is not None
        assert intent.replaces.partition == '"alice"'
        assert intent.replaces.created_at[:19] == created.isoformat()[:19]
    assert archive.list({"metadata.user_id": "alice"}).items == []
    assert len(archive.list({"metadata.user_id": "bob"}).items) == 1
    assert archive.count() == 1


# --- many -----------------------------------------------------------------------------------------------------------


def test_save_many_returns_entries_in_order_and_tells_losers_apart(archive: Archive, store: ScriptedStore) -> None:
    archive.save(start("b"))
    states = [start(name) for name in "abc"]
    with pytest.raises(PartialSaveError, match="2 of 3") as caught:
        archive.save_many(states)
    assert caught.value.saved == ["a", "c"]
    assert list(caught.value.failed) == ["b"]
    assert isinstance(caught.value.failed["b"], ConflictError)
    assert [entry.conversation_id for entry in archive.save_many(states[::-1], "overwrite")] == ["c", "b", "a"]
    assert archive.count() == 3


def test_save_many_in_which_all_fail_alike_raises_that_error(archive: Archive, store: ScriptedStore) -> None:
    archive.save_many([start("a"), start("b")])
    log = store.keys("index/log/")
    with pytest.raises(ConflictError):
        archive.save_many([start("a"), start("b")])
    assert store.keys("index/log/") == log  # a batch of which everything was lost is taken back


def test_save_many_refuses_ids_given_twice_and_bad_ones_before_it_writes(
    archive: Archive, store: ScriptedStore
) -> None:
    for states in ([start("a"), start("a")], [start("a"), start("x" * 1025)]):
        with pytest.raises(InvalidInputError):
            archive.save_many(states)
    assert store.counts == {}


def test_save_many_goes_on_past_a_state_that_cannot_be_stored(archive: Archive) -> None:
    bad = start("bad", when=object())
    with pytest.raises(PartialSaveError) as caught:
        archive.save_many([start("a"), bad, start("b")])
    assert isinstance(caught.value.failed["bad"], InvalidInputError)
    assert archive.count() == 2


def test_save_many_stops_where_nothing_can_be_announced(archive: Archive, store: ScriptedStore) -> None:
    store.fail("put", "batch.", AccessDeniedError("403"), times=99)
    with pytest.raises(AccessDeniedError):
        archive.save_many([start(str(number)) for number in range(3)])
    assert store.keys("conversations/") == []


def test_save_many_moves_conversations_too() -> None:
    archive, _ = open_scripted("metadata.user_id")
    states = [start(name, user_id="alice") for name in "ab"]
    archive.save_many(states)
    for state in states:
        state.metadata["user_id"] = "bob"
    archive.save_many(states)
    assert archive.list({"metadata.user_id": "alice"}).items == []
    assert archive.count({"metadata.user_id": "bob"}) == 2


def test_save_many_announces_a_conversation_where_its_entry_belongs() -> None:
    archive, store = open_scripted("metadata.1.2")
    states = [start(f"c{number}", **{} if number < 400 else {"1.2": "x"}) for number in range(850)]
    for state in states[:400]:
        state.metadata[1] = {2: "x"}  # type: ignore[index]  # JSON makes text of these keys
    archive.save_many(states)
    assert len(store.keys(log_prefix('"x"'))) == len(store.keys("index/log/")) == 2
    assert archive.count({"metadata.1.2": "x"}) == 850
    assert archive.maintain().folded == 850
    assert archive.count({"metadata.1.2": "x"}) == 850


def test_save_many_announces_a_state_that_changes_meanwhile_where_its_entry_belongs() -> None:
    archive, store = open_scripted("metadata.user_id")
    states = [start(f"c{number}", user_id="alice") for number in range(501)]
    store.before("put", "batch.", lambda: states[500].metadata.update(user_id="bob"))
    archive.save_many(states)
    assert [archive.count({"metadata.user_id": name}) for name in ("alice", "bob")] == [500, 1]
    assert archive.maintain().folded == 501


# --- edit, delete ---------------------------------------------------------------------------------------------------


def test_edit_saves_what_was_changed_and_merges_with_others(archive: Archive) -> None:
    archive.save(start())
    with archive.edit("c") as mine:
        with archive.edit("c") as other:
            other.add_message("assistant", "other")
        mine.add_message("assistant", "mine")
    assert {content for _, content in contents(loaded(archive))} >= {"other", "mine"}


def test_edit_of_nothing_new_writes_nothing(archive: Archive, store: ScriptedStore) -> None:
    archive.save(start())
    store.reset()
    with archive.edit("c"):
        pass
    assert store.counts == {"get": 1}


def test_edit_sees_a_change_that_python_calls_equal(archive: Archive) -> None:
    archive.save(start(flag=1))
    with archive.edit("c") as state:
        state.metadata["flag"] = True
    assert loaded(archive).metadata["flag"] is True


@pytest.mark.parametrize("create", [start, lambda: start])
def test_edit_begins_a_conversation_where_it_may(archive: Archive, create: Callable[[], object]) -> None:
    made = create()
    with archive.edit("c", create=made if isinstance(made, ConversationState) else start) as state:
        state.add_message("assistant", "Hi!")
    assert len(contents(loaded(archive))) == 3


def test_edit_of_what_is_not_there_is_not_found(archive: Archive, store: ScriptedStore) -> None:
    with pytest.raises(NotFoundError, match="'nope'"), archive.edit("nope"):
        pytest.fail("the block must not run")
    with pytest.raises(InvalidInputError, match="'c'"), archive.edit("nope", create=start):
        pytest.fail("the block must not run")
    assert store.keys("conversations/") == []


def test_edit_saves_nothing_if_its_block_raises(archive: Archive, store: ScriptedStore) -> None:
    archive.save(start())
    store.reset()
    with pytest.raises(ZeroDivisionError), archive.edit("c") as state:
        state.metadata["half"] = 1 / 0
    assert store.counts == {"get": 1}


def test_delete_leaves_a_tombstone_without_content_and_tells_whether_there_was_one(
    archive: Archive, store: ScriptedStore
) -> None:
    archive.save(start(title="secret title"))
    assert archive.delete("c")
    assert not archive.delete("c")
    assert not archive.delete("never there")
    (key,) = store.keys("conversations/")
    import zstandard

    raw = zstandard.ZstdDecompressor().decompress(store.inner._space.objects[key].body)  # type: ignore[attr-defined]
    assert b"Hello" not in raw
    assert b"secret" not in raw
    assert archive.load("c") is None
    assert archive.count() == 0


def test_a_delete_whose_answer_was_lost_has_deleted(archive: Archive, store: ScriptedStore) -> None:
    archive.save(start())
    store.fail("put", "conversations/", UnavailableError("no answer"), applied=True)
    assert archive.delete("c")


def test_delete_wins_over_a_save_that_came_between(archive: Archive, store: ScriptedStore) -> None:
    state = start()
    archive.save(state)
    other = Archive(store.inner, NoWait())

    def save() -> None:
        theirs = loaded(other)
        theirs.add_message("user", "between")
        other.save(theirs)

    store.before("put", "conversations/", save)
    assert archive.delete("c")
    assert archive.load("c") is None


def test_a_delete_with_a_condition_asks_about_what_it_would_delete(archive: Archive, store: ScriptedStore) -> None:
    archive.save(start(status="trash"))
    other = Archive(store.inner, NoWait())
    asked: list[str] = []

    def is_trash(state: ConversationState) -> bool:
        asked.append(state.metadata["status"])
        return asked[-1] == "trash"

    def keep() -> None:
        theirs = loaded(other)
        theirs.metadata["status"] = "keep"
        other.save(theirs)

    store.before("put", "conversations/", keep)
    assert not archive.delete("c", only_if=is_trash)
    assert asked == ["trash", "keep"]
    assert loaded(archive).metadata["status"] == "keep"
    assert archive.list({"metadata.status": "keep"}).items  # and the announcement is taken back
    assert archive.delete("c", only_if=lambda state: state.metadata["status"] == "keep")
    assert not archive.delete("c", only_if=lambda state: True)


# --- bad input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (lambda state: setattr(state, "conversation_id", "x" * 1025), "1025 bytes"),
        (lambda state: setattr(state, "conversation_id", ""), "0 bytes"),
        (lambda state: setattr(state, "conversation_id", "\ud800"), "surrogate"),
        (lambda state: setattr(state, "current_node_id", "7.7"), "names no node"),
        (lambda state: state.metadata.update(x=float("nan")), "JSON"),
        (lambda state: state.metadata.update(x="\ud800"), "surrogate"),
        (lambda state: state.metadata.update(x={1, 2}), "set"),
        (lambda state: setattr(state, "metadata", None), "metadata cannot be a NoneType"),
        (lambda state: setattr(state.message_tree.data.message, "content", 5), r"nodes\[0\].message.content cannot be"),
        (lambda state: setattr(state.message_tree.data.message, "role", None), "message.role cannot be"),
        (lambda state: setattr(state.message_tree.data, "branch_name", 1), "branch_name cannot be a int"),
    ],
)
def test_a_state_that_cannot_be_stored_is_refused_before_anything_is_written(
    archive: Archive, store: ScriptedStore, spoil: Callable[[ConversationState], None], named: str
) -> None:
    state = start()
    spoil(state)
    with pytest.raises(InvalidInputError, match=named):
        archive.save(state)
    assert store.keys("index/log/") == []
    assert store.keys("conversations/") == []


def test_a_conversation_without_messages_is_refused(archive: Archive) -> None:
    with pytest.raises(InvalidInputError, match="no message yet"):
        archive.save(ConversationState("empty"))


def test_an_unknown_conflict_mode_is_refused(archive: Archive) -> None:
    with pytest.raises(InvalidInputError, match="'merge'"):
        archive.save(start(), "ignore")  # type: ignore[arg-type]  # what an untyped caller may do


def test_every_error_is_a_storage_error(archive: Archive) -> None:
    with pytest.raises(StorageError):
        archive.save(start("x" * 2000))


def test_sends_are_bounded(archive: Archive, store: ScriptedStore) -> None:
    store.fail("put", "conversations/", UnavailableError("no answer"), times=99)
    with pytest.raises(OutcomeUnknownError):
        archive.save(start())
    assert sum(kind == "put" and key.startswith("conversations/") for kind, key in store.log) == commit.SENDS
    runner = archive._context.runner
    assert isinstance(runner, NoWait)
    assert len(runner.slept) == commit.SENDS - 1
