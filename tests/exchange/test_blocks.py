"""Content made of blocks becomes messages and calls in OpenAI's form, and can be told again from them."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from s3conv.exchange.blocks import Said, read_blocks
from tests.exchange.every_format import text, tool_result, tool_use

CALLS = {"tool_use": "input", "server_tool_use": "input", "mcp_tool_use": "input", "toolCall": "arguments"}


def again(said: list[Said]) -> Any:
    """The blocks that the messages were made from, by the rules in docs/importing.md alone."""
    blocks: list[Any] = []
    for message, left in said:
        content = message.content
        if message.role == "tool":
            (mark,) = left.get("content", [{"type": "tool_result"}])
            name = {} if message.name is None else {"name": message.name}
            blocks.append({**mark, **name, "tool_use_id": message.tool_call_id, "content": content})
            continue
        alone = isinstance(content, str)
        parts = [content] if alone else list(content or ())
        calls = list(message.tool_calls or ())
        marks = left.get("content")
        if marks is None:
            marks = [{"type": "text"} if alone else None for _ in parts] + [{"type": "tool_use"} for _ in calls]
        for mark in marks:
            if mark is None:
                blocks.append(parts.pop(0))
            elif mark["type"] in CALLS:
                call = calls.pop(0)
                made = {**mark, "name": call["function"]["name"]}
                made[CALLS[mark["type"]]] = json.loads(call["function"]["arguments"])
                blocks.append({**made, "id": call["id"]} if "id" in call else made)
            else:
                blocks.append({**mark, "text": parts.pop(0)})
        assert not parts
        assert not calls
    return blocks


leaf = st.none() | st.booleans() | st.integers() | st.text(max_size=5)
values = st.recursive(leaf, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3))
names = st.sampled_from(["id", "name", "input", "arguments", "text", "content", "tool_use_id", "is_error", "other"])
kinds = st.sampled_from(["text", "thinking", "tool_use", "toolCall", "server_tool_use", "tool_result", "image", 3])
odd = st.builds(lambda kind, more: {**more, "type": kind}, kinds, st.dictionaries(names, values, max_size=4))
usual = st.sampled_from(
    [
        text("a"),
        text("b", citations=[]),
        tool_use(),
        tool_use("t2", icon=None),
        tool_result(),
        tool_result(is_error=True),
    ]
)
blocks = st.lists(usual | odd | values, max_size=6)


@given(blocks)
def test_the_blocks_can_be_told_again(content: list[Any]) -> None:
    def complete(block: Any) -> Any:
        # A result without content and one with null say the same.
        kind = block.get("type") if isinstance(block, dict) else None
        is_result = isinstance(kind, str) and kind.endswith("tool_result") and isinstance(block.get("tool_use_id"), str)
        return {"content": None, **block} if is_result else block

    said = read_blocks("assistant", content)
    for message, _ in said:
        message.to_dict()
    # A call of pi's in its usual place is told by the format: its type is not kept.
    expected = [complete(block) for block in content]
    for block, made in zip(expected, found := again(said), strict=True):
        if isinstance(block, dict) and block.get("type") == "toolCall" and made.get("type") == "tool_use":
            block = {
                **{k: v for k, v in block.items() if k != "arguments"},
                "type": "tool_use",
                "input": block["arguments"],
            }
            assert block == made
        else:
            assert block == made, found


def test_a_call_and_its_result_are_messages_of_their_own() -> None:
    content = [text("I look."), tool_use(), tool_result(is_error=False), tool_result("toolu_2", None), text("Blue.")]
    first, result, empty, last = read_blocks("assistant", content)
    assert (first[0].role, first[0].content) == ("assistant", "I look.")
    assert first[0].tool_calls == [
        {"id": "toolu_1", "type": "function", "function": {"name": "look", "arguments": '{"at": "sky"}'}}
    ]
    assert (result[0].role, result[0].tool_call_id, result[0].content) == ("tool", "toolu_1", "blue")
    assert (first[1], result[1]) == ({}, {"content": [{"type": "tool_result", "is_error": False}]})
    assert (empty[0].tool_call_id, empty[0].content) == ("toolu_2", None)
    assert (last[0].role, last[0].content, last[0].tool_calls) == ("assistant", "Blue.", None)


def test_thinking_stays_a_part_of_the_content() -> None:
    thinking = {"type": "thinking", "thinking": "hm", "signature": "s"}
    ((message, left),) = read_blocks("assistant", [thinking, text("Blue."), tool_use()])
    assert message.content == [thinking, text("Blue.")]
    assert message.tool_calls is not None
    assert left == {}


def test_a_call_that_is_none_stays_where_it_is() -> None:
    for block in ({"type": "tool_use", "name": 3, "input": {}}, {"type": "tool_use", "name": "a"}):
        ((message, _),) = read_blocks("assistant", [block])
        assert (message.content, message.tool_calls) == ([block], None)


def test_texts_and_nothing() -> None:
    assert [(message.content, left) for message, left in read_blocks("user", "Hi")] == [("Hi", {})]
    assert [(message.content, left) for message, left in read_blocks("user", None)] == [(None, {})]
    assert [(message.content, left) for message, left in read_blocks("user", [])] == [([], {})]
    assert [left for _, left in read_blocks("user", [text("Hi", citations=[])])] == [
        {"content": [{"type": "text", "citations": []}]}
    ]
