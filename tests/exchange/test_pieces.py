"""What a message is shown as: the parts of each provider, and nothing of a message lost."""

from __future__ import annotations

import dataclasses
import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3conv import ConversationState, InvalidInputError
from s3conv.exchange.pieces import (
    Attachment,
    Call,
    Code,
    Prose,
    Result,
    Said,
    Thought,
    Value,
    as_json,
    first_words,
    read_node,
    title_of,
)
from s3conv.model.message import ConversationNode, LLMMessage
from tests.strategies import json_objects, json_values, nodes, texts


def said(content: Any, role: str = "assistant", **more: Any) -> Said:
    return read_node(ConversationNode(LLMMessage(role, content, **more)))


@pytest.mark.parametrize(
    ("part", "piece"),
    [
        ("text", Prose("text")),
        ({"type": "text", "text": "a"}, Prose("a")),
        ({"type": "output_text", "text": "a"}, Prose("a")),
        ({"type": "text", "value": "a"}, Prose("a")),
        ({"type": "reasoning", "value": "hm"}, Thought("hm")),
        ({"type": "thinking", "thinking": "hm", "signature": "x"}, Thought("hm")),
        (
            {"content_type": "thoughts", "thoughts": [{"summary": "S", "content": "a"}, {"content": "b"}]},
            Thought("**S**\n\na\n\nb"),
        ),
        ({"content_type": "reasoning_recap", "content": "Thought for 3 s"}, Thought("Thought for 3 s")),
        ({"content_type": "code", "language": "python", "text": "1"}, Code("1", "python")),
        ({"content_type": "code", "language": "unknown", "text": "1"}, Code("1")),
        ({"type": "tool_use", "id": "c", "name": "f", "input": {"a": 1}}, Call("f", {"a": 1}, "c")),
        ({"type": "toolCall", "id": "c", "name": "f", "arguments": {"a": 1}}, Call("f", {"a": 1}, "c")),
        (
            {"type": "tool_result", "tool_use_id": "c", "content": "done", "is_error": True},
            Result(None, "c", (Prose("done"),), failed=True),
        ),
        (
            {"type": "tool_result", "tool_use_id": "c", "content": [{"type": "text", "text": "done"}], "name": "f"},
            Result("f", "c", (Prose("done"),)),
        ),
        (
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
            Attachment("image", "", "image/png", "AAAA"),
        ),
        ({"type": "input_image", "image_url": "https://x/y.png"}, Attachment("image", url="https://x/y.png")),
        (
            {"type": "image", "source": {"type": "base64", "media_type": "image/gif", "data": "AAAA"}},
            Attachment("image", "", "image/gif", "AAAA"),
        ),
        ({"type": "image", "data": "AAAA", "mimeType": "image/gif"}, Attachment("image", "", "image/gif", "AAAA")),
        (
            {"type": "document", "title": "T", "source": {"type": "url", "url": "https://x"}},
            Attachment("file", "T", url="https://x"),
        ),
        (
            {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
            Attachment("audio", "", "audio/wav", "AAAA"),
        ),
        (
            {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,AAAA"}},
            Attachment("file", "a.pdf", "application/pdf", "AAAA"),
        ),
        (
            {"content_type": "image_asset_pointer", "asset_pointer": "file-service://x"},
            Attachment("image", url="file-service://x"),
        ),
        ({"type": "odd", "x": 1}, Value("odd", {"type": "odd", "x": 1})),
        (7, Value("part", 7)),
        ({"type": "text", "text": None}, Value("text", {"type": "text", "text": None})),
    ],
)
def test_a_part(part: Any, piece: Any) -> None:
    assert said([part]).pieces == (piece,)


@pytest.mark.parametrize(
    ("call", "shown"),
    [
        ({"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}, Call("f", {"a": 1}, "c")),
        ({"function": {"name": "f", "arguments": '{"a": 1, "a": 2}'}}, Call("f", '{"a": 1, "a": 2}')),
        ({"function": {"name": "f", "arguments": '{"a": 1.00}'}}, Call("f", '{"a": 1.00}')),
        ({"function": {"name": "f", "arguments": "not JSON"}}, Call("f", "not JSON")),
        ({"name": "f", "args": [1]}, Call("f", [1])),
        ({"name": "f"}, Call("f", {})),
        ("odd", Value("call", "odd")),
    ],
)
def test_a_call_with_its_arguments_as_an_object_only_if_nothing_is_lost(call: Any, shown: Any) -> None:
    assert said(None, tool_calls=[call]).pieces == (shown,)


def test_what_a_tool_says_is_a_result() -> None:
    assert said("42", "tool", name="f", tool_call_id="c").pieces == (Result("f", "c", (Prose("42"),)),)


def test_code_of_chatgpt_is_code() -> None:
    source = {"source": {"content": {"content_type": "execution_output"}}}
    node = ConversationNode(LLMMessage("tool", "42\n", "python"), metadata=source)
    assert read_node(node).pieces == (Result("python", None, (Code("42\n"),)),)


PARTS: list[Any] = [
    {"type": "text", "text": "t1", "annotations": ["u1"]},
    {"type": "thinking", "thinking": "t2", "signature": "u2"},
    {"content_type": "thoughts", "thoughts": [{"summary": "t3", "content": "t4", "chunks": ["u3"]}], "source_id": "u4"},
    {"type": "tool_use", "id": "t5", "name": "t6", "input": {"t7": "t8"}, "caller": "u5"},
    {"id": "t9", "index": 77, "function": {"name": "t10", "arguments": "t11", "strict": "u6"}},
    {"type": "tool_result", "tool_use_id": "t12", "content": [{"type": "tool_result", "content": "t13"}], "x": "u7"},
    {"type": "image_url", "image_url": {"url": "t14", "detail": "u8"}, "cache_control": "u9"},
    {"type": "image", "source": {"type": "base64", "media_type": "t15", "data": "t16", "y": "u10"}, "z": "u11"},
    {"type": "document", "source": {"type": "url", "url": "t17", "y": "u12"}, "title": "t18", "context": "u13"},
    {"type": "file", "file": {"filename": "t19", "file_data": "t20", "file_id": "u14"}, "z": "u15"},
    {"type": "input_audio", "input_audio": {"data": "t21", "format": "t22", "y": "u16"}, "z": "u17"},
    {"content_type": "image_asset_pointer", "asset_pointer": "t23", "width": 640},
    {"content_type": "tether_quote", "url": "t24", "text": "t25"},
    {"content_type": "code", "language": "t26", "text": "t27", "response_format_name": "u18"},
    {"content_type": "thoughts", "thoughts": [{"content": "t28"}, {"content": 1}], "w": "u19"},
]


def texts_in(value: object) -> list[str]:
    """The texts and numbers in a JSON value, or in pieces, but for names of fields and for what kind a part is."""
    if dataclasses.is_dataclass(value):
        return texts_in([getattr(value, field.name) for field in dataclasses.fields(value)])
    if isinstance(value, dict):
        return [text for key, one in value.items() if key not in ("type", "content_type") for text in texts_in(one)]
    if isinstance(value, list | tuple):
        return [text for one in value for text in texts_in(one)]
    return [value if isinstance(value, str) else repr(value)] if value is not None else []


@pytest.mark.parametrize("part", PARTS)
def test_nothing_of_a_known_part_is_lost(part: Any) -> None:
    for shown in (said([part]), said(None, tool_calls=[part]), said(None, function_call=part)):
        words = re.findall(r"\w+", " ".join(texts_in(shown)))
        assert set(texts_in(part)) <= set(words)


odd_parts = (
    st.sampled_from(PARTS).flatmap(lambda part: st.builds(lambda more: {**more, **part}, json_objects)) | json_values
)


@given(st.lists(odd_parts, max_size=4), st.none() | st.lists(odd_parts, max_size=2), nodes)
def test_every_text_of_a_message_is_shown_or_beside(content: list[Any], calls: list[Any] | None, node: Any) -> None:
    node.message.content, node.message.tool_calls = content, calls
    shown = "\n".join(texts_in(read_node(node)))
    for text in texts_in([content, calls, node.metadata, node.extra, node.message.metadata, node.message.extra]):
        assert text in shown


def test_a_title_and_the_first_words() -> None:
    state = ConversationState("an id")
    assert (title_of(state), first_words(state, 10)) == ("an id", "")
    state.metadata["title"] = " On\none  line "
    state.add_message("system", "You are …")
    state.add_message("assistant", "Hello!")
    assert (title_of(state), first_words(state, 10)) == ("On one line", "Hello!")
    state.add_message("user", [{"type": "image"}, {"type": "text", "text": "What \n is this?"}])
    assert (first_words(state, 20), first_words(state, 7)) == ("What is this?", "What i…")


@given(json_values)
def test_values_are_shown_as_json(value: Any) -> None:
    assert json.loads(as_json(value)) == value


def test_what_is_no_json_value_is_refused() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    for value in ({1, 2}, deep):
        with pytest.raises(InvalidInputError, match="cannot be shown"):
            as_json(value)


@given(texts)
def test_a_name_never_takes_more_than_a_line(title: str) -> None:
    assert "\n" not in title_of(ConversationState("x", metadata={"title": title}))
