"""OpenAssistant's forms: trees (`prompt` with nested `replies`), and flat lists of messages that name their parent.

Law: as for ChatGPT, what has no field of ours lies verbatim under `metadata["source"]` of its node, and everything
else of a tree under its own name in the conversation's metadata.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from s3conv.errors import InvalidInputError
from s3conv.exchange.found import Joined, Row
from s3conv.exchange.growing import Draft, grow, link
from s3conv.exchange.values import read_time, text_field
from s3conv.model.message import LLMMessage
from s3conv.model.state import ConversationState

_ROLES = {"prompter": "user"}
_IDS = ("user_message_id", "message_id")
_PARENTS = ("parent_message_id", "parent_id")


def is_message(data: Any) -> bool:
    """Whether a JSON value is a message of a flat list."""
    return isinstance(data, Mapping) and "role" in data and "text" in data and any(name in data for name in _IDS)


def read_tree(data: Mapping[str, Any]) -> ConversationState:
    """A conversation from a tree.

    Raises:
        InvalidInputError: it cannot be read; says where.
    """
    drafts: dict[str, Draft] = {}
    listed: dict[str, list[str]] = {}
    waiting: list[tuple[Any, str, str | None]] = [(data.get("prompt"), "prompt", None)]
    while waiting:
        message, where, parent = waiting.pop()
        if not isinstance(message, Mapping):
            raise InvalidInputError(f"{where}: expected an object, found {type(message).__name__}")
        draft = _draft(message, f"{where}.", parent)
        if draft.source_id in drafts:
            raise InvalidInputError(f"{where}: the message id {draft.source_id!r} is there twice")
        draft.parent = parent
        drafts[draft.source_id], listed[draft.source_id] = draft, []
        if parent is not None:
            listed[parent].append(draft.source_id)
        replies = message.get("replies")
        if replies is not None and not isinstance(replies, list):
            raise InvalidInputError(f"{where}.replies: expected a list, found {type(replies).__name__}")
        # Only the tail of the path is named, because a deep tree's whole path grows with its depth.
        below = [(reply, f"reply {n} to {draft.source_id}", draft.source_id) for n, reply in enumerate(replies or ())]
        waiting.extend(reversed(below))
    link(drafts, listed)
    metadata = {name: value for name, value in data.items() if name not in ("prompt", "message_tree_id")}
    tree_id = text_field(data, "message_tree_id")
    return _conversation(tree_id or next(iter(drafts)), drafts, metadata)


def read_flat(rows: Sequence[Row]) -> Joined:
    """The conversations of a flat list, each with the position of its first message; or the reason why not."""
    drafts: dict[str, Draft] = {}
    positions: dict[str, str] = {}
    trees: dict[str, str] = {}
    bad: dict[str, str] = {}
    for position, row in rows:
        try:
            draft = _draft(row, "", None)
            tree = text_field(row, "message_tree_id")
        except InvalidInputError as error:
            yield position, str(error)
            continue
        if draft.source_id in drafts:
            bad[draft.source_id] = f"the message id {draft.source_id!r} is there twice (again at {position})"
            continue
        drafts[draft.source_id], positions[draft.source_id] = draft, position
        if tree is not None:
            trees[draft.source_id] = tree
    children: dict[str, list[str]] = {name: [] for name in drafts}
    for name, draft in drafts.items():
        if draft.parent in children:
            children[draft.parent].append(name)
    reached: set[str] = set()
    for root, draft in drafts.items():
        if draft.parent in drafts:
            continue
        members = _below(root, children)
        reached.update(members)
        reason = next((bad[name] for name in members if name in bad), None)
        if draft.parent is not None:
            reason = f"message {root!r}: its parent {draft.parent!r} is missing"
        yield positions[root], reason or _flat_tree(root, members, drafts, children, trees)
    lost = next((name for name in drafts if name not in reached), None)
    if lost is not None:
        yield positions[lost], f"message {lost!r} is in a cycle of parents, or below one"


def _flat_tree(
    root: str,
    members: list[str],
    drafts: Mapping[str, Draft],
    children: Mapping[str, list[str]],
    trees: Mapping[str, str],
) -> ConversationState | str:
    own = {name: drafts[name] for name in members}
    for name in members:
        own[name].children = children[name]
    try:
        return _conversation(trees.get(root, root), own, {})
    except InvalidInputError as error:
        return str(error)


def _below(root: str, children: Mapping[str, list[str]]) -> list[str]:
    members, waiting = [], [root]
    while waiting:
        name = waiting.pop()
        members.append(name)
        waiting.extend(reversed(children[name]))
    return members


def _conversation(conversation_id: str, drafts: Mapping[str, Draft], metadata: dict[str, Any]) -> ConversationState:
    metadata = {"source_format": "oasst", **metadata}
    return grow(conversation_id, drafts, current=None, metadata=metadata, created_at=None, updated_at=None)


def _draft(message: Mapping[str, Any], where: str, parent: str | None) -> Draft:
    id_name = next((name for name in _IDS if name in message), _IDS[-1])
    source_id = text_field(message, id_name, where)
    role = text_field(message, "role", where)
    text = message.get("text")
    if source_id is None or role is None:
        raise InvalidInputError(f"{where}{'role' if source_id else id_name}: expected a string, found nothing")
    if text is not None and not isinstance(text, str):
        raise InvalidInputError(f"{where}text: expected a string, found {type(text).__name__}")
    left = {name: value for name, value in message.items() if name not in (id_name, "text", "replies")}
    if role not in _ROLES:
        del left["role"]
    parent_name = next((name for name in _PARENTS if name in message), _PARENTS[0])
    said_parent = text_field(message, parent_name, where)
    if parent is not None and said_parent not in (None, parent):
        raise InvalidInputError(f"{where}{parent_name}: {said_parent!r} is not the message that it replies to")
    if said_parent is not None:
        del left[parent_name]
    time, exactly = read_time(message, "created_date", where)
    if exactly:
        left.pop("created_date", None)
    draft = Draft(source_id, LLMMessage(_ROLES.get(role, role), text), time, parent=said_parent)
    if isinstance(message.get("model_name"), str):
        draft.metadata["model"] = message["model_name"]
    if left:
        draft.metadata["source"] = left
    return draft
