"""Rows: entries as lines of a segment, and how to read of many of them only what sorts and shadows them.

Law: a line is the entry's canonical JSON. Where a million rows pass, only keys and revisions are decoded, and lines
are found by a search in their bytes; that is why they have to be canonical.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

import msgspec

from s3conv.errors import CorruptError, IndexDamagedError
from s3conv.format.codec import MAX_DEPTH, from_json, to_json
from s3conv.format.entry import Entry, SortKey, check_entry, partition_of
from s3conv.format.manifest import REPAIR

TRUNCATED = b'"metadata_truncated":true'


class Row(NamedTuple):
    """A line, and what is known of it without decoding it whole. `gone`: it is deleted or moved and only shadows."""

    key: SortKey
    revision: int
    updated: str
    gone: bool
    line: bytes


class _Head(Protocol):
    """What the decoder takes from a line."""

    conversation_id: str
    revision: int
    created_at: str
    updated_at: str
    deleted: bool
    moved: bool
    metadata: Any


_entry_decoder = msgspec.json.Decoder(Entry)


def encode_row(entry: Entry) -> bytes:
    """An entry as a line, without its newline."""
    return to_json(entry.to_dict(), f"the entry of conversation {entry.conversation_id!r}", MAX_DEPTH + 8)


def decode_row(line: bytes, what: str) -> Entry:
    """The entry of a line.

    Raises:
        IndexDamagedError: it is none; `what` names the object.
    """
    try:
        return check_entry(_entry_decoder.decode(line))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise IndexDamagedError(f"{what}: a line is no entry: {error}; {REPAIR}") from None


class RowReader:
    """Reads the lines of an archive's segments, by the archive's `partition_by`."""

    def __init__(self, partition_by: str | None) -> None:
        head, self._partition = _head_type(partition_by)
        self._decoder = msgspec.json.Decoder(head)

    def rows(self, lines: Sequence[bytes], what: str) -> list[Row]:
        """Lines as rows.

        Raises:
            IndexDamagedError: a line is no entry; `what` names the object.
        """
        partition, decode = self._partition, self._decoder.decode
        rows = []
        try:
            for line in lines:
                head: _Head = decode(line)
                key = (partition(head), head.created_at, head.conversation_id)
                rows.append(Row(key, head.revision, head.updated_at, head.deleted or head.moved, line))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError, CorruptError) as error:
            raise IndexDamagedError(f"{what}: a line is no entry: {error}; {REPAIR}") from None
        return rows

    def block(self, text: bytes, what: str) -> list[Row]:
        """All rows of a block.

        Raises:
            IndexDamagedError: a line is no entry, or the rows are not in the order of their keys.
        """
        rows = self.rows(text[:-1].split(b"\n"), what)
        last = None
        for row in rows:
            if last is not None and row.key <= last:
                raise IndexDamagedError(f"{what}: the rows of a block are not in order; {REPAIR}")
            last = row.key
        return rows


def lines_with(text: bytes, needles: Sequence[bytes]) -> Iterator[bytes]:
    """The lines of a block that hold all of some byte strings, and those whose metadata was cut."""
    if not needles:
        yield from text[:-1].split(b"\n")
        return
    first, *others = needles
    hits = _hits(text, first)
    if TRUNCATED in text:
        hits = iter(sorted({*hits, *_hits(text, TRUNCATED)}))
    for start, end in hits:
        line = text[start:end]
        if TRUNCATED in line or (first in line and all(other in line for other in others)):
            yield line


def _hits(text: bytes, needle: bytes) -> Iterator[tuple[int, int]]:
    """Where the lines lie in which `needle` occurs."""
    end = 0
    while (found := text.find(needle, end)) >= 0:
        start = text.rfind(b"\n", 0, found) + 1
        end = text.index(b"\n", found)
        yield start, end


@lru_cache(maxsize=16)
def _head_type(partition_by: str | None) -> tuple[type[_Head], Callable[[_Head], str]]:
    """A type that takes from a line what a row needs, and how to tell the partition by it."""
    fields: list[Any] = [("conversation_id", str), ("revision", int), ("created_at", str), ("updated_at", str)]
    flags: list[Any] = [("deleted", bool, False), ("moved", bool, False)]
    if partition_by is None:
        return msgspec.defstruct("RowHead", [*fields, *flags]), lambda head: "null"  # type: ignore[return-value]  # made
    path = partition_by.removeprefix("metadata.")
    if to_json(path, "partition_by") != f'"{path}"'.encode():
        # msgspec has no fields with a name that JSON escapes.
        head = msgspec.defstruct("RowHead", [*fields, ("metadata", dict[str, Any]), *flags])
        return head, lambda head: partition_of(head.metadata, partition_by)  # type: ignore[return-value]  # made here
    top = path.split(".")[0]
    # The value as it is written: canonical JSON, as the partition is. `lookup` tries the path as one key first.
    nothing = msgspec.Raw()
    found: list[Any] = [("exact", msgspec.Raw, msgspec.field(name=path, default=nothing))]
    if top != path:
        found.append(("outer", msgspec.Raw, msgspec.field(name=top, default=nothing)))
    metadata = msgspec.defstruct("RowMetadata", found)
    head = msgspec.defstruct("RowHead", [*fields, ("metadata", metadata), *flags])

    def partition(head: _Head) -> str:
        exact = bytes(head.metadata.exact)
        if exact:
            return exact.decode()
        outer = bytes(head.metadata.outer) if top != path else b""
        if not outer:
            return "null"
        return partition_of({top: from_json(outer, "the metadata of a row")}, partition_by)

    return head, partition  # type: ignore[return-value]  # made here, with these fields
