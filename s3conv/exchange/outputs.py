"""Where an export goes: a local folder, or a prefix of an object store. Both hold files by name.

Law: a file is complete or absent. In a folder it is written in a working folder beside its place, forced to the disk
and renamed; in an object store it is put whole. The working folder goes when the export is finished. One export at a
time writes to a place: in a folder it holds a lock, which ends with its process; in an object store it replaces only
what it knows, so that whoever comes first to a name has it, and the other one ends with an error.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from io import BytesIO
from pathlib import Path
from typing import IO, Protocol
from urllib.parse import unquote, urlsplit

from s3conv.bridge import run_sync
from s3conv.errors import ConflictError, InvalidInputError, UnavailableError
from s3conv.store import LIST_PAGE, ObjectStore, StoreOptions, open_store
from s3conv.store.base import Contended, PreconditionFailed

WORKING = "_checkpoint/"
"""The working folder of an export to a folder. Readers of data sets pass over names that begin with `_`."""

_BUFFER = 1 << 18
_SENDS = 5
"""How many times a request is sent that gets no definite answer."""


class Output(Protocol):
    """A place for files. Names are relative, with `/`."""

    url: str
    """For messages."""
    working: str
    """The name of the working folder."""
    keeps_parts: bool
    """Whether a file that was begun is still there after an interruption."""

    def hold(self) -> AbstractContextManager[None]:
        """Write here, and nobody else, while it is open.

        Raises:
            ConflictError: somebody else does.
            FileNotFoundError: there is no such folder.
        """
        ...

    def take_over(self, names: Iterable[str]) -> None:
        """What an interrupted export may have left under these names can be replaced; what comes later cannot."""
        ...

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
        """Write a small file whole. `durable`: it survives a crash of the machine, and nobody else's is replaced.

        Raises:
            ConflictError: somebody else has written it.
        """
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

    @contextmanager
    def hold(self) -> Iterator[None]:
        """See `Output.hold`."""
        if not self.root.is_dir():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self.root))
        path = self.root / self.working / "lock"
        while (lock := self._lock(path)) is None:
            pass  # the export that had it has just ended, and removed it
        with lock:
            try:
                yield
            finally:
                self._let_go(path)

    def _lock(self, path: Path) -> IO[bytes] | None:
        """The file with this name, locked; None if it has no name any more."""
        import fcntl  # not on Windows, where an export may still go to a bucket

        path.parent.mkdir(exist_ok=True)
        with ExitStack() as opened:
            try:
                lock = opened.enter_context(path.open("wb"))
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(os.fstat(lock.fileno()), path.stat()):
                    opened.pop_all()
                    return lock
            except FileNotFoundError:
                return None
            except BlockingIOError:
                raise _busy(self.url) from None
        return None

    def _let_go(self, lock: Path) -> None:
        """Leave no working folder that holds nothing to go on from."""
        with suppress(OSError):
            if [*lock.parent.iterdir()] == [lock]:
                lock.unlink()
                lock.parent.rmdir()

    def take_over(self, names: Iterable[str]) -> None:
        """See `Output.take_over`."""

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
        self._etags: dict[str, str] = {}
        self._lost = False
        self.url = f"{store.url.rstrip('/')}/{prefix}"

    @contextmanager
    def hold(self) -> Iterator[None]:
        """See `Output.hold`. A lock would outlive its process. So who replaces the checkpoint goes on, and an export
        that has it so far finds that it is no longer its own."""
        self._etags.clear()
        self._lost = False
        yield

    def take_over(self, names: Iterable[str]) -> None:
        """See `Output.take_over`."""
        for name in names:
            if (found := run_sync(self._store.head(self._prefix + name))) is not None:
                self._etags[name] = found.etag

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
        if durable:
            self._etags[name] = self._put_own(self._prefix + name, body, self._etags.get(name))
        else:
            run_sync(self._store.put(self._prefix + name, body))

    def _put_own(self, key: str, body: bytes, etag: str | None) -> str:
        """Put what is new, or replaces the object with this ETag; the new ETag."""
        for attempt in range(_SENDS):
            try:
                put = self._store.put(key, body, if_match=etag, if_none_match=None if etag else "*")
                return run_sync(put).etag
            except PreconditionFailed:
                found = run_sync(self._store.get(key)) if attempt else None
                if found is not None and found.body == body:
                    return found.etag  # the one before had arrived
                self._lost = True
                raise _busy(self.url) from None
            except (Contended, UnavailableError):
                if attempt == _SENDS - 1:
                    raise
                time.sleep(2**attempt / 4)
        raise AssertionError("the last one returns or raises")

    def open(self, name: str) -> IO[bytes] | None:
        """See `Output.open`."""
        found = run_sync(self._store.get(self._prefix + name))
        if found is None:
            return None
        self._etags[name] = found.etag
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
        if self._lost:
            return  # it is another export's
        keys = [self._prefix + name for name in self.names() if name.startswith(self.working)]
        for start in range(0, len(keys), LIST_PAGE):
            run_sync(self._store.delete(keys[start : start + LIST_PAGE]))


def _busy(url: str) -> ConflictError:
    return ConflictError(f"another export is writing to {url}: wait until it has ended, then export again to go on")


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
