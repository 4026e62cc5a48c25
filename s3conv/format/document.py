"""The document: the stored form of one conversation, of a deleted one (tombstone), and its line in an export.

The stored form is the exchange form with each node's place given by the position of its parent, instead of by ids and
edges: it grows linearly, where ids that spell out a path grow with the square of a linear chat's length.

Law: what is stored comes back equal, fields that this version does not know included. Two unknown fields need care:
one that has a name of the stored form's own is written with a `~` before it, and so is one that begins with `~`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

import msgspec
import zstandard

from s3conv.errors import CorruptError, InvalidInputError, UnsupportedFormatError
from s3conv.format.codec import MAX_BYTES, compress, decompress, from_json, to_json
from s3conv.format.entry import (
    Entry,
    entry_of,
    index_time,
    is_index_time,
    lasting,
    partition_of,
    partition_only,
)
from s3conv.format.keys import check_id
from s3conv.format.support import FORMAT, check_format
from s3conv.model.joining import grow_tree
from s3conv.model.message import NODE_FIELDS, ConversationNode
from s3conv.model.schema import SCHEMA_VERSION, check_version, migrate, shown
from s3conv.model.state import ConversationState

LINEAGE = 16
"""How many write ids a document keeps: as many later writes may hide ours before its outcome is unknown."""

MAX_REVISION = 10**17
"""Far more than anyone can count up to, and those that follow it still have the 18 digits that a log key may have."""

_STATE_FIELDS = frozenset(
    ("schema_version", "conversation_id", "current", "metadata", "created_at", "updated_at", "nodes")
)
_FIRST = b'{"s3conv":'
_STATE_ONLY = frozenset(("s3conv", "current"))
_STATE_OWN = _STATE_FIELDS | {"s3conv", "edges", "current_node_id"}
_NODE_ONLY = frozenset(("parent",))
_NODE_FIELDS = NODE_FIELDS - {"node_id"} | {"parent"}
_NODE_OWN = NODE_FIELDS | {"parent"}


@dataclass(frozen=True, slots=True)
class Stamp:
    """The archive's own part of a document: which write of the conversation it is.

    `lineage` ends with `write`; `speaks_until` is the activity window's end, where there is one. `since` is the
    revision with which the conversation began again after it was deleted; None if it never was.
    """

    revision: int
    write: str
    lineage: tuple[str, ...]
    speaks_until: str | None = None
    since: int | None = None

    def next(self, write: str, speaks_until: str | None = None, *, begins: bool = False) -> Stamp:
        """That of a write which builds on this one; `begins`: on a tombstone, with a conversation that is new."""
        revision = self.revision + 1
        lineage = (*self.lineage, write)[-LINEAGE:]
        return Stamp(revision, write, lineage, speaks_until, revision if begins else self.since)

    def revision_of(self, write: str) -> int | None:
        """Of which revision a write in the lineage was; None if it is not there."""
        if write not in self.lineage:
            return None
        return self.revision - (len(self.lineage) - 1 - self.lineage.index(write))

    def to_dict(self, kind: str) -> dict[str, Any]:
        part: dict[str, Any] = {
            "format": FORMAT,
            "kind": kind,
            "revision": self.revision,
            "write": self.write,
            "lineage": list(self.lineage),
        }
        if self.speaks_until is not None:
            part["speaks_until"] = self.speaks_until
        if self.since is not None and kind == "document":
            part["since"] = self.since
        return part

    def hints(self) -> dict[str, str]:
        """What is mirrored in the object's user metadata, so that HEAD is enough where the store keeps it."""
        return {"s3conv-revision": str(self.revision), "s3conv-write": self.write}


NOTHING = Stamp(0, "", ())
"""What the first write of a conversation builds on."""


class Document(msgspec.Struct, frozen=True, dict=True):  # dict: what it says is decoded when somebody asks, and kept
    """A document as it was read: what it says, still as JSON, and which write it is.

    `what` is the object's name, for errors.
    """

    conversation_id: str
    deleted: bool
    size: int
    what: str
    _raw: bytes
    _part: bytes
    _ours: bool = False

    @cached_property
    def stamp(self) -> Stamp:
        """Which write of the conversation it is."""
        return _read_part(self._part, self.what)[0]

    @cached_property
    def _fields(self) -> dict[str, Any]:
        fields: dict[str, Any] = from_json(self._raw, self.what)
        return fields

    @property
    def line(self) -> bytes:
        """The conversation as one line of s3conv's JSON lines: the stored form less its `s3conv` part, no newline."""
        # Our own writer's layout: the part comes first, so it can be cut off.
        raw, end = self._raw, len(_FIRST) + len(self._part)
        if (self._ours or (raw.startswith(_FIRST) and raw.startswith(b",", end))) and b"\n" not in raw:
            return b"{" + raw[end + 1 :]
        return to_json(self.fields(), f"conversation {self.conversation_id!r}")

    def fields(self) -> dict[str, Any]:
        """The stored form less its `s3conv` part, decoded."""
        return {name: value for name, value in self._fields.items() if name != "s3conv"}

    def state(self) -> ConversationState:
        """The conversation.

        Raises:
            CorruptError: a number in it is larger than any that can be kept.
            InvalidInputError: what it holds is not a conversation; says where.
            SchemaVersionError: it was written by a newer MAJOR schema version.
        """
        return state_from_stored(self._fields)

    def sort_key(self, partition_by: str | None) -> tuple[str, str]:
        """Partition and creation time, as the index writes them; read without looking at the tree.

        Raises:
            CorruptError: the document has no metadata or no creation time that can be read.
        """
        metadata, created = self._fields.get("metadata"), self._fields.get("created_at")
        try:
            if not isinstance(metadata, dict | None) or not isinstance(created, str):
                raise ValueError
            return partition_of(metadata or {}, partition_by), index_time(datetime.fromisoformat(created))
        except ValueError:
            raise CorruptError(
                f"the document of conversation {self.conversation_id!r}: expected metadata and a time created_at"
            ) from None

    def lasting(self) -> str:
        """What an activity leaves as it is, to be compared; see `s3conv.format.entry.lasting`."""
        _, created = self.sort_key(None)
        return lasting(created, self._fields.get("schema_version"), self._fields.get("metadata") or {})

    def entry(self, partition_by: str | None) -> Entry:
        """The entry that this document stands for.

        Raises:
            CorruptError, InvalidInputError, SchemaVersionError: as `state` and `sort_key`.
        """
        if not self.deleted:
            return entry_of(self.state(), self.stamp.revision, self.size, partition_by)
        try:
            deleted_at = index_time(datetime.fromisoformat(self._fields["updated_at"]))
        except (KeyError, TypeError, ValueError):
            raise CorruptError(
                f"the tombstone of conversation {self.conversation_id!r}: expected a time updated_at"
            ) from None
        return self.deleted_entry(self.stamp.revision, self.size, deleted_at, partition_by)

    def deleted_entry(self, revision: int, size: int, deleted_at: str, partition_by: str | None) -> Entry:
        """The entry of this conversation once it is deleted: at the same sort key, with no content.

        Args:
            revision: of the tombstone.
            size: of the tombstone, in stored bytes.
            deleted_at: when, by the store's clock, as an index time.
            partition_by: of the archive.
        """
        _, created = self.sort_key(partition_by)
        return Entry(
            conversation_id=self.conversation_id,
            revision=revision,
            created=created,
            updated=deleted_at,
            schema_version=SCHEMA_VERSION,
            message_count=0,
            branch_count=0,
            size=size,
            metadata=partition_only(self._fields.get("metadata") or {}, partition_by),
            deleted=True,
        )

    def tombstone(self, stamp: Stamp, deleted_at: str, partition_by: str | None) -> bytes:
        """The body of what this conversation leaves when it is deleted: its sort key, so that its row is found."""
        _, created = self.sort_key(partition_by)
        fields = {
            "s3conv": stamp.to_dict("tombstone"),
            "schema_version": SCHEMA_VERSION,
            "conversation_id": self.conversation_id,
            "created_at": created,
            "updated_at": deleted_at,
            "metadata": partition_only(self._fields.get("metadata") or {}, partition_by),
        }
        return compress(to_json(fields, f"the tombstone of conversation {self.conversation_id!r}"))


def state_to_stored(state: ConversationState) -> dict[str, Any]:
    """The stored form, less its `s3conv` part.

    Raises:
        InvalidInputError: the state cannot be stored: it has no message, or its current node is none of its own.
    """
    what = f"conversation {check_id(state.conversation_id)!r}"
    check_version(state.schema_version, state.conversation_id)
    for name, kind in (("metadata", dict), ("created_at", datetime), ("updated_at", datetime)):
        if not isinstance(value := getattr(state, name), kind):
            raise InvalidInputError(f"{what}: {name} cannot be a {type(value).__name__}")
    positions: dict[int, int] = {}
    nodes = []
    for position, place in enumerate(state.message_tree.walk()):
        positions[id(place)] = position
        place.data.check(f"{what}: nodes[{position}]")
        fields = _escaped(place.data.fields_to_dict(), _NODE_OWN, place.data.extra)
        nodes.append(fields if position == 0 else {"parent": positions[id(place.parent)], **fields})
    current = state.get_current_node()
    if current is None or id(current) not in positions:
        raise InvalidInputError(f"{what}: current_node_id {state.current_node_id!r} names no node")
    fields = _escaped(state.fields_to_dict(), _STATE_OWN, state.extra)
    return {
        "schema_version": fields.pop("schema_version"),
        "conversation_id": state.conversation_id,
        **state.current_field("current", positions[id(current)]),
        **fields,
        "nodes": nodes,
    }


def state_from_stored(data: Mapping[str, Any]) -> ConversationState:
    """Read the stored form, with or without its `s3conv` part.

    Raises:
        InvalidInputError: it is not a conversation in the stored form; says where.
        SchemaVersionError: it was written by a newer MAJOR version.
    """
    if not isinstance(data, Mapping):
        raise InvalidInputError(f"a conversation is an object, found {type(data).__name__}")
    data = migrate(data)
    rows = data.get("nodes")
    if not isinstance(rows, list) or not rows:
        raise InvalidInputError("nodes: expected a list of at least one node")
    nodes: list[ConversationNode] = []
    parents: list[int | None] = []
    for position, row in enumerate(rows):
        where = f"nodes[{position}]."
        if not isinstance(row, Mapping):
            raise InvalidInputError(f"{where[:-1]}: expected an object, found {type(row).__name__}")
        parent = row.get("parent")
        if position == 0 and parent is not None:
            raise InvalidInputError(f"{where}parent: the first node is the root and has none, found {shown(parent)}")
        if position and (type(parent) is not int or not 0 <= parent < position):
            raise InvalidInputError(
                f"{where}parent: expected a position from 0 to {position - 1}, found {shown(parent)}"
            )
        parents.append(parent)
        node = ConversationNode.from_dict(row, where, _NODE_FIELDS)
        if node.extra:
            node.extra = _unescaped(node.extra, _NODE_OWN, _NODE_ONLY, where)
        nodes.append(node)
    places = grow_tree(nodes, parents, range(1, len(nodes)), 0)
    state = ConversationState.from_fields(data, places[0], _STATE_FIELDS | {"s3conv"})
    state.extra = _unescaped(state.extra, _STATE_OWN, _STATE_ONLY, "")
    current = data.get("current")
    if current is None:
        state.set_unnamed_current("null" if "current" in data else "absent")
        return state
    if type(current) is not int or not 0 <= current < len(places):
        raise InvalidInputError(f"current: expected a position from 0 to {len(places) - 1}, found {shown(current)}")
    state.set_current_node(places[current])
    return state


def _escaped(fields: dict[str, Any], own: frozenset[str], extra: Mapping[str, Any]) -> dict[str, Any]:
    """The fields, with `~` before the names of unknown ones that would be taken for something else."""
    if not extra:
        return fields
    return {
        f"~{name}" if name in extra and (name in own or name.startswith("~")) else name: value
        for name, value in fields.items()
    }


def _unescaped(extra: dict[str, Any], own: frozenset[str], only: frozenset[str], where: str) -> dict[str, Any]:
    """The unknown fields under their own names. `only`: those of `own` that the exchange form does not have.

    A `~` that no writer of ours puts there is refused: its field would clash with another once it is taken away.
    """
    fields = {}
    for name, value in extra.items():
        if name in own or (name.startswith("~") and not name.startswith("~~") and name[1:] not in only):
            raise InvalidInputError(f"{where}{shown(name)[1:-1]}: the stored form has no such field")
        fields[name[1:] if name.startswith("~") else name] = value
    return fields


def _head(stamp: Stamp) -> bytes:
    """What a document of ours begins with."""
    return to_json({"s3conv": stamp.to_dict("document")}, "a stamp")[:-1] + b","


def restamped(body: bytes, old: Stamp, new: Stamp) -> bytes:
    """The same document with another stamp. `body`: from `encode_document` with the stamp `old`."""
    raw = decompress(body, "a document")
    return compress(_head(new) + raw[len(_head(old)) :])


def encode_document(state: ConversationState, stamp: Stamp) -> bytes:
    """The body of a conversation's document.

    Raises:
        InvalidInputError: the state cannot be stored, or has more than `MAX_BYTES` of JSON.
    """
    what = f"conversation {state.conversation_id!r}"
    raw = to_json({"s3conv": stamp.to_dict("document"), **state_to_stored(state)}, what)
    if len(raw) > MAX_BYTES:
        raise InvalidInputError(f"{what} has {len(raw):,} bytes of JSON; at most {MAX_BYTES:,} can be stored")
    return compress(raw)


def decode_document(
    body: bytes,
    conversation_id: str | None,
    what: str,
    decompressor: zstandard.ZstdDecompressor | None = None,
    *,
    head_only: bool = False,
) -> Document:
    """Read the body of a document or tombstone.

    Args:
        body: as stored.
        conversation_id: whose it must be; None to take any.
        what: the object's name, for errors.
        decompressor: saves making one for each of many documents.
        head_only: look at the beginning alone, where it is as we write it and the frame has a checksum, which then
            vouches for the rest: a line of it can be copied. What else is asked of it decodes it whole.

    Raises:
        CorruptError: it is damaged, not a document, or that of another conversation.
        UnsupportedFormatError: it has a format, kind or feature that this version does not know.
    """
    raw = decompress(body, what, decompressor=decompressor)
    ours = _OURS.match(raw) if head_only and body[4] & _CHECKSUM else None
    if ours is not None and conversation_id is not None and ours[2].decode() == conversation_id:
        return Document(conversation_id, False, len(body), what, raw, ours[1], True)
    head = _read_head(raw, what)
    part, found = bytes(head.s3conv), head.conversation_id
    _, kind = _read_part(part, what)
    if not isinstance(found, str) or conversation_id not in (None, found):
        raise CorruptError(f"{what} holds conversation {shown(found)}; expected {shown(conversation_id)}")
    return Document(found, kind == "tombstone", len(body), what, raw, part)


_OURS = re.compile(
    rb'\{"s3conv":(\{"format":1,"kind":"document","revision":[1-9][0-9]{0,16},"write":"[0-9a-f]+","lineage":'
    rb'\["[0-9a-f",]+"\]\}),"schema_version":"[0-9.]+","conversation_id":"([!#-\[\]-~]+)",'
)
"""How a document of ours begins, but for one with an activity window or an id that JSON escapes or UTF-8 lengthens."""

_CHECKSUM = 4
"""The bit of a zstd frame's fifth byte that says that its content has a checksum (RFC 8878, 3.1.1.1.1)."""


class _Head(msgspec.Struct):
    s3conv: msgspec.Raw = msgspec.Raw(b"null")
    conversation_id: Any = None


class _Part(msgspec.Struct):
    """The part, as we write it."""

    format: int
    kind: str
    revision: int
    write: str
    lineage: list[str]
    speaks_until: str | None = None
    since: int | None = None
    requires: list[str] = []


_head_decoder = msgspec.json.Decoder(_Head)
_part_decoder = msgspec.json.Decoder(_Part)


def _read_head(raw: bytes, what: str) -> _Head:
    """The fields that say what a document is.

    The whole text is checked, but for numbers too large for a float; only the rest is not made into values.
    """
    try:
        raw.decode()  # the decoder passes over texts that it is not asked for without looking at their bytes
        return _head_decoder.decode(raw)
    except msgspec.ValidationError:
        raise _no_document(what) from None
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise CorruptError(f"{what} is not JSON: {error}") from None
    except RecursionError:
        raise CorruptError(f"{what} is JSON that is nested too deeply") from None


def _read_part(text: bytes, what: str) -> tuple[Stamp, str]:
    """Which write a document is, and of which kind."""
    try:
        part = _part_decoder.decode(text)
    except msgspec.ValidationError:
        fields = from_json(text, what)
        if not isinstance(fields, dict):
            raise _no_document(what) from None
        check_format(fields, _KINDS, what)
        raise _no_stamp(what) from None
    if part.format != FORMAT or part.kind not in _KINDS or part.requires:
        check_format(from_json(text, what), _KINDS, what)
    if part.kind == "stub":
        raise UnsupportedFormatError(f"{what} is a stub (its conversation is in a pack): upgrade s3conv to read it")
    until = part.speaks_until
    if not 1 <= part.revision <= MAX_REVISION or not (until is None or is_index_time(until)):
        raise _no_stamp(what)
    if part.since is not None and not 1 <= part.since <= part.revision:
        raise _no_stamp(what)
    return Stamp(part.revision, part.write, tuple(part.lineage[-LINEAGE:]), until, part.since), part.kind


_KINDS = ("document", "tombstone", "stub")


def _no_document(what: str) -> CorruptError:
    return CorruptError(f"{what} is not a document: expected a JSON object with the part 's3conv'")


def _no_stamp(what: str) -> CorruptError:
    return CorruptError(
        f"{what}: expected a revision of 1 or more, a write id, a lineage, at most a time speaks_until and a revision "
        "since in its part 's3conv'"
    )
