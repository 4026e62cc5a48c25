"""Out and in again: what docs/formats.md says that a format holds comes back, and once more changes nothing."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings

from s3conv import Archive, ConversationState
from s3conv.exchange.chats import chosen, read_chat
from s3conv.exchange.found import Found
from s3conv.exchange.importing import import_files
from s3conv.exchange.reading import read_conversations
from s3conv.exchange.rendering import LeftOut
from s3conv.exchange.writing import FORMATS
from s3conv.format.document import state_to_stored
from tests.exchange.shared import real_file
from tests.strategies import states

READS = {"jsonl": "s3conv", "dataknobs": "dataknobs", "openai": "openai", "sharegpt": "sharegpt"}
"""Each format that is written and read: the reader of what it writes."""


def written(form: str, state: ConversationState, branches: Any) -> list[bytes]:
    """A conversation's lines in a format."""
    render, left_out = FORMATS[form].render, LeftOut()
    assert render is not None
    lines = (render(chat, left_out) for chat in chosen(read_chat(state_to_stored(state), "a document"), branches))
    return [line for line in lines if line is not None]


def read_again(form: str, line: bytes) -> ConversationState:
    """The conversation of a line."""
    (found,) = read_conversations(io.BytesIO(line), format=READS[form])
    assert isinstance(found, Found), found
    return found.state


def said(state: ConversationState) -> list[dict[str, Any]]:
    """The messages of a chat as a row of OpenAI's holds them: what has a value, and the parts that have a place."""
    messages = []
    for message in state.get_current_messages():
        fields = message.to_dict()
        if isinstance(fields.get("content"), list):
            fields["content"] = [part for one in fields["content"] if (part := _placed(one)) is not None] or None
        if fields.get("content") is None and not fields.get("tool_calls") and not fields.get("function_call"):
            continue
        names = ("role", "content", "name", "tool_calls", "function_call", "tool_call_id")
        messages.append({name: fields[name] for name in names if fields.get(name) is not None})
    return messages


def _placed(part: Any) -> Any:
    """A part as OpenAI has it; None where it has no such part."""
    if isinstance(part, str):
        return {"type": "text", "text": part}
    if not isinstance(part, dict) or part.get("type") not in ("text", "image_url", "input_audio", "file", "refusal"):
        return None
    return {"type": "text", "text": part["value"]} if set(part) == {"type", "value"} else part


def texts(state: ConversationState) -> list[str]:
    """What is said in a chat, text by text."""
    found = []
    for message in state.get_current_messages():
        parts = message.content if isinstance(message.content, list) else [message.content]
        ours = [
            part.get("text", part.get("value")) if isinstance(part, dict) and part.get("type") == "text" else part
            for part in parts
        ]
        text = "\n".join(part for part in ours if isinstance(part, str))
        if text:
            found.append(text)
    return found


def calls(state: ConversationState) -> list[tuple[str, Any]]:
    """The tools that are called in a chat, by name and arguments."""
    found = []
    for message in state.get_current_messages():
        for call in (*(message.tool_calls or ()), message.function_call):
            if call is not None:
                function = call.get("function", call)
                arguments = function.get("arguments")
                found.append(
                    (function["name"], json.loads(arguments) if isinstance(arguments, str) else arguments or {})
                )
    return found


def check(form: str, state: ConversationState) -> None:
    """Hold a conversation against what its lines are read as."""
    if form in ("jsonl", "dataknobs"):
        (line,) = written(form, state, "tree")
        again = read_again(form, line)
        assert again == state
        assert written(form, again, "tree") == [line]
        return
    for line in written(form, state, "current"):
        again = read_again(form, line)
        if form == "openai":
            assert said(again) == said(state)
            tools = json.loads(line).get("tools")
            assert again.metadata.get("tools") == tools
        else:
            assert again.conversation_id == state.conversation_id
            assert [text for text in texts(again) if text] == texts(state)
        assert written(form, again, "current") == [line]
    for line in written(form, state, "leaves"):
        assert written(form, read_again(form, line), "leaves") == [line]


@pytest.mark.parametrize("form", READS)
@settings(max_examples=60)
@given(state=states())
def test_any_conversation_comes_back(form: str, state: ConversationState) -> None:
    lists = form in ("openai", "sharegpt")  # whose readers ask for a role
    assume(not lists or all(place.data.message.role for place in state.message_tree.walk()))
    check(form, state)


@pytest.mark.parametrize("name", ["oasst", "chatgpt", "claude", "dataknobs", "agent", "sharegpt"])
def test_real_conversations_come_back(name: str, tmp_path: Path) -> None:
    with Archive.create(f"memory://{tmp_path.name}") as archive:
        import_files(archive, [path for path in real_file(name).iterdir() if path.stat().st_size < 500_000])
        documents = list(archive.export())
        assert documents
        for document in documents[:: max(1, len(documents) // 40)]:
            for form in READS:
                state = document.state()
                check(form, state)
                for line in written(form, state, "current"):
                    assert calls(read_again(form, line)) == calls(state)


def test_weights_come_back_where_they_came_from() -> None:
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": "2 + 2?"},
        {"role": "assistant", "content": "5", "weight": 0},
        {"role": "user", "content": "No."},
        {"role": "assistant", "content": "4", "weight": 1},
        {"role": "assistant", "content": "4", "weight": True},
        {"role": "assistant", "content": "4", "weight": 0.5},
    ]
    state = read_again("openai", json.dumps({"messages": messages}).encode())
    for message in messages[4:]:
        del message["weight"]  # which is none
    (line,) = written("openai", state, "current")
    assert json.loads(line) == {"messages": messages}
    state.metadata["source_format"] = "chatgpt"  # whose weights say something else
    (line,) = written("openai", state, "current")
    assert b"weight" not in line


@pytest.mark.parametrize(
    ("form", "name"),
    [
        ("openai", "agent/openai-cookbook_drone_training.jsonl"),
        ("openai", "agent/openai-cookbook_toy_chat_fine_tuning.jsonl"),
        ("sharegpt", "sharegpt/fastchat_dummy_conversation.json"),
    ],
)
def test_a_row_comes_out_as_it_came_in(form: str, name: str) -> None:
    """Where it holds nothing but what the format's readers ask for."""
    text = real_file(name).read_text(encoding="utf-8")
    values = json.loads(text) if text.startswith("[") else [json.loads(line) for line in text.splitlines()]
    assert values
    for value in values:
        (line,) = written(form, read_again(form, json.dumps(value).encode()), "current")
        for message in value.get("messages", ()):
            message.setdefault("content", None)  # which is written, as some readers want it there
        assert json.loads(line) == value
