"""From a path to streams of bytes: folders, plain files, gzip, zstd, and the members of a ZIP or tar.

Law: what a file is, its first bytes tell. Sizes are not trusted: streams are read in pieces, so that a small file that
unpacks to terabytes costs time but no memory. Bytes are counted as they come off the disk, so that progress can be
shown against the file's size.
"""

from __future__ import annotations

import gzip
import io
import os
import re
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from glob import glob, has_magic
from os import PathLike, fspath
from pathlib import Path
from typing import IO, Any, Protocol, cast

import zstandard

READ_ERRORS = (
    OSError,
    EOFError,
    zlib.error,
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
    tarfile.TarError,
    zstandard.ZstdError,
)
"""What reading a damaged or vanished file raises."""

_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"
_ZIP = (b"PK\x03\x04", b"PK\x05\x06")
_BLOCK = tarfile.BLOCKSIZE
_NESTED = 4
"""How many times a file may be packed. An archive that contains itself has no end."""
_READABLE = (".json", ".jsonl", ".ndjson")
_PACKED = (".gz", ".zst")
_ARCHIVES = (".zip", ".tar", ".tgz", ".tar.gz", ".tar.zst")
_CONVERSATIONS = re.compile(r"conversations?(-\d+)?\.(json|jsonl|ndjson)(\.gz|\.zst)?", re.IGNORECASE)
"""The names of files that hold conversations and nothing else."""

Source = str | PathLike[str] | IO[bytes]
"""What is imported: the path of a file or folder, a pattern such as "*.json", or an open stream."""


class Stream(Protocol):
    """What is read from: bytes, in order."""

    def read(self, size: int, /) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Member:
    """A stream of bytes to read. `name` is its name in the ZIP or tar, "" for a file that is neither.

    `optional`: it may be something else than conversations, so that it is ignored if its first item is none.
    """

    name: str
    stream: Stream
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Skipped:
    """A member that is not read, because of its name; or that cannot be, for a `reason`."""

    name: str
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """A file to read. `folder` is the one that was named, where it was not the file itself."""

    source: Source
    folder: str = ""

    @property
    def name(self) -> str:
        """For people; "-" for a stream."""
        return fspath(self.source) if isinstance(self.source, str | PathLike) else "-"

    @property
    def size(self) -> int:
        """Bytes on the disk; 0 if that is not known."""
        try:
            return os.stat(self.source).st_size if isinstance(self.source, str | PathLike) else 0
        except OSError:
            return 0


class _Counted(io.FileIO):
    """A file that says how many bytes of it were read."""

    def __init__(self, path: str | PathLike[str], count: Callable[[int], None]) -> None:
        super().__init__(path, "r")
        self._count = count

    def readinto(self, buffer: Any) -> int:
        read = super().readinto(buffer) or 0
        self._count(read)
        return read


class _Unzstd(io.RawIOBase):
    """What zstd frames hold. A frame that breaks off is an error; the library's own reader ends there silently."""

    def __init__(self, packed: Stream) -> None:
        self._packed = packed
        self._frame: Any = None
        self._ready = memoryview(b"")
        self._failed: zstandard.ZstdError | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            if self._failed is not None:
                raise self._failed
            # Small pieces: each of their bytes may hold up to 32 KiB.
            data = self._packed.read(1024)
            if not data:
                if self._frame is not None:
                    raise EOFError("it ends in the middle of a zstd frame")
                return 0
            self._ready = memoryview(self._unpack(data))
        taken = min(len(buffer), len(self._ready))
        buffer[:taken] = self._ready[:taken]
        self._ready = self._ready[taken:]
        return taken

    def _unpack(self, data: bytes) -> bytes:
        unpacked = []
        while data:
            if self._frame is None:
                self._frame = zstandard.ZstdDecompressor().decompressobj()
            try:
                unpacked.append(self._frame.decompress(data))
            except zstandard.ZstdError as error:
                self._failed = error  # raised when what is before it has been read
                break
            data = b""
            if self._frame.eof:
                data, self._frame = self._frame.unused_data, None
        return b"".join(unpacked)


class _Prefixed(io.RawIOBase):
    """A stream with what was read of it put back in front."""

    def __init__(self, head: bytes, rest: IO[bytes]) -> None:
        self._head, self._rest = head, rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        # What was read before an error is given before it: `read` would lose it.
        data = self._head or cast(Any, self._rest).read1(len(buffer))
        taken = min(len(buffer), len(data))
        buffer[:taken] = data[:taken]
        self._head = data[taken:]
        return taken


def find_places(source: Source) -> Iterator[Place | Skipped]:
    """The files that are meant: those of a folder and of the folders in it, in the order of their names.

    Of a folder those are read whose names say that they may be JSON, packed or not; the others are `Skipped`. A path
    that is not there and has * ? or [ is a pattern, as a shell would have expanded it; one that matches nothing is
    given as it is.
    """
    if not isinstance(source, str | PathLike):
        yield Place(source)
        return
    path = fspath(source)
    found = sorted(glob(path, recursive=True)) if has_magic(path) and not os.path.lexists(path) else []
    for one in found or [path]:
        if os.path.isdir(one):
            yield from _in_folder(Path(one), one)
        else:
            yield Place(one)


def _in_folder(folder: Path, named: str) -> Iterator[Place | Skipped]:
    try:
        paths = sorted(folder.iterdir(), key=lambda path: path.name)
    except OSError as error:
        yield Skipped(os.path.relpath(folder, named), f"cannot be read: {error.strerror}")
        return
    for path in paths:
        if path.is_dir() and not path.is_symlink() and path.name != "__MACOSX":  # a link may lead back to where it is
            yield from _in_folder(path, named)
        elif path.exists() and not path.is_file():
            yield Skipped(os.path.relpath(path, named))  # a folder's link; a pipe, which may never give anything
        elif _may_be_read(path.name):
            yield Place(path, named)
        else:
            yield Skipped(os.path.relpath(path, named))


def open_members(place: Place, count: Callable[[int], None]) -> Iterator[Member | Skipped]:
    """What is to be read in a file. A member's stream is open until the next one is asked for.

    Args:
        place: the file.
        count: called with the number of bytes each time that some were read from the disk.

    Raises:
        One of `READ_ERRORS`: the file cannot be read.
    """
    if isinstance(place.source, str | PathLike):
        with io.BufferedReader(_Counted(place.source, count), 1 << 16) as file:
            yield from _members(file, "", place.folder != "" and _optional(os.path.basename(place.name)))
    else:
        yield from _members(place.source, "", False)


def _members(file: IO[bytes], name: str, optional: bool, depth: int = 0) -> Iterator[Member | Skipped]:
    """What is in a stream, whose name is `name` where it is the member of another."""
    start = file.tell() if depth == 0 and file.seekable() else None
    head = file.read(_BLOCK)
    is_gzip, is_zstd, is_zip, is_tar = head[:2] == _GZIP, head[:4] == _ZSTD, head[:4] in _ZIP, _is_tar(head)
    whole = _Prefixed(head, file)
    if is_zip and start is not None:
        file.seek(start)
    else:
        file = _buffered(whole)
    if depth == _NESTED and (is_gzip or is_zstd or is_zip or is_tar):
        yield Skipped(name, f"is packed more than {_NESTED} times")
    elif is_gzip:
        with gzip.open(file) as unpacked:
            # As it is, `gzip` forgets what it has unpacked when it then comes to an error.
            yield from _members(_buffered(_Prefixed(b"", cast(IO[bytes], unpacked))), name, optional, depth + 1)
    elif is_zstd:
        yield from _members(_buffered(_Unzstd(file)), name, optional, depth + 1)
    elif is_zip and start is not None:
        yield from _zip_members(file, name, depth + 1)
    elif is_zip:
        with tempfile.TemporaryFile() as copy:  # its list is at the end
            shutil.copyfileobj(file, copy)
            yield from _zip_members(cast(IO[bytes], copy), name, depth + 1)
    elif is_tar:
        yield from _tar_members(file, name, depth + 1)
    else:
        yield Member(name, whole, optional)


def _buffered(raw: object) -> IO[bytes]:
    return io.BufferedReader(cast(Any, raw), 1 << 16)


def _is_tar(head: bytes) -> bool:
    if len(head) < _BLOCK:
        return False
    try:
        tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


def _zip_members(file: IO[bytes], above: str, depth: int) -> Iterator[Member | Skipped]:
    with zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            if info.is_dir():
                continue
            name = f"{above}/{info.filename}" if above else info.filename
            if not _may_be_read(info.filename):
                yield Skipped(name)
                continue
            try:
                stream = archive.open(info)
            except (RuntimeError, NotImplementedError) as error:  # encrypted, or a compression not supported
                yield Skipped(name, str(error))
                continue
            with closing(stream):
                yield from _inner(stream, name, _optional(info.filename), depth)


def _tar_members(file: IO[bytes], above: str, depth: int) -> Iterator[Member | Skipped]:
    with tarfile.open(fileobj=file, mode="r|") as archive:
        for info in archive:
            archive.members.clear()  # type: ignore[attr-defined]  # kept for looking back, which nobody does
            if info.isdir():
                continue
            name = f"{above}/{info.name}" if above else info.name
            stream = archive.extractfile(info) if info.isreg() and _may_be_read(info.name) else None
            if stream is None:
                yield Skipped(name)
                continue
            with stream:
                yield from _inner(stream, name, _optional(info.name), depth)


def _inner(stream: IO[bytes], name: str, optional: bool, depth: int) -> Iterator[Member | Skipped]:
    """What is in a member; one that is packed and damaged does not end what it lies in."""
    try:
        yield from _members(stream, name, optional, depth)
    except READ_ERRORS as error:
        yield Skipped(name, f"cannot be read: {said(error)}")


def said(error: BaseException) -> str:
    """What one of `READ_ERRORS` says, for people."""
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return reason or type(error).__name__


def _may_be_read(name: str) -> bool:
    base = name.rpartition("/")[2].lower()
    if base.startswith(".") or name.startswith("__MACOSX/"):
        return False
    plain = base.removesuffix(next((end for end in _PACKED if base.endswith(end)), ""))
    return plain.endswith(_READABLE) or base.endswith(_ARCHIVES)


def _optional(name: str) -> bool:
    """Whether the name leaves open what is in it: an export also has JSON about the account and its settings."""
    return _CONVERSATIONS.fullmatch(name.rpartition("/")[2]) is None
