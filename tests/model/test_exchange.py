"""The exchange form: what comes in goes out, unknown fields, nulls,
absences and spellings included; and what is refused."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given

from s3conv.errors import InvalidInputError, SchemaVersionError
from s3conv.format.document import state_from_stored, state_to_stored
from s3conv.model.message import ConversationNode, LLMMessage
from s3conv.model.state import ConversationState
from tests.strategies import as_json, exchange_forms, exchange_messages, states

CAPTURED = Path(__file__).parents[3] / "shared" / "data" / "dataknobs" / "captured_llm_tests.jsonl"


def row(node_id: str, **fields: Any) -> dict[str, Any]:
    return {
        "message": {"role": "user", "content": node_id},
        "node_id": node_id,
        "timestamp": "2025-01-01T00:00:00",
        "prompt_name": None,
        "branch_name": None,
        "metadata": {},
        **fields,
    }


def form(*node_ids: str, edges: list[Any] | None = None, **fields: Any) -> dict[str, Any]:
    """A conversation of these nodes; without `edges` they are a chain."""
    return {
        "schema_version": "1.1.0",
        "conversation_id": "c",
        "nodes": [row(node_id) for node_id in node_ids],
        "edges": [list(pair) for pair in pairwise(node_ids)] if edges is None else edges,
        "current_node_id": node_ids[-1] if node_ids else "",
        "metadata": {},
        "created_at": "2025-01-01T00:00:00",
        "updated_at": "2025-01-01T00:00:00",
        **fields,
    }


def read(document: Any) -> ConversationState:
    return ConversationState.from_dict(document)


# --- real documents -------------------------------------------------------------------------------------------------


def captured() -> Iterator[dict[str, Any]]:
    if not CAPTURED.exists():
        pytest.skip(f"the folder of real conversations is not here ({CAPTURED.name})")
    with CAPTURED.open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def migrated(document: dict[str, Any]) -> dict[str, Any]:
    """What the documented migrations make of a document; written down without s3conv."""
    expected = copy.deepcopy(document)
    if expected.get("schema_version", "0.0.0") in ("0.0.0", "1.0.0"):
        expected["schema_version"] = "1.1.0"
        for node in expected["nodes"]:
            for field in ("tool_calls", "function_call"):
                if field in node["metadata"] and field not in node["message"]:
                    node["message"][field] = node["metadata"][field]
    return expected


def test_every_document_that_dataknobs_wrote_comes_back_as_the_same_json() -> None:
    kept: dict[object, int] = {}
    for document in captured():
        version = document.get("schema_version")
        if version == "2.0.0":
            continue
        before = as_json(document)
        state = read(document)
        assert as_json(state.to_dict()) == as_json(migrated(document))
        assert as_json(state_from_stored(state_to_stored(state)).to_dict()) == as_json(migrated(document))
        assert as_json(document) == before
        kept[version] = kept.get(version, 0) + 1
    assert kept == {None: 2, "0.0.0": 1, "1.0.0": 4, "1.1.0": 447, "1.5.0": 1}


def test_the_document_of_a_newer_major_is_refused() -> None:
    newer = [document for document in captured() if document.get("schema_version") == "2.0.0"]
    assert len(newer) == 1
    with pytest.raises(SchemaVersionError, match=r"2\.0\.0"):
        read(newer[0])


# --- round trips ----------------------------------------------------------------------------------------------------


@given(exchange_forms())
def test_any_exchange_form_comes_back_as_the_same_json(document: dict[str, Any]) -> None:
    before = as_json(document)
    assert as_json(read(document).to_dict()) == before
    assert as_json(document) == before


@given(states())
def test_any_state_comes_back_equal(state: ConversationState) -> None:
    again = read(state.to_dict())
    assert again == state
    assert as_json(again.to_dict()) == as_json(state.to_dict())


@given(exchange_messages())
def test_any_message_comes_back_as_the_same_json(message: dict[str, Any]) -> None:
    assert as_json(LLMMessage.from_dict(message).to_dict()) == as_json(message)


@pytest.mark.parametrize(
    "text",
    [
        "2025-01-01T00:00:00Z", "2025-01-01T00:00:00.000", "2025-01-01T00:00:00.5", "2025-01-01T05:30:00+05:30",
        "2025-01-01 00:00:00", "20250101T000000", "2025-01-01", "2025-01-01T00:00", "2025-W01-3",
        "0001-01-01T00:00:00Z",
        "9999-12-31T23:59:59.999999-23:59", "2025-01-01T00:00:00.123456789Z", "2025-01-01T00:00:00-00:00",
    ],
)  # fmt: skip
def test_timestamps_are_written_as_they_were_read_until_they_change(text: str) -> None:
    document = form("", created_at=text, updated_at=text)
    document["nodes"][0]["timestamp"] = text
    state = read(document)
    assert state.to_dict() == document
    state.created_at = state.updated_at = datetime(2026, 1, 1, tzinfo=UTC)
    state.message_tree.data.timestamp = datetime(2026, 1, 1)
    written = state.to_dict()
    assert written["created_at"] == written["updated_at"] == "2026-01-01T00:00:00+00:00"
    assert written["nodes"][0]["timestamp"] == "2026-01-01T00:00:00"


def test_an_own_timestamp_changes_alone() -> None:
    document = form("", created_at="2025-01-01T00:00:00Z", updated_at="2025-01-02T00:00:00.000Z")
    state = read(document)
    state.add_message("user", "x")
    assert state.to_dict()["created_at"] == "2025-01-01T00:00:00Z"
    assert state.to_dict()["updated_at"] == state.updated_at.isoformat()


@pytest.mark.parametrize("how", ["null", "absent", "empty"])
def test_values_that_are_set_win_over_what_was_read(how: str) -> None:
    document = form("")
    node = document["nodes"][0]
    message = node["message"]
    fields = {
        "message": ["content", "name", "tool_calls", "function_call", "tool_call_id", "metadata"],
        "node": ["prompt_name", "branch_name", "metadata"],
        "state": ["metadata"],
    }
    empty: dict[str, Any] = {"tool_calls": [], "function_call": {}, "metadata": {}, "content": []}
    for thing, names in ((message, fields["message"]), (node, fields["node"]), (document, fields["state"])):
        for name in names:
            thing.pop(name, None)
            if how == "null":
                thing[name] = None
            elif how == "empty":
                thing[name] = empty.get(name, "")
    state = read(document)
    assert as_json(state.to_dict()) == as_json(document)

    place = state.message_tree.data
    place.message.content = "changed"
    place.message.name = place.message.tool_call_id = place.prompt_name = place.branch_name = "changed"
    place.message.tool_calls = [1]
    place.message.function_call = {"a": 1}
    place.message.metadata["a"] = place.metadata["a"] = state.metadata["a"] = 1
    written = state.to_dict()
    assert written["metadata"] == written["nodes"][0]["metadata"] == {"a": 1}
    assert written["nodes"][0]["prompt_name"] == written["nodes"][0]["branch_name"] == "changed"
    assert written["nodes"][0]["message"] == {
        "role": "user",
        "content": "changed",
        "name": "changed",
        "tool_call_id": "changed",
        "tool_calls": [1],
        "function_call": {"a": 1},
        "metadata": {"a": 1},
    }


def test_values_that_are_taken_away_do_not_come_back() -> None:
    document = form("", metadata={"a": 1})
    document["nodes"][0]["message"].update(name="n", tool_calls=[1], metadata={"a": 1})
    document["nodes"][0].update(prompt_name="p", metadata={"a": 1})
    state = read(document)
    place = state.message_tree.data
    place.message.name = place.message.tool_calls = place.prompt_name = None
    place.message.metadata, place.metadata, state.metadata = {}, {}, {}
    written = state.to_dict()
    assert written["metadata"] == {}
    assert written["nodes"][0]["message"] == {"role": "user", "content": ""}
    assert (written["nodes"][0]["prompt_name"], written["nodes"][0]["metadata"]) == (None, {})


@pytest.mark.parametrize("content", [None, [], ["a"]])
def test_an_empty_list_that_is_set_stays_an_empty_list(content: Any) -> None:
    document = form("")
    document["nodes"][0]["message"].update(content=content, tool_calls=None)
    state = read(document)
    state.message_tree.data.message.content = []
    state.message_tree.data.message.tool_calls = []
    again = read(state.to_dict()).message_tree.data.message
    assert (again.content, again.tool_calls) == ([], [])


@pytest.mark.parametrize("how", ["null", "absent"])
def test_without_a_current_node_id_the_root_is_current_and_the_form_stays_as_it_was(how: str) -> None:
    document = form("", "0")
    if how == "null":
        document["current_node_id"] = None
    else:
        del document["current_node_id"]
    state = read(document)
    assert state.current_node_id == ""
    assert as_json(state.to_dict()) == as_json(document)
    assert as_json(state_from_stored(state_to_stored(state)).to_dict()) == as_json(document)
    state.current_node_id = "0"
    assert state.to_dict()["current_node_id"] == "0"


def test_unknown_fields_of_every_level_survive_and_can_be_changed() -> None:
    document = form("", "0", later={"a": [1]})
    document["nodes"][1]["later"] = None
    document["nodes"][1]["message"]["later"] = []
    state = read(document)
    assert state.extra == {"later": {"a": [1]}}
    assert as_json(state.to_dict()) == as_json(document)
    state.extra["later"] = 2
    assert state.to_dict()["later"] == 2


RESERVED: list[tuple[str, dict[str, Any]]] = [
    ("state", {"metadata": {}}),
    ("state", {"schema_version": "1.1.0"}),
    ("state", {"nodes": []}),
    ("state", {"current_node_id": "0"}),
    ("node", {"message": {}}),
    ("node", {"node_id": "x"}),
    ("message", {"role": "system"}),
    ("message", {"metadata": {}}),
]


@pytest.mark.parametrize(("level", "extra"), RESERVED)
def test_an_extra_field_with_the_name_of_a_known_one_is_refused_when_written(level: str, extra: dict[str, Any]) -> None:
    state = read(form("", metadata={"kept": True}))
    place = state.message_tree.data
    things: dict[str, Any] = {"state": state, "node": place, "message": place.message}
    things[level].extra = extra
    name = next(iter(extra))
    with pytest.raises(InvalidInputError, match=f"extra.*{name}"):
        state.to_dict()
    with pytest.raises(InvalidInputError, match=f"extra.*{name}"):
        state_to_stored(state)


# --- ids and places -------------------------------------------------------------------------------------------------


def test_the_tree_is_the_truth_and_recorded_ids_are_renumbered_with_the_current_one() -> None:
    document = form("", "5", "9.9", "x", edges=[["", "9.9"], ["", "5"], ["5", "x"]], current_node_id="x")
    state = read(document)
    written = state.to_dict()
    assert [(node["node_id"], node["message"]["content"]) for node in written["nodes"]] == [
        ("", ""), ("0", "9.9"), ("1", "5"), ("1.0", "x"),
    ]  # fmt: skip
    assert written["edges"] == [["", "0"], ["", "1"], ["1", "1.0"]]
    assert written["current_node_id"] == state.current_node_id == "1.0"


def test_siblings_come_in_the_order_of_their_edges() -> None:
    state = read(form("", "0", "1", edges=[["", "1"], ["", "0"]], current_node_id="1"))
    assert [child.data.message.content for child in state.message_tree.children] == ["1", "0"]
    assert state.current_node_id == "0"


def test_nodes_may_come_in_any_order() -> None:
    state = read(form("0.0", "0", "", edges=[["0", "0.0"], ["", "0"]], current_node_id="0.0"))
    assert [message.content for message in state.get_current_messages()] == ["", "0", "0.0"]


def test_without_an_empty_id_the_root_is_the_one_parent_that_is_nobodys_child() -> None:
    state = read(form("b", "a", "c", edges=[["a", "b"], ["b", "c"]], current_node_id="c"))
    assert [message.content for message in state.get_current_messages()] == ["a", "b", "c"]
    assert state.current_node_id == "0.0"


def test_an_only_node_is_the_root_whatever_its_id() -> None:
    assert read(form("whatever")).current_node_id == ""


# --- what is refused ------------------------------------------------------------------------------------------------


def refused(document: Any, *told: str) -> None:
    """`InvalidInputError`, which names each of `told`; the document stays as it was."""
    before = copy.deepcopy(document)
    with pytest.raises(InvalidInputError) as error:
        read(document)
    for one in told:
        assert one in str(error.value)
    assert document == before


def test_a_node_that_no_edge_reaches_is_refused() -> None:
    refused(form("", "0", "1", edges=[["", "0"]]), "nodes[2] is not reached from the root nodes[0]")


def test_an_edge_to_or_from_nowhere_is_refused() -> None:
    refused(form("", "0", edges=[["", "0"], ["", "7"]]), "edges[1]", "'7' names no node")
    refused(form("", "0", edges=[["7", "0"]]), "edges[0]", "'7' names no node")


def test_a_node_id_that_is_there_twice_is_refused() -> None:
    refused(form("", "0", "0", edges=[["", "0"]]), "nodes[2]", "'0'", "nodes[1]")


def test_a_node_with_two_parents_is_refused() -> None:
    refused(form("", "0", "1", edges=[["", "0"], ["", "1"], ["0", "1"]]), "edges[2]", "'1' has a parent already")


def test_an_edge_that_is_there_twice_is_refused() -> None:
    refused(form("", "0", edges=[["", "0"], ["", "0"]]), "edges[1]", "'0' has a parent already")


def test_a_cycle_beside_the_tree_is_refused() -> None:
    refused(form("", "0", "1", "2", edges=[["", "0"], ["1", "2"], ["2", "1"]]), "nodes[2] is not reached", "2 such")


def test_a_cycle_through_the_root_is_refused() -> None:
    refused(form("", "0", edges=[["", "0"], ["0", ""]]), "nodes[0]", "cycle")
    refused(form("only", edges=[["only", "only"]]), "nodes[0]", "its own parent")
    refused(form("", edges=[["", ""]]), "nodes[0]")
    refused(form("a", "b", edges=[["a", "b"], ["b", "a"]]), "the root is not clear", "found none")


def test_an_edge_from_a_node_to_itself_is_refused() -> None:
    refused(form("", "0", edges=[["0", "0"]]), "nodes[1] is not reached")


def test_several_candidates_for_the_root_are_refused_by_name() -> None:
    refused(form("a", "b", "c", "d", edges=[["a", "b"], ["c", "d"]]), "the root is not clear", "'a', 'c'")
    refused(form("a", "b", edges=[]), "the root is not clear", "found none")


@pytest.mark.parametrize("node_id", ["7", "0.0", "-1", " "])
def test_a_current_node_id_that_names_no_node_is_refused(node_id: str) -> None:
    refused(form("", "0", current_node_id=node_id), f"current_node_id {node_id!r} names no node")


def test_a_conversation_without_nodes_is_refused() -> None:
    refused(form(), "nodes", "at least one")


@pytest.mark.parametrize("document", [None, [], "x", 1, [["nodes", []]]])
def test_what_is_no_object_is_refused(document: Any) -> None:
    refused(document, "an object", type(document).__name__)


WRONG: list[tuple[tuple[str | int, ...], list[Any]]] = [
    (("conversation_id",), [1, None, [], {}, True]),
    (("nodes",), [None, {}, "x", 1]),
    (("edges",), [None, {}, "x", 1]),
    (("current_node_id",), [0, [], {}, False]),
    (("metadata",), [[], "x", 1, True]),
    (("created_at",), [None, 0, "", "yesterday", [], "2025-13-01T00:00:00", "2025-01-01T00:00:00+24:00"]),
    (("updated_at",), [None, 0, "", 1.5, {}]),
    (("nodes", 1), [None, [], "x", 1]),
    (("nodes", 1, "node_id"), [None, 0, [], True]),
    (("nodes", 1, "message"), [None, [], "x", 1]),
    (("nodes", 1, "timestamp"), [None, 0, "", "noon", {}]),
    (("nodes", 1, "prompt_name"), [0, [], {}, True]),
    (("nodes", 1, "branch_name"), [0, [], {}, False]),
    (("nodes", 1, "metadata"), [0, [], "x", True]),
    (("nodes", 1, "message", "role"), [None, 0, [], {}]),
    (("nodes", 1, "message", "content"), [0, {}, True, 1.5]),
    (("nodes", 1, "message", "name"), [0, [], {}]),
    (("nodes", 1, "message", "tool_calls"), [0, {}, "x", False]),
    (("nodes", 1, "message", "function_call"), [0, [], "x"]),
    (("nodes", 1, "message", "tool_call_id"), [0, [], {}]),
    (("nodes", 1, "message", "metadata"), [0, [], "x", True]),
    (("edges", 0), [None, {}, "x", "ab", 1, [], [""], ["", "0", "1"], ["", 0], [None, "0"], [["", "0"]]]),
]


@pytest.mark.parametrize(("path", "value"), [(path, value) for path, values in WRONG for value in values])
def test_a_value_of_a_wrong_type_is_refused_with_its_place(path: tuple[str | int, ...], value: Any) -> None:
    document = form("", "0")
    thing: Any = document
    for step in path[:-1]:
        thing = thing[step]
    thing[path[-1]] = value
    place = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).removeprefix(".")
    if path == ("nodes", 1, "node_id"):
        refused(document, "nodes[1]", "node_id")
    else:
        refused(document, place)


@pytest.mark.parametrize(
    "path",
    [("conversation_id",), ("nodes",), ("edges",), ("created_at",), ("updated_at",), ("nodes", 1, "node_id"),
     ("nodes", 1, "message"), ("nodes", 1, "timestamp"), ("nodes", 1, "message", "role")],
)  # fmt: skip
def test_a_field_that_must_be_there_is_missed_by_name(path: tuple[str | int, ...]) -> None:
    document = form("", "0")
    thing: Any = document
    for step in path[:-1]:
        thing = thing[step]
    del thing[path[-1]]
    refused(document, str(path[-1]))


def test_errors_stay_short_however_long_the_value_is() -> None:
    long = "x" * 100_000
    for document in (
        form("", current_node_id=long),
        form("", edges=[["", long]]),
        form("", long, long, edges=[["", long]]),
        form("", created_at=long),
        form(long, "b", long + "c", "d", edges=[[long, "b"], [long + "c", "d"]], current_node_id="b"),
    ):
        with pytest.raises(InvalidInputError) as error:
            read(document)
        assert len(str(error.value)) < 1000


def test_a_node_and_a_message_read_alone_say_what_is_wrong() -> None:
    wrong: Any = 5
    for read_one in (ConversationNode.from_dict, LLMMessage.from_dict):
        with pytest.raises(InvalidInputError, match="expected an object, found int"):
            read_one(wrong)
    with pytest.raises(InvalidInputError, match=r"message\.content"):
        ConversationNode.from_dict(row("0", message={"role": "user", "content": 5}))
    node = ConversationNode.from_dict(row("0.7"))
    assert node.node_id == "0.7"
    assert node.to_dict() == row("0.7")


@pytest.mark.parametrize("backup", [3, "x", None, True, {"a": 1}])
def test_what_an_old_document_calls_tool_calls_but_is_none_stays_where_it_is(backup: Any) -> None:
    document = form("", schema_version="1.0.0")
    document["nodes"][0]["metadata"] = {"tool_calls": backup}
    state = read(document)
    assert state.message_tree.data.message.tool_calls is None
    assert state.message_tree.data.metadata == {"tool_calls": backup}
