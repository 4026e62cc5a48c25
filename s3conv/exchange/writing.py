"""The formats that an export can have, and how one file of each is written.

Law: a writer is given documents and says how many rows they became. A line that needs no change is copied as it is
stored; anything else is decoded once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import IO, Protocol

from s3conv.errors import CorruptError, InvalidInputError
from s3conv.exchange.chats import Branches, Chat, chosen, read_chat
from s3conv.exchange.outputs import Output
from s3conv.exchange.pages import Kind, PageWriter
from s3conv.exchange.parquet import ParquetWriter
from s3conv.exchange.redacting import Redaction
from s3conv.exchange.rendering import LeftOut, dataknobs_line, openai_line, sharegpt_line, stored_line
from s3conv.format.document import Document

Render = Callable[[Chat, LeftOut], bytes | None]


@dataclass(frozen=True, slots=True)
class Format:
    """What an export can be written as.

    `branches`: which it can hold, the usual first. `render` makes a line of it; `pages` are files of their own. Where
    it has neither it is Parquet, of which a file can be used only when it is complete.
    """

    name: str
    suffix: str
    branches: tuple[Branches, ...]
    render: Render | None = None
    pages: Kind | None = None

    def writer(self, file: IO[bytes], output: Output, reader: Reader, rows: int = 0, size: int = 0) -> Writer:
        """What writes a file of it to an output, on from where `file` stands: after `rows` rows in `size` bytes."""
        if self.render is not None:
            return LineWriter(file, self.render, reader, size)
        if self.pages is not None:
            return PageWriter(file, output, reader, self.pages, rows, size)
        return ParquetWriter(file, reader, by_message=self.name == "parquet-messages")


FORMATS = {
    one.name: one
    for one in (
        Format("jsonl", ".jsonl", ("tree", "current", "leaves"), stored_line),
        Format("dataknobs", ".jsonl", ("tree", "current", "leaves"), dataknobs_line),
        Format("openai", ".jsonl", ("current", "leaves"), openai_line),
        Format("sharegpt", ".jsonl", ("current", "leaves"), sharegpt_line),
        Format("parquet", ".parquet", ("tree", "current", "leaves")),
        Format("parquet-messages", ".parquet", ("tree", "current", "leaves")),
        Format("markdown", ".md", ("tree", "current", "leaves"), pages="markdown"),
        Format("html", ".html", ("tree", "current", "leaves"), pages="html"),
    )
}
"""By name."""


@dataclass(slots=True)
class Reader:
    """Documents as chats: redacted, and the branches that are wanted. `left_out` counts what a format cannot hold."""

    branches: Branches
    redaction: Redaction
    left_out: LeftOut = field(default_factory=Counter)

    @property
    def changes_nothing(self) -> bool:
        """Whether documents can be copied as they are."""
        return self.branches == "tree" and not self.redaction

    def chats(self, document: Document) -> list[Chat]:
        """What is to be written of a document.

        Raises:
            CorruptError: it is no conversation.
        """
        fields = document.fields()
        if self.redaction:
            fields = self.redaction.fields(fields)
        return list(chosen(read_chat(fields, document.what), self.branches))


class Writer(Protocol):
    """Writes one file.

    `size`: of what was written to it, in bytes; what is still held back may be left out. `beside`: of what was written
    to other files.
    """

    size: int
    beside: int

    def add(self, document: Document) -> int:
        """Write a conversation, and return in how many rows.

        Raises:
            CorruptError, SchemaVersionError: it cannot be read; nothing of it was written.
        """
        ...

    def finish(self) -> None:
        """Write what is missing at the end; the file stays open."""
        ...

    def discard(self) -> None:
        """Let go of the file, which is going to be closed and cut off or removed."""
        ...


class LineWriter:
    """JSON lines."""

    def __init__(self, file: IO[bytes], render: Render, reader: Reader, size: int = 0) -> None:
        """Write on from where `file` stands, after `size` bytes."""
        self._file = file
        self._render = render
        self._reader = reader
        self._copies = render is stored_line and reader.changes_nothing
        self.size = size
        self.beside = 0

    def add(self, document: Document) -> int:
        """See `Writer.add`."""
        chats = () if self._copies else self._reader.chats(document)
        try:
            if self._copies:
                line = document.line
                self._file.write(line)
                self._file.write(b"\n")
                self.size += len(line) + 1
                return 1
            rendered = [self._render(chat, self._reader.left_out) for chat in chats]
        except InvalidInputError as error:
            raise CorruptError(f"{document.what} cannot be written as lines: {error}") from None
        lines = [line for line in rendered if line is not None]
        for line in lines:
            self._file.write(line)
            self.size += len(line)
        return len(lines)

    def finish(self) -> None:
        """See `Writer.finish`."""

    def discard(self) -> None:
        """See `Writer.discard`."""


def usual_format(place: str) -> str:
    """The name of the format of an export to a place, if none is asked for: Parquet where it ends so, else `jsonl`."""
    return "parquet" if place.lower().endswith(FORMATS["parquet"].suffix) else "jsonl"


def format_named(name: str, branches: str | None) -> tuple[Format, Branches]:
    """A format, and the branches to write: those given if it can hold them, else its usual ones.

    Raises:
        InvalidInputError: there is no such format, or it cannot hold these branches.
    """
    found = FORMATS.get(name)
    if found is None:
        raise InvalidInputError(f"format {name!r} is not known: expected one of {', '.join(FORMATS)}")
    for one in found.branches:
        if branches in (None, one):
            return found, one
    raise InvalidInputError(f"{name} cannot hold branches {branches!r}: expected {' or '.join(found.branches)}")
