"""What becomes of a conversation in each format, of its branches, and of what is redacted."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
from hypothesis import given

from s3conv import ConversationState, CorruptError, InvalidInputError
from s3conv.exchange.chats import Chat, chosen, read_chat
from s3conv.exchange.provenance import note_import
from s3conv.exchange.redacting import Redaction
from s3conv.exchange.rendering import LeftOut, openai_line, sharegpt_line
from s3conv.exchange.values import fingerprint
from s3conv.exchange.writing import FORMATS, format_named
from s3conv.format.document import state_to_stored
from tests.strategies import states

CALL = {"id": "call-1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Łódź"}'}}
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]


def chat_of(state: ConversationState) -> Chat:
    return read_chat(state_to_stored(state), "a document")


def branching() -> ConversationState:
    """system → user → (one, two → why → because); it stands at `one`."""
    state = ConversationState.start("c", system="Be kind", metadata={"tools": TOOLS})
    state.add_message("user", "Hello")
    one = state.add_message("assistant", "one")
    question = state.path_to("0")[-1]
    state.add_message("assistant", "two", parent=question)
    state.add_message("user", "why")
    state.add_message("assistant", "because")
    state.current_node_id = one.node_id
    return state


def rows(form: str, state: ConversationState, branches: str | None = None) -> tuple[list[Any], LeftOut]:
    """The rows of a conversation in a format, as values, and what was left out."""
    found, which = format_named(form, branches)
    assert found.render is not None
    left_out: LeftOut = Counter()
    lines = [found.render(chat, left_out) for chat in chosen(chat_of(state), which)]
    assert all(line is None or (line.endswith(b"\n") and line.count(b"\n") == 1) for line in lines)
    return [json.loads(line) for line in lines if line is not None], left_out


def texts(row: Any) -> list[str]:
    """What is said in a row of any format."""
    if "messages" in row:
        return [message["content"] for message in row["messages"]]
    if "conversations" in row:
        return [turn["value"] for turn in row["conversations"]]
    return [node["message"]["content"] for node in row["nodes"]]


# --- branches -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["jsonl", "dataknobs", "openai", "sharegpt"])
def test_branches(form: str) -> None:
    current = ["Be kind", "Hello", "one"]
    other = ["Be kind", "Hello", "two", "why", "because"]
    (row,), _ = rows(form, branching(), "current")
    assert texts(row) == current
    leaves, _ = rows(form, branching(), "leaves")
    assert [texts(row) for row in leaves] == [current, other]
    if form != "openai":  # which has no ids
        assert [row.get("id") or row["conversation_id"] for row in leaves] == ["c#1", "c#2"]
    if "tree" in FORMATS[form].branches:
        (row,), _ = rows(form, branching(), "tree")
        assert Counter(texts(row)) == Counter({*current, *other})


def test_a_branch_is_a_conversation_that_stands_at_its_end() -> None:
    for branch, leaf in zip(chosen(chat_of(branching()), "leaves"), ("one", "because"), strict=True):
        state = branch.state()
        assert state.get_current_messages()[-1].content == leaf
        assert [node.message.content for node in state.leaves()] == [leaf]
        assert state.metadata == {"tools": TOOLS, "source_conversation_id": "c"}


def test_one_leaf_keeps_its_id() -> None:
    state = ConversationState.start("c", system="Hi")
    (branch,) = chosen(chat_of(state), "leaves")
    assert branch.state() == state


@given(states())
def test_every_leaf_of_any_tree_is_the_end_of_one_branch(state: ConversationState) -> None:
    whole = chat_of(state)
    assert list(chosen(whole, "tree")) == [whole]
    branches = [branch.state() for branch in chosen(whole, "leaves")]
    assert [branch.leaves() for branch in branches] == [[leaf] for leaf in state.leaves()]
    for branch, leaf in zip(branches, state.leaves(), strict=True):
        assert branch.path_to(branch.leaves()[0].node_id) == state.path_to(leaf.node_id)
    (current,) = chosen(whole, "current")
    assert current.state().get_current_messages() == state.get_current_messages()


@pytest.mark.parametrize("form", ["openai", "sharegpt"])
def test_a_format_without_trees_refuses_one(form: str) -> None:
    with pytest.raises(InvalidInputError, match=f"{form} cannot hold branches 'tree': expected current or leaves"):
        format_named(form, "tree")


def test_an_unknown_format_is_refused_by_name() -> None:
    with pytest.raises(InvalidInputError, match="'csv' is not known: expected one of jsonl, dataknobs, openai"):
        format_named("csv", None)


# --- what each format holds -----------------------------------------------------------------------------------------


@given(states())
def test_any_conversation_can_be_written_in_any_format(state: ConversationState) -> None:
    for form in ("openai", "sharegpt"):
        for branches in ("current", "leaves"):
            found, left_out = rows(form, state, branches)
            wanted = len(state.leaves()) if branches == "leaves" else 1
            assert len(found) + left_out["conversations without a message"] == wanted


def calling() -> ConversationState:
    state = ConversationState.start("c", metadata={"tools": TOOLS, "parallel_tool_calls": False})
    state.add_message("user", "Weather?")
    state.add_message("assistant", None, tool_calls=[CALL])
    state.add_message("tool", "12 °C", tool_call_id="call-1", name="weather")
    state.add_message("assistant", "It is 12 °C.")
    return state


def test_openai_has_calls_results_and_tools() -> None:
    (row,), left_out = rows("openai", calling())
    assert row == {
        "messages": [
            {"role": "user", "content": "Weather?"},
            {"role": "assistant", "content": None, "tool_calls": [CALL]},
            {"role": "tool", "content": "12 °C", "name": "weather", "tool_call_id": "call-1"},
            {"role": "assistant", "content": "It is 12 °C."},
        ],
        "tools": TOOLS,
        "parallel_tool_calls": False,
    }
    assert not left_out


def test_openai_takes_tools_that_are_json_in_a_text() -> None:
    state = calling()
    state.metadata = {"tools": json.dumps(TOOLS)}
    (row,), _ = rows("openai", state)
    assert row["tools"] == TOOLS
    nothings: list[Any] = ["", "[]", "no tools", [], {}, None]
    for nothing in nothings:
        state.metadata = {"tools": nothing}
        (row,), _ = rows("openai", state)
        assert "tools" not in row


def test_openai_has_definitions_of_functions_as_tools() -> None:
    function: Any = TOOLS[0]["function"]
    state = calling()
    state.metadata = {"tools": [function, {"type": "function", **function}, *TOOLS, {"type": "other", "name": "x"}, 7]}
    (row,), _ = rows("openai", state)
    assert row["tools"] == [*TOOLS, *TOOLS, *TOOLS, {"type": "other", "name": "x"}, 7]


def test_what_readers_ask_for_and_is_not_there_is_counted() -> None:
    state = ConversationState.start("c")
    state.add_message("assistant", "I look.", tool_calls=[{"function": CALL["function"]}, CALL])
    state.add_message("tool", "12 °C")
    state.add_message("tool", "12 °C", tool_call_id="call-1")
    _, left_out = rows("openai", state)
    assert left_out == {"missing ids of tool calls": 1, "missing ids of the calls that tool results answer": 1}
    _, left_out = rows("sharegpt", state)
    assert left_out == {"alternation of turns, where a text is followed by its call": 1}


def test_openai_leaves_out_what_it_has_no_part_for_and_counts_it() -> None:
    picture = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
    state = ConversationState.start("c")
    state.add_message("user", ["Look:", {"type": "text", "text": "at this"}, picture, {"content_type": "thoughts"}, 7])
    state.add_message("assistant", [{"content_type": "thoughts"}])
    state.add_message("assistant", "I see")
    (row,), left_out = rows("openai", state)
    assert row["messages"] == [
        {"role": "user", "content": [{"type": "text", "text": "Look:"}, {"type": "text", "text": "at this"}, picture]},
        {"role": "assistant", "content": "I see"},
    ]
    assert left_out == {"parts of type thoughts": 2, "parts of type int": 1, "messages without content": 1}


def test_texts_as_llama_factory_writes_them_are_texts() -> None:
    state = ConversationState.start("c")
    state.add_message("user", [{"type": "text", "value": "Why?"}])
    state.add_message("assistant", [{"type": "reasoning", "value": "hm"}, {"type": "text", "value": "So."}])
    (row,), left_out = rows("openai", state)
    assert [message["content"] for message in row["messages"]] == [
        [{"type": "text", "text": "Why?"}],
        [{"type": "text", "text": "So."}],
    ]
    (row,), _ = rows("sharegpt", state)
    assert texts(row) == ["Why?", "So."]
    assert left_out == {"parts of type reasoning": 1}


def test_sharegpt_has_calls_results_and_tools() -> None:
    (row,), left_out = rows("sharegpt", calling())
    assert row["id"] == "c"
    assert json.loads(row["tools"]) == TOOLS
    assert [turn["from"] for turn in row["conversations"]] == ["human", "function_call", "observation", "gpt"]
    call = json.loads(row["conversations"][1]["value"])
    assert call == {"name": "weather", "arguments": {"city": "Łódź"}}
    assert not left_out


def test_sharegpt_keeps_several_calls_together_and_other_roles_as_they_are() -> None:
    state = ConversationState.start("c", system="Hi")
    state.add_message("moderator", "Quiet")
    broken = {"function": {"name": "b", "arguments": "{not JSON"}}
    state.add_message("assistant", "Wait", tool_calls=[CALL, broken], function_call={"name": "c"})
    (row,), _ = rows("sharegpt", state)
    assert [turn["from"] for turn in row["conversations"]] == ["system", "moderator", "gpt", "function_call"]
    assert json.loads(row["conversations"][-1]["value"]) == [
        {"name": "weather", "arguments": {"city": "Łódź"}},
        {"name": "b", "arguments": "{not JSON"},
        {"name": "c", "arguments": {}},
    ]


@pytest.mark.parametrize("render", [openai_line, sharegpt_line])
def test_a_conversation_that_says_nothing_is_no_row(render: Any) -> None:
    state = ConversationState("c")
    state.add_message("system", None)
    left_out: LeftOut = Counter()
    assert render(chat_of(state), left_out) is None
    assert left_out == {"messages without content": 1, "conversations without a message": 1}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"nodes": []}, "nodes: expected"),
        ({"nodes": None}, "nodes: expected"),
        ({"nodes": [3]}, r"nodes\[0\]: expected an object"),
        ({"nodes": [{"message": None}]}, r"nodes\[0\]: expected an object"),
        ({"nodes": [{"message": {"content": "x"}}]}, r"nodes\[0\].message.role cannot be a NoneType"),
        ({"nodes": [{"message": {"role": "user", "content": 3}}]}, "content cannot be a int"),
        ({"nodes": [{"message": {"role": "user"}, "parent": 0}]}, r"nodes\[0\].parent"),
        ({"nodes": [{"message": {"role": "user"}}, {"message": {"role": "user"}}]}, r"nodes\[1\].parent"),
        ({"nodes": [{"message": {"role": "user"}}, {"message": {"role": "user"}, "parent": True}]}, "parent"),
        ({"current": 9}, "current: expected a position from 0 to 5"),
        ({"metadata": []}, "metadata: expected an object"),
    ],
)
def test_a_document_that_is_no_conversation_is_an_error_that_says_where(change: Any, said: str) -> None:
    fields = {**state_to_stored(branching()), "current": 0, **change}
    with pytest.raises(CorruptError, match=f"s3://x/c is not a conversation: .*{said}"):
        read_chat(fields, "s3://x/c")


# --- redaction ------------------------------------------------------------------------------------------------------


def secretive() -> ConversationState:
    """A conversation with a secret in every place where a text can be."""
    state = ConversationState.start("c", system="SECRET1 and SECRET2", metadata={"a": [{"b": "SECRET3"}], "n": 5})
    state.extra["unknown"] = {"deep": ["SECRET4"]}
    state.add_message("user", [{"type": "text", "text": "SECRET5"}, "SECRET6"], name="SECRET7")
    call = {"id": "SECRET8", "type": "function", "function": {"name": "f", "arguments": '{"x": "SECRET9"}'}}
    node = state.add_message("assistant", None, tool_calls=[call], prompt_name="SECRET10", branch_name="SECRET11")
    node.metadata["note"] = "SECRET12"
    node.message.metadata["note"] = "SECRET13"
    node.message.extra["refusal"] = "SECRET14"
    state.add_message("tool", "SECRET15", tool_call_id="SECRET8", function_call={"name": "SECRET16"})
    return state


@pytest.mark.parametrize("form", ["jsonl", "dataknobs", "openai", "sharegpt"])
@pytest.mark.parametrize("branches", ["current", "leaves"])
def test_what_is_redacted_is_nowhere(form: str, branches: Any) -> None:
    redaction = Redaction([r"SECRET\d+", "no such thing"])
    before = json.dumps(state_to_stored(secretive()))
    fields = redaction.fields(state_to_stored(secretive()))
    assert redaction.found == before.count("SECRET") == 17
    assert json.dumps(state_to_stored(secretive())).count("SECRET") == 17  # what was given is not changed
    render = FORMATS[form].render
    assert render is not None
    for chat in chosen(read_chat(fields, "a document"), branches):
        line = render(chat, Counter())
        assert line is not None
        assert b"SECRET" not in line
        assert b"[redacted]" in line


def test_no_hash_of_what_is_redacted_is_left() -> None:
    state = ConversationState.start("c", system="Hi", metadata={"phone": "555-0100"})
    note_import(state)
    assert fingerprint("555-0100") in json.dumps(state_to_stored(state))
    fields = Redaction([r"555-\d{4}"]).fields(state_to_stored(state))
    assert fields["metadata"] == {"phone": "[redacted]"}
    assert "imported" not in fields


def test_what_says_what_a_thing_is_stays() -> None:
    fields = Redaction(["[a-z0-9]+"]).fields(state_to_stored(secretive()))
    state = read_chat(fields, "a document").state()
    whole = secretive()
    assert state.conversation_id == "c"
    assert [node.message.role for node in state.path_to("0.0.0")] == ["system", "user", "assistant", "tool"]
    assert state.created_at.year == whole.created_at.year
    parts = state.path_to("0")[-1].message.content
    assert isinstance(parts, list)
    assert parts[0]["type"] == "text"
    assert state.metadata["n"] == 5


@pytest.mark.parametrize(
    ("pattern", "said"), [("(", "no regular expression"), ("a*", "would match everywhere"), ("", "everywhere")]
)
def test_a_pattern_that_cannot_be_used_is_refused(pattern: str, said: str) -> None:
    with pytest.raises(InvalidInputError, match=said):
        Redaction([pattern])
