"""What a save does after another writer was faster: which requests, in which order, and when it waits."""

from __future__ import annotations

from contextlib import AsyncExitStack

import pytest

from s3conv import Archive, ConflictError, ConversationState
from s3conv.bridge import run_sync
from s3conv.format.keys import document_key
from tests.core.conftest import NoWait
from tests.core.stores import ScriptedStore

KEY = document_key("c")


class Noting(NoWait):
    """Notes before which request it was asked to wait."""

    def __init__(self, store: ScriptedStore) -> None:
        super().__init__()
        self._store = store
        self.waited: list[int] = []

    async def sleep(self, seconds: float) -> None:
        self.waited.append(len(self._store.log))


@pytest.fixture
def runner(store: ScriptedStore) -> Noting:
    return Noting(store)


@pytest.fixture
def archive(store: ScriptedStore, runner: Noting) -> Archive:
    archive = Archive(store, runner)
    archive.save(ConversationState.start("c", system="Hi"))
    store.reset()
    return archive


def interfere(store: ScriptedStore, times: int) -> None:
    """Let another process save just before each of the next writes of the document."""
    other = Archive(store.inner, NoWait())

    def save() -> None:
        with other.edit("c") as state:
            state.add_message("user", "I was faster")

    for _ in range(times):
        store.before("put", KEY, save)


def changed(archive: Archive, text: str) -> ConversationState:
    """The conversation as it is, and a message more."""
    state = archive.load("c")
    assert state is not None
    state.add_message("user", text)
    return state


def requests(store: ScriptedStore) -> list[str]:
    return [f"{kind} {'document' if key == KEY else 'intent'}" for kind, key in store.log]


def test_a_loser_waits_before_it_looks_and_withdraws_its_intents_in_one_request(
    archive: Archive, store: ScriptedStore, runner: Noting
) -> None:
    state = changed(archive, "I was not")
    store.reset()
    interfere(store, times=3)
    assert archive.save(state, "merge").revision == 5
    lost = ["put intent", "put document", "get document"]
    assert requests(store) == [*lost * 3, "put intent", "put document", *["delete intent"] * 3]
    assert store.counts["delete"] == 1
    assert runner.waited == [5, 8]  # never the first time; then between the refusal and the look
    log = [key for key in store.keys("") if key.startswith("index/log/")]
    assert len(log) == 5  # of the five writes that were made


def test_who_loses_in_mode_raise_looks_at_once_and_leaves_no_intent(
    archive: Archive, store: ScriptedStore, runner: Noting
) -> None:
    state = changed(archive, "I was not")
    store.reset()
    interfere(store, times=1)
    with pytest.raises(ConflictError):
        archive.save(state)
    assert requests(store) == ["put intent", "put document", "get document", "delete intent"]
    assert runner.waited == []


def test_who_comes_to_others_of_its_process_looks_before_its_first_write(
    archive: Archive, store: ScriptedStore, runner: Noting
) -> None:
    state = changed(archive, "I was not")
    interfere(store, times=1)
    store._begin("put", KEY)  # they have saved in the meantime
    store.reset()

    async def save_among_others() -> None:
        async with AsyncExitStack() as others:
            await others.enter_async_context(runner.turn(KEY))  # of this thread, which may take it again
            archive.save(state, "merge")

    run_sync(save_among_others())
    assert requests(store) == ["get document", "put intent", "put document"]
    merged = archive.load("c")
    assert merged is not None
    assert [leaf.message.content for leaf in merged.leaves()] == ["I was faster", "I was not"]


def test_who_finds_what_it_knows_among_others_saves_without_a_merge(
    archive: Archive, store: ScriptedStore, runner: Noting
) -> None:
    state = changed(archive, "nobody else wrote")
    store.reset()

    async def save_among_others() -> None:
        async with AsyncExitStack() as others:
            await others.enter_async_context(runner.turn(KEY))
            assert archive.save(state, "merge").revision == 2

    run_sync(save_among_others())
    assert requests(store) == ["get document", "put intent", "put document"]
