"""`CountingStore`: says what went to a store, for tests that assert request counts and for benchmarks.

Law: it passes everything through unchanged and counts before it does, so that a failed request counts too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal

from s3conv.bridge import Mutex
from s3conv.store.base import Listing, ObjectHead, ObjectStore, StoredObject, Written


class CountingStore:
    """An `ObjectStore` around another one.

    `counts` holds the requests by kind (get, head, put, delete, list, enclosing): a delete of many keys is one
    request, so is each page of a list. `log` holds (kind, key) in order: one line for each key deleted, the prefix for
    a list. `bytes_written` sums up the bodies of all puts, `bytes_read` those that gets gave: of a range, the range.
    Any number of threads may share it.
    """

    def __init__(self, inner: ObjectStore) -> None:
        self.inner = inner
        self.url = inner.url
        self.fan_out = inner.fan_out
        self.counts: Counter[str] = Counter()
        self.log: list[tuple[str, str]] = []
        self.bytes_read = 0
        self.bytes_written = 0
        self._lock = Mutex()

    def reset(self) -> None:
        """Forget what was counted."""
        with self._lock:
            self.counts.clear()
            self.log.clear()
            self.bytes_read = self.bytes_written = 0

    def _count(self, kind: str, *keys: str, written: int = 0) -> None:
        with self._lock:
            self.counts[kind] += 1
            self.log.extend((kind, key) for key in keys)
            self.bytes_written += written

    async def get(
        self, key: str, *, if_none_match: str | None = None, span: tuple[int, int] | None = None
    ) -> StoredObject | None:
        """See `ObjectStore.get`."""
        self._count("get", key)
        found = await self.inner.get(key, if_none_match=if_none_match, span=span)
        if found is not None:
            with self._lock:
                self.bytes_read += len(found.body)
        return found

    async def head(self, key: str) -> ObjectHead | None:
        """See `ObjectStore.head`."""
        self._count("head", key)
        return await self.inner.head(key)

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
        self._count("put", key, written=len(body))
        return await self.inner.put(key, body, if_match=if_match, if_none_match=if_none_match, metadata=metadata)

    async def delete(self, keys: Sequence[str]) -> None:
        """See `ObjectStore.delete`."""
        if keys:
            self._count("delete", *keys)
        await self.inner.delete(keys)

    async def list(self, prefix: str, *, after: str = "") -> Listing:
        """See `ObjectStore.list`."""
        self._count("list", prefix)
        return await self.inner.list(prefix, after=after)

    async def enclosing(self, name: str) -> Sequence[str]:
        """See `ObjectStore.enclosing`."""
        self._count("enclosing", name)
        return await self.inner.enclosing(name)

    async def close(self) -> None:
        """See `ObjectStore.close`."""
        await self.inner.close()
