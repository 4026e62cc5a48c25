"""Where an export goes: a local folder, or a prefix of an object store. Both hold files by name.

Law: a file is complete or absent. In a folder it is written in a working folder beside its place, forced to the disk
and renamed; in an object store it is put whole. The working folder goes when the export is finished.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import IO, Protocol
from urllib.parse import unquote, urlsplit

from s3conv.bridge import run_sync
from s3conv.errors import InvalidInputError
from s3conv.store import LIST_PAGE, ObjectStore, StoreOptions, open_store

WORKING = "_checkpoint/"
"""The working folder of an export to a folder. Readers of data sets pass over names that begin with `_`."""

_BUFFER = 1 << 18


class Output(Protocol):
    """A place for files. Names are relative, with `/`."""

    url: str
    """For messages."""
    working: str
    """The name of the working folder."""
    keeps_parts: bool
    """Whether a file that was begun is still there after an interruption."""

    def begin(self, length: int = 0) -> IO[bytes]:
        """The file to write next; with a `length`, the one that was begun before, cut off after so many bytes.

        Raises:
            InvalidInputError: that one is shorter, or gone.
        """
        ...

    def flush(self, file: IO[bytes]) -> None:
        """Make sure that what was written so far survives."""
        ...

    def finish(self, file: IO[bytes], name: str) -> None:
        """Give the file its name; what had it is replaced."""
        ...

    def put(self, name: str, body: bytes, *, durable: bool = True) -> None:
        """Write a small file whole. `durable`: it survives a crash of the machine."""
        ...

    def open(self, name: str) -> IO[bytes] | None:
        """A file to read, or None if there is none."""
        ...

    def names(self) -> Iterator[str]:
        """The names of all files, those in the working folder too."""
        ...

    def clear(self) -> None:
        """Remove the working folder."""
        ...


class Folder:
    """A folder of the file system, which is there."""

    keeps_parts = True

    def __init__(self, root: Path, working: str = WORKING) -> None:
        """Name it; nothing is written yet."""
        self.root = root
        self.url = str(root)
        self.working = working

    def begin(self, length: int = 0) -> IO[bytes]:
        """See `Output.begin`."""
        path = self._path(f"{self.working}part")
        file = path.open("r+b" if length and path.exists() else "w+b", buffering=_BUFFER)
        found = file.seek(0, os.SEEK_END)
        if found < length:
            file.close()
            raise InvalidInputError(
                f"{path} has {found:,} bytes, and {length:,} were written before the interruption: remove "
                f"{path.parent} to begin again"
            )
        file.truncate(length)
        file.seek(length)
        return file

    def flush(self, file: IO[bytes]) -> None:
        """See `Output.flush`."""
        file.flush()
        os.fsync(file.fileno())

    def finish(self, file: IO[bytes], name: str) -> None:
        """See `Output.finish`."""
        self.flush(file)
        file.close()
        path, part = self._path(name), self._path(f"{self.working}part")
        if path.exists():
            shutil.copymode(path, part)
        part.replace(path)
        _force(path.parent)

    def put(self, name: str, body: bytes, *, durable: bool = True) -> None:
        """See `Output.put`."""
        path, part = self._path(name), self._path(f"{self.working}file")
        with part.open("wb") as file:
            file.write(body)
            if durable:
                self.flush(file)
        part.replace(path)
        if durable:
            _force(path.parent)

    def open(self, name: str) -> IO[bytes] | None:
        """See `Output.open`."""
        with suppress(FileNotFoundError, NotADirectoryError):
            return (self.root / name).open("rb")
        return None

    def names(self) -> Iterator[str]:
        """See `Output.names`."""
        for folder, _, files in os.walk(self.root):
            for name in files:
                yield (Path(folder) / name).relative_to(self.root).as_posix()

    def clear(self) -> None:
        """See `Output.clear`."""
        with suppress(FileNotFoundError):
            shutil.rmtree(self.root / self.working)

    def _path(self, name: str) -> Path:
        path = self.root / name
        path.parent.mkdir(exist_ok=True)
        return path


def _force(folder: Path) -> None:
    """Make the names in a folder survive."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Bucket:
    """A prefix of an object store. A file is gathered on the local disk and put whole: it has to fit into memory."""

    keeps_parts = False
    working = WORKING

    def __init__(self, store: ObjectStore, prefix: str) -> None:
        """Take an open store, which who calls closes, and the prefix, one part of a key."""
        self._store = store
        self._prefix = f"{prefix}/"
        self.url = f"{store.url.rstrip('/')}/{prefix}"

    def begin(self, length: int = 0) -> IO[bytes]:
        """See `Output.begin`."""
        return tempfile.TemporaryFile(buffering=_BUFFER)

    def flush(self, file: IO[bytes]) -> None:
        """See `Output.flush`."""
        file.flush()

    def finish(self, file: IO[bytes], name: str) -> None:
        """See `Output.finish`."""
        with file:
            file.seek(0)
            self.put(name, file.read())

    def put(self, name: str, body: bytes, *, durable: bool = True) -> None:
        """See `Output.put`."""
        run_sync(self._store.put(self._prefix + name, body))

    def open(self, name: str) -> IO[bytes] | None:
        """See `Output.open`."""
        found = run_sync(self._store.get(self._prefix + name))
        if found is None:
            return None
        return BytesIO(found.body)

    def names(self) -> Iterator[str]:
        """See `Output.names`."""
        after = ""
        while True:
            page = run_sync(self._store.list(self._prefix, after=after))
            for listed in page.objects:
                yield listed.key.removeprefix(self._prefix)
            if not page.more:
                return
            after = page.objects[-1].key

    def clear(self) -> None:
        """See `Output.clear`."""
        keys = [self._prefix + name for name in self.names() if name.startswith(self.working)]
        for start in range(0, len(keys), LIST_PAGE):
            run_sync(self._store.delete(keys[start : start + LIST_PAGE]))


def open_bucket(url: str, options: StoreOptions) -> tuple[Bucket, ObjectStore]:
    """The output at an `s3://` URL, and the store that is to be closed after.

    Raises:
        InvalidInputError: the URL names no prefix.
    """
    outer, _, prefix = url.rstrip("/").rpartition("/")
    if not urlsplit(url).path.strip("/"):
        raise InvalidInputError(f"{url!r} names a whole bucket: an export goes to a prefix, s3://bucket/prefix")
    store = open_store(outer, **options)
    return Bucket(store, prefix), store


def check_apart(archive: str, output: Output) -> None:
    """Make sure that an export does not write into the archive that it reads.

    Args:
        archive: its URL.
        output: where the export goes.

    Raises:
        InvalidInputError: it goes to the archive or below it; or the archive lies in its working folder.
    """
    source, place = _parts(archive), _parts(output.url)
    if place[: len(source)] == source:
        raise InvalidInputError(
            f"{output.url} is in the archive {archive}, which an export would damage: export to another place"
        )
    working = _parts(f"{output.url}/{output.working}")
    if source[: len(working)] == working:
        raise InvalidInputError(
            f"the archive {archive} is in {output.url}/{output.working}, which an export removes at its end: export to "
            f"another place"
        )


def _parts(url: str) -> tuple[str, ...]:
    """What names a place, part by part; of a folder all links resolved."""
    if "://" in url and not url.startswith("file://"):
        return tuple(url.rstrip("/").split("/"))
    return Path(os.path.realpath(folder_of(url))).parts


def folder_of(url: str) -> Path:
    """The folder that a path or a `file://` URL names."""
    return Path(unquote(urlsplit(url).path) if url.startswith("file://") else url)
