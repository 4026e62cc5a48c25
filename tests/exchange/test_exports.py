"""What conversations of Claude, Claude Code, pi and LibreChat become, rule by rule, as docs/importing.md has them."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from s3conv import ConversationState, InvalidInputError
from s3conv.exchange import claude, librechat
from s3conv.exchange.found import Found, Problem
from s3conv.exchange.reading import read_conversations
from tests.exchange.every_format import CLAUDE, CLAUDE_CODE, LIBRECHAT, NOBODY, PI, claude_message, code_line, text
from tests.exchange.test_formats import shape


def read(*rows: Any) -> list[Any]:
    return list(read_conversations(io.BytesIO(b"".join(json.dumps(row).encode() + b"\n" for row in rows))))


def states(*rows: Any) -> list[ConversationState]:
    found = read(*rows)
    assert all(isinstance(item, Found) for item in found), found
    return [item.state for item in found]


def node(state: ConversationState, source_id: str) -> Any:
    return next(one.data for one in state.message_tree.walk() if one.data.metadata.get("source_id") == source_id)


class TestClaude:
    def test_a_tree_with_calls_thinking_and_the_place_where_it_stands(self) -> None:
        state = claude.read(CLAUDE)
        assert shape(state) == [
            ("", "q", "Which colour?"),
            ("0", "a1", "I look."),
            ("0.0", "a1#1", "blue"),
            ("0.0.0", "a1#2", "Blue."),
            ("1", "a2", [{"type": "thinking", "thinking": "hm"}, text("Blue, I think.")]),
        ]
        assert [one.data.message.role for one in state.message_tree.walk()] == [
            "user", "assistant", "tool", "assistant", "assistant"
        ]  # fmt: skip
        assert state.current_node_id == "0.0.0"
        assert state.conversation_id == "claude-1"
        assert state.created_at == datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
        assert state.metadata == {
            "source_format": "claude",
            "title": "The sky",
            "summary": "",
            "created_at": "2026-01-02T03:04:00Z",
            "updated_at": "2026-01-02T03:05:00Z",
            "account": {"uuid": "someone"},
        }
        assert node(state, "q").metadata["source"] == {
            "created_at": "2026-01-02T03:04:05.000001Z",
            "text": "",
            "attachments": [{"extracted_content": "x"}],
            "files": [],
            "parent_message_uuid": NOBODY,
        }
        assert node(state, "a1").message.tool_calls[0]["id"] == "toolu_1"
        assert node(state, "a1#1").message.tool_call_id == "toolu_1"

    def test_an_old_export_without_parents_is_a_chain(self) -> None:
        messages = [claude_message(name, None, "human", None, text=name.upper()) for name in "abc"]
        state = claude.read({"uuid": "c", "chat_messages": messages})
        assert shape(state) == [("", "a", "A"), ("0", "b", "B"), ("0.0", "c", "C")]
        assert node(state, "a").metadata["source"]["content"] is None

    def test_two_beginnings_are_side_by_side(self) -> None:
        messages = [claude_message(name, NOBODY, "human", [text(name)]) for name in "ab"]
        state = claude.read({"uuid": "c", "chat_messages": messages})
        assert shape(state) == [("", "", None), ("0", "a", "a"), ("1", "b", "b")]

    def test_text_beside_content_that_says_something_else_is_kept(self) -> None:
        message = claude_message("a", None, "assistant", [text("whole", citations=[])], text="shortened", model="m")
        source = node(claude.read({"uuid": "c", "chat_messages": [message]}), "a").metadata
        assert source["source"]["text"] == "shortened"
        assert source["source"]["content"] == [{"type": "text", "citations": []}]
        assert source["model"] == "m"

    def test_a_current_message_that_is_none_is_kept_by_name(self) -> None:
        state = claude.read({**CLAUDE, "current_leaf_message_uuid": "gone"})
        assert (state.current_node_id, state.metadata["current_leaf_message_uuid"]) == ("1", "gone")

    @pytest.mark.parametrize(
        ("messages", "reason"),
        [
            (3, "chat_messages: expected a list, found int"),
            ([3], r"chat_messages\[0\]: expected an object, found int"),
            ([claude_message("a", None, "human", 3)], "content: expected a list of blocks, found int"),
            ([claude_message("a", None, "human", ""), claude_message("a", None, "human", "")], "'a' is there twice"),
            ([claude_message("a", "gone", "human", "x")], "'a': its parent 'gone' is missing"),
            ([claude_message("a", "b", "human", "x"), claude_message("b", "a", "human", "x")], "'a' is in a cycle"),
            ([{"uuid": "a", "text": "x"}], "sender: expected a string, found nothing"),
            ([claude_message("a", None, "human", "x", created_at="soon")], "created_at: expected a time, found 'soon'"),
        ],
    )
    def test_what_cannot_be_read_is_named(self, messages: Any, reason: str) -> None:
        with pytest.raises(InvalidInputError, match=reason):
            claude.read({"uuid": "c", "chat_messages": messages})

    def test_an_empty_conversation_keeps_its_title(self) -> None:
        state = claude.read({"uuid": "c", "name": "Nothing", "chat_messages": []})
        assert (shape(state), state.metadata["title"]) == ([("", "", None)], "Nothing")


class TestClaudeCode:
    def test_a_session_with_a_side_chain(self) -> None:
        (state,) = states(*CLAUDE_CODE)
        assert shape(state) == [
            ("", "", None),
            ("0", "q", "Which colour?"),
            ("0.0", "a1", "I look."),
            ("0.0.0", "r", "blue"),
            ("0.0.0.0", "a2", "Blue."),
            ("1", "s", "A task"),
        ]
        assert (state.conversation_id, state.current_node_id) == ("session-1", "0.0.0.0")
        assert state.metadata == {
            "source_format": "claude-code",
            "cwd": "/work",
            "title": "Looking at the sky",
            "trailing_lines": [],
            "timestamps_inferred": ["created_at", "updated_at"],
        }
        result = node(state, "r")
        assert (result.message.role, result.message.tool_call_id) == ("tool", "toolu_1")
        assert result.metadata["source"]["toolUseResult"] == {"stdout": "blue"}
        assert result.metadata["source"]["before"] == [CLAUDE_CODE[3]]
        assert node(state, "q").metadata["source"]["before"] == [CLAUDE_CODE[0]]

    def test_what_follows_the_last_message_is_kept_too(self) -> None:
        last = {"type": "custom-title", "customTitle": "Named", "sessionId": "session-1"}
        other = {"type": "unheard-of", "x": 1}
        (state,) = states(*CLAUDE_CODE, last, other)
        assert state.metadata["trailing_lines"] == [last, other]
        assert state.metadata["title"] == "Named"

    def test_a_session_that_goes_on_from_another(self) -> None:
        (state,) = states(code_line("b", "in another file", "user", "Go on"), code_line("c", "b", "assistant", "Yes"))
        assert shape(state) == [("", "b", "Go on"), ("0", "c", "Yes")]
        assert node(state, "b").metadata["source"]["parentUuid"] == "in another file"

    def test_sessions_and_agents_of_one_file_are_apart(self) -> None:
        agent = {"isSidechain": True, "agentId": "x1"}
        found = states(
            code_line("a", None, "user", "A"),
            code_line("b", None, "user", "B", sessionId="session-2"),
            code_line("c", None, "user", "C", **agent),
        )
        assert [state.conversation_id for state in found] == ["session-1", "session-2", "session-1.x1"]
        assert found[2].metadata["sessionId"] == "session-1"

    def test_lines_without_a_message_hold_their_place(self) -> None:
        (state,) = states(
            code_line("a", None, "user", "A"),
            {
                "type": "system",
                "subtype": "info",
                "content": "Said",
                "uuid": "s",
                "parentUuid": "a",
                "sessionId": "session-1",
            },
            {"type": "progress", "data": {"n": 1}, "uuid": "p", "parentUuid": "s", "sessionId": "session-1"},
            code_line("b", "p", "user", "B"),
        )
        assert shape(state) == [("", "a", "A"), ("0", "s", "Said"), ("0.0", "p", None), ("0.0.0", "b", "B")]
        assert node(state, "s").message.role == "system"
        assert node(state, "p").metadata["synthetic"] is True
        assert node(state, "p").metadata["source"] == {"type": "progress", "data": {"n": 1}}

    def test_the_same_line_again_is_one_and_another_under_its_id_is_a_problem(self) -> None:
        line = code_line("a", None, "user", "A")
        assert len(shape(states(line, line)[0])) == 1
        (problem,) = read(line, {**line, "version": "2"})
        assert isinstance(problem, Problem)
        assert problem.reason == "the message id 'a' is there twice (again at line 2)"

    def test_a_session_without_a_message_keeps_its_lines(self) -> None:
        (state,) = states({"type": "summary", "summary": "S", "leafUuid": "x"})
        assert state.conversation_id.startswith("claude-code-")
        assert state.metadata["trailing_lines"] == [{"type": "summary", "summary": "S", "leafUuid": "x"}]
        assert "title" not in state.metadata

    @pytest.mark.parametrize(
        ("line", "reason"),
        [
            (code_line("a", None, "user", 3), "message 'a': message.content: expected a text or blocks, found int"),
            ({**code_line("a", None, "user", ""), "message": 3}, "message 'a': message: expected an object, found int"),
            ({**code_line("a", None, "user", ""), "message": {}}, "message 'a': message.role: expected a string"),
            (code_line("a", "a", "user", "x"), "message 'a' is in a cycle of parents"),
            (code_line("a", None, "user", "x", timestamp=[]), "message 'a': timestamp: expected a time, found list"),
        ],
    )
    def test_what_cannot_be_read_is_named(self, line: Any, reason: str) -> None:
        problem, good = read(line, code_line("b", None, "user", "B", sessionId="session-2"))
        assert reason in problem.reason
        assert problem.position == "line 1"
        assert isinstance(good, Found)


class TestPi:
    def test_an_old_session_is_a_chain(self) -> None:
        (state,) = states(*PI)
        assert [(source, content) for _, source, content in shape(state)] == [
            ("entry 0", "Which?"),
            ("entry 1", None),
            ("entry 2", None),
            ("entry 3", "blue"),
        ]
        assert node(state, "entry 1").metadata["source"]["modelId"] == "n"
        call, result = node(state, "entry 2"), node(state, "entry 3")
        assert call.message.tool_calls[0]["function"] == {"name": "look", "arguments": '{"at": "sky"}'}
        assert call.metadata["model"] == "n"
        assert (result.message.role, result.message.name, result.message.tool_call_id) == ("tool", "look", "c")
        assert state.metadata["model"] == "m"

    def test_a_session_with_ids_is_a_tree(self) -> None:
        def entry(name: str, parent: str | None, said: str) -> Any:
            message = {"role": "user", "content": said}
            return {
                "type": "message",
                "id": name,
                "parentId": parent,
                "timestamp": "2026-01-02T03:04:05Z",
                "message": message,
            }

        info = {
            "type": "session_info",
            "id": "i",
            "parentId": "c",
            "timestamp": "2026-01-02T03:04:05Z",
            "name": "Title",
        }
        (state,) = states(PI[0], entry("a", None, "A"), entry("b", "a", "B"), entry("c", "a", "C"), info)
        assert shape(state) == [("", "a", "A"), ("0", "b", "B"), ("1", "c", "C"), ("1.0", "i", None)]
        assert state.metadata["title"] == "Title"

    def test_two_sessions_in_one_file(self) -> None:
        found = states(*PI, {**PI[0], "id": "pi-2"}, *PI[1:])
        assert [state.conversation_id for state in found] == ["pi-1", "pi-2"]

    def test_a_message_without_a_role_is_a_problem(self) -> None:
        (problem,) = read(PI[0], {"type": "message", "timestamp": None, "message": {}})
        assert str(problem) == "-: line 1: line 2: message.role: expected a string, found nothing"


class TestLibreChat:
    def test_a_tree_with_a_call_and_its_answer(self) -> None:
        state = librechat.read(LIBRECHAT)
        assert shape(state) == [
            ("", "q", "Which colour?"),
            ("0", "a1", "I look."),
            ("0.0", "a1#1", "blue"),
            ("0.0.0", "a1#2", "Blue."),
            ("1", "a2", "Blue."),
        ]
        assert node(state, "a1").message.tool_calls == [
            {"id": "c", "type": "function", "function": {"name": "look", "arguments": '{"at": "sky"}'}}
        ]
        answer = node(state, "a1#1").message
        assert (answer.role, answer.name, answer.tool_call_id) == ("tool", "look", "c")
        parts = LIBRECHAT["messagesTree"][0]["children"][0]["content"]
        assert node(state, "a1").metadata["source"]["content"] == parts
        assert state.metadata == {
            "source_format": "librechat",
            "endpoint": "openAI",
            "title": "The sky",
            "recursive": True,
            "options": {"model": "gpt-x"},
            "model": "gpt-x",
            "timestamps_inferred": ["created_at", "updated_at"],
        }

    def test_the_same_in_a_flat_list_and_in_a_list_alone(self) -> None:
        flat: list[Any] = []

        def flatten(messages: list[Any]) -> None:
            for message in messages:
                flat.append({name: value for name, value in message.items() if name != "children"})
                flatten(message["children"])

        flatten(LIBRECHAT["messagesTree"])
        (state,) = states({"conversationId": "libre-1", "messages": flat})
        assert shape(state) == shape(librechat.read(LIBRECHAT))
        for message in flat:
            message["conversationId"] = "libre-1"
        (state,) = states(*flat)
        assert (state.conversation_id, shape(state)) == ("libre-1", shape(librechat.read(LIBRECHAT)))

    def test_ten_thousand_messages_deep(self) -> None:
        message: dict[str, Any] = {"messageId": "0", "text": "x", "children": []}
        tree = {"conversationId": "c", "messagesTree": [message]}
        for n in range(1, 10_000):
            below: dict[str, Any] = {"messageId": str(n), "text": "x", "children": []}
            message["children"] = [below]
            message = below
        assert sum(1 for _ in librechat.read(tree).message_tree.walk()) == 10_000

    @pytest.mark.parametrize(
        ("messages", "reason"),
        [
            ([{"text": "x"}], r"messages\[0\].messageId: expected a string, found nothing"),
            ([{"messageId": "a", "text": ""}] * 2, r"messages\[1\]: the id 'a' is there twice"),
            ([{"messageId": "a", "text": "", "parentMessageId": "gone"}], "its parent 'gone' is missing"),
            ([{"messageId": "a", "text": "", "children": 3}], "children: expected a list, found int"),
            (
                [{"messageId": "a", "text": "", "children": [{"messageId": "b", "parentMessageId": "c", "text": ""}]}],
                "child 0 of a.parentMessageId: 'c' is not the message that it lies in",
            ),
            ([3], r"messages\[0\]: expected an object, found int"),
        ],
    )
    def test_what_cannot_be_read_is_named(self, messages: Any, reason: str) -> None:
        with pytest.raises(InvalidInputError, match=reason):
            librechat.read({"conversationId": "c", "messages": messages})
