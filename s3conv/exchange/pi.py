"""Sessions of the pi coding agent: JSON lines, a header and then entries, of which those of type `message` are said.

Law: every entry has its place in the tree. What is no message (another model, a compaction, a label) is a node
without one that has the entry under `source`. Entries with ids name their parents; in older sessions each follows the
one before it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from s3conv.errors import InvalidInputError
from s3conv.exchange.blocks import Said, name_parts, read_blocks
from s3conv.exchange.found import Joined, Row
from s3conv.exchange.growing import Draft, grow, link_parts
from s3conv.exchange.values import object_at, read_time, text_field
from s3conv.model.message import LLMMessage
from s3conv.model.state import ConversationState

NAME = "pi"
_TYPES = frozenset(
    (
        "session",
        "message",
        "thinking_level_change",
        "model_change",
        "compaction",
        "branch_summary",
        "custom",
        "custom_message",
        "label",
        "session_info",
    )
)
_RESULT = "toolResult"


def is_entry(data: Any) -> bool:
    """Whether a JSON value is an entry of a session."""
    return (
        isinstance(data, Mapping)
        and isinstance(data.get("type"), str)
        and data["type"] in _TYPES
        and "timestamp" in data
        and "sessionId" not in data
        and (data["type"] != "message" or "message" in data)
    )


def read_entries(rows: Sequence[Row]) -> Joined:
    """The sessions in the entries of a file, each with the position of its header; or the reason why not."""
    sessions: list[list[Row]] = []
    for row in rows:
        if not sessions or row[1].get("type") == "session":
            sessions.append([])
        sessions[-1].append(row)
    for session in sessions:
        try:
            yield session[0][0], _read(session)
        except InvalidInputError as error:
            yield session[0][0], str(error)


def _read(session: Sequence[Row]) -> ConversationState:
    header = session[0][1] if session[0][1].get("type") == "session" else {}
    entries = session[1:] if header else session
    said: dict[str, list[Draft]] = {}
    before: str | None = None
    for number, (position, entry) in enumerate(entries):
        parts = _read_entry(entry, f"{position}: ", number, before)
        before = parts[0].source_id
        if before in said:
            raise InvalidInputError(f"{position}: the id {before!r} is there twice")
        said[before] = parts
    created_at, _ = read_time(header, "timestamp")
    metadata: dict[str, Any] = {"source_format": NAME}
    metadata.update((name, value) for name, value in header.items() if name not in ("type", "id"))
    if isinstance(header.get("modelId"), str):
        metadata["model"] = header["modelId"]
    names = [entry["name"] for _, entry in entries if entry.get("type") == "session_info" and _is_text(entry, "name")]
    if names:
        metadata["title"] = names[-1]
    drafts = link_parts(said)
    times = [draft.time for draft in drafts.values() if draft.time is not None]
    return grow(
        text_field(header, "id"),
        drafts,
        current=said[before][-1].source_id if before is not None else None,
        metadata=metadata,
        # A branched session has older messages than its header.
        created_at=min([*times, created_at]) if created_at is not None else None,
        updated_at=None,
    )


def _is_text(entry: Mapping[str, Any], name: str) -> bool:
    return isinstance(entry.get(name), str) and entry[name] != ""


def _read_entry(entry: Mapping[str, Any], where: str, number: int, before: str | None) -> list[Draft]:
    source_id = text_field(entry, "id", where)
    parent = text_field(entry, "parentId", where) if source_id is not None else before
    left = {name: value for name, value in entry.items() if name not in ("id", "parentId")}
    time, exactly = read_time(entry, "timestamp", where)
    if exactly:
        left.pop("timestamp", None)
    # In older sessions a message has no name of its own; its place in the file is the same in every copy.
    draft = Draft(source_id or f"entry {number}", None, time, parent=parent)
    said: list[Said] = []
    if entry.get("type") == "message":
        del left["type"]
        said = _read_message(draft, left, where)
    if left:
        draft.metadata["source"] = left
    return name_parts(draft.source_id, said, draft) or [draft]


def _read_message(draft: Draft, left: dict[str, Any], where: str) -> list[Said]:
    message = dict(object_at(left.pop("message", None), f"{where}message"))
    role = text_field(message, "role", f"{where}message.")
    if role is None:
        raise InvalidInputError(f"{where}message.role: expected a string, found nothing")
    del message["role"]
    content = message.pop("content") if isinstance(message.get("content"), str | list) else None
    if isinstance(message.get("model"), str):
        draft.metadata["model"] = message["model"]
    if role == _RESULT:
        calls, names = message.get("toolCallId"), message.get("toolName")
        said = read_blocks("tool", content)
        said[0][0].tool_call_id = message.pop("toolCallId") if isinstance(calls, str) else None
        said[0][0].name = message.pop("toolName") if isinstance(names, str) else None
    elif content is None and isinstance(message.get("output"), str):
        said = [(LLMMessage(role, message.pop("output")), {})]  # a command that the user ran
    else:
        said = read_blocks(role, content)
    if message:
        left["message"] = message
    return said
