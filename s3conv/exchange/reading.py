"""Reading files of conversations, in whatever known format they are.

Law: the format is told by content, item by item, never by a name. An item that cannot be read becomes a `Problem` and
the next one is read. Files are streamed, so that memory grows with one conversation and not with the file (flat lists
and sessions excepted, where any row may belong to any conversation).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from s3conv.errors import InvalidInputError, StorageError
from s3conv.exchange.formats import FORMATS, NAMES, OWN, READERS, ROW_FORMATS, Format, RowFormat
from s3conv.exchange.found import Found, Ignored, Problem, Row
from s3conv.exchange.ids import Names
from s3conv.exchange.records import Piece, split
from s3conv.exchange.sources import READ_ERRORS, Member, Place, Skipped, Source, find_places, open_members, said
from s3conv.exchange.values import parse
from s3conv.model.state import ConversationState

Item = Found | Problem | Ignored

_UNKNOWN = 10
"""How many items of no known format a file may begin with and be one of conversations, if its name leaves it open."""


def read_conversations(
    source: Source, count: Callable[[int], None] = lambda read: None, format: str | None = None
) -> Iterator[Item]:
    """The conversations of a file, folder, pattern or stream: plain or packed; JSON lines, a list, or one JSON value.

    Args:
        source: the path of a file or folder, a pattern such as "*.json", or an open binary stream.
        count: called with the number of bytes each time that some were read from the disk.
        format: one of `formats.NAMES`, where the content is not to be asked; None finds it out.

    Returns:
        `Found` and `Problem` in the files' order, and `Ignored` for what holds no conversations. A file that cannot be
        read is a `Problem` too.

    Raises:
        InvalidInputError: there is no such format.
    """
    if format is not None and format not in NAMES:
        raise InvalidInputError(f"there is no format {format!r}: expected one of {', '.join(NAMES)}")
    return _read_places(source, count, format)


def _read_places(source: Source, count: Callable[[int], None], only: str | None) -> Iterator[Item]:
    read, name = False, Place(source).name
    in_folder = False
    for place in find_places(source):
        if isinstance(place, Skipped):
            in_folder = True
            yield Problem(name, place.name, place.reason) if place.reason else Ignored(name, place.name)
            continue
        in_folder |= place.folder != ""
        read |= yield from _read_place(place, count, only)
    if in_folder and not read:
        yield Problem(name, "", "holds no conversations")


def _read_place(place: Place, count: Callable[[int], None], only: str | None) -> Generator[Item, None, bool]:
    """Yields the items of one file; returns whether it was read, and not ignored."""
    read = False
    try:
        for member in open_members(place, count):
            if isinstance(member, Skipped):
                name = member.name
                yield Problem(place.name, name, member.reason) if member.reason else Ignored(place.name, name)
                continue
            read |= yield from _Reading(place, member, only).items()
        if not read and not place.folder:
            yield Problem(place.name, "", "holds no conversations")
    except READ_ERRORS as error:
        reason = f"cannot be read: {said(error)}"
        if "://" in place.name and isinstance(error, FileNotFoundError):
            reason += "; expected a path: copy it to the disk first, or pipe it into -"
        yield Problem(place.name, "", reason)
        read = True
    return read


@dataclass(slots=True)
class _Reading:
    """The reading of one stream: what it is, and what must be kept until its end."""

    place: Place
    member: Member
    only: str | None
    names: Names = field(default_factory=Names)
    rows: dict[str, list[Row]] = field(default_factory=dict)
    follower: RowFormat | None = None
    broken: str | None = None

    def items(self) -> Generator[Item, None, bool]:
        """Yields the items of the stream; returns whether it was read, and not ignored."""
        last, unknown = "", list[Item]()
        hold = self.member.optional
        try:
            for piece in split(self.member.stream):
                last = piece.position
                items = list(self._read_piece(piece))
                if hold and not self.rows and all(map(_is_unknown, items)):
                    unknown.extend(items)
                    if len(unknown) >= _UNKNOWN:
                        break
                    continue
                hold = False
                yield from unknown
                yield from items
                unknown.clear()
            if unknown:
                yield self._ignored("")
                return False
        except READ_ERRORS as error:
            yield self._problem(f"after {last}" if last else "", f"the rest cannot be read: {said(error)}")
        for row_format in ROW_FORMATS:
            yield from self._joined(row_format)
        return True

    def _read_piece(self, piece: Piece) -> Iterator[Item]:
        if piece.reason is not None:
            yield self._problem(piece.position, piece.reason)
            return
        try:
            value = parse(piece.data)
        except StorageError as error:
            yield self._problem(piece.position, str(error))
            return
        if piece.beside:
            yield from self._read_object(value, piece.position, beside=True)
            return
        reader = self._reader(value)
        if isinstance(reader, Format):
            yield self._read(reader, value, piece.position, size=len(piece.data))
        elif isinstance(reader, RowFormat):
            self._keep(reader, value, piece.position)
        elif isinstance(value, Mapping):
            yield from self._read_object(value, piece.position)
        else:
            yield self._read_unknown(value, piece.position)

    def _reader(self, value: Any) -> Format | RowFormat | None:
        for one in READERS:
            if self.only in (None, one.name) and one.knows(value):
                return one
        return None

    def _keep(self, reader: RowFormat, value: Any, position: str) -> None:
        self.rows.setdefault(reader.name, []).append((position, value))
        if reader.follows:
            self.follower = reader

    def _read_object(self, value: Mapping[str, Any], position: str, *, beside: bool = False) -> Iterator[Item]:
        """What an object holds that is no conversation itself: conversations by their ids, or lists of them."""
        readers = [self._reader(one) for one in value.values() if isinstance(one, Mapping)]
        if any(isinstance(reader, Format) and reader.keyed for reader in readers):
            for name, one in value.items():
                yield self._read_inner(one, f"{position}: {name}" if position else name, name)
            return
        lists = {
            name: many
            for name, many in value.items()
            if isinstance(many, list) and any(isinstance(self._reader(one), Format) for one in many)
        }
        if not lists:
            if beside:
                yield self._ignored(", ".join(value))
            elif self.follower is not None:
                self._keep(self.follower, value, position)
            else:
                yield self._read_unknown(value, position)
            return
        for name, many in lists.items():
            where = f"{position}: {name}" if position else name
            for number, one in enumerate(many):
                yield self._read_inner(one, f"{where}[{number}]")
        if others := ", ".join(name for name in value if name not in lists):
            yield self._ignored(f"{position}: {others}" if position else others)

    def _read_inner(self, value: Any, position: str, key: str | None = None) -> Item:
        reader = self._reader(value)
        if isinstance(reader, Format):
            return self._read(reader, value, position, key if reader.keyed else None)
        return self._read_unknown(value, position)

    def _read(self, reader: Format, value: Any, position: str, key: str | None = None, size: int = 0) -> Item:
        try:
            return self._found(reader.name, reader.read(value, key), value, position, size)
        except StorageError as error:
            return self._problem(position, str(error))
        except RecursionError:
            return self._problem(position, "nested too deeply to be read")

    def _read_unknown(self, value: Any, position: str) -> Item:
        """A problem; what was said to be of one format is read as it, to have its reason."""
        reader = next((one for one in FORMATS if one.name == self.only), None)
        if reader is not None and isinstance(value, Mapping):
            item = self._read(reader, value, position)
            return replace(item, unknown=True) if isinstance(item, Problem) else item
        return self._problem(position, f"expected a conversation; found {_shown(value)}", unknown=True)

    def _joined(self, row_format: RowFormat) -> Iterator[Item]:
        rows = self.rows.get(row_format.name, [])
        if not rows:
            return
        if row_format.whole and self.broken is not None:
            what = f"the list that begins here is no conversation: {self.broken or 'an item'} cannot be read"
            yield self._problem(rows[0][0], what)
            return
        for position, made in row_format.join(rows):
            if isinstance(made, str):
                yield self._problem(position, made)
                continue
            try:
                yield self._found(row_format.name, made, [row for _, row in rows], position)
            except StorageError as error:
                yield self._problem(position, str(error))

    def _found(self, format_name: str, state: ConversationState, value: Any, position: str, size: int = 0) -> Found:
        if not state.conversation_id:
            state.conversation_id = self.names.name(format_name, value)
        return Found(state, self.place.name, self._where(position), foreign=format_name != OWN, size=size)

    def _problem(self, position: str, reason: str, *, unknown: bool = False) -> Problem:
        self.broken = self.broken if self.broken is not None else position
        return Problem(self.place.name, self._where(position), reason, unknown)

    def _ignored(self, position: str) -> Ignored:
        if not self.place.folder:
            return Ignored(self.place.name, self._where(position))
        file = os.path.relpath(self.place.name, self.place.folder)
        return Ignored(self.place.folder, ": ".join(part for part in (file, self._where(position)) if part))

    def _where(self, position: str) -> str:
        return ": ".join(part for part in (self.member.name, position) if part)


def _is_unknown(item: Item) -> bool:
    return isinstance(item, Problem) and item.unknown


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        names = ", ".join(repr(str(name)[:30]) for name in list(value)[:5]) or "no keys"
        return f"an object with {names}{' …' if len(value) > 5 else ''}"
    return {list: "a list", str: "a text", type(None): "null"}.get(type(value), type(value).__name__)
