"""Processes that run a function as Lambda does: its client for Python asks a Runtime API of their own for invocations.

Law: at least once. What a killed process held is delivered again, to another one; a delivery counts as answered when
its answer has arrived. Nothing hangs on time: a kill happens at an event, or at a moment that the outcome does not
depend on; waiting ends when all is answered, or with the first process that ends by itself.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Condition, Thread, Timer
from typing import Any, Literal

from tests.servers.runtime_api import Invocation, runtime_api

Death = Literal["taken", "working", "answering"]
"""When the process that takes a delivery is killed: as it takes it, somewhere in its work, or instead of its answer."""

SECONDS = 60.0
"""That an invocation may take."""


@dataclass(frozen=True)
class Delivery:
    """One delivery of a request. `death`: of the process that takes it; `delay`: in "working", seconds until then."""

    request_id: str
    event: Mapping[str, Any]
    death: Death | None = None
    delay: float = 0.0
    again_when_answered: bool = False


@dataclass
class Sandbox:
    """One process with its Runtime API; the API's `Platform`."""

    fleet: Fleet
    name: str
    process: subprocess.Popen[bytes] | None = None
    held: Delivery | None = None
    is_over: bool = False
    stack: ExitStack = field(default_factory=ExitStack)

    def next(self) -> Invocation | None:
        """See `Platform.next`."""
        return self.fleet.take(self)

    def answered(self, request_id: str, body: bytes) -> None:
        """See `Platform.answered`."""
        self.fleet.answered(self, request_id, json.loads(body))

    def failed(self, what: str, body: bytes) -> None:
        """See `Platform.failed`."""
        self.fleet.fail(f"{self.name}: {what}: {body.decode()}")


class Fleet:
    """As many processes as told, each replaced when it is killed."""

    def __init__(self, command: list[str], environment: Mapping[str, str], task: Path, folder: Path, size: int) -> None:
        self._command, self._environment, self._task, self._folder = command, environment, task, folder
        self._size = size
        self._changed = Condition()
        self._waiting: set[str] = set()
        self._queue: deque[Delivery] = deque()
        self._open = 0
        self._failures: list[str] = []
        self._started = 0
        self._closed = False
        self._threads: list[Thread] = []
        self._sandboxes: list[Sandbox] = []
        self.killed: Counter[str] = Counter()
        self.answers: list[tuple[str, int, Any]] = []
        """Of each delivery that was answered: its request id, and the answer's status and body."""
        self.by_process: Counter[str] = Counter()
        self.sent_again = 0

    def __enter__(self) -> Fleet:
        """Start the processes, and wait until each has asked for an invocation."""
        try:
            for _ in range(self._size):
                self._start()
            self._wait_until(lambda: len(self._waiting) >= self._size)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(self, deliveries: Iterable[Delivery]) -> None:
        """Deliver all, and wait until all are answered.

        Raises:
            AssertionError: a process ended by itself, a function raised, or an answer was neither a success nor one
                after which a caller sends the same request again; says which.
        """
        with self._changed:
            given = list(deliveries)
            self._queue.extend(given)
            self._open += len(given)
            self._changed.notify_all()
        self._wait_until(lambda: self._open == 0)

    def _wait_until(self, done: Any) -> None:
        with self._changed:
            while not done() and not self._failures:
                self._changed.wait(1.0)
                for sandbox in self._sandboxes:
                    if not sandbox.is_over and sandbox.process is not None and sandbox.process.poll() is not None:
                        self._failures.append(f"{sandbox.name} ended by itself")
            if self._failures:
                said = {path.name: path.read_text(errors="replace")[-2000:] for path in self._folder.glob("*.said")}
                named = [said.get(f"{failure.partition(' ')[0].rstrip(':')}.said", "") for failure in self._failures]
                raise AssertionError("\n".join([*self._failures, *named]))

    # --- called by the threads of the Runtime APIs ------------------------------------------------------------------

    def take(self, sandbox: Sandbox) -> Invocation | None:
        """Hand out the next delivery."""
        with self._changed:
            self._waiting.add(sandbox.name)
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._queue or sandbox.is_over)
            self._waiting.discard(sandbox.name)
            if sandbox.is_over:
                return None
            sandbox.held = delivery = self._queue.popleft()
            if delivery.death == "taken":
                self._kill(sandbox)
                return None
        if delivery.death == "working":
            self._spawn(Timer(delivery.delay, self._kill_at_work, (sandbox,)))
        return Invocation(delivery.request_id, json.dumps(delivery.event).encode(), SECONDS)

    def answered(self, sandbox: Sandbox, request_id: str, answer: Mapping[str, Any]) -> None:
        """Note an answer; or kill the process in its place."""
        with self._changed:
            delivery = sandbox.held
            if sandbox.is_over:
                return
            assert delivery is not None
            assert delivery.request_id == request_id
            if delivery.death == "answering":
                self._kill(sandbox)
                return
            status = answer["statusCode"]
            sandbox.held = None
            self.by_process[sandbox.name] += 1
            if status in (409, 503):  # send it again, it says
                self.sent_again += 1
                self._queue.append(replace(delivery, death=None))
            else:
                self.answers.append((request_id, status, json.loads(answer["body"])))
                if status not in (200, 201):
                    self._failures.append(f"{sandbox.name}: {request_id}: {answer}")
                self._open -= 1
                if delivery.again_when_answered:
                    self._queue.append(replace(delivery, death=None, again_when_answered=False))
                    self._open += 1
            self._changed.notify_all()

    def fail(self, what: str) -> None:
        """Note what may not happen."""
        with self._changed:
            self._failures.append(what)
            self._changed.notify_all()

    # --- processes -------------------------------------------------------------------------------------------------

    def _spawn(self, thread: Thread) -> None:
        thread.daemon = True
        self._threads.append(thread)
        thread.start()

    def _start(self) -> None:
        with self._changed:
            if self._closed:
                return
            self._started += 1
            sandbox = Sandbox(self, f"sandbox-{self._started}")
            self._sandboxes.append(sandbox)
        address = sandbox.stack.enter_context(runtime_api(sandbox))
        said = sandbox.stack.enter_context((self._folder / f"{sandbox.name}.said").open("wb"))
        environment = {**self._environment, "AWS_LAMBDA_RUNTIME_API": address, "LAMBDA_TASK_ROOT": str(self._task)}
        with self._changed:
            if not sandbox.is_over:
                sandbox.process = subprocess.Popen(
                    self._command, env=environment, cwd=self._task, stdout=said, stderr=said, stdin=subprocess.DEVNULL
                )

    def _kill_at_work(self, sandbox: Sandbox) -> None:
        with self._changed:
            # It may have answered, and may be at another one, by now: that is a process killed at work, too.
            if not sandbox.is_over and not self._closed:
                self._kill(sandbox)

    def _kill(self, sandbox: Sandbox) -> None:
        """SIGKILL; what it held is delivered again, and another process takes its place."""
        sandbox.is_over = True
        assert sandbox.process is not None
        sandbox.process.kill()
        if sandbox.held is not None:
            self.killed[sandbox.held.death or "between"] += 1
            self._queue.appendleft(replace(sandbox.held, death=None))
        else:
            self.killed["between"] += 1
        self._changed.notify_all()
        self._spawn(Thread(target=self._start))

    def close(self) -> None:
        """Leave no process behind, whatever has happened."""
        with self._changed:
            self._closed = True
            threads = list(self._threads)
        for thread in threads:
            thread.join()
        with self._changed:
            for sandbox in self._sandboxes:
                sandbox.is_over = True
                if sandbox.process is not None:
                    sandbox.process.kill()
            self._changed.notify_all()
        for sandbox in self._sandboxes:
            if sandbox.process is not None:
                sandbox.process.wait()
            sandbox.stack.close()


def environment_of(url: str, keys: Mapping[str, str], endpoint: str | None, version: str) -> dict[str, str]:
    """The variables that Lambda gives a process with the chat function."""
    return {
        "PATH": os.defpath,
        "S3CONV_URL": url,
        "AWS_LAMBDA_FUNCTION_NAME": "chat",
        "AWS_EXECUTION_ENV": f"AWS_Lambda_python{version}",
        "AWS_DEFAULT_REGION": "us-east-1",
        **keys,
        **({"AWS_ENDPOINT_URL_S3": endpoint} if endpoint is not None else {}),
    }
