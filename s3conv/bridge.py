"""Runs the one core for sync and async callers.

Law: this is the only module that knows asyncio, threads and forks. The core is written once, as coroutines that await
nothing but store methods and a `Runner`. Over a synchronous store those awaits never suspend, so `run_sync` finishes
a coroutine with a single `send(None)`: real tracebacks, no event loop, no hidden thread. Over an asynchronous store
the same coroutines run on the caller's event loop.

WARNING: a spawned job must never spawn (a full thread pool would wait for itself), and nothing may yield to its
consumer inside a task group.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, contextmanager
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar
from weakref import WeakSet

from s3conv.errors import InvalidInputError

if TYPE_CHECKING:
    import asyncio

A = TypeVar("A")
R = TypeVar("R")

Mutex = threading.Lock
"""A lock for short critical sections without I/O."""


class Forkable(Protocol):
    """What has something that a forked process must not use."""

    def forked(self) -> None:
        """Let go of it: of threads, which a fork has not; of locks that one of them held; of the parent's sockets."""
        ...


_forkable: WeakSet[Forkable] = WeakSet()


def tell_of_forks(one: Forkable) -> None:
    """Call `one.forked()` in every process that is forked from this one, before anything else runs there."""
    _forkable.add(one)


def _forked() -> None:
    for one in list(_forkable):
        one.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


def run_sync(coro: Coroutine[Any, Any, R]) -> R:
    """Finish a coroutine whose awaits never suspend.

    Raises `RuntimeError` if it does suspend: an asynchronous store under the synchronous API is a bug of ours.
    """
    try:
        coro.send(None)
    except StopIteration as done:
        result: R = done.value
        return result
    finally:
        coro.close()
    raise RuntimeError(_SUSPENDED)


_SUSPENDED = "a coroutine suspended under the synchronous API: its store is asynchronous"


def iter_sync(stream: AsyncGenerator[R, None]) -> Iterator[R]:
    """Iterate over an asynchronous generator whose awaits never suspend."""
    try:
        while True:
            step = anext(stream)
            try:
                step.send(None)  # as `run_sync` does, less the closing of what has ended
            except StopIteration as done:
                item: R = done.value
            except StopAsyncIteration:
                return
            else:
                step.close()
                raise RuntimeError(_SUSPENDED)
            yield item
    finally:
        run_sync(stream.aclose())


class Runner(Protocol):
    """How the core fans out and waits."""

    def spawn(self, fn: Callable[[A], Coroutine[Any, Any, R]], arg: A) -> Awaitable[R]:
        """Begin `fn(arg)`; awaiting the result gives its value or raises its error. Jobs never spawn jobs."""
        ...

    async def settle(self, jobs: Iterable[Awaitable[Any]]) -> None:
        """Cancel what can be cancelled of `jobs`, and return when none of them is running any more."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        ...

    async def within(self, seconds: float, request: Callable[[], Coroutine[Any, Any, R]]) -> R:
        """`await request()`; `TimeoutError` if it takes longer, where it can be left alone: on an event loop."""
        ...

    def turn(self, name: str, seconds: float = math.inf) -> AbstractAsyncContextManager[None]:
        """Held by one caller at a time of those that name the same; the others wait, `TimeoutError` if for longer."""
        ...

    def has_turns(self, name: str) -> bool:
        """Whether anybody holds such a turn, or waits for one."""
        ...

    def close(self) -> None:
        """Release threads. Jobs that run are waited for."""
        ...


class _Turns:
    """Locks by name, each there for as long as somebody has it or waits for it."""

    def __init__(self) -> None:
        self._locks: dict[str, tuple[Any, int]] = {}
        self._guard = threading.Lock()

    @asynccontextmanager
    async def of_thread(self, name: str, seconds: float) -> AsyncGenerator[None]:
        """A turn among threads. It never suspends."""
        with self._used(name, threading.RLock) as lock:
            if not lock.acquire(timeout=max(0.0, min(seconds, threading.TIMEOUT_MAX))):
                raise TimeoutError
            try:
                yield
            finally:
                lock.release()

    @asynccontextmanager
    async def of_task(self, name: str, seconds: float) -> AsyncGenerator[None]:
        """A turn among the tasks of one event loop."""
        import asyncio

        with self._used(name, asyncio.Lock) as lock:
            async with asyncio.timeout(None if seconds == math.inf else seconds):
                await lock.acquire()
            try:
                yield
            finally:
                lock.release()

    def any(self, name: str) -> bool:
        return name in self._locks

    @contextmanager
    def _used(self, name: str, make: Callable[[], Any]) -> Generator[Any]:
        with self._guard:
            lock, users = self._locks.get(name) or (make(), 0)
            self._locks[name] = lock, users + 1
        try:
            yield lock
        finally:
            with self._guard:
                lock, users = self._locks.pop(name)
                if users > 1:
                    self._locks[name] = lock, users - 1


class _Done(Awaitable[R]):
    """A job that ran inline: its outcome is known before anybody asks."""

    def __init__(self, coro: Coroutine[Any, Any, R]) -> None:
        self._error: Exception | None = None
        try:
            self._value = run_sync(coro)
        except Exception as error:
            self._error = error

    def __await__(self) -> Generator[Any, Any, R]:
        yield from ()  # never suspends; `__await__` must be a generator
        if self._error is not None:
            raise self._error
        return self._value


class InlineRunner:
    """For stores that answer at memory or disk speed: a thread for each small file would halve the speed."""

    def __init__(self) -> None:
        self.forked()
        tell_of_forks(self)

    def forked(self) -> None:
        """See `Forkable.forked`."""
        self._turns = _Turns()

    def spawn(self, fn: Callable[[A], Coroutine[Any, Any, R]], arg: A) -> Awaitable[R]:
        return _Done(fn(arg))

    async def settle(self, jobs: Iterable[Awaitable[Any]]) -> None:
        return

    async def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    async def within(self, seconds: float, request: Callable[[], Coroutine[Any, Any, R]]) -> R:
        return await request()

    def turn(self, name: str, seconds: float = math.inf) -> AbstractAsyncContextManager[None]:
        return self._turns.of_thread(name, seconds)

    def has_turns(self, name: str) -> bool:
        return self._turns.any(name)

    def close(self) -> None:
        return


class InlineTaskRunner(InlineRunner):
    """The same on an event loop: a job runs when it is awaited, within its caller, and its waiting lets others run."""

    def spawn(self, fn: Callable[[A], Coroutine[Any, Any, R]], arg: A) -> Awaitable[R]:
        return fn(arg)

    async def settle(self, jobs: Iterable[Awaitable[Any]]) -> None:
        for job in jobs:
            if isinstance(job, Coroutine):
                job.close()  # one that nobody awaited does not run any more

    async def sleep(self, seconds: float) -> None:
        import asyncio

        await asyncio.sleep(seconds)

    def turn(self, name: str, seconds: float = math.inf) -> AbstractAsyncContextManager[None]:
        return self._turns.of_task(name, seconds)


class _ThreadJob(Awaitable[R]):
    def __init__(self, future: Future[R]) -> None:
        self.future = future

    def __await__(self) -> Generator[Any, Any, R]:
        yield from ()  # never suspends; `__await__` must be a generator
        return self.future.result()


class ThreadRunner:
    """For synchronous stores behind a network. Its pool starts with the first job, so that opening stays cheap."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self.forked()
        tell_of_forks(self)

    def forked(self) -> None:
        """See `Forkable.forked`."""
        self._pool: ThreadPoolExecutor | None = None
        self._lock = threading.Lock()
        self._turns = _Turns()

    def spawn(self, fn: Callable[[A], Coroutine[Any, Any, R]], arg: A) -> Awaitable[R]:
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="s3conv")
            pool = self._pool
        return _ThreadJob(pool.submit(copy_context().run, lambda: run_sync(fn(arg))))

    async def settle(self, jobs: Iterable[Awaitable[Any]]) -> None:
        wait([job.future for job in jobs if isinstance(job, _ThreadJob) and not job.future.cancel()])

    async def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    async def within(self, seconds: float, request: Callable[[], Coroutine[Any, Any, R]]) -> R:
        return await request()

    def turn(self, name: str, seconds: float = math.inf) -> AbstractAsyncContextManager[None]:
        return self._turns.of_thread(name, seconds)

    def has_turns(self, name: str) -> bool:
        return self._turns.any(name)

    def close(self) -> None:
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=True)


class TaskRunner:
    """For asynchronous stores: jobs are tasks of the caller's event loop."""

    # asyncio is imported where it is used: a synchronous function that starts cold does without its 10 ms.

    def __init__(self) -> None:
        self._turns = _Turns()

    def spawn(self, fn: Callable[[A], Coroutine[Any, Any, R]], arg: A) -> Awaitable[R]:
        import asyncio

        return asyncio.ensure_future(fn(arg))

    async def settle(self, jobs: Iterable[Awaitable[Any]]) -> None:
        import asyncio

        tasks = [job for job in jobs if isinstance(job, asyncio.Task)]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def sleep(self, seconds: float) -> None:
        import asyncio

        await asyncio.sleep(seconds)

    async def within(self, seconds: float, request: Callable[[], Coroutine[Any, Any, R]]) -> R:
        if seconds == math.inf:
            return await request()
        import asyncio

        async with asyncio.timeout(seconds):
            return await request()

    def turn(self, name: str, seconds: float = math.inf) -> AbstractAsyncContextManager[None]:
        return self._turns.of_task(name, seconds)

    def has_turns(self, name: str) -> bool:
        return self._turns.any(name)

    def close(self) -> None:
        return


async def ordered_map(
    runner: Runner,
    fn: Callable[[A], Coroutine[Any, Any, R]],
    args: Iterable[A] | AsyncGenerator[A, None],
    window: int,
) -> AsyncGenerator[R, None]:
    """Yield `fn(arg)` in input order, with at most `window` results in flight or unread.

    The first error is raised in its place; what is still running then is settled before it propagates.
    """
    jobs: deque[Awaitable[R]] = deque()
    try:
        async with aclosing(args if isinstance(args, AsyncGenerator) else _each(args)) as stream:
            if isinstance(runner, InlineRunner):  # nothing is in flight; a job for each would only cost time
                async for arg in stream:
                    yield await fn(arg)
                return
            async for arg in stream:
                if len(jobs) >= window:
                    yield await jobs.popleft()
                jobs.append(runner.spawn(fn, arg))
        while jobs:
            yield await jobs.popleft()
    finally:
        await runner.settle(jobs)


async def _each(args: Iterable[A]) -> AsyncGenerator[A, None]:
    for arg in args:
        yield arg


class Once(Generic[R]):
    """A value that its first user makes, however many tasks ask for it at once. It belongs to one event loop."""

    def __init__(self, make: Callable[[], Coroutine[Any, Any, R]]) -> None:
        import asyncio

        self._make = make
        self._lock = asyncio.Lock()
        self._made: tuple[asyncio.AbstractEventLoop, R] | None = None

    async def get(self) -> R:
        """The value. If making it fails, the error is raised and the next caller tries again.

        Raises `InvalidInputError` on another event loop than the one that it was made on.
        """
        import asyncio

        made = self._made
        if made is None:
            async with self._lock:
                if self._made is None:
                    self._made = (asyncio.get_running_loop(), await self._make())
                made = self._made
        if made[0] is not asyncio.get_running_loop():
            raise InvalidInputError(
                "this archive is in use on another event loop: open one for each loop, keep one loop for all calls "
                "(asyncio.Runner, as asyncio.run makes a loop each time), or use Archive, which needs none"
            )
        return made[1]

    async def take(self) -> R | None:
        """Hand the value over to be closed, and forget it; None if there is none."""
        async with self._lock:
            made, self._made = self._made, None
        return made[1] if made is not None else None
