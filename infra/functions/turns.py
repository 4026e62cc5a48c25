"""A turn: the messages that one request appends, and how a conversation is shown.

Law: pure. What a request says is checked before anything is read or written, field by field; a field that is not known
is refused, and nobody sets who owns a conversation or how a message is named for its repeats.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from events import Refused, can_be_sent
from s3conv import ConversationNode, ConversationState, LLMMessage
from s3conv.model.state import IDEMPOTENCY_KEY
from tenants import OWNER

MOST_MESSAGES = 100
"""Messages in one request."""

MAX_MESSAGE, MAX_METADATA = 5_500_000, 65_536
"""Most bytes that a message, and the metadata of a conversation, may take of an answer. Together they leave some of
`events.MAX_ANSWER` for ids, so that whatever is kept can be shown, one message at a time."""

MAX_CONVERSATION = 16 * 1024 * 1024
"""Most bytes of memory that the messages of a conversation may take to be appended to. A turn that merges needs them up
to twelve times over, and has 512 MB and the share of a processor that comes with it."""

_MESSAGE: Mapping[str, tuple[type, ...]] = {
    "role": (str,),
    "content": (str, list, type(None)),
    "name": (str,),
    "tool_calls": (list,),
    "function_call": (dict,),
    "tool_call_id": (str,),
    "branch_name": (str,),
    "metadata": (dict,),
}
_TURN: Mapping[str, tuple[type, ...]] = {
    "messages": (list, dict),
    "parent": (str,),
    "user_id": (str,),
    "title": (str,),
    "metadata": (dict,),
}
_NAMES = {str: "a string", list: "a list", dict: "an object", type(None): "null"}

RESERVED = (OWNER, "tenant", "user_id", "title")
"""Keys that the metadata of a request cannot have. The last two are fields of their own."""


class ParentMissing(Refused):
    """There is no node with the id that a turn names as its parent: in this version of the conversation."""


@dataclass(frozen=True, slots=True)
class Appended:
    """The nodes of a turn's messages, and the times that this delivery of it gave them; None: they were there."""

    nodes: Sequence[ConversationNode]
    times: Sequence[datetime] | None

    @property
    def is_new(self) -> bool:
        """Whether it is this delivery that has added them; to be asked after the save.

        If another delivery was faster, the merge has let its messages stand, with their times.
        """
        return self.times is not None and all(
            node.timestamp is time for node, time in zip(self.nodes, self.times, strict=True)
        )


@dataclass(frozen=True, slots=True)
class Turn:
    """What one request appends. `metadata` counts only for a conversation that begins with it."""

    messages: Sequence[Mapping[str, Any]]
    parent: str | None
    metadata: Mapping[str, Any]

    def append_to(self, state: ConversationState, key: str) -> Appended:
        """Append the messages, each below the one before, unless they are there already.

        Raises:
            ParentMissing: there is no such parent.
            Refused: the key is that of another request, which had more messages or fewer; or the conversation would
                become too large.
        """
        keys = [f"{key}/{number}" for number in range(len(self.messages))]
        begun = state.get_current_node() is not None
        nodes_there = state.message_tree.walk() if begun else ()
        found = (node.data.metadata.get(IDEMPOTENCY_KEY) for node in nodes_there)
        known = {one for one in found if isinstance(one, str)}  # an import may have left something else
        repeated = [one in known for one in keys]
        if any(repeated) != all(repeated) or f"{key}/{len(keys)}" in known:
            raise _other_request()
        if self.parent is not None and not (begun and state.path_to(self.parent)):
            raise ParentMissing(400, "parent: there is no node with this id in the conversation")
        nodes: list[ConversationNode] = []
        for message, one in zip(self.messages, keys, strict=True):
            parent = nodes[-1] if nodes else self.parent
            nodes.append(state.add_message(**message, parent=parent, idempotency_key=one))
        if any(repeated):
            return Appended(nodes, None)
        if memory_of(state) > MAX_CONVERSATION:
            raise Refused(
                413, f"expected a conversation of at most {MAX_CONVERSATION:,} bytes in memory: begin another one"
            )
        return Appended(nodes, [node.timestamp for node in nodes])

    def check_said(self, nodes: Sequence[ConversationNode]) -> None:
        """See to it that what is stored under this request's key is what it says.

        Also after a save: of two requests at once the first counts.

        Raises:
            Refused: the key was used for other messages, or below another parent.
        """
        first = nodes[0].node_id
        if self.parent is not None and (not first or first.rpartition(".")[0] != self.parent):
            raise _other_request()
        for message, node in zip(self.messages, nodes, strict=True):
            said = {name: value for name, value in message.items() if name not in ("branch_name", "metadata")}
            metadata = {name: value for name, value in node.metadata.items() if name != IDEMPOTENCY_KEY}
            if (LLMMessage(**said).to_dict(), message.get("branch_name"), message.get("metadata", {})) != (
                node.message.to_dict(),
                node.branch_name,
                metadata,
            ):
                raise _other_request()


def memory_of(state: ConversationState) -> int:
    """The memory that the messages of a conversation take, in bytes, nearly.

    Their JSON would not tell: of a text with one emoji, each character takes four bytes, and an empty list 64.
    """
    size = 0
    values: list[Any] = [place.data.fields_to_dict() for place in state.message_tree.walk()]
    while values:
        value = values.pop()
        size += sys.getsizeof(value)
        if isinstance(value, dict):
            values += value
            values += value.values()
        elif isinstance(value, list):
            values += value
    return size


def _other_request() -> Refused:
    return Refused(422, "this Idempotency-Key was used for another request of this conversation: choose a new one")


def read_turn(value: object) -> Turn:
    """Read the body of a request.

    Raises:
        Refused: it is not what is expected; says where.
    """
    body = _fields(value, _TURN, "the body")
    given = body.get("messages")
    messages = given if isinstance(given, list) else [given]
    if not 1 <= len(messages) <= MOST_MESSAGES or given is None:
        raise Refused(400, f"messages: expected one message, or a list of 1 to {MOST_MESSAGES}")
    return Turn(
        [_message(one, f"messages[{n}]") for n, one in enumerate(messages)], body.get("parent"), _metadata(body)
    )


def _message(value: object, where: str) -> Mapping[str, Any]:
    message = _fields(value, _MESSAGE, where)
    if not message.get("role"):
        raise Refused(400, f"{where}.role: expected a string, such as user or assistant")
    if IDEMPOTENCY_KEY in message.get("metadata", {}):
        raise Refused(400, f"{where}.metadata: {IDEMPOTENCY_KEY!r} is set by the header Idempotency-Key")
    _check_size(message, MAX_MESSAGE, where)
    return message


def _metadata(body: Mapping[str, Any]) -> Mapping[str, Any]:
    given = body.get("metadata", {})
    for name in RESERVED:
        if name in given:
            raise Refused(400, f"metadata: {name!r} cannot be set here")
    metadata = {**given, **{name: body[name] for name in ("user_id", "title") if name in body}}
    _check_size(metadata, MAX_METADATA, "metadata, with user_id and title")
    return metadata


def _check_size(value: Mapping[str, Any], most: int, where: str) -> None:
    """See to it that what is kept can be shown."""
    try:
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    except RecursionError:
        raise Refused(400, f"{where}: expected values that are less deeply nested") from None
    if not can_be_sent(text, most):
        raise Refused(413, f"{where}: expected at most {most:,} bytes as JSON within JSON, as answers are measured")


def _fields(value: object, known: Mapping[str, tuple[type, ...]], where: str) -> Mapping[str, Any]:
    """The fields of an object, checked. One that is null where that says nothing is as if it were not there."""
    if not isinstance(value, dict):
        raise Refused(400, f"{where}: expected an object")
    for name, one in value.items():
        if name not in known:
            raise Refused(400, f"{where}: {name[:60]!a} is not known: expected {', '.join(known)}")
        if one is not None and not isinstance(one, known[name]):
            expected = " or ".join(_NAMES[kind] for kind in known[name])
            raise Refused(400, f"{where}: {name} has to be {expected}")
    return {name: one for name, one in value.items() if one is not None or type(None) in known[name]}


# --- showing -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Path:
    """The messages from the root to the node `node_id`."""

    node_id: str
    messages: list[dict[str, Any]]


def shown_messages(state: ConversationState, branch: str | None) -> Path:
    """The messages on the way to a place: a node id, the newest end of a branch with this name, the current node.

    Raises:
        Refused: there is no such node or branch.
    """
    node_id = state.current_node_id if branch is None else branch
    nodes = state.path_to(node_id) or (_path_to_named(state, branch) if branch else [])
    if not nodes:
        raise Refused(404, "branch: the conversation has no node with this id, and no branch with this name")
    return Path(nodes[-1].node_id, [_shown(node) for node in nodes])


def _path_to_named(state: ConversationState, name: str) -> list[ConversationNode]:
    named = [place for place in state.message_tree.walk() if place.data.branch_name == name]
    if not named:
        return []
    place = named[-1]
    while place.children:
        place = place.children[-1]
    return [step.data for step in place.get_path()]


def _shown(node: ConversationNode) -> dict[str, Any]:
    """A message as a request would say it, with its time."""
    metadata = {**node.message.metadata, **node.metadata}
    metadata.pop(IDEMPOTENCY_KEY, None)
    shown = {**node.message.to_dict(), "timestamp": node.timestamp.isoformat()}
    shown.pop("metadata", None)
    if node.branch_name is not None:
        shown["branch_name"] = node.branch_name
    if metadata:
        shown["metadata"] = metadata
    return shown


def shown_metadata(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The metadata of a conversation, less what the tenant has not said."""
    return {name: value for name, value in metadata.items() if name != OWNER}
