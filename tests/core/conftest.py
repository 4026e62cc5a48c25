"""Archives for tests of the core: over a store in memory that counts, fails, lies or waits as the test tells it to."""

from __future__ import annotations

import pytest

from s3conv import Archive
from s3conv.bridge import InlineRunner
from s3conv.store import open_store
from tests.core.stores import ScriptedStore


class NoWait(InlineRunner):
    """Runs inline and does not wait between repeats."""

    def __init__(self) -> None:
        super().__init__()
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


def open_scripted(partition_by: str | None = None) -> tuple[Archive, ScriptedStore]:
    """A new archive in memory, and the store below it, with nothing counted yet."""
    store = ScriptedStore(open_store("memory://"))
    Archive.create(store, partition_by=partition_by)
    archive = Archive(store, NoWait())
    archive.count()  # so that the descriptor is known and not counted in every test
    store.reset()
    return archive, store


@pytest.fixture
def archive(store: ScriptedStore) -> Archive:
    """An archive without partitions, over `store`."""
    archive = Archive(store, NoWait())
    archive.count()
    store.reset()
    return archive


@pytest.fixture
def store() -> ScriptedStore:
    """A store that holds a new archive."""
    store = ScriptedStore(open_store("memory://"))
    Archive.create(store)
    store.reset()
    return store
