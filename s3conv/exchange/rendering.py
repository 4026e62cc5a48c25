"""Conversations as lines of JSON in other people's forms: OpenAI's chat fine-tuning, ShareGPT, dataknobs.

Law: what a form has no place for is left out and counted by name, never bent into something else. docs/formats.md has
the table.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from s3conv.errors import InvalidInputError
from s3conv.exchange import openai
from s3conv.exchange.chats import Chat
from s3conv.exchange.values import parse
from s3conv.format.codec import to_json
from s3conv.format.document import state_from_stored

LeftOut = Counter[str]
"""How many things of a kind a form had no place for."""

_OPENAI_FIELDS = ("name", "tool_calls", "function_call", "tool_call_id")
_OPENAI_PARTS = frozenset(("text", "image_url", "input_audio", "file", "refusal"))
_TOOLS = ("tools", "functions", "parallel_tool_calls")
_NO_ID = "missing ids of tool calls"
_NO_CALL = "missing ids of the calls that tool results answer"
_NO_TURN = "alternation of turns, where a text is followed by its call"
"""What readers ask for beside the form: OpenAI the ids, LLaMA-Factory the alternation."""

_SHAREGPT_ROLES = {"user": "human", "assistant": "gpt", "tool": "observation", "function": "observation"}


def openai_line(chat: Chat, left_out: LeftOut) -> bytes | None:
    """A row of OpenAI's chat fine-tuning: `messages`, and `tools` where the metadata has them. None: it says nothing.

    Args:
        chat: a linear conversation.
        left_out: counts parts and messages that are left out.
    """
    weighted = chat.metadata.get("source_format") == openai.NAME  # ChatGPT's messages have weights that mean others
    messages = [message for node in chat.nodes if (message := _openai_message(node, weighted, left_out)) is not None]
    if not messages:
        left_out["conversations without a message"] += 1
        return None
    row: dict[str, Any] = {"messages": messages}
    for name in _TOOLS:
        value = chat.metadata.get(name)
        if isinstance(value, str):  # as ShareGPT's rows have them
            value = _json_or_none(value)
        if isinstance(value, list) and name == "tools":
            value = [_definition(tool) for tool in value]
        if isinstance(value, bool) if name == "parallel_tool_calls" else isinstance(value, list) and value:
            row[name] = value
    return _line(row, chat)


def _definition(tool: Any) -> Any:
    """A tool's definition as OpenAI has it, also where it is a function's alone."""
    bare = isinstance(tool, dict) and isinstance(tool.get("name"), str) and "function" not in tool
    if bare and tool.get("type", "function") == "function":
        return {"type": "function", "function": {name: value for name, value in tool.items() if name != "type"}}
    return tool


def _openai_message(node: dict[str, Any], weighted: bool, left_out: LeftOut) -> dict[str, Any] | None:
    message = node["message"]
    content = message.get("content")
    written: dict[str, Any] = {"role": message["role"]}
    if isinstance(content, list):
        content = [*_openai_parts(content, left_out)] or None
    if content is None and not message.get("tool_calls") and not message.get("function_call"):
        left_out["messages without content"] += 1
        return None
    written["content"] = content
    for name in _OPENAI_FIELDS:
        if message.get(name) is not None:
            written[name] = message[name]
    # An id of ours would come back as if it had been said.
    if missing := sum(not _has_id(call) for call in message.get("tool_calls") or ()):
        left_out[_NO_ID] += missing
    if message["role"] == "tool" and not message.get("tool_call_id"):
        left_out[_NO_CALL] += 1
    source = (node.get("metadata") or {}).get("source") if weighted else None
    weight = source.get("weight") if isinstance(source, dict) else None
    if type(weight) is int and weight in (0, 1):
        written["weight"] = weight
    return written


def _has_id(call: Any) -> bool:
    """Whether a call has an id to be answered by."""
    return isinstance(call, dict) and bool(call.get("id"))


def _openai_parts(parts: list[Any], left_out: LeftOut) -> Iterator[dict[str, Any]]:
    for part in parts:
        text = text_in(part)
        if text is not None and not (isinstance(part, dict) and part.get("text") == text):
            yield {"type": "text", "text": text}
        elif isinstance(part, dict) and part.get("type") in _OPENAI_PARTS:
            yield part
        else:
            left_out[_kind(part)] += 1


def sharegpt_line(chat: Chat, left_out: LeftOut) -> bytes | None:
    """A row of ShareGPT, as LLaMA-Factory reads it: `id`, `conversations`, and `tools` where the metadata has them.

    Args:
        chat: a linear conversation.
        left_out: counts parts and messages that are left out.

    Returns:
        The line, or None if it says nothing.
    """
    turns = [turn for node in chat.nodes for turn in _turns(node["message"], left_out)]
    if not turns:
        left_out["conversations without a message"] += 1
        return None
    row: dict[str, Any] = {"id": chat.conversation_id, "conversations": turns}
    tools = chat.metadata.get("tools")
    if isinstance(tools, list) and tools:
        tools = to_json(tools, f"the tools of conversation {chat.conversation_id!r}").decode()
    if isinstance(tools, str):
        row["tools"] = tools
    return _line(row, chat)


def _turns(message: dict[str, Any], left_out: LeftOut) -> Iterator[dict[str, str]]:
    role, text = message["role"], text_of(message.get("content"), left_out)
    calls = [
        call for call in map(_named_call, [*(message.get("tool_calls") or []), message.get("function_call")]) if call
    ]
    if text:
        yield {"from": _SHAREGPT_ROLES.get(role, role), "value": text}
    elif not calls:
        left_out["messages without content"] += 1
    if calls:
        if text:
            left_out[_NO_TURN] += 1
        value = to_json(calls[0] if len(calls) == 1 else calls, "a tool call").decode()
        yield {"from": "function_call", "value": value}


def _named_call(call: Any) -> dict[str, Any] | None:
    """A call as name and arguments, the arguments as values where they are JSON."""
    function = call.get("function", call) if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        return None
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        found = _json_or_none(arguments)
        arguments = arguments if found is None else found
    return {"name": function["name"], "arguments": {} if arguments is None else arguments}


def text_of(content: Any, left_out: LeftOut) -> str:
    """The text of a message's content; parts that are not text are counted."""
    if not isinstance(content, list):
        return content or ""
    texts = []
    for part in content:
        text = text_in(part)
        if text is None:
            left_out[_kind(part)] += 1
        else:
            texts.append(text)
    return "\n".join(texts)


def text_in(part: Any) -> str | None:
    """The text that a part is; None if it is anything else. LLaMA-Factory's rows have it under `value`."""
    if isinstance(part, dict) and part.get("type") == "text":
        part = part.get("text", part.get("value"))
    return part if isinstance(part, str) else None


def dataknobs_line(chat: Chat, left_out: LeftOut) -> bytes | None:
    """The exchange form, on one line."""
    return _line(state_from_stored(chat.fields).to_dict(), chat)


def stored_line(chat: Chat, left_out: LeftOut) -> bytes | None:
    """A line of s3conv's own JSON lines."""
    return _line(chat.fields, chat)


def _line(value: Any, chat: Chat) -> bytes:
    return to_json(value, f"conversation {chat.conversation_id!r}") + b"\n"


def _kind(part: Any) -> str:
    kind = (part.get("type") or part.get("content_type")) if isinstance(part, dict) else type(part).__name__
    return f"parts of type {str(kind)[:40]}"


def _json_or_none(text: str) -> Any:
    try:
        return parse(text.encode())
    except (InvalidInputError, UnicodeEncodeError):
        return None
