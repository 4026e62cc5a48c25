"""`ConversationState` and `ConversationNode` in memory: adding, branching, finding one's place, copying, any length."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given

from s3conv.errors import InvalidInputError
from s3conv.model.message import ConversationNode, LLMMessage, as_utc
from s3conv.model.schema import SCHEMA_VERSION
from s3conv.model.state import ConversationState, get_messages_for_llm
from s3conv.model.tree import Tree, calculate_node_id, get_node_by_id
from tests.model.counting import lines_run
from tests.strategies import states

DEEP = 10_000


def branching() -> ConversationState:
    """system ─ Hello ─ (Hi!, Good day) with the second as the current one."""
    state = ConversationState.start("c", system="Be brief.")
    state.add_message("user", "Hello")
    state.add_message("assistant", "Hi!")
    state.add_message("assistant", "Good day", parent="0")
    return state


def chain(length: int) -> ConversationState:
    state = ConversationState.start("deep")
    for number in range(length):
        state.add_message("user", str(number))
    return state


def contents(nodes: list[ConversationNode]) -> list[object]:
    return [node.message.content for node in nodes]


def said(messages: list[LLMMessage]) -> list[object]:
    return [message.content for message in messages]


# --- beginning ------------------------------------------------------------------------------------------------------


def test_start_puts_the_system_message_at_the_root() -> None:
    state = ConversationState.start("c", system="Be brief.", metadata={"user_id": "alice"})
    assert state.message_tree.data.message == LLMMessage("system", "Be brief.")
    assert state.current_node_id == ""
    assert state.metadata == {"user_id": "alice"}
    assert state.schema_version == SCHEMA_VERSION
    assert state.created_at == state.updated_at
    assert state.created_at.tzinfo is UTC


def test_without_a_system_message_the_first_message_is_the_root() -> None:
    state = ConversationState.start("c")
    root = state.add_message("user", "Hello")
    assert state.message_tree.data is root
    assert root.node_id == ""
    assert state.add_message("assistant", "Hi!").node_id == "0"


def test_a_system_message_may_be_empty_or_a_list_of_parts() -> None:
    assert ConversationState.start("c", system="").message_tree.data.message.content == ""
    parts = [{"type": "text", "text": "x"}]
    assert ConversationState.start("c", system=parts).message_tree.data.message.content == parts


def test_a_conversation_without_messages_has_no_tree_and_says_so() -> None:
    state = ConversationState.start("empty")
    assert state.leaves() == []
    assert state.path_to("") == []
    assert state.get_current_messages() == []
    assert state.get_current_node() is None
    assert repr(state) == "<ConversationState 'empty', 0 messages>"
    with pytest.raises(InvalidInputError, match="'empty' has no message yet"):
        _ = state.message_tree
    with pytest.raises(InvalidInputError, match="'empty' has no message yet"):
        state.to_dict()


def test_the_constructor_takes_the_seeds_arguments_in_the_seeds_order() -> None:
    tree = Tree(ConversationNode(LLMMessage("user", "a"), "x"))
    tree.add_child(ConversationNode(LLMMessage("assistant", "b"), "y"))
    day = datetime(2025, 1, 1)
    state = ConversationState("c", tree, "0", {"k": 1}, day, day, "1.1.0")
    current = state.get_current_node()
    assert current is tree.children[0]
    assert said(state.get_current_messages()) == ["a", "b"]
    assert (state.created_at, state.updated_at) == (day, day)


# --- adding ---------------------------------------------------------------------------------------------------------


def test_a_message_is_added_below_the_current_node_and_becomes_the_current_one() -> None:
    state = branching()
    assert state.current_node_id == "0.1"
    added = state.add_message("user", "Thanks")
    assert added.node_id == state.current_node_id == "0.1.0"
    assert said(state.get_current_messages()) == ["Be brief.", "Hello", "Good day", "Thanks"]


def test_a_message_is_added_below_a_parent_named_by_id_or_given_as_node() -> None:
    state = branching()
    by_id = state.add_message("user", "x", parent="0.0")
    by_node = state.add_message("user", "y", parent=state.path_to("0")[-1])
    assert (by_id.node_id, by_node.node_id) == ("0.0.0", "0.2")
    assert state.current_node_id == "0.2"


def test_adding_keeps_everything_that_is_given() -> None:
    state = ConversationState.start("c")
    metadata = {"model": "m"}
    time = datetime(2020, 1, 1)
    node = state.add_message(
        "assistant",
        None,
        name="n",
        tool_calls=[{"id": "1"}],
        function_call={"name": "f"},
        tool_call_id="t",
        metadata=metadata,
        prompt_name="p",
        branch_name="b",
        timestamp=time,
        idempotency_key="k",
    )
    assert node.message == LLMMessage("assistant", None, "n", "t", {"name": "f"}, [{"id": "1"}])
    assert (node.prompt_name, node.branch_name, node.timestamp) == ("p", "b", time)
    assert node.metadata == {"model": "m", "idempotency_key": "k"}
    assert metadata == {"model": "m"}


def test_arguments_come_in_the_order_of_dataknobs() -> None:
    calls, call = [{"id": "1"}], {"name": "f"}
    message = LLMMessage("tool", "x", "n", "t", call, calls, {"m": 1})
    assert (message.tool_call_id, message.function_call, message.tool_calls) == ("t", call, calls)
    assert message.metadata == {"m": 1}


def test_nodes_are_given_by_place_and_by_time() -> None:
    state = ConversationState.start("c", metadata={"m": 1})
    days = [datetime(2025, 1, 1), datetime(2025, 1, 4, tzinfo=UTC), datetime(2025, 1, 3), datetime(2025, 1, 2)]
    for number, (day, parent) in enumerate(zip(days, (None, "", "0", ""), strict=True)):
        state.add_message("user", str(number), timestamp=day, parent=parent)
    assert [node.message.content for node in state.get_current_nodes()] == ["0", "3"]
    assert [node.message.content for node in state.get_all_nodes()] == ["0", "3", "2", "1"]
    assert state.to_export_dict() == {
        "conversation_id": "c",
        "metadata": {"m": 1},
        "messages": [node.to_dict() for node in state.get_all_nodes()],
        "message_count": 4,
    }
    assert ConversationState("empty").get_all_nodes() == ConversationState("empty").get_current_nodes() == []


def test_adding_sets_updated_at_even_for_a_message_of_long_ago() -> None:
    state = ConversationState.start("c", system="x")
    state.created_at = state.updated_at = datetime(2020, 1, 1, tzinfo=UTC)
    node = state.add_message("user", "y", timestamp=datetime(1999, 1, 1, tzinfo=UTC))
    assert node.timestamp.year == 1999
    assert state.updated_at > datetime(2020, 1, 1, tzinfo=UTC)
    assert state.created_at == datetime(2020, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize("parent", ["9", "0.2", "-1", "00", "x"])
def test_a_parent_that_is_not_there_is_refused_and_nothing_is_added(parent: str) -> None:
    state = branching()
    before = copy.deepcopy(state)
    with pytest.raises(InvalidInputError, match=f"'c' has no node '{parent}'"):
        state.add_message("user", "x", parent=parent)
    assert state == before


def test_a_parent_of_another_conversation_is_refused() -> None:
    state, other = branching(), branching()
    for stranger in (other.path_to("0")[-1], ConversationNode(LLMMessage("user", "x"))):
        with pytest.raises(InvalidInputError, match="has no node"):
            state.add_message("user", "x", parent=stranger)
    assert state.message_tree == branching_again(state)


def branching_again(like: ConversationState) -> Tree[ConversationNode]:
    """The tree of `branching`, with the timestamps of another one."""
    state = branching()
    for mine, theirs in zip(state.message_tree.walk(), like.message_tree.walk(), strict=True):
        mine.data.timestamp = theirs.data.timestamp
    return state.message_tree


@pytest.mark.parametrize("parent", ["", "5"])
def test_a_parent_in_a_conversation_without_messages_is_refused(parent: str) -> None:
    state = ConversationState.start("c")
    with pytest.raises(InvalidInputError, match="'c' has no"):
        state.add_message("user", "x", parent=parent)
    with pytest.raises(InvalidInputError, match="'c' has no"):
        state.add_message("user", "x", parent=ConversationNode(LLMMessage("user", "y")))
    assert state.leaves() == []


def test_a_current_node_id_that_names_no_node_shows_when_it_is_used() -> None:
    state = branching()
    state.current_node_id = "7"
    assert state.current_node_id == "7"
    assert state.get_current_node() is None
    assert state.get_current_messages() == []
    with pytest.raises(InvalidInputError, match="'c' has no node '7'"):
        state.add_message("user", "x")


def test_one_idempotency_key_adds_one_message() -> None:
    state = branching()
    first = state.add_message("user", "once", idempotency_key="request-1")
    state.add_message("assistant", "answer")
    before = copy.deepcopy(state)
    assert state.add_message("user", "once", idempotency_key="request-1") is first
    assert state.add_message("user", "once", parent="", idempotency_key="request-1") is first
    assert state == before
    assert state.add_message("user", "once", idempotency_key="request-2") is not first


def test_the_root_may_have_an_idempotency_key() -> None:
    state = ConversationState.start("c")
    root = state.add_message("user", "once", idempotency_key="k")
    assert state.add_message("user", "once", idempotency_key="k") is root
    assert root.node_id == ""


# --- finding --------------------------------------------------------------------------------------------------------


def test_leaves_are_the_last_nodes_of_the_branches_in_the_order_of_the_tree() -> None:
    state = branching()
    state.add_message("user", "deeper", parent="0.0")
    state.add_message("user", "wide", parent="")
    assert contents(state.leaves()) == ["deeper", "Good day", "wide"]


def test_path_to_leads_from_the_root_to_the_node() -> None:
    assert contents(branching().path_to("0.0")) == ["Be brief.", "Hello", "Hi!"]
    assert contents(branching().path_to("")) == ["Be brief."]


@pytest.mark.parametrize("node_id", ["0.7", "-1", "0..1", "nowhere"])
def test_there_is_no_path_and_there_are_no_messages_to_a_node_that_is_not_there(node_id: str) -> None:
    state = branching()
    assert state.path_to(node_id) == []
    assert get_messages_for_llm(state.message_tree, node_id) == []


def test_messages_for_the_model_lead_from_the_root_to_the_node() -> None:
    tree = branching().message_tree
    assert said(get_messages_for_llm(tree, "0.0")) == ["Be brief.", "Hello", "Hi!"]
    assert said(get_messages_for_llm(tree, "")) == ["Be brief."]


# --- nodes and places -----------------------------------------------------------------------------------------------


def test_a_node_has_its_id_as_given_until_it_is_in_a_tree_and_then_its_place() -> None:
    node = ConversationNode(LLMMessage("user", "x"), "as-given")
    assert node.node_id == "as-given"
    node.node_id = "given-later"
    assert node.to_dict()["node_id"] == "given-later"
    root = Tree(ConversationNode(LLMMessage("system", "s"), "also-given"))
    root.add_child(ConversationNode(LLMMessage("user", "w")))
    place = root.add_child(node)
    assert node.node_id == node.to_dict()["node_id"] == "1"
    assert root.data.node_id == ""
    node.node_id = "a place cannot be set"
    assert node.node_id == "1"
    root.children[0].add_child(place)
    assert node.node_id == "0.0"


def test_a_node_that_was_replaced_in_its_tree_has_its_own_id_again() -> None:
    node = ConversationNode(LLMMessage("user", "x"), "own")
    place = Tree(ConversationNode(LLMMessage("system", "s"))).add_child(node)
    assert node.node_id == "0"
    place.data = ConversationNode(LLMMessage("user", "y"))
    assert place.data.node_id == "0"
    assert node.node_id == "own"


def test_a_message_may_have_no_time_and_gets_that_of_now_in_utc() -> None:
    assert ConversationNode(LLMMessage("user")).timestamp.tzinfo is UTC


def test_the_place_where_a_conversation_goes_on_moves_with_its_node() -> None:
    state = branching()
    place = state.get_current_node()
    assert place is not None
    state.message_tree.add_child(place)
    assert state.current_node_id == "1"
    assert state.get_current_node() is place


def test_a_new_tree_keeps_the_current_id() -> None:
    state = branching()
    state.message_tree = branching().message_tree
    assert state.current_node_id == "0.1"
    current = state.get_current_node()
    assert current is not None
    assert current.root is state.message_tree


def test_setting_the_current_id_and_setting_the_current_node_are_the_same() -> None:
    state = branching()
    state.current_node_id = "0.0"
    by_id = state.get_current_node()
    assert by_id is get_node_by_id(state.message_tree, "0.0")
    state.set_current_node(state.message_tree)
    assert state.current_node_id == ""
    assert state.get_current_node() is state.message_tree


# --- times ----------------------------------------------------------------------------------------------------------


def test_the_ends_of_time_have_an_instant_in_utc() -> None:
    east, west = timezone(timedelta(hours=14)), timezone(timedelta(hours=-12))
    assert as_utc(datetime.min.replace(tzinfo=east)) == datetime.min.replace(tzinfo=UTC)
    assert as_utc(datetime.max.replace(tzinfo=west)) == datetime.max.replace(tzinfo=UTC)
    assert as_utc(datetime(2025, 1, 1)) == datetime(2025, 1, 1, tzinfo=UTC)
    assert as_utc(datetime(2025, 1, 1, 14, tzinfo=east)) == datetime(2025, 1, 1, tzinfo=UTC)


# --- comparing and copying ------------------------------------------------------------------------------------------

COPIES: list[Callable[[Any], Any]] = [copy.deepcopy, lambda thing: pickle.loads(pickle.dumps(thing))]


def changes() -> list[Callable[[ConversationState], object]]:
    return [
        lambda state: setattr(state, "conversation_id", "d"),
        lambda state: setattr(state, "created_at", datetime(1999, 1, 1)),
        lambda state: setattr(state, "updated_at", datetime(1999, 1, 1)),
        lambda state: setattr(state, "schema_version", "1.5.0"),
        lambda state: setattr(state, "current_node_id", "0"),
        lambda state: state.metadata.update(k=1),
        lambda state: state.extra.update(k=1),
        lambda state: setattr(state.message_tree.data, "prompt_name", "p"),
        lambda state: setattr(state.message_tree.data, "branch_name", "b"),
        lambda state: setattr(state.message_tree.data, "timestamp", datetime(1999, 1, 1)),
        lambda state: state.message_tree.data.metadata.update(k=1),
        lambda state: state.message_tree.data.extra.update(k=1),
        lambda state: setattr(state.message_tree.data.message, "content", "other"),
        lambda state: state.message_tree.data.message.extra.update(k=1),
        lambda state: state.message_tree.add_child(state.message_tree.children[0].children[0]),
    ]


@pytest.mark.parametrize("change", changes())
def test_states_are_equal_until_one_of_them_changes(change: Callable[[ConversationState], object]) -> None:
    state = branching()
    twin = copy.deepcopy(state)
    assert twin == state
    change(twin)
    assert twin != state


def test_a_state_is_equal_to_no_other_thing_and_has_no_hash() -> None:
    assert branching() != "c"
    assert branching().message_tree.data != "c"
    with pytest.raises(TypeError):
        hash(branching())
    with pytest.raises(TypeError):
        hash(branching().message_tree.data)


@pytest.mark.parametrize("copied", COPIES)
@given(state=states())
def test_a_copied_state_is_equal_and_shares_nothing(
    copied: Callable[[ConversationState], ConversationState], state: ConversationState
) -> None:
    twin = copied(state)
    assert twin == state
    assert twin.to_dict() == state.to_dict()
    current = twin.get_current_node()
    assert current is not None
    assert current.root is twin.message_tree
    twin.add_message("user", "more")
    twin.metadata["more"] = True
    twin.message_tree.data.metadata["more"] = True
    assert twin != state
    assert "more" not in state.metadata
    assert "more" not in state.message_tree.data.metadata


@pytest.mark.parametrize("copied", COPIES)
def test_a_copied_node_is_in_no_tree_and_keeps_the_id_that_it_had(
    copied: Callable[[ConversationNode], ConversationNode],
) -> None:
    node = branching().path_to("0.1")[-1]
    twin = copied(node)
    assert twin == node
    assert twin.node_id == "0.1"
    twin.node_id = "free"
    assert twin.node_id == "free"


@pytest.mark.parametrize("copied", COPIES)
def test_copies_write_timestamps_as_the_source_did(copied: Callable[[Any], Any]) -> None:
    form = branching().to_dict()
    form["created_at"] = form["nodes"][0]["timestamp"] = "2025-01-01T00:00:00.000Z"
    state = ConversationState.from_dict(form)
    assert copied(state).to_dict() == form
    assert copied(state.message_tree.data).to_dict()["timestamp"] == "2025-01-01T00:00:00.000Z"
    assert copied(state.message_tree).data.to_dict()["timestamp"] == "2025-01-01T00:00:00.000Z"


def test_representations_are_short_and_name_the_thing() -> None:
    state = branching()
    assert repr(state) == "<ConversationState 'c', 4 messages>"
    assert repr(ConversationState.start("d", system="x")) == "<ConversationState 'd', 1 message>"
    node = ConversationNode(LLMMessage("user", "x" * 1000), timestamp=datetime(2025, 1, 1))
    assert repr(node) == f"ConversationNode('user', '{'x' * 37}...', 2025-01-01T00:00:00)"
    parts = ConversationNode(LLMMessage("user", [{"type": "text"}]), timestamp=datetime(2025, 1, 1))
    assert repr(parts) == "ConversationNode('user', ..., 2025-01-01T00:00:00)"


# --- any length -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def deep() -> ConversationState:
    """A linear conversation of 10,000 messages; read only."""
    return chain(DEEP)


@pytest.mark.parametrize("copied", COPIES)
def test_a_deep_state_copies_with_its_current_node(
    copied: Callable[[ConversationState], ConversationState], deep: ConversationState
) -> None:
    twin = copied(deep)
    assert twin == deep
    current = twin.get_current_node()
    assert current is not None
    assert current.data.message.content == str(DEEP - 1)
    assert current.root is twin.message_tree


@pytest.mark.parametrize("copied", COPIES)
def test_a_node_of_a_deep_tree_copies_alone(copied: Callable[[Any], Any], deep: ConversationState) -> None:
    last = deep.leaves()[0]
    twin = copied(last)
    assert twin == last
    assert twin.node_id == last.node_id


def test_a_deep_state_compares_prints_and_finds_its_way(deep: ConversationState) -> None:
    assert repr(deep) == f"<ConversationState 'deep', {DEEP} messages>"
    current = deep.get_current_node()
    assert current is not None
    assert repr(current.data)
    assert len(deep.get_current_messages()) == DEEP
    assert len(deep.path_to(calculate_node_id(current))) == DEEP
    assert deep != chain(5)


def test_building_takes_work_in_proportion_to_the_length() -> None:
    short, long = lines_run(lambda: chain(2_000)), lines_run(lambda: chain(20_000))
    assert long <= 11 * short


def test_the_exchange_form_of_a_deep_conversation_needs_no_recursion() -> None:
    state = chain(2_000)
    assert ConversationState.from_dict(state.to_dict()) == state


def test_a_tree_that_is_part_of_another_is_refused_instead_of_saved_in_part() -> None:
    state = ConversationState.start("whole", system="root")
    state.add_message("user", "below")
    part = state.message_tree.children[0]
    with pytest.raises(InvalidInputError, match="expected the root"):
        ConversationState("part", part)
    with pytest.raises(InvalidInputError, match="expected the root"):
        state.message_tree = part
