"""`Context`: what every operation is given. The store, the runner, a clock, a source of ids, and the descriptor.

Law: nothing else of the core keeps anything between two calls, but for what a state carries (`known.py`) and the
caches of the index (`segments.py`). A context is that of one call where the call is counted or limited; what outlasts
it is in `kept`, which all contexts of one open archive share.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from s3conv.bridge import Runner
from s3conv.core.known import Edited
from s3conv.errors import NotFoundError
from s3conv.format.control import Descriptor, decode_descriptor
from s3conv.format.keys import DESCRIPTOR
from s3conv.store.base import ObjectStore
from s3conv.store.call import Call

A = TypeVar("A")
R = TypeVar("R")


def random_id() -> str:
    """16 hex digits: a write id, or part of a fresh key's name."""
    return secrets.token_hex(8)


@dataclass(frozen=True, slots=True)
class Operation:
    """What one operation did, for metrics: its name ("save", "edit", "list" …) and what it cost.

    `milliseconds` is the time that it took; of an edit without its block, of an iteration with what its caller did
    between two items. `requests` counts what was sent to the store, repeats included; `retries` the repeats;
    `conflicts` the writes that another writer was faster than; `bytes_read` and `bytes_written` those of bodies.
    `error` is the name of the type of the exception that ended it, or None.
    """

    name: str
    milliseconds: float
    requests: int
    bytes_read: int
    bytes_written: int
    retries: int
    conflicts: int
    error: str | None


class OnOperation(Protocol):
    """Is told of every operation when it has ended. It should be quick; what it raises is logged and ignored."""

    def __call__(self, operation: Operation, /) -> None: ...


@dataclass(slots=True)
class Kept:
    """What an open archive remembers: its descriptor, the states that it saved last, and whether it may maintain."""

    descriptor: Descriptor | None = None
    edited: Edited = field(default_factory=Edited)
    may_maintain: bool = True


@dataclass(slots=True)
class Context:
    """One open archive, as the core sees it.

    `wall_clock` is used for differences only: ages are told by the store's clock; `monotonic` for timeouts.
    `auto_maintain`: whether a reader that meets many open intents folds some. `activity_window`: for how many seconds
    an intent speaks for the saves that follow it. `call`: the call that this context is of, where one is counted.
    """

    store: ObjectStore
    runner: Runner
    wall_clock: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    new_id: Callable[[], str] = random_id
    jitter: Callable[[], float] = field(default=lambda: secrets.randbelow(1000) / 1000)
    auto_maintain: bool = True
    activity_window: float = 0.0
    on_operation: OnOperation | None = None
    call: Call | None = None
    kept: Kept = field(default_factory=Kept)

    def name(self, key: str) -> str:
        """An object's full name, for messages."""
        url = self.store.url
        return url + key if url.endswith("/") else f"{url}/{key}"

    async def descriptor(self) -> Descriptor:
        """The archive's descriptor; fetched once.

        Raises:
            NotFoundError: there is no archive at this URL.
        """
        if self.kept.descriptor is None:
            found = await self.store.get(DESCRIPTOR)
            if found is None:
                raise NotFoundError(
                    f"there is no archive at {self.store.url} (it has no {DESCRIPTOR}): check the URL, or create one "
                    "with Archive.create or `s3conv init`"
                )
            self.kept.descriptor = decode_descriptor(found.body, self.name(DESCRIPTOR))
        return self.kept.descriptor

    async def beside_descriptor(self, fetch: Callable[[A], Coroutine[Any, Any, R]], arg: A) -> R:
        """`await fetch(arg)`, with the descriptor fetched at the same time where this process does not have it yet."""
        if self.kept.descriptor is not None:
            return await fetch(arg)
        jobs = (self.runner.spawn(_descriptor_of, self), self.runner.spawn(fetch, arg))
        try:
            await jobs[0]
            return await jobs[1]
        finally:
            await self.runner.settle(jobs)

    async def back_off(self, attempt: int) -> None:
        """Wait before repeat number `attempt` (from 1): up to 50 ms doubling to 3 s, with full jitter."""
        wait = min(3.0, 0.05 * 2 ** (attempt - 1)) * self.jitter()
        if self.call is not None:
            self.call.check(wait)
            self.call.add(retries=1)
        await self.runner.sleep(wait)


async def _descriptor_of(context: Context) -> Descriptor:
    return await context.descriptor()
