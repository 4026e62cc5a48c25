"""`LocalStore`: an archive in a directory, safe for any number of processes on one machine.

Law: a put is temporary file, fsync, then under a lock: compare, rename, fsync of the directory; a key never leaves
the root, because every folder on the way to it is opened relative to the one above, and symbolic links below the root
are followed nowhere. (A read of a whole file opens it by its path, and then asks where the file lies that was opened:
where that is another place, it is as if nothing had been opened.) The clock is the file system's own (the mtime of a
file just written). Parts of a name that begin with "." belong to the directory, not to the archive: no key has one,
no list shows one, and `.s3conv/` holds the locks and temporary files. `s3conv.store.base` is the contract; whether the
file system honours flock is for the probe of `create` to find out.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import secrets
import stat
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from typing import Literal
from urllib.parse import quote

from s3conv.errors import AccessDeniedError, InvalidInputError, StoreError, UnavailableError
from s3conv.store.base import (
    LIST_PAGE,
    Listed,
    Listing,
    NotModified,
    ObjectHead,
    PreconditionFailed,
    StoredObject,
    Written,
    check_conditions,
    check_delete,
    check_holds,
    check_key,
    check_prefix,
    check_span,
    is_key,
)

_LOCKS = 64
"""Lock files. More would only mean that fewer keys share one; they are never removed, so the number is fixed."""

_OWN = ".s3conv"
_PART = "[A-Za-z0-9_~%-][A-Za-z0-9_.~%-]*"
_KEY = re.compile(f"{_PART}(?:/{_PART})*")
"""A key of the contract, less those that are the directory's own."""
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: opening a named pipe must not hang.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_TEMPORARY_KEPT = 24 * 3600.0
"""Seconds after which a temporary file can only be a crashed writer's."""


class _Read(StoredObject, frozen=True):
    """A file that was read. Its ETag is worked out when somebody asks for it, which an export does not."""

    @property  # type: ignore[misc]  # the field of this name stays empty
    def etag(self) -> str:
        """The hash of what it holds."""
        return hashlib.sha256(self.body).hexdigest()


class LocalStore:
    """An `ObjectStore` in the directory `root`, which the first put makes. User metadata is not kept."""

    fan_out = 1

    def __init__(self, root: str, url: str | None = None) -> None:
        """Name the directory; no I/O. `url` is what the user gave, for messages."""
        self.root = os.path.abspath(root)
        self.url = url or f"file://{quote(self.root)}"
        self._synced: set[str] = set()
        self._swept = False
        self._real_root = ""

    async def get(
        self, key: str, *, if_none_match: str | None = None, span: tuple[int, int] | None = None
    ) -> StoredObject | None:
        """See `ObjectStore.get`."""
        _check(key)
        if span is not None:
            check_span(span, if_none_match)
            found = None
        else:
            found = self._read_directly(key)
        if found is None:
            with self._errors(key), self._folder_of(key) as (folder, name):
                if span is not None:
                    return _read_span(folder, name, span, os.path.join(self.root, key))
                found = _read(folder, name)
        if if_none_match is not None and found is not None and found.etag == if_none_match:
            raise NotModified(f"{self.url}: {key} still has the ETag {if_none_match}")
        return found

    def _read_directly(self, key: str) -> StoredObject | None:
        """Read a file by its whole path: twice as fast as folder by folder. None where anything is unusual."""
        real = self._real_root
        if not real:  # Found once. The root may be a link; if that leads elsewhere later, nothing is read directly.
            real = self._real_root = os.path.realpath(self.root)
        try:
            file = os.open(f"{self.root}/{key}", _FILE)
            try:
                # Linux tells where an open file lies, all links resolved; elsewhere there is no such name.
                if os.readlink(f"/proc/self/fd/{file}") != f"{real}/{key}":
                    return None  # A symbolic link, which is refused below; or it was replaced just now.
                status = os.fstat(file)
                body = os.read(file, status.st_size)
            finally:
                os.close(file)
        except OSError:
            return None
        if len(body) != status.st_size or not stat.S_ISREG(status.st_mode):
            return None
        return _Read(body, "", status.st_mtime, time.time())

    async def head(self, key: str) -> ObjectHead | None:
        """See `ObjectStore.head`. It reads the file whole: the ETag is the hash of what it holds."""
        found = await self.get(key)
        return ObjectHead(found.etag, found.last_modified, len(found.body)) if found is not None else None

    async def put(
        self,
        key: str,
        body: bytes,
        *,
        if_match: str | None = None,
        if_none_match: Literal["*"] | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> Written:
        """See `ObjectStore.put`."""
        _check(key)
        check_conditions(if_match, if_none_match)
        etag = hashlib.sha256(body).hexdigest()
        renamed = False
        try:
            with (
                self._errors(key),
                self._own_folder("tmp") as temporary_folder,
                _temporary(temporary_folder, body) as (temporary, file),
                self._made_folder_of(key) as (folder, name),
                # Unconditional puts lock too: one that slipped in between another's compare and rename would be lost.
                self._locked(key),
            ):
                if if_match is not None or if_none_match is not None:
                    self._compare(key, _read(folder, name), if_match)
                os.utime(file)  # The date is that of the commit, not of the wait for the lock.
                date = os.fstat(file).st_mtime
                os.rename(temporary, name, src_dir_fd=temporary_folder, dst_dir_fd=folder)
                renamed = True
                os.fsync(folder)
        except StoreError as error:
            if renamed:
                raise UnavailableError(f"{error}; the write may or may not survive a crash: save again") from error
            raise
        return Written(etag, date)

    async def delete(self, keys: Sequence[str]) -> None:
        """See `ObjectStore.delete`."""
        check_delete(keys)
        for key in keys:
            _check(key)
        for key in keys:
            with self._errors(key), self._folder_of(key) as (folder, name):
                if folder is None or not _is_there(folder, name):
                    continue
                # Locked, as a put is: a conditional put must not bring back what is deleted between its two steps.
                with self._locked(key), suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=folder)

    async def list(self, prefix: str, *, after: str = "") -> Listing:
        """See `ObjectStore.list`. One page costs a scan of the folders that it touches, not of those before `after`."""
        check_prefix(prefix)
        _check(prefix[:-1])
        with self._errors(prefix):
            with self._folder(prefix[:-1].split("/")) as folder:
                page = list(islice(_walk(folder, prefix, after), LIST_PAGE + 1)) if folder is not None else []
            return Listing(page[:LIST_PAGE], len(page) > LIST_PAGE, self._now())

    async def enclosing(self, name: str) -> Sequence[str]:
        """See `ObjectStore.enclosing`: looks for `name` in every parent folder. One that may not be read is passed."""
        check_key(name)
        found = []
        folder = self.root
        while (outer := os.path.dirname(folder)) != folder:
            folder = outer
            if os.path.isfile(os.path.join(folder, name)):
                found.append(f"file://{quote(folder)}")
        return found

    async def close(self) -> None:
        """Do nothing: no file stays open between calls."""

    def _compare(self, key: str, found: StoredObject | None, if_match: str | None) -> None:
        if if_match is None:
            if found is not None:
                raise PreconditionFailed(f"{self.url}: {key} exists already, with the ETag {found.etag}")
        elif found is None or found.etag != if_match:
            now = f"has the ETag {found.etag}" if found else "is not there"
            raise PreconditionFailed(f"{self.url}: {key} {now}; expected the ETag {if_match}")

    @contextmanager
    def _errors(self, key: str) -> Iterator[None]:
        """Turn what the operating system says into the errors of the contract."""
        try:
            yield
        except OSError as error:
            what = f"{os.path.join(self.root, key)}: {error.strerror or error}"
            if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
                raise AccessDeniedError(f"{what}: check who owns the directory and how it is mounted") from error
            if error.errno == errno.ELOOP:
                raise StoreError(f"{what}: symbolic links below {self.root} are not followed: move the data") from error
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise StoreError(f"{what}: make room and try again; nothing was written") from error
            raise StoreError(what) from error

    @contextmanager
    def _folder(self, parts: Sequence[str], *, make: bool = False) -> Generator[int | None]:
        """Open the folder `parts` below the root; None if it is not there. With `make`, it is there, durably."""
        try:
            folder = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            if not make:
                yield None
                return
            _make_root(self.root)
            folder = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for depth, part in enumerate(parts, 1):
                inner = self._enter(folder, "/".join(parts[:depth]), part, make)
                if inner is None:
                    yield None
                    return
                os.close(folder)
                folder = inner
            yield folder
        finally:
            os.close(folder)

    def _enter(self, folder: int, path: str, part: str, make: bool) -> int | None:
        if make and path not in self._synced:
            with suppress(FileExistsError):
                os.mkdir(part, dir_fd=folder)
            # Also for a folder that another process has just made: its own fsync may still be to come.
            os.fsync(folder)
            self._synced.add(path)
        try:
            return os.open(part, _FOLDER, dir_fd=folder)
        except FileNotFoundError:
            if make and path in self._synced:
                self._synced.discard(path)  # Somebody removed it since.
                return self._enter(folder, path, part, make)
            return None
        except NotADirectoryError:
            if stat.S_ISLNK(os.lstat(part, dir_fd=folder).st_mode):
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP)) from None
            if make:
                raise
            return None

    @contextmanager
    def _folder_of(self, key: str) -> Generator[tuple[int | None, str]]:
        *parts, name = key.split("/")
        with self._folder(parts) as folder:
            yield folder, name

    @contextmanager
    def _made_folder_of(self, key: str) -> Generator[tuple[int, str]]:
        *parts, name = key.split("/")
        with self._folder(parts, make=True) as folder:
            assert folder is not None
            yield folder, name

    @contextmanager
    def _own_folder(self, name: str) -> Generator[int]:
        with self._folder([_OWN, name], make=True) as folder:
            assert folder is not None
            if name == "tmp" and not self._swept:
                self._swept = True
                _sweep(folder)
            yield folder

    @contextmanager
    def _locked(self, key: str) -> Iterator[None]:
        """Hold the lock that `key` shares with some others. It keeps threads apart too: each opens the file anew."""
        number = hashlib.sha256(key.encode()).digest()[0] % _LOCKS
        with self._own_folder("locks") as folder:
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            lock = os.open(f"{number:02x}", flags, 0o666, dir_fd=folder)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            fcntl.flock(lock, fcntl.LOCK_UN)  # closing does not do it where a fork has the open file too
            os.close(lock)

    def _now(self) -> float:
        """The file system's clock; this machine's where nothing may be written, or where no put has been yet."""
        try:
            with self._folder([_OWN]) as folder:
                if folder is None:
                    return time.time()
                clock = os.open("clock", os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666, dir_fd=folder)
                try:
                    os.utime(clock)
                    return os.fstat(clock).st_mtime
                finally:
                    os.close(clock)
        except OSError:
            return time.time()


def _check(key: str) -> None:
    if _KEY.fullmatch(key) is None:
        check_key(key)
        raise InvalidInputError(f"object key {key!r} is not allowed in a directory: a part begins with '.'")


@contextmanager
def _opened(folder: int | None, name: str) -> Generator[tuple[int, os.stat_result] | None]:
    """A file open for reading, and what is known about it; None if there is none of this name."""
    descriptor = None
    if folder is not None:
        with suppress(FileNotFoundError, NotADirectoryError):
            descriptor = os.open(name, _FILE, dir_fd=folder)
    if descriptor is None:
        yield None
        return
    try:
        status = os.fstat(descriptor)
        yield (descriptor, status) if stat.S_ISREG(status.st_mode) else None
    finally:
        os.close(descriptor)


def _read(folder: int | None, name: str) -> StoredObject | None:
    with _opened(folder, name) as opened:
        if opened is None:
            return None
        descriptor, status = opened
        with open(descriptor, "rb", closefd=False) as file:
            body = file.read()
    # Reading must not write, so that the clock is not asked by writing a file: a local file system's is the machine's.
    return _Read(body, "", status.st_mtime, time.time())


def _read_span(folder: int | None, name: str, span: tuple[int, int], where: str) -> StoredObject | None:
    """Read the bytes of `span` and no others: without the rest there is no hash, so no ETag."""
    with _opened(folder, name) as opened:
        if opened is None:
            return None
        descriptor, status = opened
        check_holds(where, status.st_size, span)  # First: a length that is damaged could be all of the memory.
        start, length = span
        body = b""
        # One call may read less than it is asked for: 2 GiB at most, or what a network file system likes.
        while part := os.pread(descriptor, length - len(body), start + len(body)):
            body += part
        check_holds(where, start + len(body), span)  # Somebody may have cut it meanwhile.
    return StoredObject(body, "", status.st_mtime, time.time())


def _is_there(folder: int, name: str) -> bool:
    try:
        return not stat.S_ISDIR(os.lstat(name, dir_fd=folder).st_mode)
    except FileNotFoundError:
        return False


@contextmanager
def _temporary(folder: int, body: bytes) -> Generator[tuple[str, int]]:
    """A new file with `body`, on the disk and not only in its cache; removed if it is still there afterwards."""
    name = f"{os.getpid()}-{secrets.token_hex(12)}"
    descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666, dir_fd=folder)
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(body)
        os.fsync(descriptor)
        yield name, descriptor
    finally:
        os.close(descriptor)
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=folder)


def _sweep(folder: int) -> None:
    with os.scandir(folder) as entries:
        for entry in entries:
            with suppress(OSError):  # Gone, or another user's.
                if time.time() - entry.stat(follow_symlinks=False).st_mtime > _TEMPORARY_KEPT:
                    os.unlink(entry.name, dir_fd=folder)


def _make_root(root: str) -> None:
    """Make the root and the folders above it that are missing, each known to its parent for good."""
    parent = os.path.dirname(root)
    if not os.path.isdir(parent):
        _make_root(parent)
    with suppress(FileExistsError):
        os.mkdir(root)
    descriptor = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _walk(folder: int, prefix: str, after: str) -> Iterator[Listed]:
    """The files below `folder` in byte order of their whole key, beginning behind `after`."""
    with os.scandir(folder) as entries:
        # A folder sorts as "name/": "a-b" and "a.b" come before "a/c", "a0" after it.
        names = sorted(
            entry.name + "/" if entry.is_dir(follow_symlinks=False) else entry.name
            for entry in entries
            if entry.name[0] != "." and is_key(entry.name)  # Nothing of ours has another name.
        )
    for name in names:
        key = prefix + name
        if key <= after and not (name.endswith("/") and after.startswith(key)):
            continue
        try:
            if name.endswith("/"):
                inner = os.open(name[:-1], _FOLDER, dir_fd=folder)
                try:
                    yield from _walk(inner, key, after)
                finally:
                    os.close(inner)
                continue
            status = os.lstat(name, dir_fd=folder)
        except FileNotFoundError:
            continue  # Deleted since the scan.
        if stat.S_ISLNK(status.st_mode):
            # Leaving it out would be a conversation that silently is not there.
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        yield Listed(key, status.st_mtime, status.st_size)
