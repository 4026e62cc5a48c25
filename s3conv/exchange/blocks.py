"""Content made of typed blocks, as Anthropic's interfaces and those after them write it: text, thinking, tool calls.

Law: a call becomes a tool call and a result a message of its own with role `tool`, both in OpenAI's form. Whatever of
a block has no place there stays as it was, in the content or under `source.content`. Together they give back every
block, in its order.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from s3conv.exchange.growing import Draft
from s3conv.model.message import LLMMessage

Said = tuple[LLMMessage, dict[str, Any]]
"""A message, and what of its source has no field."""

_ARGUMENTS = {"tool_use": "input", "server_tool_use": "input", "mcp_tool_use": "input", "toolCall": "arguments"}
"""The types of block that are calls, and the name of what a call is given."""

_PLAIN_CALLS = ("tool_use", "toolCall")
"""Those whose type the format itself tells."""


def read_blocks(role: str, content: str | Sequence[Any] | None) -> list[Said]:
    """The messages that one content holds: one for each run of blocks without a result, one for each result.

    Args:
        role: of all but the results, which have role `tool`.
        content: a text, or blocks; no blocks are one message without content.
    """
    if not isinstance(content, list):
        return [(LLMMessage(role, content if isinstance(content, str) else None), {})]
    said: list[Said] = []
    for is_result, blocks in groupby(content, _is_result):
        if is_result:
            said.extend(map(_read_result, blocks))
        else:
            said.append(_read_run(role, list(blocks)))
    return said or [(LLMMessage(role, []), {})]


def tool_call(name: str, arguments: object, call_id: str | None = None) -> dict[str, Any]:
    """A call in OpenAI's form. `arguments` is a JSON value, or already its text."""
    text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    call: dict[str, Any] = {} if call_id is None else {"id": call_id}
    return {**call, "type": "function", "function": {"name": name, "arguments": text}}


def name_parts(source_id: str, said: Sequence[Said], draft: Draft) -> list[Draft]:
    """One draft per message that one message of a source became: `id`, `id#1`, `id#2` …

    Args:
        source_id: of the source's message.
        said: the messages.
        draft: what all of them share; what it says of the source (`metadata["source"]`) goes to the first.
    """
    drafts = []
    for number, (message, left) in enumerate(said):
        metadata = {key: value for key, value in draft.metadata.items() if key != "source"}
        source = {**(draft.metadata.get("source", {}) if number == 0 else {}), **left}
        if source:
            metadata["source"] = source
        name = f"{source_id}#{number}" if number else source_id
        drafts.append(Draft(name, message, draft.time, metadata, draft.parent, named=draft.named))
    return drafts


def _is_result(block: Any) -> bool:
    """Whether a block is the result of a call, and nothing but what a message can say."""
    return (
        isinstance(block, Mapping)
        and isinstance(block.get("type"), str)
        and block["type"].endswith("tool_result")
        and isinstance(block.get("tool_use_id"), str)
        and isinstance(block.get("content"), str | list | None)
    )


def _read_result(block: Mapping[str, Any]) -> Said:
    left = {key: value for key, value in block.items() if key not in ("tool_use_id", "content")}
    name = left.pop("name") if isinstance(left.get("name"), str) else None
    message = LLMMessage("tool", block.get("content"), name, tool_call_id=block["tool_use_id"])
    return message, {} if left == {"type": "tool_result"} else {"content": [left]}


def _read_run(role: str, blocks: list[Any]) -> Said:
    rest = [block for block in blocks if not _is_call(block)]
    calls = [
        tool_call(block["name"], json.dumps(block[_ARGUMENTS[block["type"]]], ensure_ascii=False), block.get("id"))
        for block in blocks
        if _is_call(block)
    ]
    text = rest[0] if len(rest) == 1 and _is_text(rest[0]) else None
    content = text["text"] if text is not None else rest or None
    marks = [_mark(block, is_text=text is not None) for block in blocks]
    plain = [{"type": "text"} if text is not None else None] * len(rest)
    calls_come_last = marks[: len(rest)] == plain and all(
        mark in ({"type": name} for name in _PLAIN_CALLS) for mark in marks[len(rest) :]
    )
    left = {} if calls_come_last else {"content": marks}
    return LLMMessage(role, content, tool_calls=calls or None), left


def _mark(block: Any, is_text: bool) -> Any:
    """What of a block has gone nowhere else: null for one that is in the content as it was."""
    if _is_call(block):
        return {key: value for key, value in block.items() if key not in ("id", "name", _ARGUMENTS[block["type"]])}
    return {key: value for key, value in block.items() if key != "text"} if is_text else None


def _is_text(block: Any) -> bool:
    return isinstance(block, Mapping) and block.get("type") == "text" and isinstance(block.get("text"), str)


def _is_call(block: Any) -> bool:
    return (
        isinstance(block, Mapping)
        and isinstance(kind := block.get("type"), str)
        and kind in _ARGUMENTS
        and _ARGUMENTS[kind] in block
        and isinstance(block.get("name"), str)
        and ("id" not in block or isinstance(block["id"], str))
    )
