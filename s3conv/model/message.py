"""`LLMMessage` and `ConversationNode`: what one place in a conversation's tree holds.

Law: what `from_dict` is given comes back from `to_dict`, as JSON values: fields that this version does not know (in
`extra`), timestamps as they were written, and the difference between null and absent. Only what the caller changed
in between differs. Fields and their defaults are those of dataknobs' conversation storage.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from types import NoneType
from typing import Any

from s3conv.errors import InvalidInputError
from s3conv.model.schema import shown
from s3conv.model.tree import Placed, Tree, calculate_node_id

Content = str | list[Any] | None
"""A text, a list of parts (text, images, files …) as the model's interface gave it, or null."""

_MESSAGE_FIELDS = frozenset(("role", "content", "name", "tool_calls", "function_call", "tool_call_id", "metadata"))
_NODE_OPTIONAL = frozenset(("prompt_name", "branch_name", "metadata"))
NODE_FIELDS = frozenset(("message", "node_id", "timestamp", "prompt_name", "branch_name", "metadata"))


def utcnow() -> datetime:
    """Now, as s3conv writes it: aware, in UTC."""
    return datetime.now(UTC)


def as_utc(time: datetime) -> datetime:
    """The instant as an aware UTC datetime; a naive one is read as UTC.

    The few instants of years 1 and 9999 that have no UTC form that datetime can hold become its ends.
    """
    if time.tzinfo is None:
        return time.replace(tzinfo=UTC)
    try:
        return time.astimezone(UTC)
    except OverflowError:
        return datetime.min.replace(tzinfo=UTC) if time.year == 1 else datetime.max.replace(tzinfo=UTC)


@dataclass(slots=True)
class Source:
    """How a thing was written where that differs from how we would write it, so that it can be written so again.

    `absent` names fields that were not there; `empty` gives the null or `{}` of fields that we would leave out or write
    differently; `times` gives the text of each timestamp with the value read from it.
    """

    absent: frozenset[str] = frozenset()
    empty: dict[str, Any] = field(default_factory=dict)
    times: dict[str, tuple[str, datetime]] = field(default_factory=dict)

    def restore(self, written: dict[str, Any], times: Mapping[str, datetime]) -> None:
        """Put the source's form back into `written` wherever the value is still the source's."""
        for name in self.absent:
            if _is_empty(written.get(name)):
                written.pop(name, None)
        for name, value in self.empty.items():
            if _is_empty(written.get(name)):
                written[name] = value
        for name, (text, value) in self.times.items():
            if times[name] is value:
                written[name] = text


def _is_empty(value: object) -> bool:
    return value is None or value == {}


def typed(data: Mapping[str, Any], name: str, kind: type | tuple[type, ...], where: str) -> Any:
    """The field `name`, None if it is absent or null; `InvalidInputError` if it is of another type than `kind`."""
    value = data.get(name)
    if value is None or isinstance(value, kind):
        return value
    kinds = kind if isinstance(kind, tuple) else (kind,)
    expected = " or ".join({"str": "a string", "dict": "an object", "list": "a list"}[k.__name__] for k in kinds)
    raise InvalidInputError(f"{where}{name}: expected {expected}, found {type(value).__name__}")


def add_extra(written: dict[str, Any], extra: Mapping[str, Any], known_fields: frozenset[str], where: str) -> None:
    """Add unknown fields; `InvalidInputError` if one has the name of a known field, which would be lost."""
    if clash := known_fields.intersection(extra):
        raise InvalidInputError(f"{where}extra: {min(clash)!r} is no unknown field: set the attribute of that name")
    written.update(extra)


def read_time(data: Mapping[str, Any], name: str, where: str, times: dict[str, tuple[str, datetime]]) -> datetime:
    """The timestamp in the field `name`; its text is noted in `times` if we would write it differently."""
    text = data.get(name)
    if not isinstance(text, str):
        found = type(text).__name__ if name in data else "nothing"
        raise InvalidInputError(f"{where}{name}: expected an ISO 8601 timestamp, found {found}")
    try:
        value = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidInputError(f"{where}{name}: expected an ISO 8601 timestamp, found {shown(text)}") from None
    if value.isoformat() != text:
        times[name] = (text, value)
    return value


@dataclass(slots=True)
class LLMMessage:
    """One message to or from a model.

    Args:
        role: "system", "user", "assistant", "tool" or "function"; other roles are kept as they are.
        content: a text, a list of parts, or None (as in an assistant message that only calls tools).
        name: of the function or tool, or of the participant.
        tool_call_id: which call a tool message answers.
        function_call: what `tool_calls` is, in the older, single form.
        tool_calls: the calls that an assistant message makes, as the provider wrote them.
        metadata: anything else, JSON values only.
        extra: fields that this version of s3conv does not know; they survive load and save.
    """

    role: str
    content: Content = None
    name: str | None = None
    tool_call_id: str | None = None
    function_call: dict[str, Any] | None = None
    tool_calls: list[Any] | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict, kw_only=True)
    _source: Source | None = field(default=None, repr=False, compare=False, kw_only=True)

    def to_dict(self) -> dict[str, Any]:
        """The message as JSON values; optional fields only where they say something or were given."""
        written: dict[str, Any] = {"role": self.role, "content": self.content}
        if self.name is not None:
            written["name"] = self.name
        if self.tool_call_id is not None:
            written["tool_call_id"] = self.tool_call_id
        if self.tool_calls is not None:
            written["tool_calls"] = self.tool_calls
        if self.function_call is not None:
            written["function_call"] = self.function_call
        if self.metadata:
            written["metadata"] = self.metadata
        if self._source is not None:
            self._source.restore(written, {})
        if self.extra:
            add_extra(written, self.extra, _MESSAGE_FIELDS, "message.")
        return written

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], where: str = "message.") -> LLMMessage:
        """Read what `to_dict` (or dataknobs) wrote.

        Raises:
            InvalidInputError: a field has a wrong type; `where` says in which message.
        """
        if not isinstance(data, dict):
            raise InvalidInputError(f"{where[:-1]}: expected an object, found {type(data).__name__}")
        if len(data) == 2 and isinstance(data.get("role"), str) and isinstance(data.get("content"), str):
            return cls(data["role"], data["content"])  # nearly every message; the rest would come to the same
        role = typed(data, "role", str, where)
        if role is None:
            raise InvalidInputError(f"{where}role: expected a string, found {'null' if 'role' in data else 'nothing'}")
        message = cls(
            role,
            typed(data, "content", (str, list), where),
            name=typed(data, "name", str, where),
            tool_calls=typed(data, "tool_calls", list, where),
            function_call=typed(data, "function_call", dict, where),
            tool_call_id=typed(data, "tool_call_id", str, where),
            metadata=typed(data, "metadata", dict, where) or {},
        )
        if not _MESSAGE_FIELDS.issuperset(data):
            message.extra = {name: value for name, value in data.items() if name not in _MESSAGE_FIELDS}
        plain = message.to_dict()
        if len(plain) != len(data) or "content" not in data:
            message._source = Source(
                absent=frozenset(("content",)) if "content" not in data else frozenset(),
                empty={name: value for name, value in data.items() if name not in plain},
            )
        return message


class ConversationNode(Placed):
    """A message at its place in a conversation.

    Args:
        message: the message.
        node_id: kept as given until the node is in a tree; from then on it is the node's place ("0.1.2", "" for the
            root), worked out when asked for.
        timestamp: when the message was made; now, if not given.
        prompt_name: name of the prompt template that made it.
        branch_name: a label for the branch that begins here.
        metadata: anything else (usage, model, ratings …), JSON values only.
        extra: fields that this version of s3conv does not know; they survive load and save.
    """

    __slots__ = ("_node_id", "_source", "branch_name", "extra", "message", "metadata", "prompt_name", "timestamp")

    def __init__(
        self,
        message: LLMMessage,
        node_id: str = "",
        timestamp: datetime | None = None,
        prompt_name: str | None = None,
        branch_name: str | None = None,
        metadata: dict[str, Any] | None = None,
        *,
        extra: dict[str, Any] | None = None,
    ) -> None:
        self._place: Tree[ConversationNode] | None = None
        self._node_id = node_id
        self._source: Source | None = None
        self.message = message
        self.timestamp = timestamp if timestamp is not None else utcnow()
        self.prompt_name = prompt_name
        self.branch_name = branch_name
        self.metadata = metadata if metadata is not None else {}
        self.extra = extra if extra is not None else {}

    @property
    def node_id(self) -> str:
        """The place in the tree; as given where the node is in no tree."""
        return self._node_id if self._place is None else calculate_node_id(self._place)

    @node_id.setter
    def node_id(self, node_id: str) -> None:
        self._node_id = node_id  # taken back as soon as the node is in no tree; in a tree the place counts

    def to_dict(self) -> dict[str, Any]:
        """The node in the exchange form, `node_id` included."""
        return {**self.fields_to_dict(), "node_id": self.node_id}

    def fields_to_dict(self) -> dict[str, Any]:
        """The node without its id: what the exchange form and the stored form have in common."""
        written: dict[str, Any] = {
            "message": self.message.to_dict(),
            "timestamp": self.timestamp.isoformat(),
            "prompt_name": self.prompt_name,
            "branch_name": self.branch_name,
            "metadata": self.metadata,
        }
        if self._source is not None:
            self._source.restore(written, {"timestamp": self.timestamp})
        if self.extra:
            add_extra(written, self.extra, NODE_FIELDS, "node.")
        return written

    @classmethod
    def from_dict(
        cls, data: Mapping[str, Any], where: str = "node.", known_fields: frozenset[str] = NODE_FIELDS
    ) -> ConversationNode:
        """Read a node in the exchange form, or without its id; fields outside of `known_fields` go to `extra`.

        Raises:
            InvalidInputError: a field is missing or has a wrong type; `where` says in which node.
        """
        if not isinstance(data, dict):
            raise InvalidInputError(f"{where[:-1]}: expected an object, found {type(data).__name__}")
        if "message" not in data:
            raise InvalidInputError(f"{where}message: expected an object, found nothing")
        times: dict[str, tuple[str, datetime]] = {}
        node = cls(
            LLMMessage.from_dict(data["message"], f"{where}message."),
            typed(data, "node_id", str, where) or "",
            read_time(data, "timestamp", where, times),
            typed(data, "prompt_name", str, where),
            typed(data, "branch_name", str, where),
            typed(data, "metadata", dict, where),
        )
        if times or data.get("metadata") is None or not data.keys() >= _NODE_OPTIONAL:
            node._source = Source(
                absent=_NODE_OPTIONAL - data.keys(),
                empty={"metadata": None} if "metadata" in data and data["metadata"] is None else {},
                times=times,
            )
        if not known_fields.issuperset(data):
            node.extra = {name: value for name, value in data.items() if name not in known_fields}
        return node

    def take_said(self, other: ConversationNode) -> None:
        """Say what another node says, at its time, to be written as it was there. What lies beside stays."""
        mine, theirs = self.message, other.message
        for name in ("role", "content", "name", "tool_calls", "function_call", "tool_call_id", "_source"):
            setattr(mine, name, getattr(theirs, name))
        self.timestamp = other.timestamp
        if self._source is not None or other._source is not None:
            times = other._source.times if other._source is not None else {}
            self._source = replace(self._source or Source(), times=times)

    def check(self, where: str) -> None:
        """See to it that what the caller set can be read again.

        Raises:
            InvalidInputError: a field has a wrong type; `where` says in which node.
        """
        message = self.message
        if not isinstance(message, LLMMessage):
            raise InvalidInputError(f"{where}.message cannot be a {type(message).__name__}")
        for name, value, kinds in (
            ("message.role", message.role, str),
            ("message.content", message.content, (str, list, NoneType)),
            ("message.name", message.name, (str, NoneType)),
            ("message.tool_calls", message.tool_calls, (list, NoneType)),
            ("message.function_call", message.function_call, (dict, NoneType)),
            ("message.tool_call_id", message.tool_call_id, (str, NoneType)),
            ("message.metadata", message.metadata, dict),
            ("timestamp", self.timestamp, datetime),
            ("prompt_name", self.prompt_name, (str, NoneType)),
            ("branch_name", self.branch_name, (str, NoneType)),
            ("metadata", self.metadata, dict),
        ):
            if not isinstance(value, kinds):
                raise InvalidInputError(f"{where}.{name} cannot be a {type(value).__name__}")

    def _unplaced(self) -> ConversationNode:
        copy = ConversationNode(
            self.message,
            self._node_id,
            self.timestamp,
            self.prompt_name,
            self.branch_name,
            self.metadata,
            extra=self.extra,
        )
        copy._source = self._source
        return copy

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickle_node, (
            self.message,
            self.node_id if self._place is not None else self._node_id,
            self.timestamp,
            self.prompt_name,
            self.branch_name,
            self.metadata,
            self.extra,
            self._source,
        )

    def __eq__(self, other: object) -> bool:
        """Equal content. The id is left out: in a tree it is the place, which the tree compares."""
        if not isinstance(other, ConversationNode):
            return NotImplemented
        return (
            self.timestamp == other.timestamp
            and self.message == other.message
            and self.prompt_name == other.prompt_name
            and self.branch_name == other.branch_name
            and self.metadata == other.metadata
            and self.extra == other.extra
        )

    __hash__ = None  # type: ignore[assignment]  # compared by content, and its content changes

    def __repr__(self) -> str:
        content = self.message.content
        shown = repr(content if len(content) <= 40 else f"{content[:37]}...") if isinstance(content, str) else "..."
        return f"ConversationNode({self.message.role!r}, {shown}, {self.timestamp.isoformat()})"


def _unpickle_node(
    message: LLMMessage,
    node_id: str,
    timestamp: datetime,
    prompt_name: str | None,
    branch_name: str | None,
    metadata: dict[str, Any],
    extra: dict[str, Any],
    source: Source | None,
) -> ConversationNode:
    node = ConversationNode(message, node_id, timestamp, prompt_name, branch_name, metadata, extra=extra)
    node._source = source
    return node
