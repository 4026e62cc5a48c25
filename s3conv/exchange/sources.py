"""From a path to streams of bytes: plain files, gzip, and the members of a ZIP, told apart by their first bytes.

Law: sizes are not trusted. Streams are read in pieces, so that a small file that unpacks to terabytes costs time but
no memory. Bytes are counted as they come off the disk, so that progress can be shown against the file's size.
"""

from __future__ import annotations

import gzip
import io
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from os import PathLike
from typing import IO, Any, Protocol

READ_ERRORS = (OSError, EOFError, zlib.error, zipfile.BadZipFile, zipfile.LargeZipFile)
"""What reading a damaged or vanished file raises."""

_GZIP = b"\x1f\x8b"
_ZIP = (b"PK\x03\x04", b"PK\x05\x06")
_READABLE = (".json", ".jsonl", ".ndjson")


class Stream(Protocol):
    """What is read from: bytes, in order."""

    def read(self, size: int, /) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Member:
    """A stream of bytes to read. `name` is its name in the ZIP, "" for a file that is not one.

    `optional`: it may be something else than conversations, so that it is ignored if its first item is none.
    """

    name: str
    stream: Stream
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Skipped:
    """A member of a ZIP that is not read, because of its name; or that cannot be, for a `reason`."""

    name: str
    reason: str | None = None


class _Counted(io.FileIO):
    """A file that says how many bytes of it were read."""

    def __init__(self, path: str | PathLike[str], count: Callable[[int], None]) -> None:
        super().__init__(path, "r")
        self._count = count

    def readinto(self, buffer: Any) -> int:
        read = super().readinto(buffer) or 0
        self._count(read)
        return read


def open_members(path: str | PathLike[str], count: Callable[[int], None]) -> Iterator[Member | Skipped]:
    """What is to be read in a file. A member's stream is open until the next one is asked for.

    Args:
        path: of the file.
        count: called with the number of bytes each time that some were read from the disk.

    Raises:
        One of `READ_ERRORS`: the file cannot be read.
    """
    with io.BufferedReader(_Counted(path, count), 1 << 16) as file:
        magic = file.peek(4)[:4]
        if magic.startswith(_GZIP):
            with gzip.open(file) as unpacked:
                yield Member("", unpacked)
        elif magic in _ZIP:
            yield from _zip_members(file)
        else:
            yield Member("", file)


def _zip_members(file: IO[bytes]) -> Iterator[Member | Skipped]:
    with zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            name = info.filename
            if info.is_dir():
                continue
            base = name.rpartition("/")[2]
            if not base.lower().endswith(_READABLE) or base.startswith(".") or name.startswith("__MACOSX/"):
                yield Skipped(name)
                continue
            try:
                stream = archive.open(info)
            except (RuntimeError, NotImplementedError) as error:  # encrypted, or a compression not supported
                yield Skipped(name, str(error))
                continue
            with closing(stream):
                # An export also holds JSON about the account and its settings; the conversations are named so.
                yield Member(name, stream, optional="conversation" not in base.lower() or "shared" in base.lower())
