"""Stores for tests: one that does what the test tells it to, and some that lie."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import msgspec

from s3conv.store.base import Listing, ObjectHead, ObjectStore, PreconditionFailed, StoredObject, Written
from s3conv.store.counting import CountingStore


@dataclass
class Fault:
    """What happens to the next `times` requests of a kind whose key contains `part`."""

    kind: str
    part: str
    error: Exception | None
    applied: bool
    times: int
    do: Callable[[], object] | None


class ScriptedStore(CountingStore):
    """Counts; fails on demand, before a request is applied or after; lets other things happen just before one."""

    def __init__(self, inner: ObjectStore) -> None:
        super().__init__(inner)
        self.faults: list[Fault] = []
        self.clock = 0.0
        """Seconds by which the store's clock is ahead of that of the objects already in it."""
        self.hints = True
        """Whether user metadata is kept."""

    def fail(self, kind: str, part: str, error: Exception, *, applied: bool = False, times: int = 1) -> None:
        """Let the next requests of a kind, on a key that contains `part`, fail; `applied`: after they took effect."""
        self.faults.append(Fault(kind, part, error, applied, times, None))

    def before(self, kind: str, part: str, do: Callable[[], object]) -> None:
        """Do something just before the next such request."""
        self.faults.append(Fault(kind, part, None, False, 1, do))

    def _due(self, kind: str, key: str) -> Fault | None:
        for fault in self.faults:
            if fault.kind == kind and fault.part in key and fault.times:
                fault.times -= 1
                return fault
        return None

    def _begin(self, kind: str, key: str) -> Exception | None:
        """What is to be raised after the request is applied."""
        fault = self._due(kind, key)
        if fault is None:
            return None
        if fault.do is not None:
            fault.do()
        if fault.error is not None and not fault.applied:
            self._count(kind, key)
            raise fault.error
        return fault.error

    async def get(
        self, key: str, *, if_none_match: str | None = None, span: tuple[int, int] | None = None
    ) -> StoredObject | None:
        after = self._begin("get", key)
        found = await super().get(key, if_none_match=if_none_match, span=span)
        if after is not None:
            raise after
        return found and msgspec.structs.replace(found, date=found.date + self.clock)

    async def head(self, key: str) -> ObjectHead | None:
        after = self._begin("head", key)
        found = await super().head(key)
        if after is not None:
            raise after
        return found if found is None or self.hints else replace(found, metadata={})

    async def put(
        self,
        key: str,
        body: bytes,
        *,
        if_match: str | None = None,
        if_none_match: Literal["*"] | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> Written:
        after = self._begin("put", key)
        written = await super().put(key, body, if_match=if_match, if_none_match=if_none_match, metadata=metadata)
        if after is not None:
            raise after
        return replace(written, date=written.date + self.clock)

    async def delete(self, keys: Sequence[str]) -> None:
        after = self._begin("delete", keys[0] if keys else "")
        await super().delete(keys)
        if after is not None:
            raise after

    async def list(self, prefix: str, *, after: str = "") -> Listing:
        error = self._begin("list", prefix)
        page = await super().list(prefix, after=after)
        if error is not None:
            raise error
        return replace(page, date=page.date + self.clock)

    def keys(self, part: str) -> Sequence[str]:
        """The keys that contain `part`, in the store as it is."""
        inner = self.inner
        space = inner._space  # type: ignore[attr-defined]  # a MemoryStore's
        return [key for key in space.keys if part in key]


class Liar(CountingStore):
    """A store that does not keep its word about conditional writes, in one of several ways."""

    def __init__(self, inner: ObjectStore, lie: str) -> None:
        super().__init__(inner)
        self.lie = lie
        self._first: dict[str, str] = {}

    async def put(
        self,
        key: str,
        body: bytes,
        *,
        if_match: str | None = None,
        if_none_match: Literal["*"] | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> Written:
        match self.lie:
            case "ignores If-None-Match":
                if_none_match = None
            case "ignores If-Match":
                if_match = None
            case "creates by If-Match" if if_match is not None and await self.inner.get(key) is None:
                if_match = None
            case "refuses but writes" if if_none_match and await self.inner.get(key) is not None:
                await self.inner.put(key, body)
                raise PreconditionFailed("412")
            case "lets racing writers win" if (
                if_match is not None and self._first.setdefault(key, if_match) == if_match
            ):
                # Whoever names the ETag that the race began with wins, however often it was replaced meanwhile.
                found = await self.inner.get(key)
                if found is not None and found.body != b"1":
                    if_match = None
            case "lets nobody win" if if_match is not None:
                raise PreconditionFailed("412")
            case "changes ETags":
                written = await self.inner.put(key, body, if_match=if_match, if_none_match=if_none_match)
                return replace(written, etag=written.etag.upper() + "x")
        return await super().put(key, body, if_match=if_match, if_none_match=if_none_match, metadata=metadata)
