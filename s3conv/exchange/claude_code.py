"""Claude Code's sessions: JSON lines, each a message that names the one before it (`parentUuid`), or something else.

Law: a message is a line with a `uuid`. Every other line (summaries, snapshots of files, queue operations) is kept
verbatim where it stood: under `source.before` of the next message, or in the metadata after the last. A session that
goes on from another names a parent that is not in the file: such a message begins a tree of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from s3conv.errors import InvalidInputError
from s3conv.exchange.blocks import name_parts, read_blocks
from s3conv.exchange.found import Joined, Row
from s3conv.exchange.growing import Draft, grow, link_parts
from s3conv.exchange.values import object_at, read_time, text_field
from s3conv.model.message import LLMMessage
from s3conv.model.state import ConversationState

NAME = "claude-code"
_TITLES = {"summary": "summary", "ai-title": "aiTitle", "custom-title": "customTitle"}
_FROM_FIRST_LINE = ("cwd", "gitBranch", "version")


@dataclass(slots=True)
class _Session:
    """The lines of one session, or of one agent that it started."""

    position: str
    session_id: str | None
    agent_id: str | None = None
    lines: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    before: dict[str, list[Mapping[str, Any]]] = field(default_factory=dict)
    after: list[Mapping[str, Any]] = field(default_factory=list)
    problem: str | None = None


def is_line(data: Any) -> bool:
    """Whether a JSON value is a line of a session."""
    if not isinstance(data, Mapping) or not isinstance(data.get("type"), str):
        return False
    return (
        isinstance(data.get("sessionId"), str)
        or ("uuid" in data and "parentUuid" in data)
        or (data["type"] == "summary" and "leafUuid" in data)
        or data["type"] == "file-history-snapshot"
    )


def read_lines(rows: Sequence[Row]) -> Joined:
    """The sessions in the lines of a file, each with the position of its first line; or the reason why not."""
    for session in _sessions(rows):
        try:
            yield session.position, _read(session) if session.problem is None else session.problem
        except InvalidInputError as error:
            yield session.position, str(error)


def _sessions(rows: Sequence[Row]) -> list[_Session]:
    sessions: dict[tuple[str | None, str | None], _Session] = {}
    waiting: list[Row] = []
    last: _Session | None = None
    for position, line in rows:
        session_id = line["sessionId"] if isinstance(line.get("sessionId"), str) else None
        uuid = line.get("uuid")
        if not isinstance(uuid, str):
            waiting.append((position, line))
            continue
        agent_id = line.get("agentId") if line.get("isSidechain") is True else None
        name = session_id, agent_id if isinstance(agent_id, str) else None
        last = sessions.setdefault(name, _Session(waiting[0][0] if waiting else position, *name))
        if uuid not in last.lines:
            last.lines[uuid] = line
            last.before[uuid] = [other for _, other in waiting]
            waiting = []
        elif last.lines[uuid] != line:
            last.problem = f"the message id {uuid!r} is there twice (again at {position})"
    if waiting and last is None:
        ids = (line["sessionId"] for _, line in waiting if isinstance(line.get("sessionId"), str))
        last = sessions[None, None] = _Session(waiting[0][0], next(ids, None))
    if last is not None:
        last.after = [line for _, line in waiting]
    return list(sessions.values())


def _read(session: _Session) -> ConversationState:
    said: dict[str, list[Draft]] = {}
    current: str | None = None
    for uuid, line in session.lines.items():
        said[uuid] = _read_line(uuid, line, session)
        if line.get("isSidechain") is not True:
            current = uuid
    metadata: dict[str, Any] = {"source_format": NAME}
    first = next(iter(session.lines.values()), {})
    metadata.update((name, first[name]) for name in _FROM_FIRST_LINE if first.get(name) is not None)
    model = next((parts[0].metadata["model"] for parts in said.values() if "model" in parts[0].metadata), None)
    if model is not None:
        metadata["model"] = model
    if (title := _title(session)) is not None:
        metadata["title"] = title
    if session.agent_id is not None:
        metadata["sessionId"] = session.session_id
    if session.after or any(session.before.values()):  # an empty one too: those that were there may have moved
        metadata["trailing_lines"] = session.after  # after the title in the alphabet: the index keeps that first
    name = session.session_id
    return grow(
        f"{name}.{session.agent_id}" if name and session.agent_id else name,
        link_parts(said),
        current=said[current][-1].source_id if current is not None else None,
        metadata=metadata,
        created_at=None,
        updated_at=None,
    )


def _title(session: _Session) -> str | None:
    """The latest name of the session; a summary counts if it is of this one, and not of the one before."""
    title, chosen = None, False
    for line in [line for lines in session.before.values() for line in lines] + session.after:
        kind = line.get("type")
        text = line.get(_TITLES[kind]) if isinstance(kind, str) and kind in _TITLES else None
        about = line.get("leafUuid")
        if not isinstance(text, str) or (kind == "summary" and not (isinstance(about, str) and about in session.lines)):
            continue
        if kind == "custom-title" or not chosen:
            title, chosen = text, chosen or kind == "custom-title"
    return title


def _read_line(uuid: str, line: Mapping[str, Any], session: _Session) -> list[Draft]:
    where = f"message {uuid!r}: "
    left = {name: value for name, value in line.items() if name != "uuid"}
    if left.get("sessionId") == session.session_id:
        left.pop("sessionId", None)
    parent = text_field(line, "parentUuid", where)
    if parent in session.lines:
        del left["parentUuid"]
    else:
        parent = None
    time, exactly = read_time(line, "timestamp", where)
    if exactly:
        left.pop("timestamp", None)
    draft = Draft(uuid, None, time, parent=parent)
    said: list[tuple[LLMMessage, dict[str, Any]]] = []
    if "message" in line:
        said = _read_message(draft, left, where)
    elif isinstance(line.get("content"), str):
        said = [(LLMMessage("system", left.pop("content")), {})]
    if session.before[uuid]:
        left["before"] = session.before[uuid]
    if left:
        draft.metadata["source"] = left
    return name_parts(uuid, said, draft) or [draft]


def _read_message(draft: Draft, left: dict[str, Any], where: str) -> list[tuple[LLMMessage, dict[str, Any]]]:
    message = dict(object_at(left.pop("message"), f"{where}message"))
    role = text_field(message, "role", f"{where}message.")
    content = message.pop("content", None)
    if role is None:
        raise InvalidInputError(f"{where}message.role: expected a string, found nothing")
    if not isinstance(content, str | list | None):
        raise InvalidInputError(f"{where}message.content: expected a text or blocks, found {type(content).__name__}")
    del message["role"]
    if left.get("type") == role:
        del left["type"]
    if isinstance(message.get("model"), str):
        draft.metadata["model"] = message["model"]
    if message:
        left["message"] = message
    return read_blocks(role, content)
