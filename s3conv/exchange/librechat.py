"""LibreChat's exports: one conversation with its messages in a tree (`children`) or a flat list (`parentMessageId`).

Law: as for ChatGPT, what has no field of ours lies verbatim under `metadata["source"]` of its node, and everything
else of the conversation under its own name in the metadata. A tool's answer, which LibreChat keeps inside the call, is
a message of its own here, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from s3conv.errors import InvalidInputError
from s3conv.exchange.blocks import Said, name_parts, tool_call
from s3conv.exchange.found import Joined, Row
from s3conv.exchange.growing import Draft, grow, link_parts
from s3conv.exchange.values import list_field, object_at, read_time, text_field
from s3conv.model.message import LLMMessage
from s3conv.model.state import ConversationState

NAME = "librechat"
_LISTS = ("messagesTree", "messages")
_NOBODY = "00000000-0000-0000-0000-000000000000"
"""The id that a first message names as its parent."""


def is_conversation(data: Any) -> bool:
    """Whether a JSON value is a conversation of this format."""
    if not isinstance(data, Mapping):
        return False
    messages = next((data[name] for name in _LISTS if isinstance(data.get(name), list)), None)
    return messages is not None and ("messagesTree" in data or any(map(is_message, messages)))


def is_message(data: Any) -> bool:
    """Whether a JSON value is a message of this format: of a list that has nothing around it."""
    return isinstance(data, Mapping) and "messageId" in data and ("text" in data or "content" in data)


def read(data: Any, key: str | None = None) -> ConversationState:
    """A conversation of a LibreChat export.

    Args:
        data: the object with `messages` or `messagesTree`.
        key: its key, where the export is an object of conversations; the id of one that has none of its own.

    Raises:
        InvalidInputError: it cannot be read as one tree of messages; says where.
    """
    held = next((name for name in _LISTS if isinstance(object_at(data).get(name), list)), "messages")
    own = ("conversationId", held)
    metadata = {name: value for name, value in data.items() if name not in own}
    return _conversation(text_field(data, "conversationId") or key, list_field(data, held), held, metadata)


def read_messages(rows: Sequence[Row]) -> Joined:
    """The conversations of a list of messages, each with the position of its first one; or the reason why not."""
    lists: dict[Any, list[Row]] = {}
    for position, message in rows:
        name = message.get("conversationId")
        lists.setdefault(name if isinstance(name, str) else None, []).append((position, message))
    for name, messages in lists.items():
        try:
            yield messages[0][0], _conversation(name, [message for _, message in messages], "messages", {})
        except InvalidInputError as error:
            yield messages[0][0], str(error)


def _conversation(
    conversation_id: str | None, messages: list[Any], held: str, metadata: dict[str, Any]
) -> ConversationState:
    said: dict[str, list[Draft]] = {}
    for message, where, parent in _in_order(messages, held):
        parts = _read_message(message, where, parent, conversation_id)
        if parts[0].source_id in said:
            raise InvalidInputError(f"{where[:-1]}: the id {parts[0].source_id!r} is there twice")
        said[parts[0].source_id] = parts
    metadata = {"source_format": NAME, **metadata}
    options = metadata.get("options")
    if isinstance(options, Mapping) and isinstance(options.get("model"), str):
        metadata.setdefault("model", options["model"])
    return grow(conversation_id, link_parts(said), current=None, metadata=metadata, created_at=None, updated_at=None)


def _in_order(messages: list[Any], held: str) -> Iterator[tuple[Mapping[str, Any], str, str | None]]:
    """Each message, where it is, and the message that it lies in; parents first."""
    waiting: list[tuple[Any, str, str | None]] = [(one, f"{held}[{n}].", None) for n, one in enumerate(messages)]
    waiting.reverse()
    while waiting:
        message, where, parent = waiting.pop()
        yield object_at(message, where), where, parent
        children = message.get("children")
        if children is None:
            continue
        name = text_field(message, "messageId", where)
        # Only the tail of the path is named, because a deep tree's whole path grows with its depth.
        below = list_field(message, "children", where)
        waiting.extend((one, f"child {n} of {name}.", name) for n, one in reversed(list(enumerate(below))))


def _read_message(
    message: Mapping[str, Any], where: str, above: str | None, conversation_id: str | None
) -> list[Draft]:
    source_id = text_field(message, "messageId", where)
    parent = text_field(message, "parentMessageId", where)
    if source_id is None:
        raise InvalidInputError(f"{where}messageId: expected a string, found nothing")
    left = {name: value for name, value in message.items() if name not in ("messageId", "children")}
    if left.get("conversationId") == conversation_id:
        left.pop("conversationId", None)
    if parent == _NOBODY:
        parent = None
    elif parent is not None:
        del left["parentMessageId"]
    if above is not None and parent not in (None, above):
        raise InvalidInputError(f"{where}parentMessageId: {parent!r} is not the message that it lies in")
    time, exactly = read_time(message, "createdAt", where)
    if exactly:
        left.pop("createdAt", None)
    draft = Draft(source_id, None, time, parent=parent or above)
    if isinstance(message.get("model"), str):
        draft.metadata["model"] = message["model"]
    said = _read_content(left, _role(message))
    if left:
        draft.metadata["source"] = left
    return name_parts(source_id, said, draft)


def _role(message: Mapping[str, Any]) -> str:
    if isinstance(message.get("isCreatedByUser"), bool):
        return "user" if message["isCreatedByUser"] else "assistant"
    sender = message.get("sender")
    return sender.lower() if isinstance(sender, str) and sender.lower() in ("user", "system") else "assistant"


def _read_content(left: dict[str, Any], role: str) -> list[Said]:
    """The messages in the parts of a message, or in its text. What stays in `left` gives the parts back."""
    parts = left.get("content")
    if not isinstance(parts, list) or not parts:
        text = left.pop("text") if isinstance(left.get("text"), str) else None
        return [(LLMMessage(role, text), {})]
    messages = [LLMMessage(role)]
    for part in parts:
        call = part.get("tool_call") if isinstance(part, Mapping) and part.get("type") == "tool_call" else None
        if not isinstance(call, Mapping) or not isinstance(call.get("name"), str):
            if messages[-1].role == "tool":
                messages.append(LLMMessage(role))
            messages[-1].content = [*(messages[-1].content or ()), part]
            continue
        call_id = call["id"] if isinstance(call.get("id"), str) else None
        if messages[-1].role == "tool":
            messages.append(LLMMessage(role))
        made = tool_call(call["name"], "" if call.get("args") is None else call["args"], call_id)
        messages[-1].tool_calls = [*(messages[-1].tool_calls or ()), made]
        if isinstance(call.get("output"), str):
            messages.append(LLMMessage("tool", call["output"], call["name"], tool_call_id=call_id))
    if len(messages) == 1 and messages[0].tool_calls is None and _text_of(parts) is None:
        del left["content"]  # it is the message's content as it was
    for message in messages:
        if isinstance(message.content, list) and (text := _text_of(message.content)) is not None:
            message.content = text
    return [(message, {}) for message in messages]


def _text_of(parts: list[Any]) -> str | None:
    """The text that is all that the parts say; it is there in two forms."""
    if len(parts) != 1 or not isinstance(parts[0], Mapping) or parts[0].get("type") != "text":
        return None
    text = parts[0].get("text")
    value = text.get("value") if isinstance(text, Mapping) else text
    return value if isinstance(value, str) else None
