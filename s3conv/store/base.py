"""`ObjectStore`: the contract that every backend keeps, in prose, and the values that cross it.

Law: this package does the only I/O of s3conv, and nothing but I/O. A store moves bytes under keys. It never looks
into a body, never retries a conditional PUT by itself, and never turns an error into "not there".

**Keys** are relative to the archive's root: ASCII, parts joined by `/`, no part empty, `.` or `..`. A store refuses
any other key with `InvalidInputError` before it does I/O; no key can reach outside of the root.

**Consistency.** A `get`, `head` or `list` that begins after a `put` or `delete` returned sees it. A `put` is atomic:
a reader sees all of the old body or all of the new one. With `if_match` or `if_none_match` the comparison and the
write are one step: of any number of concurrent writers naming one ETag, exactly one wins. That holds for bodies that
differ, as all of s3conv's do (each has its write id): an ETag may be a hash, which an identical body does not change.

**Ranges.** A `get` with a `span` gives exactly the bytes asked for, or raises `RangeNotSatisfiable`: never fewer bytes,
never others. Its `etag` is "" on every backend, as a store may have to read the whole to know the ETag; the rest is as
in a whole `get`. It takes no condition: ranges are read from objects that never change. A part cannot be checked
against the checksum that a store keeps of the whole, so what is read in ranges carries checksums of its own.

**Answers.** Only "the key is not there" gives None. `PreconditionFailed` and every other `StoreError` except
`UnavailableError` mean that a write was *not* applied; after `UnavailableError` it may have been, now or later.
`Contended` means "not applied, send the same again".

**Clock.** Every `date` is the store's clock, in seconds since 1970-01-01 UTC. Ages are worked out from it and from
`last_modified`, never from this machine's clock.

**Callers.** All methods are coroutines. Those of a synchronous store never suspend, so that `bridge.run_sync` can
finish them; they may be called from many threads at once.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import msgspec

from s3conv.errors import InvalidInputError, StoreError

LIST_PAGE = 1000
"""Most keys in one page of `list`, and most keys of one DeleteObjects request: the limits of S3."""

_KEY = re.compile(r"(?!\.{1,2}(?:/|$))[A-Za-z0-9_.~%-]+(?:/(?!\.{1,2}(?:/|$))[A-Za-z0-9_.~%-]+)*")


class PreconditionFailed(StoreError):
    """412: `if_match` or `if_none_match` did not hold (also `if_match` on a key that is not there). Not applied."""


class Contended(StoreError):
    """409: a concurrent write to the key was in progress. Not applied; sending the identical request again is safe."""


class NotModified(StoreError):
    """304: the object still has the ETag that the `get` named."""


class RangeNotSatisfiable(StoreError):
    """416: the object is there, but ends before the `span` of a `get` does: it was cut short, or the span is wrong."""


class StoredObject(msgspec.Struct, frozen=True):  # many thousands a second are made of them
    """What a `get` returns. `date` is the store's clock when it answered; `metadata` holds the user metadata where the
    store keeps it, and is a hint only.

    With a `span`, `body` is those bytes and `etag` is "".
    """

    body: bytes
    etag: str
    last_modified: float
    date: float
    metadata: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True)
class ObjectHead:
    """What a `head` returns: as `StoredObject`, with the length of the body in its place."""

    etag: str
    last_modified: float
    size: int
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Written:
    """What a `put` returns: the new ETag, and the store's clock when it answered."""

    etag: str
    date: float


@dataclass(frozen=True, slots=True)
class Listed:
    """One key of a `list`; `size` is the length of its body, in bytes."""

    key: str
    last_modified: float
    size: int


@dataclass(frozen=True, slots=True)
class Listing:
    """One page of a `list`: keys in byte order, whether more follow, and the store's clock when it answered."""

    objects: Sequence[Listed]
    more: bool
    date: float


class ObjectStore(Protocol):
    """A flat space of objects under one root. The module's docstring is the contract."""

    url: str
    """The root, as given by the user, for messages."""
    fan_out: int
    """How many requests may be in flight at once; as large as the connection pool. 1: requests run inline."""

    async def get(
        self, key: str, *, if_none_match: str | None = None, span: tuple[int, int] | None = None
    ) -> StoredObject | None:
        """Fetch an object; None if it is not there; `NotModified` if its ETag is `if_none_match`.

        `span` is (start, length) in bytes, start from 0 and length from 1: fetch these instead of the whole. Raises
        `RangeNotSatisfiable` if the object has fewer. Not together with `if_none_match`.
        """
        ...

    async def head(self, key: str) -> ObjectHead | None:
        """Fetch what is known about an object without its body; None if it is not there."""
        ...

    async def put(
        self,
        key: str,
        body: bytes,
        *,
        if_match: str | None = None,
        if_none_match: Literal["*"] | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> Written:
        """Write an object whole. A conditional one is sent exactly once; who calls decides about sending again."""
        ...

    async def delete(self, keys: Sequence[str]) -> None:
        """Delete at most `LIST_PAGE` objects, unconditionally; keys that are not there are fine."""
        ...

    async def list(self, prefix: str, *, after: str = "") -> Listing:
        """One page of the keys that begin with `prefix` (which ends in `/`) and come after `after` in byte order."""
        ...

    async def enclosing(self, name: str) -> Sequence[str]:
        """The URLs of those roots around this one (parent folders, shorter prefixes) that hold an object `name`."""
        ...

    async def close(self) -> None:
        """Release connections. The store is not used afterwards; closing twice is fine."""
        ...


def is_key(key: str) -> bool:
    """Whether `key` keeps the contract."""
    return _KEY.fullmatch(key) is not None


def check_key(key: str) -> str:
    """Return `key` if it keeps the contract, else raise `InvalidInputError`."""
    if not is_key(key):
        raise InvalidInputError(
            f"object key {key!r} is not allowed: expected parts of A-Za-z0-9_.~%- joined by '/', none '.' or '..'"
        )
    return key


def check_prefix(prefix: str) -> str:
    """Return `prefix` if it may be listed, else raise `InvalidInputError`."""
    if not prefix.endswith("/"):
        raise InvalidInputError(f"prefix {prefix!r} is not allowed: a prefix that is listed ends in '/'")
    check_key(prefix[:-1])
    return prefix


def check_conditions(if_match: str | None, if_none_match: str | None) -> None:
    """Raise `InvalidInputError` if a put names both conditions, or an ETag that no object can have."""
    if if_match is not None and if_none_match is not None:
        raise InvalidInputError("a put takes if_match or if_none_match, not both")
    if if_match is not None and not if_match:
        raise InvalidInputError("if_match is empty: expected the ETag of a get, head or put")
    if if_none_match not in (None, "*"):
        raise InvalidInputError(f"if_none_match of a put is {if_none_match!r}: expected '*'")


def check_span(span: tuple[int, int] | None, if_none_match: str | None) -> None:
    """Raise `InvalidInputError` if a get names bytes that no object can have, or a condition on a part."""
    if span is None:
        return
    start, length = span
    if start < 0 or length < 1:
        raise InvalidInputError(f"span is {span}: expected (start, length), start from 0 and length from 1")
    if if_none_match is not None:
        raise InvalidInputError("a get takes if_none_match or span, not both")


def check_holds(where: str, size: int, span: tuple[int, int]) -> None:
    """Raise `RangeNotSatisfiable` if the object at `where`, of `size` bytes, ends before `span` does."""
    start, length = span
    if start + length > size:
        raise RangeNotSatisfiable(
            f"{where} has {size} bytes; expected {length} from byte {start} on: it was cut short, or what names this "
            f"range is wrong"
        )


def check_delete(keys: Sequence[str]) -> None:
    """Raise `InvalidInputError` if `keys` are too many for one `delete`, or if one of them is not allowed."""
    if len(keys) > LIST_PAGE:
        raise InvalidInputError(f"{len(keys)} keys in one delete: expected at most {LIST_PAGE}")
    for key in keys:
        check_key(key)
