"""Entries and intents: the rows of the index, and how a save announces one.

Law: an entry is worked out from a document alone, so that an index can always be rebuilt; times are UTC text of fixed
width, so that they compare as text; metadata is whole or says that it is not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from s3conv.errors import CorruptError, InvalidInputError
from s3conv.format.codec import MAX_DEPTH, compress, decompress, from_json, to_json
from s3conv.format.keys import check_id
from s3conv.format.support import FORMAT, read_kind
from s3conv.model.message import as_utc
from s3conv.model.state import ConversationState

MAX_METADATA = 8 * 1024
"""Metadata of up to this many bytes of JSON is whole in the entry (DESIGN.md, section 5)."""

MAX_PARTITION = 1024
"""Longest partition, in bytes of canonical JSON: it will be part of every key of the index."""

MAX_LOG_OBJECT = 16 * 1024 * 1024
"""Most bytes of JSON in one object of the log: half as much again as `BATCH` intents that are as long as can be."""

_DEEPER = 8
"""By how much an entry is nested deeper in an object of the log than in its document."""

MAX_WINDOW = 3600.0
"""Longest activity window, in seconds: so long a list may be behind in what an activity changes."""

BATCH = 500
"""Most intents in one batch object."""


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One conversation's row in the index.

    `size` is in stored bytes, `branch_count` counts the leaves. Where `metadata_truncated` is true, `metadata` holds
    the partition's value, under its path as one key, and those top-level keys that fit; the document has the rest.
    """

    conversation_id: str
    revision: int
    created: str = msgspec.field(name="created_at")
    updated: str = msgspec.field(name="updated_at")
    schema_version: str
    message_count: int
    branch_count: int
    size: int
    metadata: dict[str, Any]
    metadata_truncated: bool = False
    deleted: bool = False
    moved: bool = False
    location: dict[str, Any] | None = None

    @property
    def created_at(self) -> datetime:
        """When the conversation was created; aware, in UTC."""
        return datetime.fromisoformat(self.created)

    @property
    def updated_at(self) -> datetime:
        """When it was last changed; aware, in UTC."""
        return datetime.fromisoformat(self.updated)

    def to_dict(self) -> dict[str, Any]:
        """The entry as JSON values, as it lies in the index."""
        fields: dict[str, Any] = msgspec.to_builtins(self)
        return fields


SortKey = tuple[str, str, str]
"""(partition as canonical JSON, created_at as index text, conversation id)."""


class Replaces(msgspec.Struct, frozen=True, kw_only=True):
    """The sort key that a conversation had before the save that an intent announces."""

    partition: str
    created_at: str


class Intent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An entry announced in the log before its document is written, by the write with id `write`.

    `window` is the activity window, in seconds: for how long it speaks for the saves that follow it, too.
    """

    entry: Entry
    write: str
    replaces: Replaces | None = None
    window: float = 0.0


class _IntentObject(Intent, frozen=True, kw_only=True, omit_defaults=True):
    format: int
    kind: str


class _BatchObject(msgspec.Struct, frozen=True, kw_only=True):
    format: int
    kind: str
    intents: list[Intent]


_TIME_MARKS = tuple("--T::.Z")

_intent_decoder = msgspec.json.Decoder(_IntentObject)
_batch_decoder = msgspec.json.Decoder(_BatchObject)


def index_time(time: datetime) -> str:
    """An instant as the index writes it: `2026-01-31T12:00:00.000000Z`."""
    return as_utc(time).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def read_index_time(text: str) -> datetime:
    """The other way round."""
    return datetime.fromisoformat(text[:-1]).replace(tzinfo=UTC)


def is_index_time(text: str) -> bool:
    """Whether a text is an instant as the index writes it."""
    if len(text) != 27 or (text[4], text[7], text[10], text[13], text[16], text[19], text[26]) != _TIME_MARKS:
        return False
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return text[11:13] != "24"  # which some versions of Python read as the day after


def lasting(created: str, schema_version: object, metadata: Mapping[str, Any]) -> str:
    """A hash of what an entry is made of and an activity leaves as it is: all but `updated_at`, counts and size."""
    what = "the metadata of a conversation"
    return hashlib.sha256(to_json([created, schema_version, metadata], what, MAX_DEPTH + _DEEPER)).hexdigest()


def lookup(metadata: Mapping[str, Any], path: str) -> Any:
    """The value at a path, or `MISSING`: the path as a key first, then as keys joined by dots."""
    if path in metadata:
        return metadata[path]
    value: Any = metadata
    for name in path.split("."):
        if not isinstance(value, Mapping) or name not in value:
            return MISSING
        value = value[name]
    return value


MISSING = object()
"""What `lookup` returns where there is nothing; null is a value."""


def check_partition_by(partition_by: str | None) -> str | None:
    """Return it if it names a metadata path (or nothing), else raise `InvalidInputError`."""
    if partition_by is not None and (not partition_by.startswith("metadata.") or partition_by == "metadata."):
        raise InvalidInputError(
            f"partition_by {partition_by!r}: expected a path in the metadata, as 'metadata.user_id'"
        )
    return partition_by


def partition_of(metadata: Mapping[str, Any], partition_by: str | None) -> str:
    """The partition of a conversation as canonical JSON: that of the value at `partition_by`; missing is null."""
    if partition_by is None:
        return "null"
    value = lookup(metadata, partition_by.removeprefix("metadata."))
    return "null" if value is MISSING else to_json(value, f"the value at {partition_by}").decode()


def partition_only(metadata: Mapping[str, Any], partition_by: str | None) -> dict[str, Any]:
    """The partition's value alone, as one key, dots and all: `lookup` tries that first."""
    path = (partition_by or "").removeprefix("metadata.")
    value = lookup(metadata, path) if path else MISSING
    return {} if value is MISSING else {path: value}


def partition_metadata(partition: str, partition_by: str | None) -> dict[str, Any]:
    """The least metadata that has this partition, as `partition_only` makes it."""
    if partition_by is None or partition == "null":
        return {}
    return {partition_by.removeprefix("metadata."): from_json(partition.encode(), "a partition")}


def sort_key(entry: Entry, partition_by: str | None) -> SortKey:
    """What the index is sorted by."""
    return partition_of(entry.metadata, partition_by), entry.created, entry.conversation_id


def entry_of(state: ConversationState, revision: int, size: int, partition_by: str | None) -> Entry:
    """The entry of a conversation.

    Args:
        state: the conversation.
        revision: of its document.
        size: of its document, in stored bytes.
        partition_by: of the archive.
    """
    messages = leaves = 0
    for node in state.message_tree.walk():
        messages += 1
        leaves += not node.children
    metadata, truncated = _fitting(state, partition_by)
    length = len(partition_of(metadata, partition_by).encode())
    if length > MAX_PARTITION:
        raise InvalidInputError(
            f"conversation {state.conversation_id!r}: the value at {partition_by} has {length:,} bytes of JSON; a "
            f"partition has at most {MAX_PARTITION:,}"
        )
    return Entry(
        conversation_id=state.conversation_id,
        revision=revision,
        created=index_time(state.created_at),
        updated=index_time(state.updated_at),
        schema_version=state.schema_version,
        message_count=messages,
        branch_count=leaves,
        size=size,
        metadata=metadata,
        metadata_truncated=truncated,
    )


def _fitting(state: ConversationState, partition_by: str | None) -> tuple[dict[str, Any], bool]:
    what = f"the metadata of conversation {state.conversation_id!r}"
    whole = to_json(state.metadata, what)
    # Decoded again: the entry must not change when the caller goes on changing the state.
    metadata: dict[str, Any] = from_json(whole, what)
    if len(whole) <= MAX_METADATA:
        return metadata, False
    # Not the whole object that the partition's value may lie in: that can be as large as the document.
    partition = partition_only(metadata, partition_by)
    kept = set(partition)
    room = MAX_METADATA - sum(_pair_size(name, value, what) for name, value in partition.items())
    for name in sorted(metadata.keys() - kept, key=lambda name: name.encode()):
        size = _pair_size(name, metadata[name], what)
        if size <= room:
            kept.add(name)
            room -= size
    return {name: value for name, value in metadata.items() if name in kept} | partition, True


def _pair_size(name: str, value: Any, what: str) -> int:
    return len(to_json({name: value}, what))


def encode_intent(intent: Intent) -> bytes:
    """The object of one intent; `InvalidInputError` if it has more JSON than readers take."""
    what = f"the intent of conversation {intent.entry.conversation_id!r}"
    return _encode({"kind": "intent", **msgspec.to_builtins(intent)}, what)


def encode_batch(intents: list[Intent]) -> bytes:
    """The object of up to `BATCH` intents of one `save_many`; `InvalidInputError` as for one."""
    return _encode({"kind": "batch", "intents": msgspec.to_builtins(intents)}, "a batch of intents")


def _encode(fields: dict[str, Any], what: str) -> bytes:
    raw = to_json({"format": FORMAT, **fields}, what, MAX_DEPTH + _DEEPER)
    if len(raw) > MAX_LOG_OBJECT:
        raise InvalidInputError(
            f"{what} has {len(raw):,} bytes of JSON; an object of the log has at most {MAX_LOG_OBJECT:,}; nothing was "
            "written"
        )
    return compress(raw)


def decode_log_object(body: bytes, what: str) -> list[Intent]:
    """The intents of an object of the log.

    Raises:
        CorruptError: it is no such object; `what` names it.
        UnsupportedFormatError: it is of a format or kind that this version does not know.
    """
    raw = decompress(body, what, MAX_LOG_OBJECT)
    try:
        kind = read_kind(raw, ("intent", "batch"), what)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise CorruptError(f"{what} is not JSON of a log object: {error}") from None
    try:
        intents = [_intent_decoder.decode(raw)] if kind == "intent" else _batch_decoder.decode(raw).intents
        for intent in intents:
            check_entry(intent.entry)
            if not 0 <= intent.window <= MAX_WINDOW:
                raise ValueError(f"window {intent.window}: expected 0 to {MAX_WINDOW:.0f} seconds")
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise CorruptError(f"{what} is not {kind}: {error}") from None
    return list(intents)


def check_entry(entry: Entry) -> Entry:
    """Return the entry if its values can be relied on, else raise `ValueError`."""
    check_id(entry.conversation_id)
    if entry.revision < 1:
        raise ValueError(f"revision {entry.revision}: expected 1 or more")
    for text in (entry.created, entry.updated):
        if not is_index_time(text):
            raise ValueError(f"time {text!r}: expected the form 2026-01-31T12:00:00.000000Z")
    return entry
