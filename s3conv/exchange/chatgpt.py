"""ChatGPT's export: one conversation with its tree in `mapping`.

Law: what has a field of ours goes there; everything else of a message, nulls included, lies verbatim under
`metadata["source"]` of its node, and everything else of the conversation under its own name in the metadata. Together
they give back all that the source said. docs/importing.md has the table.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from s3conv.errors import InvalidInputError
from s3conv.exchange.growing import Draft, grow, link
from s3conv.exchange.values import read_time, text_field
from s3conv.model.message import LLMMessage
from s3conv.model.state import ConversationState

_OWN = frozenset(("mapping", "current_node", "create_time", "update_time", "id", "conversation_id"))
_NODE_OWN = frozenset(("id", "message", "parent", "children"))


def read(data: Mapping[str, Any], key: str | None = None) -> ConversationState:
    """A conversation of a ChatGPT export.

    Args:
        data: the object with `mapping`.
        key: its key, where the export is an object of conversations; the id of one that has none of its own.

    Raises:
        InvalidInputError: it cannot be read as one tree of messages; says where.
    """
    mapping = data.get("mapping")
    if not isinstance(mapping, Mapping):
        raise InvalidInputError(f"mapping: expected an object, found {type(mapping).__name__}")
    drafts: dict[str, Draft] = {}
    listed: dict[str, list[str]] = {}
    for name, node in mapping.items():
        drafts[name], listed[name] = _draft(name, node)
    for name, children in listed.items():
        # An export that was cut off names messages that it does not hold; what it holds is a tree all the same.
        if missing := [child for child in children if child not in drafts]:
            drafts[name].metadata.setdefault("source", {}).setdefault("node", {})["children"] = missing
            listed[name] = [child for child in children if child in drafts]
    link(drafts, listed)

    own_id, other_id = text_field(data, "conversation_id"), text_field(data, "id")
    conversation_id = own_id or other_id or key
    metadata: dict[str, Any] = {"source_format": "chatgpt"}
    metadata.update((name, value) for name, value in data.items() if name not in _OWN)
    if isinstance(data.get("default_model_slug"), str):
        metadata.setdefault("model", data["default_model_slug"])
    metadata.update(
        (name, data[name]) for name in ("conversation_id", "id") if name in data and data[name] != conversation_id
    )
    created_at, created_exactly = read_time(data, "create_time")
    updated_at, updated_exactly = read_time(data, "update_time")
    if not created_exactly:
        metadata["create_time"] = data["create_time"]
    if not updated_exactly:
        metadata["update_time"] = data["update_time"]
    current = data.get("current_node")
    if "current_node" in data and not (isinstance(current, str) and current in drafts):
        metadata["current_node"] = current
    return grow(
        conversation_id,
        drafts,
        current=current if isinstance(current, str) else None,
        metadata=metadata,
        created_at=created_at,
        updated_at=updated_at,
    )


def _draft(name: str, node: Any) -> tuple[Draft, list[str]]:
    where = f"mapping.{name}."
    if not isinstance(node, Mapping):
        raise InvalidInputError(f"{where[:-1]}: expected an object, found {type(node).__name__}")
    children = node.get("children")
    if children is not None and not (isinstance(children, list) and all(isinstance(child, str) for child in children)):
        raise InvalidInputError(f"{where}children: expected a list of ids")
    beside = {field: value for field, value in node.items() if field not in _NODE_OWN}
    if node.get("id", name) != name:
        beside["id"] = node["id"]
    draft = Draft(name, None, parent=text_field(node, "parent", where))
    source: dict[str, Any] = {}
    if node.get("message") is not None:
        source = _read_message(draft, node["message"], f"{where}message.")
    if beside:
        source["node"] = beside
    if source:
        draft.metadata["source"] = source
    return draft, children or []


def _read_message(draft: Draft, message: Any, where: str) -> dict[str, Any]:
    """Fill in the draft's message, time and model; return what of the source has no field of ours."""
    if not isinstance(message, Mapping):
        raise InvalidInputError(f"{where[:-1]}: expected an object, found {type(message).__name__}")
    left = dict(message)
    if left.get("id") == draft.source_id:
        del left["id"]
    role, name = _take_author(left, where)
    content = _take_content(left, where)
    calls, call, answered = left.get("tool_calls"), left.get("function_call"), left.get("tool_call_id")
    draft.message = LLMMessage(
        role,
        content,
        name,
        tool_calls=left.pop("tool_calls") if isinstance(calls, list) and calls else None,
        function_call=left.pop("function_call") if isinstance(call, dict) else None,
        tool_call_id=left.pop("tool_call_id") if isinstance(answered, str) else None,
    )
    draft.time, exactly = read_time(message, "create_time", where)
    if exactly:
        left.pop("create_time", None)
    about = message.get("metadata")
    if isinstance(about, Mapping) and isinstance(about.get("model_slug"), str):
        draft.metadata["model"] = about["model_slug"]
    return left


def _take_author(left: dict[str, Any], where: str) -> tuple[str, str | None]:
    author = left.pop("author", None)
    if not isinstance(author, Mapping):
        raise InvalidInputError(f"{where}author: expected an object, found {type(author).__name__}")
    author = dict(author)
    role = text_field(author, "role", f"{where}author.")
    if role is None:
        raise InvalidInputError(f"{where}author.role: expected a string, found nothing")
    del author["role"]
    name = author.pop("name") if isinstance(author.get("name"), str) else None
    if author:
        left["author"] = author
    return role, name


def _take_content(left: dict[str, Any], where: str) -> str | list[Any] | None:
    """The content: a text, or a list of parts; what is beside it (its type, a language …) stays in `left`."""
    content = left.pop("content", None)
    if content is None or isinstance(content, str | list):
        return content
    if not isinstance(content, Mapping):
        raise InvalidInputError(f"{where}content: expected an object, found {type(content).__name__}")
    beside = dict(content)
    parts, text = beside.get("parts"), beside.get("text")
    taken: str | list[Any]
    if isinstance(parts, list):
        del beside["parts"]
        plain = beside.get("content_type", "text") == "text" and len(parts) == 1 and isinstance(parts[0], str)
        taken = parts[0] if plain else parts
    elif isinstance(text, str) and "parts" not in beside:
        taken = beside.pop("text")
    else:
        # Thoughts, browsing, profiles: a part of its own, so that its type says how to read it.
        return [beside]
    if beside:
        left["content"] = beside
    return taken
