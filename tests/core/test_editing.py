"""An edit begins from what the edit before has saved in this process; others are noticed, and nothing is lost."""

from __future__ import annotations

from contextlib import suppress

import pytest

from s3conv import Archive, ConflictError, ConversationState, NotFoundError
from s3conv.bridge import run_sync
from s3conv.core import known
from s3conv.format.keys import document_key
from tests.core.conftest import NoWait
from tests.core.stores import ScriptedStore


def say(archive: Archive, text: str, conversation_id: str = "c") -> list[str]:
    """Add a message; what was there before it, as the block saw it."""
    with archive.edit(conversation_id, create=lambda: ConversationState.start(conversation_id, system="s")) as state:
        seen = texts(state)
        state.add_message("user", text)
    return seen


def texts(state: ConversationState | None) -> list[str]:
    assert state is not None
    return sorted(node["message"]["content"] for node in state.to_dict()["nodes"] if node["message"]["role"] == "user")


@pytest.fixture
def other(store: ScriptedStore) -> Archive:
    """The same archive in another process."""
    return Archive(store, NoWait())


def test_what_another_process_saved_meanwhile_is_merged(archive: Archive, other: Archive, store: ScriptedStore) -> None:
    say(archive, "one")
    say(other, "two")
    store.reset()
    assert say(archive, "three") == ["one"]  # it does not know yet …
    assert store.counts == {"put": 4, "get": 1, "delete": 1}
    assert texts(other.load("c")) == ["one", "three", "two"]  # … but takes nothing away
    assert say(archive, "four") == ["one", "three", "two"]


@pytest.mark.parametrize("key", [None, "request-7"])
def test_two_processes_that_begin_one_at_the_same_moment_are_merged(
    archive: Archive, other: Archive, store: ScriptedStore, key: str | None
) -> None:
    def begin(who: Archive, text: str) -> None:
        with who.edit("c", create=lambda: ConversationState.start("c", system="You are helpful")) as state:
            state.add_message("user", text, idempotency_key=key)

    store.before("put", "conversations/", lambda: begin(other, "theirs"))
    begin(archive, "ours")
    assert texts(other.load("c")) == (["theirs"] if key else ["ours", "theirs"])
    begin(other, "theirs again")
    begin(archive, "ours again")
    found = other.load("c")
    assert texts(found) == (["theirs"] if key else ["ours", "ours again", "theirs", "theirs again"])
    assert found is not None
    assert [node.data.message.content for node in found.message_tree.walk()].count("You are helpful") == 1


def test_a_fresh_edit_sees_what_another_process_saved(archive: Archive, other: Archive) -> None:
    say(archive, "one")
    say(other, "two")
    with archive.edit("c", fresh=True) as state:
        assert texts(state) == ["one", "two"]


def test_what_this_process_has_loaded_or_saved_since_is_not_forgotten(archive: Archive, other: Archive) -> None:
    say(archive, "one")
    say(other, "two")
    archive.load("c")
    assert say(archive, "three") == ["one", "two"]
    state = archive.load("c")
    assert state is not None
    state.add_message("user", "four")
    archive.save(state)
    assert say(archive, "five") == ["four", "one", "three", "two"]
    state = archive.load("c")
    assert state is not None
    state.add_message("user", "six")
    archive.save_many([state])
    assert say(archive, "seven") == ["five", "four", "one", "six", "three", "two"]


def test_one_that_this_process_has_deleted_is_begun_anew(archive: Archive) -> None:
    say(archive, "one")
    archive.delete("c")
    with pytest.raises(NotFoundError), archive.edit("c"):
        pass
    assert say(archive, "two") == []


def test_one_that_this_process_has_seen_to_be_deleted_is_begun_anew(archive: Archive, other: Archive) -> None:
    say(archive, "one")
    other.delete("c")
    assert archive.load("c") is None
    assert say(archive, "two") == []
    say(archive, "one", "gone")
    run_sync(archive._context.store.delete([document_key("gone")]))  # nobody should, but a store may lose one
    assert archive.load("gone") is None
    assert say(archive, "two", "gone") == []


def test_one_that_another_process_has_deleted_is_a_conflict_and_then_begun_anew(
    archive: Archive, other: Archive
) -> None:
    say(archive, "one")
    other.delete("c")
    with pytest.raises(ConflictError) as caught:
        say(archive, "two")
    assert caught.value.deleted
    assert archive.load("c") is None
    assert say(archive, "three") == []
    assert texts(archive.load("c")) == ["three"]


def test_what_a_block_does_to_its_state_afterwards_does_not_show(archive: Archive) -> None:
    with archive.edit("c", create=ConversationState.start("c", system="s")) as state:
        state.add_message("user", "one")
    state.add_message("user", "never saved")
    assert say(archive, "two") == ["one"]


def test_what_a_block_does_that_raises_does_not_show(archive: Archive, store: ScriptedStore) -> None:
    say(archive, "one")
    with suppress(ZeroDivisionError), archive.edit("c") as state:
        state.add_message("user", "two")
        raise ZeroDivisionError
    assert say(archive, "three") == ["one"]


def test_an_edit_that_changes_nothing_asks_whether_that_is_still_so(
    archive: Archive, other: Archive, store: ScriptedStore
) -> None:
    say(archive, "one")
    store.reset()
    for asked in (1, 2):
        with archive.edit("c"):
            pass
        assert store.counts == {"get": asked}
    say(other, "two")
    with archive.edit("c") as state:
        assert texts(state) == ["one"]
    assert texts(state) == ["one", "two"]  # there is more by now; nothing that the block saw is different
    assert say(archive, "three") == ["one", "two"]
    with archive.edit("c", fresh=True):
        store.reset()
    assert store.counts == {}  # it was asked already


def title_of(archive: Archive) -> object:
    state = archive.load("c")
    assert state is not None
    return state.metadata.get("title")


def entitle(archive: Archive, title: str, fresh: bool = False) -> None:
    with archive.edit("c", fresh=fresh) as state:
        state.metadata["title"] = title


def test_a_value_that_is_set_again_is_not_lost_where_another_process_has_changed_it(
    archive: Archive, other: Archive
) -> None:
    say(archive, "one")
    entitle(archive, "A")
    entitle(other, "B")
    with pytest.raises(ConflictError, match=r"changed nothing in revision 2.*another.*revision 3"):
        entitle(archive, "A")
    entitle(archive, "A")
    assert title_of(other) == "A"
    entitle(other, "B")
    entitle(archive, "A", fresh=True)
    assert title_of(other) == "A"


def test_a_message_that_another_process_has_changed_is_noticed_too(archive: Archive, other: Archive) -> None:
    say(archive, "one")
    with other.edit("c") as state:
        state.message_tree.children[0].data.message.content = "changed"
    with pytest.raises(ConflictError), archive.edit("c") as state:
        state.message_tree.children[0].data.message.content = "one"


@pytest.mark.parametrize("again", [False, True])
def test_a_repeat_is_told_that_the_conversation_was_deleted(archive: Archive, other: Archive, again: bool) -> None:
    say(archive, "one")
    other.delete("c")
    if again:
        say(other, "two")
    with pytest.raises(ConflictError) as caught, archive.edit("c"):
        pass
    assert caught.value.deleted


def test_an_edit_does_not_put_back_what_others_of_this_process_have_gone_beyond(
    archive: Archive, other: Archive, store: ScriptedStore
) -> None:
    say(archive, "one")
    with archive.edit("c"):
        say(archive, "two")
    assert say(archive, "three") == ["one", "two"]
    say(other, "four")
    with archive.edit("c"):
        archive.load("c")
    assert say(archive, "five") == ["four", "one", "three", "two"]
    with pytest.raises(ConflictError), archive.edit("c"):
        archive.delete("c")
    assert say(archive, "six") == []
    with archive.edit("c"):
        state = archive.load("c")
        assert state is not None
        state.add_message("user", "seven")
        archive.save(state)
    assert say(archive, "eight") == ["seven", "six"]
    # Between the commit of an edit and what follows it, a merge makes one more request.
    assert other.load("c") is not None
    say(other, "nine")
    store.before("delete", "index/log/", lambda: archive.delete("c"))
    say(archive, "ten")
    assert say(archive, "eleven") == []


def test_a_load_that_was_answered_before_an_edit_does_not_undo_it_here(archive: Archive, store: ScriptedStore) -> None:
    say(archive, "one")
    answered = run_sync(store.get(document_key("c")))
    assert answered is not None
    say(archive, "two")

    async def late(key: str, **options: object) -> object:
        return answered

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "get", late)
        assert texts(archive.load("c")) == ["one"]
    assert say(archive, "three") == ["one", "two"]


def test_what_was_kept_for_15_minutes_is_loaded_again(archive: Archive, other: Archive) -> None:
    say(archive, "one")
    say(other, "two")
    clock = archive._context.wall_clock
    archive._context.wall_clock = lambda: clock() + 14 * 60
    assert say(archive, "three") == ["one"]
    say(other, "four")
    archive._context.wall_clock = lambda: clock() + 30 * 60
    assert say(archive, "five") == ["four", "one", "three", "two"]
    archive._context.wall_clock = lambda: clock() - 60  # set back: it says nothing about an age
    say(other, "six")
    assert say(archive, "seven") == ["five", "four", "one", "six", "three", "two"]


def test_no_more_is_kept_than_fits(archive: Archive, store: ScriptedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    say(archive, "hello", "a")
    head = run_sync(store.head(document_key("a")))
    assert head is not None
    monkeypatch.setattr(known, "EDITED_BYTES", 3 * (500 + head.size) + 50)  # ids differ in size
    for name in "bcde":
        say(archive, "hello", name)
    assert [name for name in "abcde" if archive._context.kept.edited.has(name)] == ["c", "d", "e"]
