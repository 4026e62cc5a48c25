"""Claude.ai's export: one conversation with its messages in `chat_messages`.

Law: as for ChatGPT, what has no field of ours lies verbatim under `metadata["source"]` of its node, and everything
else of the conversation under its own name in the metadata.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from s3conv.errors import InvalidInputError
from s3conv.exchange.blocks import name_parts, read_blocks
from s3conv.exchange.growing import Draft, grow, link_parts
from s3conv.exchange.values import list_field, object_at, read_time, text_field
from s3conv.model.state import ConversationState

NAME = "claude"
_OWN = frozenset(("chat_messages", "uuid", "current_leaf_message_uuid"))
_ROLES = {"human": "user", "assistant": "assistant"}
_NOBODY = re.compile("0{8}-0{4}-[04]0{3}-[08]0{3}-0{12}")
"""The id that a first message names as its parent."""


def is_conversation(data: Any) -> bool:
    """Whether a JSON value is a conversation of this format."""
    return isinstance(data, Mapping) and "chat_messages" in data


def read(data: Any, key: str | None = None) -> ConversationState:
    """A conversation of a Claude.ai export.

    Args:
        data: the object with `chat_messages`.
        key: its key, where the export is an object of conversations; the id of one that has none of its own.

    Raises:
        InvalidInputError: it cannot be read as one tree of messages; says where.
    """
    messages = list_field(object_at(data), "chat_messages")
    said: dict[str, list[Draft]] = {}
    for number, message in enumerate(messages):
        parts = _read_message(message, f"chat_messages[{number}].", number)
        if parts[0].source_id in said:
            raise InvalidInputError(f"chat_messages[{number}]: the id {parts[0].source_id!r} is there twice")
        said[parts[0].source_id] = parts
    # Old exports name no parents: their messages are in the order in which they were said.
    if not any(isinstance(message.get("parent_message_uuid"), str) for message in messages):
        for above, below in zip(list(said), list(said)[1:], strict=False):
            said[below][0].parent = above

    conversation_id = text_field(data, "uuid") or key
    metadata: dict[str, Any] = {"source_format": NAME}
    metadata.update((name, value) for name, value in data.items() if name not in _OWN)
    if metadata.get("conversation_id") == conversation_id:
        metadata.pop("conversation_id", None)
    if isinstance(data.get("name"), str) and "title" not in data:
        metadata["title"] = metadata.pop("name")
    created_at, created_exactly = read_time(data, "created_at")
    updated_at, updated_exactly = read_time(data, "updated_at")
    for name, exactly in (("created_at", created_exactly), ("updated_at", updated_exactly)):
        if exactly:
            metadata.pop(name, None)
    current = data.get("current_leaf_message_uuid")
    if "current_leaf_message_uuid" in data and not (isinstance(current, str) and current in said):
        metadata["current_leaf_message_uuid"] = current
    return grow(
        conversation_id,
        link_parts(said),
        current=said[current][-1].source_id if isinstance(current, str) and current in said else None,
        metadata=metadata,
        created_at=created_at,
        updated_at=updated_at,
    )


def _read_message(message: Any, where: str, number: int) -> list[Draft]:
    left = dict(object_at(message, where))
    source_id = text_field(left, "uuid", where)
    sender = text_field(left, "sender", where)
    parent = text_field(left, "parent_message_uuid", where)
    if sender is None:
        raise InvalidInputError(f"{where}sender: expected a string, found nothing")
    content = left.pop("content", None)
    if not isinstance(content, str | list | None):
        raise InvalidInputError(f"{where}content: expected a list of blocks, found {type(content).__name__}")
    text = left.get("text")
    if not content and isinstance(text, str):
        # Older exports have only the text; newer ones may have empty content beside it.
        if "content" in message:
            left["content"] = content
        content = left.pop("text")
    said = read_blocks(_ROLES.get(sender, sender), content)
    if text is not None and text == said[0][0].content:
        left.pop("text", None)
    left.pop("uuid", None)
    if sender in _ROLES:
        del left["sender"]
    if parent is None or _NOBODY.fullmatch(parent):
        parent = None
    else:
        del left["parent_message_uuid"]
    time, exactly = read_time(left, "created_at", where)
    if exactly:
        left.pop("created_at", None)
    draft = Draft(source_id or str(number), None, time, parent=parent, named=source_id is not None)
    if isinstance(left.get("model"), str):
        draft.metadata["model"] = left["model"]
    draft.metadata["source"] = left
    return name_parts(draft.source_id, said, draft)
