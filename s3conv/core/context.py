"""`Context`: what every operation is given. The store, the runner, a clock, a source of ids, and the descriptor.

Law: nothing else of the core keeps anything between two calls, but for what a state carries (`known.py`) and the
caches of the index (`index.py`).
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

from s3conv.bridge import Runner
from s3conv.errors import NotFoundError
from s3conv.format.control import Descriptor, decode_descriptor
from s3conv.format.keys import DESCRIPTOR
from s3conv.store.base import ObjectStore

A = TypeVar("A")
R = TypeVar("R")


def random_id() -> str:
    """16 hex digits: a write id, or part of a fresh key's name."""
    return secrets.token_hex(8)


@dataclass(slots=True)
class Context:
    """One open archive, as the core sees it.

    `wall_clock` is used for differences only: ages are told by the store's clock. `auto_maintain`: whether a reader
    that meets many open intents folds some. `activity_window`: for how many seconds an intent speaks for the saves
    that follow it.
    """

    store: ObjectStore
    runner: Runner
    wall_clock: Callable[[], float] = time.time
    new_id: Callable[[], str] = random_id
    jitter: Callable[[], float] = field(default=lambda: secrets.randbelow(1000) / 1000)
    auto_maintain: bool = True
    activity_window: float = 0.0
    _descriptor: Descriptor | None = None

    def name(self, key: str) -> str:
        """An object's full name, for messages."""
        return f"{self.store.url.rstrip('/')}/{key}"

    async def descriptor(self) -> Descriptor:
        """The archive's descriptor; fetched once.

        Raises:
            NotFoundError: there is no archive at this URL.
        """
        if self._descriptor is None:
            found = await self.store.get(DESCRIPTOR)
            if found is None:
                raise NotFoundError(
                    f"there is no archive at {self.store.url} (it has no {DESCRIPTOR}): check the URL, or create one "
                    "with Archive.create or `s3conv init`"
                )
            self._descriptor = decode_descriptor(found.body, self.name(DESCRIPTOR))
        return self._descriptor

    async def beside_descriptor(self, fetch: Callable[[A], Coroutine[Any, Any, R]], arg: A) -> R:
        """`await fetch(arg)`, with the descriptor fetched at the same time where this process does not have it yet."""
        if self._descriptor is not None:
            return await fetch(arg)
        jobs = (self.runner.spawn(_descriptor_of, self), self.runner.spawn(fetch, arg))
        try:
            await jobs[0]
            return await jobs[1]
        finally:
            await self.runner.settle(jobs)

    async def back_off(self, attempt: int) -> None:
        """Wait before repeat number `attempt` (from 1): up to 50 ms doubling to 3 s, with full jitter."""
        await self.runner.sleep(min(3.0, 0.05 * 2 ** (attempt - 1)) * self.jitter())


async def _descriptor_of(context: Context) -> Descriptor:
    return await context.descriptor()
