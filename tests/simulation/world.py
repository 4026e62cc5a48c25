"""A world to simulate in: one object store, one clock, clients that suspend at every request, and a scheduler.

The scheduler decides by a seeded random generator whose request is next and what becomes of it. A client is a process:
it has a clock of its own, may be paused, and may be killed between any two requests. Nothing here knows the protocol.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from s3conv.bridge import run_sync
from s3conv.errors import UnavailableError
from s3conv.store.base import Contended, Listing, ObjectHead, StoredObject, Written
from s3conv.store.memory import MemoryStore

A = TypeVar("A")
R = TypeVar("R")

EXPIRY = 900.0
"""Seconds after which a request that was held up is refused: S3 does not take older signatures than 15 minutes."""

START = 1_800_000_000.0


class Dead(BaseException):
    """Raised in a client that was killed, in place of any further request."""


class Cancelled(BaseException):
    """Raised in a job that is no longer wanted."""


class _Suspend(Awaitable[Any]):
    """What a client waits for; awaiting it hands it to the scheduler."""

    def __await__(self) -> Generator[Any, Any, Any]:
        return (yield self)


@dataclass(eq=False)
class Request(_Suspend):
    """A request that was sent: what it does to the store, and when it was sent."""

    client: Client
    kind: str
    key: str
    apply: Callable[[], Any]
    body: bytes = b""
    conditional: bool = False
    sent: float = 0.0

    @property
    def writes(self) -> bool:
        return self.kind in ("put", "delete")

    def __str__(self) -> str:
        return f"{self.client.name} {self.kind} {self.key}"


@dataclass(eq=False)
class Sleep(_Suspend):
    """A wait until a moment."""

    until: float


@dataclass(eq=False)
class Join(_Suspend):
    """A wait for another task of the same client."""

    task: Task


@dataclass(eq=False)
class Task:
    """A coroutine of a client, what it waits for, and what came of it."""

    client: Client
    coro: Coroutine[Any, Any, Any]
    waiting: _Suspend | None = None
    done: bool = False
    value: Any = None
    error: BaseException | None = None
    cancelled: bool = False


@dataclass(eq=False)
class Client:
    """A process. `skew`: by how many seconds its clock is ahead of the store's."""

    world: World
    name: str
    skew: float = 0.0
    dead: bool = False
    paused_until: float = 0.0

    def clock(self) -> float:
        return self.world.now + self.skew


@dataclass(frozen=True)
class Faults:
    """How often, of all requests, something goes wrong."""

    crash_before: float = 0.0
    crash_after: float = 0.0
    lost_request: float = 0.0
    lost_response: float = 0.0
    late: float = 0.0
    twice: float = 0.0
    contended: float = 0.0
    unavailable: float = 0.0
    server_error: float = 0.0
    pause: float = 0.0


NO_FAULTS = Faults()


class World:
    """The store, the clock and the scheduler of one simulation."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.now = START
        self.inner = MemoryStore()
        self.tasks: list[Task] = []
        self.held: list[Request] = []
        """Requests that are on their way without anybody waiting for them."""
        self.faults = NO_FAULTS
        self.pauses: tuple[float, ...] = (5.0,)
        self.arrivals = 0.1
        """How often, of all steps, a request that is held up arrives."""
        self.counts: Counter[str] = Counter()
        self.trace: list[str] = []
        self.on_applied: Callable[[Request, Any], None] = lambda request, answer: None

    def note(self, what: str) -> None:
        """Add a line to the schedule."""
        self.trace.append(f"{self.now - START:12.2f}  {what}")

    # --- tasks -------------------------------------------------------------------------------------------------------

    def spawn(self, client: Client, coro: Coroutine[Any, Any, Any]) -> Task:
        """Begin a task; it runs up to its first wait."""
        task = Task(client, coro)
        self.tasks.append(task)
        self._resume(task)
        return task

    def _resume(self, task: Task, value: Any = None, error: BaseException | None = None) -> None:
        task.waiting = None
        if task.cancelled and error is None:
            error, task.cancelled = Cancelled(), False
        try:
            task.waiting = task.coro.send(value) if error is None else task.coro.throw(error)
        except StopIteration as stop:
            task.done, task.value = True, stop.value
        except BaseException as raised:
            task.done, task.error = True, raised
        if task.done and task in self.tasks:
            self.tasks.remove(task)

    def cancel(self, task: Task) -> None:
        """Let a task end; a request of its that is on its way may yet arrive."""
        if task.done:
            return
        if isinstance(task.waiting, Request) and task.waiting.writes and self.rng.random() < 0.5:
            self.held.append(task.waiting)
        task.cancelled = True
        task.waiting = Sleep(self.now)

    def kill(self, client: Client) -> None:
        """End a client at once: nothing of it runs any more, not even what cleans up."""
        client.dead = True
        for task in [task for task in self.tasks if task.client is client]:
            if isinstance(task.waiting, Request) and task.waiting.writes and self.rng.random() < 0.3:
                self.held.append(task.waiting)
            self.tasks.remove(task)
            task.done = True
            with suppress(BaseException):
                task.coro.throw(Dead())  # and so does every request in a `finally`: see `SimStore`

    # --- time and chance ---------------------------------------------------------------------------------------------

    def run(self, steps: int) -> None:
        """Go on until nobody has anything to do. Raises `AssertionError` if that takes more than `steps`."""
        for _ in range(steps):
            if not self.step():
                return
        waiting = ", ".join(f"{task.client.name}: {task.waiting}" for task in self.tasks[:5])
        raise AssertionError(f"no end after {steps} steps; waiting: {waiting}")

    def step(self) -> bool:
        """Let one thing happen. False: there is nothing."""
        ready = [task for task in self.tasks if self._ready(task)]
        if not ready and not self.held:
            later = [self._when(task) for task in self.tasks if not isinstance(task.waiting, Join)]
            if not later:
                return False
            self.now = max(self.now, min(later))
            return True
        self.now += self.rng.expovariate(4.0)
        if self.held and (not ready or self.rng.random() < self.arrivals):
            request = self.held.pop(self.rng.randrange(len(self.held)))
            if self.now - request.sent <= EXPIRY:
                self.note(f"{request} arrives late")
                self.counts["arrived late"] += 1
                self._apply(request)
            return True
        task = self.rng.choice(ready)
        waiting = task.waiting
        if isinstance(waiting, Request):
            self._serve(task, waiting)
        else:
            self._resume(task)
        return True

    def _ready(self, task: Task) -> bool:
        if task.client.paused_until > self.now:
            return False
        if isinstance(task.waiting, Join):
            return task.waiting.task.done
        return not isinstance(task.waiting, Sleep) or task.waiting.until <= self.now

    def _when(self, task: Task) -> float:
        until = task.waiting.until if isinstance(task.waiting, Sleep) else self.now
        return max(until, task.client.paused_until)

    def jump(self, seconds: float) -> None:
        """Let time pass for everybody."""
        self.now += seconds
        self.counts["jump"] += 1
        self.note(f"-- {seconds:.0f} seconds pass")

    def _chance(self, share: float) -> bool:
        return share > 0 and self.rng.random() < share

    def _serve(self, task: Task, request: Request) -> None:
        """Answer a request, or do worse."""
        faults, client = self.faults, task.client
        if self._chance(faults.pause):
            client.paused_until = self.now + self.rng.choice(self.pauses)
            self._hit("pause", request)
            return
        if self._chance(faults.crash_before):
            self._hit("crash before", request)
            self.kill(client)
            return
        if self._chance(faults.crash_after):
            self._hit("crash after", request)
            self._apply(request)
            task.waiting = None
            self.kill(client)
            return
        if self._chance(faults.lost_request):
            self._hit("lost request", request)
            self._resume(task, error=UnavailableError("no answer"))
            return
        if self._chance(faults.lost_response):
            self._hit("lost response", request)
            self._apply(request)
            self._resume(task, error=UnavailableError("no answer"))
            return
        if request.writes and self._chance(faults.late):
            self._hit("late", request)
            self.held.append(request)
            self._resume(task, error=UnavailableError("no answer in time"))
            return
        if self._chance(faults.server_error):
            applied = self.rng.random() < 0.5
            self._hit("500 applied" if applied else "500", request)
            if applied:
                self._apply(request)
            self._resume(task, error=UnavailableError("500"))
            return
        if self._chance(faults.unavailable):
            self._hit("503", request)
            self._resume(task, error=UnavailableError("503 SlowDown"))
            return
        if request.conditional and self._chance(faults.contended):
            self._hit("409", request)
            self._resume(task, error=Contended("409"))
            return
        if request.writes and self._chance(faults.twice):
            self._hit("twice", request)
            self.held.append(request)
        value, error = self._apply(request)
        self._resume(task, value, error)

    def _hit(self, fault: str, request: Request) -> None:
        self.counts[fault] += 1
        self.note(f"{request}: {fault}")

    def _apply(self, request: Request) -> tuple[Any, Exception | None]:
        try:
            value = request.apply()
        except Exception as error:
            self.note(f"{request} -> {type(error).__name__}")
            return None, error
        self.note(f"{request}")
        self.on_applied(request, value)
        return value, None


class SimRunner:
    """Fans out into tasks of the world."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def spawn(self, fn: Callable[[A], Coroutine[Any, Any, R]], arg: A) -> Awaitable[R]:
        return _Job(self._client.world.spawn(self._client, fn(arg)))

    async def settle(self, jobs: Iterable[Awaitable[Any]]) -> None:
        if self._client.dead:
            return
        tasks = [job.task for job in jobs if isinstance(job, _Job)]
        for task in tasks:
            self._client.world.cancel(task)
        for task in tasks:
            if not task.done:
                await Join(task)

    async def sleep(self, seconds: float) -> None:
        if self._client.dead:
            raise Dead
        await Sleep(self._client.world.now + seconds)

    async def within(self, seconds: float, request: Callable[[], Coroutine[Any, Any, R]]) -> R:
        return await request()

    def turn(self, name: str, seconds: float = math.inf) -> AbstractAsyncContextManager[None]:
        return nullcontext()  # each client is a process of its own

    def has_turns(self, name: str) -> bool:
        return False

    def close(self) -> None:
        return


class _Job(Awaitable[R]):
    def __init__(self, task: Task) -> None:
        self.task = task

    def __await__(self) -> Generator[Any, Any, R]:
        if not self.task.done:
            yield Join(self.task)
        if self.task.error is not None:
            raise self.task.error
        value: R = self.task.value
        return value


class SimStore:
    """The store as one client reaches it: every request suspends."""

    fan_out = 3

    def __init__(self, client: Client) -> None:
        self.url = "sim://world"
        self._client = client
        self.unwatched = client.world.inner

    async def _send(
        self,
        kind: str,
        key: str,
        make: Callable[[], Coroutine[Any, Any, R]],
        body: bytes = b"",
        conditional: bool = False,
    ) -> R:
        if self._client.dead:
            raise Dead
        request = Request(self._client, kind, key, lambda: run_sync(make()), body, conditional, self._client.world.now)
        answer: R = await request
        return answer

    async def get(
        self, key: str, *, if_none_match: str | None = None, span: tuple[int, int] | None = None
    ) -> StoredObject | None:
        return await self._send("get", key, lambda: self.unwatched.get(key, if_none_match=if_none_match, span=span))

    async def head(self, key: str) -> ObjectHead | None:
        return await self._send("head", key, lambda: self.unwatched.head(key))

    async def put(
        self,
        key: str,
        body: bytes,
        *,
        if_match: str | None = None,
        if_none_match: Literal["*"] | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> Written:
        def make() -> Coroutine[Any, Any, Written]:
            return self.unwatched.put(key, body, if_match=if_match, if_none_match=if_none_match, metadata=metadata)

        return await self._send("put", key, make, body, bool(if_match or if_none_match))

    async def delete(self, keys: Sequence[str]) -> None:
        if keys:
            await self._send("delete", " ".join(keys), lambda: self.unwatched.delete(keys))

    async def list(self, prefix: str, *, after: str = "") -> Listing:
        return await self._send("list", f"{prefix} after {after}", lambda: self.unwatched.list(prefix, after=after))

    async def enclosing(self, name: str) -> Sequence[str]:
        return ()

    async def close(self) -> None:
        return
