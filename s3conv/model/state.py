"""`ConversationState`: one conversation in memory, and its exchange form (`to_dict`, `from_dict`).

Law: the tree is the truth. Node ids are places in it, worked out when asked for, so that a conversation of any
length takes linear time and memory to build, change and save; only the exchange form, which spells every id out, grows
faster. Nothing is dropped silently: a node list that is not exactly one tree is an error that says where.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, Literal

from s3conv.errors import InvalidInputError
from s3conv.model.joining import find_root, grow_tree, read_edges, read_ids, read_list
from s3conv.model.message import (
    Content,
    ConversationNode,
    LLMMessage,
    Source,
    add_extra,
    as_utc,
    read_time,
    typed,
    utcnow,
)
from s3conv.model.schema import SCHEMA_VERSION, migrate, shown
from s3conv.model.tree import Tree, calculate_node_id, get_node_by_id

_STATE_FIELDS = frozenset(
    (
        "schema_version",
        "conversation_id",
        "nodes",
        "edges",
        "current_node_id",
        "metadata",
        "created_at",
        "updated_at",
    )
)

IDEMPOTENCY_KEY = "idempotency_key"
"""The key of a node's metadata that `add_message(idempotency_key=…)` writes."""


class ConversationState:
    """A conversation: a tree of messages, the place where it goes on, and what is known about it.

    Args:
        conversation_id: 1 to 1,024 bytes of UTF-8; any characters.
        message_tree: the root of the tree; None for a conversation that has no message yet.
        current_node_id: the node that the next message answers; "" is the root.
        metadata: JSON values; what the index answers filters on.
        created_at, updated_at: now, if not given. A naive one is kept as it is and read as UTC by the index.
        schema_version: of the form that it is written in.
        extra: fields that this version of s3conv does not know; they survive load and save.
    """

    def __init__(
        self,
        conversation_id: str,
        message_tree: Tree[ConversationNode] | None = None,
        current_node_id: str = "",
        metadata: dict[str, Any] | None = None,
        created_at: datetime | None = None,
        updated_at: datetime | None = None,
        schema_version: str = SCHEMA_VERSION,
        *,
        extra: dict[str, Any] | None = None,
    ) -> None:
        now = utcnow()
        self.conversation_id = conversation_id
        self.metadata = metadata if metadata is not None else {}
        self.created_at = created_at if created_at is not None else now
        self.updated_at = updated_at if updated_at is not None else now
        self.schema_version = schema_version
        self.extra = extra if extra is not None else {}
        self._source: Source | None = None
        self._tree = _root(message_tree) if message_tree is not None else None
        self._current: Tree[ConversationNode] | None = None
        self._current_id = current_node_id
        self._current_read: Literal["null", "absent"] | None = None

    @classmethod
    def start(
        cls, conversation_id: str, *, system: Content = None, metadata: dict[str, Any] | None = None
    ) -> ConversationState:
        """Begin a conversation.

        Args:
            conversation_id: 1 to 1,024 bytes of UTF-8.
            system: content of a system message at the root; without one, the first message added becomes the root.
            metadata: of the conversation.
        """
        state = cls(conversation_id, metadata=metadata)
        if system is not None:
            state.add_message("system", system)
            state.updated_at = state.created_at
        return state

    # --- the tree and the place in it -------------------------------------------------------------------------

    @property
    def message_tree(self) -> Tree[ConversationNode]:
        """The root of the tree.

        Raises:
            InvalidInputError: the conversation has no message yet.
        """
        if self._tree is None:
            raise InvalidInputError(f"conversation {self.conversation_id!r} has no message yet: add one first")
        return _root(self._tree)

    @message_tree.setter
    def message_tree(self, tree: Tree[ConversationNode]) -> None:
        self._current_id = self.current_node_id
        self._current = None
        self._tree = _root(tree)

    @property
    def current_node_id(self) -> str:
        """The id of the node that the next message answers. Setting one that names no node shows when it is used."""
        return self._current_id if self._current is None else calculate_node_id(self._current)

    @current_node_id.setter
    def current_node_id(self, node_id: str) -> None:
        self._current = None
        self._current_id = node_id

    def get_current_node(self) -> Tree[ConversationNode] | None:
        """The tree node at `current_node_id`; None if it names none."""
        if self._current is None and self._tree is not None:
            self._current = get_node_by_id(self._tree, self._current_id)
        return self._current

    def set_current_node(self, node: Tree[ConversationNode]) -> None:
        """Make a node of this tree the current one; as setting `current_node_id`, at any depth in constant time."""
        self._current = node

    def get_current_messages(self) -> list[LLMMessage]:
        """The messages from the root to the current node: what a model is sent."""
        return [node.message for node in self.get_current_nodes()]

    def get_current_nodes(self) -> list[ConversationNode]:
        """The nodes from the root to the current one."""
        node = self.get_current_node()
        return [step.data for step in node.get_path()] if node is not None else []

    def get_all_nodes(self) -> list[ConversationNode]:
        """The nodes of all branches, oldest first; a naive timestamp is read as UTC."""
        nodes = [place.data for place in self._tree.walk("bfs")] if self._tree is not None else []
        return sorted(nodes, key=lambda node: as_utc(node.timestamp))

    def add_message(
        self,
        role: str,
        content: Content = None,
        *,
        name: str | None = None,
        tool_calls: list[Any] | None = None,
        function_call: dict[str, Any] | None = None,
        tool_call_id: str | None = None,
        metadata: dict[str, Any] | None = None,
        prompt_name: str | None = None,
        branch_name: str | None = None,
        timestamp: datetime | None = None,
        parent: str | ConversationNode | None = None,
        idempotency_key: str | None = None,
    ) -> ConversationNode:
        """Add a message below the current node (or below `parent`: a branch), and make it the current one.

        Args:
            role, content, name, tool_calls, function_call, tool_call_id: see `LLMMessage`.
            metadata, prompt_name, branch_name: see `ConversationNode`.
            timestamp: now, if not given. `updated_at` is set to now in any case.
            parent: a node id, or a node of this conversation.
            idempotency_key: a name for this message, such as a request id. If a message of this conversation has it
                already, nothing is added and that one is returned.

        Returns:
            The node; its `node_id` is its place.

        Raises:
            InvalidInputError: `parent`, or the current node, is not in this conversation.
        """
        if idempotency_key is not None:
            for known in self._tree.walk() if self._tree is not None else ():
                if known.data.metadata.get(IDEMPOTENCY_KEY) == idempotency_key:
                    return known.data
        place = None if self._tree is None and parent is None else self._place_of(parent)
        now = utcnow()
        node = ConversationNode(
            LLMMessage(role, content, name, tool_call_id, function_call, tool_calls),
            timestamp=timestamp if timestamp is not None else now,
            prompt_name=prompt_name,
            branch_name=branch_name,
            metadata=dict(metadata) if metadata is not None else {},
        )
        if idempotency_key is not None:
            node.metadata[IDEMPOTENCY_KEY] = idempotency_key
        if place is None:
            self._tree = self._current = Tree(node)
        else:
            self._current = place.add_child(node)
        self.updated_at = now
        return node

    def _place_of(self, parent: str | ConversationNode | None) -> Tree[ConversationNode]:
        place: Tree[ConversationNode] | None
        if parent is None:
            place, named = self.get_current_node(), self._current_id
        elif isinstance(parent, str):
            place, named = get_node_by_id(self.message_tree, parent), parent
        else:
            place, named = parent._place, repr(parent)
            if place is not None and place.root is not self._tree:
                place = None
        if place is None:
            raise InvalidInputError(
                f"conversation {self.conversation_id!r} has no node {named!r}: a message is added below a node of it"
            )
        return place

    def leaves(self) -> list[ConversationNode]:
        """The last node of each branch, in the order of the tree."""
        return [] if self._tree is None else [node.data for node in self._tree.walk() if not node.children]

    def path_to(self, node_id: str) -> list[ConversationNode]:
        """The nodes from the root to this one; empty if there is no such node."""
        node = get_node_by_id(self._tree, node_id) if self._tree is not None else None
        return [step.data for step in node.get_path()] if node is not None else []

    # --- the exchange form ------------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """The exchange form, as dataknobs reads and writes it: nodes level by level, and edges between their ids."""
        ids: dict[int, str] = {}
        nodes, edges = [], []
        for place in self.message_tree.walk("bfs"):
            node_id = ids.setdefault(id(place), "")
            if place.parent is not None:
                edges.append([ids[id(place.parent)], node_id])
            prefix = f"{node_id}." if node_id else ""
            for position, child in enumerate(place.children):
                ids[id(child)] = f"{prefix}{position}"
            nodes.append({**place.data.fields_to_dict(), "node_id": node_id})
        fields = self.fields_to_dict()
        return {
            "schema_version": fields.pop("schema_version"),
            "conversation_id": self.conversation_id,
            "nodes": nodes,
            "edges": edges,
            **self.current_field("current_node_id", self.current_node_id),
            **fields,
        }

    def to_export_dict(self) -> dict[str, Any]:
        """The messages of all branches in one list, oldest first, as dataknobs gives them to logs and interfaces."""
        messages = [node.to_dict() for node in self.get_all_nodes()]
        return {
            "conversation_id": self.conversation_id,
            "metadata": self.metadata,
            "messages": messages,
            "message_count": len(messages),
        }

    def current_field(self, name: str, value: object) -> dict[str, Any]:
        """The field that names the current node; read as null or not there, it stays so until it changes."""
        if self._current_read is None or self.get_current_node() is not self._tree:
            return {name: value}
        return {name: None} if self._current_read == "null" else {}

    def set_unnamed_current(self, read: Literal["null", "absent"]) -> None:
        """Make the root the current node, since what was read names none."""
        self.set_current_node(self.message_tree)
        self._current_read = read

    def fields_to_dict(self) -> dict[str, Any]:
        """Everything but the id, the tree and the place in it: what both forms have in common."""
        written: dict[str, Any] = {
            "schema_version": self.schema_version,
            "metadata": self.metadata,
            "created_at": self.created_at.isoformat(),
            "updated_at": self.updated_at.isoformat(),
        }
        if self._source is not None:
            self._source.restore(written, {"created_at": self.created_at, "updated_at": self.updated_at})
        if self.extra:
            add_extra(written, self.extra, _STATE_FIELDS, "")
        return written

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ConversationState:
        """Read the exchange form, of this schema version or another that can be migrated.

        `data` is not changed; the state shares its metadata and message values.

        Raises:
            InvalidInputError: it is not a conversation, or its nodes and edges are not exactly one tree; says where.
            SchemaVersionError: it was written by a newer MAJOR version.
        """
        if not isinstance(data, Mapping):
            raise InvalidInputError(f"a conversation is an object, found {type(data).__name__}")
        data = migrate(data)
        nodes = read_list(data, "nodes")
        ids = read_ids(nodes)
        parents, order = read_edges(read_list(data, "edges"), ids)
        places = grow_tree(
            [ConversationNode.from_dict(node, f"nodes[{n}].") for n, node in enumerate(nodes)],
            parents,
            order,
            find_root(list(ids), parents),
        )
        state = cls.from_fields(data, places[0].root, _STATE_FIELDS)
        current = typed(data, "current_node_id", str, "")
        if current is None:
            state.set_unnamed_current("null" if "current_node_id" in data else "absent")
        elif current in ids:
            state.set_current_node(places[ids[current]])
        else:
            raise InvalidInputError(f"current_node_id {shown(current)} names no node")
        return state

    @classmethod
    def from_fields(
        cls, data: Mapping[str, Any], tree: Tree[ConversationNode], known_fields: frozenset[str]
    ) -> ConversationState:
        """A state from what both forms have in common; fields outside of `known_fields` go to `extra`."""
        times: dict[str, tuple[str, datetime]] = {}
        conversation_id = typed(data, "conversation_id", str, "")
        if conversation_id is None:
            raise InvalidInputError("conversation_id: expected a string, found nothing")
        state = cls(
            conversation_id,
            tree,
            metadata=typed(data, "metadata", dict, ""),
            created_at=read_time(data, "created_at", "", times),
            updated_at=read_time(data, "updated_at", "", times),
            schema_version=data["schema_version"],
            extra={name: value for name, value in data.items() if name not in known_fields},
        )
        if times or data.get("metadata") is None:
            state._source = Source(
                absent=frozenset(("metadata",)) - data.keys(),
                empty={"metadata": None} if "metadata" in data and data["metadata"] is None else {},
                times=times,
            )
        return state

    def take_time(self, name: Literal["created_at", "updated_at"], other: ConversationState) -> None:
        """Take a timestamp from another state, to be written as it was there."""
        setattr(self, name, getattr(other, name))
        if other._source is not None and name in other._source.times:
            source = self._source or Source()
            self._source = replace(source, times={**source.times, name: other._source.times[name]})

    # --- copying and comparing --------------------------------------------------------------------------------

    def __getstate__(self) -> dict[str, Any]:
        # The copy of a second tree node would be a node of a second tree: only the id of the current one is kept.
        return {**self.__dict__, "_current": None, "_current_id": self.current_node_id}

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ConversationState):
            return NotImplemented
        return (
            self.conversation_id == other.conversation_id
            and self.schema_version == other.schema_version
            and self.created_at == other.created_at
            and self.updated_at == other.updated_at
            and self.metadata == other.metadata
            and self.extra == other.extra
            and self._tree == other._tree
            and self.current_node_id == other.current_node_id
        )

    __hash__ = None  # type: ignore[assignment]  # compared by content, and its content changes

    def __repr__(self) -> str:
        messages = 0 if self._tree is None else sum(1 for _ in self._tree.walk())
        return f"<ConversationState {self.conversation_id!r}, {messages} message{'s' * (messages != 1)}>"


def _root(tree: Tree[ConversationNode]) -> Tree[ConversationNode]:
    if tree.parent is not None:
        raise InvalidInputError("message_tree: expected the root of a tree, found a node below one: pass its root")
    return tree


def get_messages_for_llm(tree: Tree[ConversationNode], node_id: str) -> list[LLMMessage]:
    """The messages from the root to a node; empty if there is no such node."""
    node = get_node_by_id(tree, node_id)
    return [step.data.message for step in node.get_path()] if node is not None else []
