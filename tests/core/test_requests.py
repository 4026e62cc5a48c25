"""What each operation may cost in requests: DESIGN.md, section 9, the rows that apply so far.

Counted at the store's port for every operation; and once on the wire, over both S3 transports.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from s3conv import Archive, AsyncArchive, ConversationState
from s3conv.format.keys import document_key, log_prefix
from s3conv.store import open_store
from tests.core.conftest import NoWait, open_scripted
from tests.core.stores import ScriptedStore
from tests.servers.place import Place


def start(conversation_id: str, **metadata: Any) -> ConversationState:
    state = ConversationState.start(conversation_id, system="You are helpful", metadata=metadata)
    state.add_message("user", "Hello")
    return state


def loaded(archive: Archive, conversation_id: str) -> ConversationState:
    state = archive.load(conversation_id)
    assert state is not None
    return state


def test_opening_makes_no_request(store: ScriptedStore) -> None:
    Archive(store, NoWait())
    assert store.counts == {}


def test_the_descriptor_costs_one_get_per_process(store: ScriptedStore) -> None:
    archive = Archive(store, NoWait())
    archive.load("nothing")
    assert store.log[0][1] == "s3conv.json"
    assert store.counts == {"get": 2}
    archive.load("nothing")
    assert store.counts == {"get": 3}


def test_load_is_1_get(archive: Archive, store: ScriptedStore) -> None:
    archive.save(start("c"))
    store.reset()
    archive.load("c")
    assert store.counts == {"get": 1}


def test_save_of_a_new_conversation_is_2_puts(archive: Archive, store: ScriptedStore) -> None:
    archive.save(start("c"))
    assert store.counts == {"put": 2}
    assert store.log[0][1].startswith("index/log/")  # announced first, so that a crash cannot hide a document
    assert store.log[1][1].startswith("conversations/")


def test_the_descriptor_is_fetched_beside_the_first_request(store: ScriptedStore) -> None:
    first: list[object] = []

    class Watch(NoWait):
        def spawn(self, fn: Any, arg: Any) -> Any:
            first.append(arg if isinstance(arg, str) else "s3conv.json")
            return super().spawn(fn, arg)

    uses: list[tuple[Callable[[Archive], object], str]] = [
        (lambda archive: archive.load("c"), document_key("c")),
        (lambda archive: archive.delete("c"), document_key("c")),
        (lambda archive: archive.list(), "index/log/"),
        (lambda archive: archive.count({"metadata.user_id": "u"}), log_prefix('"u"')),
    ]
    for use, beside in uses:
        first.clear()
        use(Archive(store, Watch()))
        assert first == ["s3conv.json", beside]


def test_a_wrong_guess_of_the_partition_costs_one_request_once(store: ScriptedStore) -> None:
    archive = Archive(store, NoWait())
    for lists in (2, 1):
        store.reset()
        archive.list({"metadata.user_id": "u"})  # the archive has no partitions
        assert store.counts["list"] == lists


def test_one_turn_cold_is_1_get_and_2_puts(archive: Archive, store: ScriptedStore) -> None:
    archive.save(start("c"))
    store.reset()
    state = loaded(archive, "c")
    state.add_message("assistant", "Hi!")
    archive.save(state)
    assert store.counts == {"get": 1, "put": 2}
    store.reset()
    with archive.edit("c") as state:
        state.add_message("user", "And now?")
    assert store.counts == {"get": 1, "put": 2}


def test_one_turn_warm_is_2_puts(archive: Archive, store: ScriptedStore) -> None:
    with archive.edit("c", create=start("c")) as state:
        state.add_message("user", "Hello")
    for _ in range(10):
        store.reset()
        with archive.edit("c") as state:
            state.add_message("user", "And now?")
        assert store.counts == {"put": 2}


def test_one_turn_warm_is_1_put_in_an_activity_window(store: ScriptedStore) -> None:
    archive = Archive(store, NoWait(), activity_window=60)
    with archive.edit("c", create=start("c")) as state:
        state.add_message("user", "Hello")
    for _ in range(10):
        store.reset()
        with archive.edit("c") as state:
            state.add_message("user", "And now?")
        assert store.counts == {"put": 1}


def test_one_turn_with_the_state_in_memory_is_2_puts(archive: Archive, store: ScriptedStore) -> None:
    state = start("c")
    archive.save(state)
    for _ in range(10):
        store.reset()
        state.add_message("user", "next")
        archive.save(state)
        assert store.counts == {"put": 2}


def test_save_that_changes_the_partition_is_3_puts() -> None:
    archive, store = open_scripted("metadata.user_id")
    archive.save(start("c", user_id="alice"))
    state = loaded(archive, "c")
    state.metadata["user_id"] = "bob"
    store.reset()
    archive.save(state)
    assert store.counts == {"put": 3}


def test_save_that_changes_only_the_creation_time_is_2_puts(archive: Archive, store: ScriptedStore) -> None:
    state = start("c")
    archive.save(state)
    state.created_at = state.created_at.replace(year=2001)
    store.reset()
    archive.save(state)
    assert store.counts == {"put": 2}


def test_delete_by_id_is_1_get_and_2_puts(archive: Archive, store: ScriptedStore) -> None:
    archive.save(start("c"))
    store.reset()
    archive.delete("c")
    assert store.counts == {"get": 1, "put": 2}
    store.reset()
    archive.delete("c")
    assert store.counts == {"get": 1}


@pytest.mark.parametrize(
    ("partitions", "per_partition", "batches"), [(1, 1, 1), (1, 500, 1), (1, 501, 2), (3, 501, 6), (40, 13, 40)]
)
def test_save_many_is_n_puts_and_one_more_per_500_of_a_partition(
    partitions: int, per_partition: int, batches: int
) -> None:
    archive, store = open_scripted("metadata.user_id")
    n = partitions * per_partition
    archive.save_many([start(f"c{number}", user_id=f"user{number % partitions}") for number in range(n)])
    assert store.counts == {"put": n + batches}
    assert archive.count() == n


def test_ten_turns_are_30_requests_at_most(archive: Archive, store: ScriptedStore) -> None:
    archive.save(start("c"))
    store.reset()
    for number in range(10):
        with archive.edit("c", fresh=True) as state:
            state.add_message("user", "x" * 200)
            state.add_message("assistant", f"{number}" * 1200)
    assert sum(store.counts.values()) == 30


# --- on the wire ----------------------------------------------------------------------------------------------------

EXPECTED = {
    "save": {"PutObject": 2},
    "load": {"GetObject": 1},
    "turn": {"PutObject": 2},
    "edit": {"GetObject": 1, "PutObject": 2},
    "list": {"ListObjectsV2": 1, "GetObject": 2},
    "warm list": {"ListObjectsV2": 1, "GetObject": 1},
    "save_many": {"PutObject": 3 + 1},
    "delete": {"GetObject": 1, "PutObject": 2},
}


class Wire:
    """Counts what a client sends, by operation; retries of the SDK would count too."""

    def __init__(self, client: Any) -> None:
        self.sent: Counter[str] = Counter()
        client.meta.events.register("before-send.s3", self._count)

    def _count(self, event_name: str, **more: Any) -> None:
        self.sent[event_name.rsplit(".", 1)[1]] += 1

    def take(self) -> dict[str, int]:
        taken = dict(self.sent)
        self.sent.clear()
        return taken


def test_on_the_wire_with_boto3(s3_endpoint: str | None, s3_session: Any, s3_place: Place) -> None:
    client = s3_session.client("s3", endpoint_url=s3_endpoint)
    url = f"{s3_place.url}/prod"
    Archive.create(url, client=client)
    wire = Wire(client)
    sent = {}
    with Archive.open(url, client=client) as archive:
        archive.load("first")
        wire.take()  # the descriptor, once per process
        state = start("c")
        archive.save(state)
        sent["save"] = wire.take()
        archive.load("c")
        sent["load"] = wire.take()
        state.add_message("assistant", "Hi!")
        archive.save(state)
        sent["turn"] = wire.take()
        archive.count()
        archive.save(state)
        wire.take()
        archive.list(limit=20)
        sent["list"] = wire.take()
        archive.list(limit=20)
        sent["warm list"] = wire.take()
        with archive.edit("c") as state:
            state.add_message("user", "And now?")
        sent["edit"] = wire.take()
        archive.save_many([start(name) for name in ("x", "y", "z")])
        sent["save_many"] = wire.take()
        archive.delete("c")
        sent["delete"] = wire.take()
    assert sent == EXPECTED


def test_on_the_wire_with_aioboto3(s3_endpoint: str | None, aio_session: Any, s3_place: Place) -> None:
    async def turns() -> dict[str, dict[str, int]]:
        url = f"{s3_place.url}/prod"
        async with aio_session.client("s3", endpoint_url=s3_endpoint) as client:
            await AsyncArchive.create(url, client=client)
            wire = Wire(client)
            sent = {}
            async with AsyncArchive.open(url, client=client) as archive:
                await archive.load("first")
                wire.take()  # the descriptor, once per process
                state = start("c")
                await archive.save(state)
                sent["save"] = wire.take()
                await archive.load("c")
                sent["load"] = wire.take()
                state.add_message("assistant", "Hi!")
                await archive.save(state)
                sent["turn"] = wire.take()
                await archive.count()
                await archive.save(state)
                wire.take()
                await archive.list(limit=20)
                sent["list"] = wire.take()
                await archive.list(limit=20)
                sent["warm list"] = wire.take()
                async with archive.edit("c") as state:
                    state.add_message("user", "And now?")
                sent["edit"] = wire.take()
                await archive.save_many([start(name) for name in ("x", "y", "z")])
                sent["save_many"] = wire.take()
                await archive.delete("c")
                sent["delete"] = wire.take()
            return sent

    assert asyncio.run(turns()) == EXPECTED


def test_the_memory_store_is_used_by_sync_and_async_callers_alike() -> None:
    store = open_store("memory://")
    Archive.create(store).save(start("c"))

    async def load() -> ConversationState | None:
        return await AsyncArchive.open(store).load("c")

    assert asyncio.run(load()) == Archive.open(store).load("c")
