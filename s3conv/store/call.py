"""`Call`: what one call of an operation may take, and what it has cost; `CalledStore` sends its requests.

Law: everything passes through unchanged, and is counted. No request is begun after the call's time, and none is waited
for any longer; whoever could be left in doubt by that is told so, as by any other request without an answer.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Coroutine, Generator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal, TypeVar

from s3conv.bridge import Mutex, Runner
from s3conv.errors import DeadlineExceededError, UnavailableError
from s3conv.store.base import Listing, ObjectHead, ObjectStore, StoredObject, Written

R = TypeVar("R")

Seconds = float | Callable[[], float] | None
"""How long a call may take: a number, or what a function says whenever the call's time begins; None: any time."""


class Call:
    """One call: how long it may take, and the counts of what it did.

    Args:
        name: of the operation.
        url: of the archive, for messages.
        seconds: how long it may take, or a function that says so whenever its time begins anew; None for as long as it
            needs.
        consequence: what the caller is told if it takes longer: what was done, and what was not.

    `requests` counts what was sent, repeats included; `retries` the repeats, and the waits before one; `conflicts` the
    writes that were refused because another writer was faster. `bytes_read` and `bytes_written` are those of bodies.
    Any number of threads may share it.
    """

    def __init__(
        self,
        name: str,
        url: str,
        seconds: Seconds,
        consequence: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self.url = url
        self.seconds = math.inf
        self.requests = self.retries = self.conflicts = self.bytes_read = self.bytes_written = 0
        self._consequence = consequence
        self._clock = clock
        self._allowed = seconds
        self._lock = Mutex()
        self._took = 0.0
        self._since = clock()
        self._ends = math.inf
        self.go_on()

    def pause(self) -> None:
        """Stop the clock: what follows is not part of the call."""
        self._took += self._clock() - self._since

    def go_on(self) -> None:
        """Start the clock, and the time that is allowed anew."""
        self._since = self._clock()
        if self._allowed is not None:
            self.seconds = max(0.0, self._allowed()) if callable(self._allowed) else self._allowed
            self._ends = self._since + self.seconds

    @property
    def milliseconds(self) -> float:
        """How long it has taken, while its clock ran."""
        return (self._took + self._clock() - self._since) * 1000

    def left(self) -> float:
        """Seconds until its time is over; infinity if it may take as long as it needs."""
        return self._ends - self._clock()

    def check(self, wait: float = 0.0) -> None:
        """Raise `DeadlineExceededError` if its time is over, or would be after a wait of so many seconds."""
        if self.left() <= wait:
            raise self.exceeded()

    def exceeded(self) -> DeadlineExceededError:
        """The error that says so."""
        return DeadlineExceededError(
            f"{self.name} in {self.url}: the {self.seconds:g} s that it may take are over, after {self.requests} "
            f"requests; {self._consequence}"
        )

    def add(
        self, *, requests: int = 0, retries: int = 0, conflicts: int = 0, bytes_read: int = 0, bytes_written: int = 0
    ) -> None:
        """Count."""
        with self._lock:
            self.requests += requests
            self.retries += retries
            self.conflicts += conflicts
            self.bytes_read += bytes_read
            self.bytes_written += bytes_written


_current: ContextVar[Call | None] = ContextVar("s3conv_call", default=None)


def current() -> Call | None:
    """The call that the running request is part of, where one is counted or limited."""
    return _current.get()


def time_left() -> float:
    """Seconds until the time of the running request's call is over; infinity where none is limited."""
    call = _current.get()
    return math.inf if call is None else call.left()


def repeated() -> None:
    """Count a request that was sent again, below the store that was asked."""
    call = _current.get()
    if call is not None:
        call.add(requests=1, retries=1)


@contextmanager
def _as_current(call: Call) -> Generator[None]:
    token = _current.set(call)
    try:
        yield
    finally:
        _current.reset(token)


class CalledStore:
    """An `ObjectStore` as one call sees it; `runner` waits for its requests."""

    def __init__(self, inner: ObjectStore, call: Call, runner: Runner) -> None:
        self.inner = inner
        self.url = inner.url
        self.fan_out = inner.fan_out
        self._call = call
        self._runner = runner

    async def _ask(self, request: Callable[[], Coroutine[Any, Any, R]], *, matters: bool = False) -> R:
        """Send one request. `matters`: whether the caller has to know if one without an answer was applied."""
        call = self._call
        call.check()
        call.add(requests=1)
        try:
            with _as_current(call):
                return await self._runner.within(call.left(), request)
        except TimeoutError:
            if matters:
                raise UnavailableError(f"{self.url}: no answer in the {call.seconds:g} s of this call") from None
            raise call.exceeded() from None
        except UnavailableError as error:
            if matters or call.left() > 0:
                raise
            raise call.exceeded() from error

    async def get(
        self, key: str, *, if_none_match: str | None = None, span: tuple[int, int] | None = None
    ) -> StoredObject | None:
        """See `ObjectStore.get`."""
        found = await self._ask(lambda: self.inner.get(key, if_none_match=if_none_match, span=span))
        if found is not None:
            self._call.add(bytes_read=len(found.body))
        return found

    async def head(self, key: str) -> ObjectHead | None:
        """See `ObjectStore.head`."""
        return await self._ask(lambda: self.inner.head(key))

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
        conditional = if_match is not None or if_none_match is not None
        self._call.add(bytes_written=len(body))
        return await self._ask(
            lambda: self.inner.put(key, body, if_match=if_match, if_none_match=if_none_match, metadata=metadata),
            matters=conditional,
        )

    async def delete(self, keys: Sequence[str]) -> None:
        """See `ObjectStore.delete`."""
        if keys:
            await self._ask(lambda: self.inner.delete(keys))

    async def list(self, prefix: str, *, after: str = "") -> Listing:
        """See `ObjectStore.list`."""
        return await self._ask(lambda: self.inner.list(prefix, after=after))

    async def enclosing(self, name: str) -> Sequence[str]:
        """See `ObjectStore.enclosing`."""
        return await self._ask(lambda: self.inner.enclosing(name))

    async def close(self) -> None:
        """See `ObjectStore.close`."""
        await self.inner.close()
