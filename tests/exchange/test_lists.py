"""What lists of messages become, rule by rule, as docs/importing.md has them: OpenAI's, ShareGPT's, data sets'."""

from __future__ import annotations

import copy
import io
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from s3conv import ConversationState, InvalidInputError
from s3conv.exchange import datasets, openai, sharegpt
from s3conv.exchange.found import Found, Problem
from s3conv.exchange.reading import read_conversations
from tests.exchange.every_format import CALL, EVERY_FORMAT, OPENAI, SHAREGPT


def said(state: ConversationState) -> list[tuple[str, Any]]:
    return [(node.data.message.role, node.data.message.content) for node in state.message_tree.walk()]


def sources(state: ConversationState) -> list[Any]:
    return [node.data.metadata.get("source") for node in state.message_tree.walk()]


def read(data: Any) -> list[Any]:
    raw = data if isinstance(data, bytes) else json.dumps(data).encode()
    return list(read_conversations(io.BytesIO(raw)))


class TestOpenAI:
    def test_messages_go_over_as_they_are(self) -> None:
        messages = [
            *OPENAI["messages"],
            {"role": "assistant", "tool_calls": [CALL]},
            {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}, "name": None},
            {"role": "function", "name": "f", "content": ""},
        ]
        state = openai.read({"messages": copy.deepcopy(messages), "tools": [], "parallel_tool_calls": False, "x": None})
        again = [node.data.message.to_dict() for node in state.message_tree.walk()]
        assert again == [{name: one for name, one in message.items() if name != "weight"} for message in messages]
        assert [source for source in sources(state) if source] == [{"weight": 1}]
        assert state.metadata == {
            "source_format": "openai",
            "tools": [],
            "parallel_tool_calls": False,
            "x": None,
            "timestamps_inferred": ["created_at", "updated_at"],
        }
        current = state.get_current_node()
        assert current is not None
        assert not current.children

    def test_ids_and_times_where_there_are_any(self) -> None:
        row = {
            "id": "own",
            "created_at": 1000,
            "updated_at": "not a time",
            "messages": [{"role": "user", "content": "Hi", "timestamp": "2026-01-02T03:04:05Z"}],
        }
        state = openai.read(row)
        assert state.conversation_id == "own"
        assert state.created_at == datetime.fromtimestamp(1000, UTC)
        assert state.updated_at == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
        assert "id" not in state.metadata
        assert (state.metadata["created_at"], state.metadata["updated_at"]) == (1000, "not a time")
        assert openai.read({**row, "id": 7}).metadata["id"] == 7

    def test_calls_in_parts_of_llama_factory(self) -> None:
        call = {"type": "tool_call", "value": '{"name": "look", "arguments": {"at": "sky"}}'}
        reasoning = {"type": "reasoning", "value": "hm"}
        broken = {"type": "tool_call", "value": "{"}
        state = openai.read({"messages": [{"role": "assistant", "content": [reasoning, call, broken]}]})
        message = state.message_tree.data.message
        assert message.content == [reasoning, broken]
        assert message.tool_calls == [{"type": "function", "function": CALL["function"]}]
        assert sources(state) == [{"content": [reasoning, call, broken]}]

    def test_several_calls_in_one_part(self) -> None:
        calls = '[{"name": "a", "arguments": {}}, {"name": "b", "arguments": {}}]'
        state = openai.read({"messages": [{"role": "assistant", "content": [{"type": "tool_call", "value": calls}]}]})
        message = state.message_tree.data.message
        assert [call["function"]["name"] for call in message.tool_calls or ()] == ["a", "b"]
        assert message.content is None

    def test_others_name_the_two_sides_otherwise(self) -> None:
        (found,) = read([{"role": "client", "content": "a"}, {"role": "counselor", "content": "b"}])
        assert said(found.state) == [("user", "a"), ("assistant", "b")]
        assert sources(found.state) == [{"role": "client"}, {"role": "counselor"}]
        assert found.position == "[0]"

    def test_a_file_may_be_one_conversation_or_a_line_each(self) -> None:
        one, two = [{"role": "user", "content": "a"}], [{"role": "user", "content": "b"}]
        assert [said(found.state) for found in read(one + two)] == [[("user", "a"), ("user", "b")]]
        assert [said(found.state) for found in read([one, two])] == [[("user", "a")], [("user", "b")]]
        lines = b"".join(json.dumps(each).encode() + b"\n" for each in (one, two))
        assert [found.position for found in read(lines)] == ["line 1", "line 2"]

    def test_a_list_with_something_else_in_it_is_no_conversation(self) -> None:
        message = {"role": "user", "content": "a"}
        other, whole = read([message, {"role": "x"}, message])
        assert str(other) == "-: [1]: expected a conversation; found an object with 'role'"
        assert str(whole) == "-: [0]: the list that begins here is no conversation: [1] cannot be read"

    @pytest.mark.parametrize(
        ("message", "reason"),
        [
            ({"content": "x"}, r"messages\[1\].role: expected a string, found nothing"),
            ({"role": 3, "content": "x"}, r"messages\[1\].role: expected a string, found int"),
            ({"role": "user", "content": 3}, r"messages\[1\].content: expected a text or a list of parts, found int"),
            (3, r"messages\[1\]: expected an object, found int"),
        ],
    )
    def test_what_cannot_be_read_is_named(self, message: Any, reason: str) -> None:
        with pytest.raises(InvalidInputError, match=reason):
            openai.read({"messages": [{"role": "user", "content": "x"}, message]})

    def test_fields_of_a_wrong_type_stay_in_the_source(self) -> None:
        odd = {"tool_calls": {"a": 1}, "function_call": "auto", "tool_call_id": 3, "name": 4}
        state = openai.read({"messages": [{"role": "user", "content": "x", **odd}]})
        assert sources(state) == [odd]


class TestShareGPT:
    def test_turns_with_a_call_and_columns(self) -> None:
        state = sharegpt.read(SHAREGPT)
        assert said(state) == [
            ("system", "Be brief."),
            ("user", "Which colour?"),
            ("assistant", None),
            ("tool", "blue"),
            ("assistant", "Blue."),
        ]
        calls = [node.data.message.tool_calls for node in state.message_tree.walk() if node.data.message.tool_calls]
        assert calls == [[{"type": "function", "function": CALL["function"]}]]
        assert sources(state) == [
            {"column": "system"},
            None,
            {"from": "function_call", "value": SHAREGPT["conversations"][1]["value"]},
            None,
            {"weight": 0},
        ]
        assert state.conversation_id == "share_0"
        assert state.metadata["tools"] == "[]"
        assert "system" not in state.metadata

    def test_several_calls_and_what_is_none(self) -> None:
        several = '[{"name": "a", "arguments": "{}"}, {"name": "b", "arguments": {}}]'
        for value, names in ((several, ["a", "b"]), ("not JSON", []), ('{"name": 3}', []), ('["a"]', []), ("NaN", [])):
            turn = {"from": "function_call", "value": value}
            message = sharegpt.read({"conversations": [turn]}).message_tree.data.message
            assert [call["function"]["name"] for call in message.tool_calls or ()] == names
            assert message.content == (None if names else value)

    def test_two_answers_to_choose_from_are_branches(self) -> None:
        row = {
            "conversations": [{"from": "human", "value": "Q"}],
            "chosen": {"from": "gpt", "value": "good"},
            "rejected": {"from": "gpt", "value": "bad"},
        }
        state = sharegpt.read(row)
        assert said(state) == [("user", "Q"), ("assistant", "bad"), ("assistant", "good")]
        assert [node.data.node_id for node in state.message_tree.walk()] == ["", "0", "1"]
        assert state.current_node_id == "1"
        assert sources(state)[1:] == [{"column": "rejected"}, {"column": "chosen"}]

    def test_other_names_and_openai_messages(self) -> None:
        turns = [{"from": "bing", "value": "a"}, {"role": "user", "content": "b"}, {"from": "critic", "value": None}]
        state = sharegpt.read({"conversations": turns})
        assert said(state) == [("assistant", "a"), ("user", "b"), ("critic", None)]
        assert sources(state) == [{"from": "bing"}, None, {"from": "critic"}]

    def test_a_list_alone_is_one_conversation(self) -> None:
        (found,) = read(SHAREGPT["conversations"])
        assert len(said(found.state)) == 4

    @pytest.mark.parametrize(
        ("turn", "reason"),
        [
            ({"value": "x"}, r"conversations\[1\].from: expected a string, found nothing"),
            ({"from": "gpt", "value": 3}, r"conversations\[1\].value: expected a text, found int"),
            (None, r"conversations\[1\]: expected an object, found NoneType"),
        ],
    )
    def test_what_cannot_be_read_is_named(self, turn: Any, reason: str) -> None:
        with pytest.raises(InvalidInputError, match=reason):
            sharegpt.read({"conversations": [{"from": "gpt", "value": "x"}, turn]})


class TestDataSets:
    def test_alpaca(self) -> None:
        (row,) = EVERY_FORMAT["alpaca"]
        state = datasets.read_alpaca(row)
        assert said(state) == [
            ("system", "Be brief."),
            ("user", "a"),
            ("assistant", "b"),
            ("user", "Say\nhi"),
            ("assistant", "Hi."),
        ]
        assert sources(state)[3] == {"instruction": "Say", "input": "hi"}
        assert state.metadata["x"] == 1
        short = datasets.read_alpaca({"instruction": "Say", "input": "", "output": ""})
        assert said(short) == [("user", "Say"), ("assistant", "")]
        assert short.metadata["input"] == ""
        both = datasets.read_alpaca({"instruction": "Say", "chosen": "good", "rejected": "bad"})
        assert (said(both)[1:], both.current_node_id) == ([("assistant", "bad"), ("assistant", "good")], "1")
        with pytest.raises(InvalidInputError, match=r"history\[0\]: expected \[question, answer\]"):
            datasets.read_alpaca({**row, "history": [["a"]]})

    def test_pairs_of_turns(self) -> None:
        (row,) = EVERY_FORMAT["turns"]
        state = datasets.read_turns(row)
        assert said(state) == [("user", "Which?"), ("assistant", "Blue.")]
        assert sources(state) == [None, {"score": 1}]
        assert (state.metadata["task"], state.metadata["id"]) == ("GR", 1)
        for pair, reason in (({}, "expected user and bot"), ({"user": 3}, "user: expected a text"), (3, "an object")):
            with pytest.raises(InvalidInputError, match=reason):
                datasets.read_turns({"history": [{"user": "a", "bot": "b"}, pair]})

    def test_who_said_what(self) -> None:
        (row,) = EVERY_FORMAT["utterances"]
        state = datasets.read_utterances(row)
        assert said(state) == [("assistant", "Hello"), ("user", "Hi")]
        assert [node.data.message.name for node in state.message_tree.walk()] == ["agent1", "agent2"]
        assert state.metadata["agent1"] == "You answer"
        with pytest.raises(InvalidInputError, match=r"utterances\[1\]: expected \[speaker, text\]"):
            datasets.read_utterances({"utterances": [["a", "b"], ["a"]]})


class TestListsInAnObject:
    def test_items_are_read_one_by_one_and_what_is_beside_them_is_named(self) -> None:
        good = json.dumps(OPENAI)
        data = f'{{"version": {{"a": [1]}}, "data": [{good}, {{"messages": 1, "messages": 2}}, {{,}}, {good}], "n": 1}}'
        one, twice, broken, two, beside = read(data.encode())
        assert [one.position, twice.position, broken.position, two.position] == [f"data[{n}]" for n in range(4)]
        assert isinstance(one, Found)
        assert isinstance(two, Found)
        assert "the key 'messages' is twice in one object (column 17)" in twice.reason
        assert "not JSON" in broken.reason
        assert beside.member == "version, n"

    def test_what_breaks_off_is_a_problem(self) -> None:
        data = json.dumps({"chats": [OPENAI, OPENAI], "n": 1}).encode()
        for cut in (data[:-1], data[:-3], data[: -len(', "n": 1}')], data[:-20]):
            items = read(cut)
            assert sum(isinstance(item, Found) for item in items) in (1, 2)
            assert isinstance(items[-1], Problem), cut

    def test_a_second_list_is_read_too(self) -> None:
        items = read({"conversations": [OPENAI], "data": [OPENAI], "x": 1})
        assert [item.position for item in items if isinstance(item, Found)] == ["conversations[0]", "data[0]"]

    def test_a_conversation_whose_messages_are_called_so_is_one(self) -> None:
        (found,) = read(SHAREGPT)
        assert found.position == "line 1"

    def test_chats_of_chatbot_ui(self) -> None:
        chat = {"id": "c1", "name": "N", "messages": [{"role": "user", "content": "Hi"}], "folderId": None}
        found, beside = read({"version": 4, "history": [chat], "folders": [], "prompts": []})
        assert found.state.conversation_id == "c1"
        assert "folders" in beside.member
