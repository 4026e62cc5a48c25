"""A conversation on its way out: its stored form, checked as far as the writers rely on it, and its branches.

Law: no tree is built. A stored form has its nodes in a list, parents first, so that a branch is a walk over positions,
and what was decoded once is written as it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import NoneType
from typing import Any, Literal

from s3conv.errors import CorruptError, InvalidInputError
from s3conv.format.document import state_from_stored
from s3conv.model.schema import migrate, shown
from s3conv.model.state import ConversationState

Branches = Literal["current", "leaves", "tree"]
"""The branch that the conversation stands at; every branch, each as a conversation of its own; or all in one."""

_TYPES: tuple[tuple[str, type | tuple[type, ...]], ...] = (
    ("role", str),
    ("content", (str, list, NoneType)),
    ("name", (str, NoneType)),
    ("tool_calls", (list, NoneType)),
    ("function_call", (dict, NoneType)),
    ("tool_call_id", (str, NoneType)),
)


@dataclass(frozen=True, slots=True)
class Chat:
    """A conversation in the stored form of today's schema. `nodes` and the `message` of each are objects."""

    fields: dict[str, Any]

    @property
    def conversation_id(self) -> str:
        """Its id."""
        return str(self.fields["conversation_id"])

    @property
    def nodes(self) -> list[dict[str, Any]]:
        """Its messages' places, parents first."""
        nodes: list[dict[str, Any]] = self.fields["nodes"]
        return nodes

    @property
    def metadata(self) -> dict[str, Any]:
        """What is known about it."""
        return self.fields.get("metadata") or {}

    @property
    def current(self) -> int:
        """The position of the message that it stands at."""
        return self.fields.get("current") or 0

    def leaves(self) -> list[int]:
        """The positions of the last message of each branch."""
        inner = {node.get("parent") for node in self.nodes}
        return [position for position in range(len(self.nodes)) if position not in inner]

    def path(self, position: int) -> list[int]:
        """The positions from the root to this one."""
        steps = [position]
        while position:
            position = self.nodes[position]["parent"]
            steps.append(position)
        return steps[::-1]

    def state(self) -> ConversationState:
        """The conversation as a state."""
        return state_from_stored(self.fields)


def read_chat(fields: dict[str, Any], what: str) -> Chat:
    """Check a stored form.

    Args:
        fields: of any schema version that can be migrated; with its id, which is known to be a text.
        what: the object's name, for errors.

    Raises:
        CorruptError: it is no conversation; says where.
        SchemaVersionError: it was written by a newer MAJOR version.
    """
    try:
        fields = migrate(fields)
        _check(fields)
    except InvalidInputError as error:
        raise CorruptError(f"{what} is not a conversation: {error}") from None
    return Chat(fields)


def _check(fields: dict[str, Any]) -> None:
    nodes, metadata, current = fields.get("nodes"), fields.get("metadata"), fields.get("current")
    if not isinstance(nodes, list) or not nodes:
        raise InvalidInputError("nodes: expected a list of at least one node")
    if not isinstance(metadata, dict | None):
        raise InvalidInputError(f"metadata: expected an object, found {type(metadata).__name__}")
    if current is not None and (type(current) is not int or not 0 <= current < len(nodes)):
        raise InvalidInputError(f"current: expected a position from 0 to {len(nodes) - 1}, found {shown(current)}")
    for position, node in enumerate(nodes):
        if not isinstance(node, dict) or not isinstance(message := node.get("message"), dict):
            raise InvalidInputError(f"nodes[{position}]: expected an object with an object 'message'")
        parent = node.get("parent")
        if (parent is not None) if position == 0 else (type(parent) is not int or not 0 <= parent < position):
            raise InvalidInputError(f"nodes[{position}].parent: expected an earlier position, found {shown(parent)}")
        for name, kinds in _TYPES:
            if not isinstance(message.get(name), kinds):
                found = type(message.get(name)).__name__
                raise InvalidInputError(f"nodes[{position}].message.{name} cannot be a {found}")


def chosen(chat: Chat, branches: Branches) -> Iterator[Chat]:
    """The conversation as it is to be written: whole, or its branches as linear conversations.

    Of several leaves each gets an id of its own, `<id>#1`, `#2` …, in the order of the tree, and the metadata
    `source_conversation_id`. (An import gives ids with `~2`, but none with `#`.)
    """
    if branches == "tree":
        yield chat
    elif branches == "current":
        yield _linear(chat, chat.current, {})
    else:
        leaves = chat.leaves()
        for number, leaf in enumerate(leaves, 1):
            own: dict[str, Any] = {}
            if len(leaves) > 1:
                own["conversation_id"] = f"{chat.conversation_id}#{number}"
                own["metadata"] = {**chat.metadata, "source_conversation_id": chat.conversation_id}
            yield _linear(chat, leaf, own)


def _linear(chat: Chat, end: int, own: dict[str, Any]) -> Chat:
    nodes = [chat.nodes[position] for position in chat.path(end)]
    rows = [nodes[0], *({**node, "parent": before} for before, node in enumerate(nodes[1:]))]
    fields = {**chat.fields, **own, "nodes": rows}
    if len(rows) > 1 or "current" in fields:
        fields["current"] = len(rows) - 1
    return Chat(fields)
