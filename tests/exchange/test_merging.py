"""A newer, older or repeated version merges into the archived conversation, and what was changed here stays."""

from __future__ import annotations

import copy
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3conv import ConversationState
from s3conv.exchange import chatgpt
from s3conv.exchange.merging import identity_name, is_same, merge_import
from s3conv.exchange.provenance import note_import
from s3conv.format.document import state_from_stored, state_to_stored
from tests.exchange.chats import branching, chat, place, said
from tests.exchange.test_formats import shape


def imported(data: dict[str, Any]) -> ConversationState:
    state = chatgpt.read(copy.deepcopy(data))
    note_import(state)
    return state


def ids(state: ConversationState) -> list[str]:
    return [source for _, source, _ in shape(state)]


@given(st.lists(st.integers(1, 5), min_size=1, max_size=5))
def test_versions_in_any_order_give_one_tree(versions: list[int]) -> None:
    state = imported(branching(upto=versions[0]))
    for upto in versions[1:]:
        merge_import(state, imported(branching(upto=upto)))
    assert sorted(ids(state)) == sorted(["q", "a1", "a2", "q2", "a3"][: max(versions)])
    current = state.get_current_node()
    assert current is not None
    assert current.data.metadata["source_id"] == ["q", "a1", "a2", "q2", "a3"][max(versions) - 1]
    assert state.updated_at == chatgpt.read(branching(upto=max(versions))).updated_at
    before = state_to_stored(copy.deepcopy(state))
    for upto in versions:
        assert not merge_import(state, imported(branching(upto=upto)))
    assert state_to_stored(state) == before


def test_messages_that_were_added_here_stay_and_so_does_where_it_stands() -> None:
    state = imported(branching(upto=3))
    state.add_message("user", "asked here")
    assert merge_import(state, imported(branching()))
    assert shape(state) == [
        ("", "q", "text of q"),
        ("0", "a1", "text of a1"),
        ("1", "a2", "text of a2"),
        ("1.0", "", "asked here"),
        ("1.1", "q2", "text of q2"),
        ("1.1.0", "a3", "text of a3"),
    ]
    assert state.current_node_id == "1.0"
    assert not merge_import(state, imported(branching()))


def test_messages_that_were_edited_here_stay() -> None:
    state = imported(branching(upto=3))
    state.message_tree.data.message.content = "edited here"
    state.message_tree.children[0].data.metadata["rating"] = 5
    assert is_same(state, imported(branching()))
    merge_import(state, imported(branching()))
    assert state.message_tree.data.message.content == "edited here"
    assert state.message_tree.children[0].data.metadata["rating"] == 5
    assert len(ids(state)) == 5


def test_metadata_follows_the_source_where_it_was_not_changed_here() -> None:
    state = imported(branching(upto=3, title="old", a=1, b=1, c=1, d={"x": [1]}))
    state.metadata["title"] = "renamed here"
    state.metadata["own"] = "made here"
    del state.metadata["a"]
    newer = imported(branching(title="new", a=2, b=2, c=1, d={"x": [2]}, own="the source's", e=5))
    assert merge_import(state, newer)
    expected = {"title": "renamed here", "own": "made here", "b": 2, "c": 1, "d": {"x": [2]}, "e": 5}
    assert {key: state.metadata.get(key) for key in (*expected, "a")} == {**expected, "a": None}
    assert "a" not in state.metadata
    # What is here is not what the source said last, although the source has moved on since.
    merge_import(state, imported(branching(title="newest", a=3, own="again", update_time=9000.0)))
    assert (state.metadata["title"], state.metadata["own"]) == ("renamed here", "made here")
    assert "a" not in state.metadata


def test_an_older_version_takes_nothing_back() -> None:
    state = imported(branching(title="new"))
    assert not merge_import(state, imported(branching(upto=3, title="old")))
    assert state.metadata["title"] == "new"
    assert state.current_node_id == "1.0.0"


def test_versions_of_one_time_do_not_alternate() -> None:
    one, two = (branching(title=title, current_node=node) for title, node in (("one", "a1"), ("two", "a3")))
    state = imported(one)
    assert merge_import(state, imported(two))
    assert (state.metadata["title"], state.current_node_id) == ("two", "1.0.0")
    assert not merge_import(state, imported(one))
    assert not merge_import(state, imported(two))
    assert merge_import(state, imported({**one, "update_time": 5000.0}))
    assert (state.metadata["title"], state.current_node_id) == ("one", "0")


def test_the_record_survives_saving() -> None:
    state = imported(branching(upto=3, title="old"))
    state.metadata["title"] = "renamed here"
    state = state_from_stored(state_to_stored(state))
    merge_import(state, imported(branching(title="new")))
    assert state.metadata["title"] == "renamed here"


def test_own_lines_change_only_what_is_known_to_be_unchanged_here() -> None:
    def own(**metadata: Any) -> ConversationState:
        state = ConversationState("x", metadata=metadata, created_at=datetime(2026, 1, 1, tzinfo=UTC))
        for n in range(3):
            state.add_message("user", str(n), timestamp=datetime(2026, 1, 1, 0, n, tzinfo=UTC))
        state.updated_at = datetime(2026, 1, 1, 1, tzinfo=UTC)
        return state

    state = own(title="here")
    backup = state_from_stored(state_to_stored(own(title="there", tag=1)))
    backup.add_message("user", "more", timestamp=datetime(2026, 1, 2, tzinfo=UTC))
    assert merge_import(state, copy.deepcopy(backup))
    assert state.metadata == {"title": "here", "tag": 1}
    assert state.current_node_id == "0.0.0"
    assert "imported" not in state.extra
    assert not merge_import(state, copy.deepcopy(backup))

    # A conversation that went from ChatGPT into one archive, was renamed there, and went on to another.
    here, there = imported(branching(title="old")), imported(branching(title="old"))
    there.metadata["title"] = "renamed there"
    assert merge_import(here, state_from_stored(state_to_stored(there)))
    assert here.metadata["title"] == "renamed there"
    merge_import(here, imported(branching(title="new", update_time=9000.0)))
    assert here.metadata["title"] == "renamed there"


def test_messages_without_ids_are_matched_one_to_one_by_what_they_say() -> None:
    def made(*texts: str) -> ConversationState:
        time = datetime(2026, 1, 1, tzinfo=UTC)
        state = ConversationState("x", created_at=time, updated_at=time + timedelta(seconds=len(texts)))
        root = state.add_message("system", "S", timestamp=time)
        for text in texts:
            state.add_message("user", text, timestamp=time, parent=root)
        state.updated_at = time + timedelta(seconds=len(texts))
        note_import(state)
        return state

    state = made("a", "a")
    assert merge_import(state, made("a", "b", "a", "a"))
    assert [child.data.message.content for child in state.message_tree.children] == ["a", "a", "b", "a"]
    assert not merge_import(state, made("a", "b", "a", "a"))


def test_an_empty_conversation_that_gets_messages_is_the_same_one() -> None:
    empty = chat({"root": place(None, None, [])})
    for first in (empty, chat({})):
        state = imported(first)
        later = imported(branching(upto=2))
        assert is_same(state, later)
        assert is_same(later, state)
        assert merge_import(state, later)
        assert ids(state)[1:] == ["q", "a1"]
        assert not merge_import(state, imported(branching(upto=2)))
        assert not merge_import(state, imported(first))
    full = imported(branching(upto=2))
    assert not merge_import(full, imported(empty))
    assert not is_same(imported(empty), imported(chat({"root": place(None, None, [])}, create_time=7.0)))


def test_a_second_beginning_hangs_beside_the_first() -> None:
    first = chat({"a": place(None, said("user", "A", 1.0)), "a2": place("a", said("user", "A2", 2.0))})
    both = {**first, "mapping": {**first["mapping"], "b": place(None, said("user", "B", 3.0))}, "update_time": 3000.0}
    state = imported(first)
    assert merge_import(state, imported(both))
    assert shape(state) == [("", "", None), ("0", "a", "A"), ("0.0", "a2", "A2"), ("1", "b", "B")]
    assert state.current_node_id == "1"
    assert not merge_import(state, imported(both))
    assert not merge_import(state, imported(first))
    other = imported({**first, "mapping": {"z": place(None, said("user", "Z", 0.5)), **both["mapping"]}})
    assert merge_import(state, other)
    assert ids(state) == ["", "a", "a2", "b", "z"]


def test_which_conversations_are_the_same() -> None:
    one = imported(chat({"m1": place(None, said("user", "A", 1.0))}))
    assert not is_same(one, imported(chat({"m1": place(None, said("user", "B", 2.0))})))
    assert not is_same(one, imported(chat({"m2": place(None, said("user", "A", 1.0))})))
    assert is_same(one, imported(chat({"m1": place(None, said("user", "edited", 1.0))})))
    assert identity_name(one) != identity_name(imported(chat({"m2": place(None, said("user", "A", 1.0))})))
    assert identity_name(one) == identity_name(imported(chat({"m1": place(None, said("user", "A", 1.0))}, title="x")))


@pytest.mark.parametrize("record", [None, 3, {}, {"updated_at": "x", "metadata": {}, "current": []},
                                    {"updated_at": "2026-01-01", "metadata": {"a": 1}, "current": []}])  # fmt: skip
def test_a_record_that_is_none_is_no_record(record: Any) -> None:
    state = imported(branching(upto=2))
    state.extra["imported"] = record
    merge_import(state, imported(branching()))
    assert len(ids(state)) == 5


def test_ten_thousand_messages_deep() -> None:
    mapping = {str(n): place(str(n - 1) if n else None, said("user", "x", float(n))) for n in range(10_000)}
    state = imported(chat(dict(list(mapping.items())[:5000])))
    assert merge_import(state, imported(chat(mapping, update_time=3000.0)))
    assert sum(1 for _ in state.message_tree.walk()) == 10_000
    assert not merge_import(state, imported(chat(mapping, update_time=3000.0)))
