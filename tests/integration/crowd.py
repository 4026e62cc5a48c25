"""All actors at once in one process: threads over boto3, tasks over aioboto3; and what they leave is checked.

Law: every call goes over the transport as an archive makes it for itself; nothing of the SDK is replaced.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from pathlib import Path
from random import Random, SystemRandom
from typing import Any

import boto3
import botocore.session
from botocore.config import Config

from s3conv import Archive, AsyncArchive
from s3conv.bridge import run_sync
from s3conv.store import ObjectStore
from tests.integration.checker import check, kinds_met
from tests.integration.journal import Journal, Journals, read_journals
from tests.integration.workload import PARTITION_BY, ROLES, WINDOW, Actor, scaled

WRITERS, READERS, MAINTAINERS = 8, 2, 2
SHARED = 3
"""Open archives that writers share; a further one has an activity window."""

Act = Callable[[Actor, int], Coroutine[Any, Any, None]]

_log = logging.getLogger(__name__)  # shown by `pytest -rP --log-level=INFO`


@dataclass(frozen=True)
class Crowd:
    """Where the archive is, how it is reached, and how much is done there."""

    url: str
    endpoint: str
    credentials: dict[str, str]
    asynchronous: bool
    folder: Path
    turns: int
    faulty: bool = False
    read_timeout: float | None = None

    def run(self, store: ObjectStore, calm: Callable[[], None] = lambda: None) -> Journals:
        """Let them loose and check what they leave.

        Args:
            store: the archive past all faults.
            calm: called when the actors have stopped: it ends all faults.
        """
        seed = SystemRandom().getrandbits(32)
        Archive.create(store, partition_by=PARTITION_BY).close()
        with scaled():
            if self.asynchronous:
                asyncio.run(self._tasks(Random(seed)))
            else:
                self._threads(Random(seed))
            calm()
            journals = read_journals(self.folder)
            verdict = check(store, journals)
        met = kinds_met(journals)
        report = f"seed {seed}, journals in {self.folder}\nmet {dict(met)}\nchecked {dict(verdict.checked)}"
        assert not verdict.violations, "\n".join([report, *verdict.violations[:20]])
        for what in ("raise acked", "merge acked", "edit acked", "many acked", "lists", "folded", "segments_merged"):
            assert met[what], report
        _log.info(report)
        return journals

    def _actors(self, rng: Random) -> list[tuple[Act, str, int, bool]]:
        actors: list[tuple[Act, str, int, bool]] = []
        for role, few in (("writer", WRITERS), ("reader", READERS), ("maintainer", MAINTAINERS)):
            for number in range(few):
                turns = self.turns if role == "writer" else 2 * self.turns
                actors.append((ROLES[role], f"{role[0]}{number}", turns, role == "writer" and number < 2))
        rng.shuffle(actors)
        return actors

    def _actor(self, archive: Archive | AsyncArchive, name: str, windowed: bool, rng: Random) -> Actor:
        journal = Journal(self.folder, name)
        return Actor(archive, journal, Random(rng.getrandbits(32)), windowed, self.faulty)

    def _threads(self, rng: Random) -> None:
        session = boto3.Session(botocore_session=self._configured(botocore.session.get_session()), **self.credentials)
        with ExitStack() as stack:

            def opened(window: float = 0.0) -> Archive:
                archive = Archive.open(
                    self.url, session=session, endpoint_url=self.endpoint, fan_out=8, activity_window=window
                )
                return stack.enter_context(archive)

            archives, with_window = [opened() for _ in range(SHARED)], opened(WINDOW)
            pool = stack.enter_context(ThreadPoolExecutor(WRITERS + READERS + MAINTAINERS))
            jobs = []
            for act, name, turns, windowed in self._actors(rng):
                actor = self._actor(with_window if windowed else rng.choice(archives), name, windowed, rng)
                stack.callback(actor.journal.close)
                jobs.append(pool.submit(run_sync, act(actor, turns)))
            for job in jobs:
                job.result()

    async def _tasks(self, rng: Random) -> None:
        import aioboto3
        from aiobotocore.session import AioSession

        session = aioboto3.Session(botocore_session=self._configured(AioSession()), **self.credentials)
        async with AsyncExitStack() as stack:

            async def opened(window: float = 0.0) -> AsyncArchive:
                archive = AsyncArchive.open(
                    self.url, session=session, endpoint_url=self.endpoint, fan_out=8, activity_window=window
                )
                return await stack.enter_async_context(archive)

            archives, with_window = [await opened() for _ in range(SHARED)], await opened(WINDOW)
            async with asyncio.TaskGroup() as group:
                for act, name, turns, windowed in self._actors(rng):
                    actor = self._actor(with_window if windowed else rng.choice(archives), name, windowed, rng)
                    stack.callback(actor.journal.close)
                    group.create_task(act(actor, turns))

    def _configured(self, session: Any) -> Any:
        """Only how long to wait, as its owner may say of any session."""
        if self.read_timeout is not None:
            session.set_default_client_config(Config(read_timeout=self.read_timeout))
        return session
