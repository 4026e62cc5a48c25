"""`MemoryStore`: archives that live in this process and end with it, for tests and for trying things out.

Law: one name is one archive within a process, whoever opens it; every operation is one short critical section, so
that a conditional put is one step. `s3conv.store.base` is the contract; nothing is left to others.
"""

from __future__ import annotations

import hashlib
import time
from bisect import bisect_left, bisect_right, insort
from collections.abc import Mapping, Sequence
from itertools import islice
from types import MappingProxyType
from typing import Literal

from msgspec.structs import replace

from s3conv.bridge import Mutex
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
)

_NOTHING: Mapping[str, str] = MappingProxyType({})


class _Space:
    """The objects of one name. `keys` is kept sorted, so that a page of a list costs no sort."""

    def __init__(self) -> None:
        self.lock = Mutex()
        self.objects: dict[str, StoredObject] = {}
        self.keys: list[str] = []


_named: dict[str, _Space] = {}
_named_lock = Mutex()


class MemoryStore:
    """An `ObjectStore` in memory. Callers, sync or async, in any number of threads, may share it."""

    fan_out = 1

    def __init__(self, name: str = "") -> None:
        """Open the archive called `name`; without a name, a fresh one that nobody else can open."""
        self.url = f"memory://{name}"
        self._name = name
        if name:
            with _named_lock:
                self._space = _named.setdefault(name, _Space())
        else:
            self._space = _Space()

    async def get(
        self, key: str, *, if_none_match: str | None = None, span: tuple[int, int] | None = None
    ) -> StoredObject | None:
        """See `ObjectStore.get`."""
        check_key(key)
        check_span(span, if_none_match)
        with self._space.lock:
            found = self._space.objects.get(key)
        if found is not None and span is not None:
            check_holds(f"{self.url}: {key}", len(found.body), span)
            return replace(found, body=found.body[span[0] : sum(span)], etag="", date=time.time())
        if found is not None and found.etag == if_none_match:
            raise NotModified(f"{self.url}: {key} still has the ETag {if_none_match}")
        return replace(found, date=time.time()) if found is not None else None

    async def head(self, key: str) -> ObjectHead | None:
        """See `ObjectStore.head`."""
        found = await self.get(key)
        if found is None:
            return None
        return ObjectHead(found.etag, found.last_modified, len(found.body), found.metadata)

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
        check_key(key)
        check_conditions(if_match, if_none_match)
        body = bytes(body)  # A caller's bytearray may change after the put; what is stored may not.
        etag = hashlib.sha256(body).hexdigest()
        kept = MappingProxyType(dict(metadata)) if metadata else _NOTHING
        with self._space.lock:
            found = self._space.objects.get(key)
            if if_none_match is not None and found is not None:
                raise PreconditionFailed(f"{self.url}: {key} exists already, with the ETag {found.etag}")
            if if_match is not None and (found is None or found.etag != if_match):
                now = f"has the ETag {found.etag}" if found else "is not there"
                raise PreconditionFailed(f"{self.url}: {key} {now}; expected the ETag {if_match}")
            if found is None:
                insort(self._space.keys, key)
            date = time.time()
            self._space.objects[key] = StoredObject(body, etag, date, date, kept)
        return Written(etag, date)

    async def delete(self, keys: Sequence[str]) -> None:
        """See `ObjectStore.delete`."""
        check_delete(keys)
        with self._space.lock:
            for key in keys:
                if self._space.objects.pop(key, None) is not None:
                    del self._space.keys[bisect_left(self._space.keys, key)]

    async def list(self, prefix: str, *, after: str = "") -> Listing:
        """See `ObjectStore.list`."""
        check_prefix(prefix)
        with self._space.lock:
            keys = self._space.keys
            first = max(bisect_left(keys, prefix), bisect_right(keys, after))
            page = [key for key in islice(keys, first, first + LIST_PAGE + 1) if key.startswith(prefix)]
            found = [(key, self._space.objects[key]) for key in page[:LIST_PAGE]]
            listed = [Listed(key, one.last_modified, len(one.body)) for key, one in found]
            return Listing(listed, len(page) > LIST_PAGE, time.time())

    async def enclosing(self, name: str) -> Sequence[str]:
        """See `ObjectStore.enclosing`: for `memory://a/b/c` the archives `a/b` and `a`."""
        check_key(name)
        parts = self._name.split("/")
        around = ["/".join(parts[:n]) for n in range(len(parts) - 1, 0, -1)]
        with _named_lock:
            spaces = [(outer, _named[outer]) for outer in around if outer in _named]
        return [f"memory://{outer}" for outer, space in spaces if name in space.objects]

    async def close(self) -> None:
        """Do nothing: a named archive lives as long as the process."""
