"""Contention: what a save does between two writes of it, so that many writers of one conversation get on.

Law: no write's outcome depends on it. Of the writers of one process, one at a time tries again, and who comes to them
joins them before its first write: they do not take the document from each other. Those of different processes back off,
the longer the more often they lost.
The intents of rejected writes are withdrawn when the save is over: between the look at what another writer wrote and
the next write, every request is one more chance to lose.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from types import TracebackType

from s3conv.core.commit import Announcement, withdraw
from s3conv.core.context import Context
from s3conv.errors import StorageError


class Contention:
    """One save of the document at `key`, entered for as long as it lasts; it costs nothing if no write is rejected."""

    def __init__(self, context: Context, key: str) -> None:
        self._context = context
        self._key = key
        self._turn = AsyncExitStack()
        self._waits = 0
        self._intents: list[str] = []

    @property
    def is_crowded(self) -> bool:
        """Whether others of this process are at it, so that this save's first write would most likely be rejected."""
        return self._context.runner.has_turns(self._key)

    async def wait(self) -> None:
        """Wait before the look at what another writer wrote: for this save's turn at first, then ever longer."""
        if self._waits:
            await self._context.back_off(self._waits)
        else:
            await self._take_turn()
        self._waits += 1

    async def _take_turn(self) -> None:
        call = self._context.call
        if call is None:
            await self._turn.enter_async_context(self._context.runner.turn(self._key))
            return
        try:
            await self._turn.enter_async_context(self._context.runner.turn(self._key, call.left()))
        except TimeoutError:
            raise call.exceeded() from None

    def lost(self, announcement: Announcement) -> None:
        """Note that a write was definitely not made."""
        self._intents += announcement.keys
        if self._context.call is not None:
            self._context.call.add(conflicts=1)

    async def __aenter__(self) -> Contention:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._turn.aclose()
        if error is None or isinstance(error, StorageError):  # who is cancelled makes no further request
            await withdraw(self._context, self._intents)
