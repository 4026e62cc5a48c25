"""The storage interface of dataknobs, kept: also with a state class that knows nothing of s3conv."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Coroutine
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self, TypeVar, assert_type

import pytest

from s3conv import (
    AlreadyExistsError,
    Archive,
    AsyncArchive,
    ConflictError,
    ConversationState,
    ConversationStorage,
    InvalidInputError,
    NotFoundError,
    S3ConversationStorage,
    StorageError,
)
from s3conv.bridge import InlineTaskRunner
from s3conv.store import open_store
from tests.core.stores import ScriptedStore

R = TypeVar("R")
DAY = datetime(2025, 3, 1, tzinfo=UTC)


def run(coroutine: Coroutine[Any, Any, R]) -> R:
    return asyncio.run(coroutine)


def start(conversation_id: str, day: int = 0, said: str = "Hello", **metadata: Any) -> ConversationState:
    state = ConversationState.start(conversation_id, system="You are helpful", metadata=metadata)
    state.add_message("user", said)
    state.created_at = state.updated_at = DAY + timedelta(days=day)
    return state


@pytest.fixture
def store() -> ScriptedStore:
    return ScriptedStore(open_store("memory://"))


@pytest.fixture
def storage(store: ScriptedStore) -> S3ConversationStorage[ConversationState]:
    return S3ConversationStorage(run(AsyncArchive.create(store)))


def contents(state: ConversationState) -> list[object]:
    return [node.data.message.content for node in state.message_tree.walk()]


async def load(storage: S3ConversationStorage[ConversationState], conversation_id: str = "c") -> ConversationState:
    state = await storage.load_conversation(conversation_id)
    assert state is not None
    return state


Storage = S3ConversationStorage[ConversationState]


def test_save_is_an_upsert(storage: Storage) -> None:
    async def scenario() -> None:
        state = start("c")
        await storage.save_conversation(state)
        state.add_message("assistant", "Hi!")
        await storage.save_conversation(state)
        assert await load(storage) == state
        assert await storage.load_conversation("nope") is None

    run(scenario())


def test_a_save_over_another_writers_is_merged_and_the_state_goes_on_with_both(storage: Storage) -> None:
    async def scenario() -> None:
        await storage.save_conversation(start("c"))
        mine, other = await load(storage), await load(storage)
        other.add_message("assistant", "other")
        await storage.save_conversation(other)
        mine.add_message("assistant", "mine")
        await storage.save_conversation(mine)
        mine.add_message("user", "more")
        await storage.save_conversation(mine)
        assert contents(await load(storage)) == ["You are helpful", "Hello", "other", "mine", "more"]

    run(scenario())


def test_a_fresh_state_of_a_stored_conversation_is_merged_with_it(storage: Storage) -> None:
    async def scenario() -> None:
        state = start("c")
        await storage.save_conversation(state)
        again = ConversationState.from_dict(state.to_dict())
        again.add_message("assistant", "Hi!")
        await storage.save_conversation(again)
        assert contents(await load(storage)) == ["You are helpful", "Hello", "Hi!"]

    run(scenario())


def test_delete_tells_whether_there_was_one(storage: Storage) -> None:
    async def scenario() -> None:
        state = start("c")
        await storage.save_conversation(state)
        assert await storage.delete_conversation("c") is True
        assert await storage.delete_conversation("c") is False
        with pytest.raises(ConflictError):
            await storage.save_conversation(state)

    run(scenario())


def test_list_returns_states_filtered_sorted_and_cut(storage: Storage) -> None:
    async def scenario() -> None:
        for number in range(6):
            await storage.save_conversation(start(f"c{number}", number, team="ab"[number % 2], nested={"x": number}))

        async def ids(**options: Any) -> list[str]:
            return [state.conversation_id for state in await storage.list_conversations(**options)]

        assert await ids() == ["c5", "c4", "c3", "c2", "c1", "c0"]
        assert await ids(filter_metadata={"team": "a"}) == ["c4", "c2", "c0"]
        assert await ids(filter_metadata={"nested.x": 3}) == ["c3"]
        assert await ids(filter_metadata={"nested": {"x": 3}}) == ["c3"]
        assert await ids(limit=2, offset=1) == ["c4", "c3"]
        assert await ids(sort_by="created_at", sort_order="asc", limit=2) == ["c0", "c1"]
        assert await ids(sort_by="metadata.nested.x", sort_order="asc", limit=1) == ["c0"]
        assert await ids(limit=0) == []
        assert await storage.count_conversations() == 6
        assert await storage.count_conversations({"team": "b"}) == 3
        with pytest.raises(InvalidInputError, match="'asc' or 'desc'"):
            await ids(sort_order="up")

    run(scenario())


def test_search_looks_into_every_branch_and_every_text_part(storage: Storage) -> None:
    async def scenario() -> None:
        branched = start("branched", 1)
        branched.add_message("assistant", "one way")
        branched.add_message("assistant", "the HIDDEN way", parent="0")
        branched.current_node_id = "0.0"
        parts = start("parts", 2)
        parts.add_message("user", [{"type": "text", "text": "something hidden"}, {"type": "image_url", "x": 1}])
        for state in (branched, parts, start("plain", 3)):
            state.updated_at = state.created_at
            await storage.save_conversation(state)

        async def ids(**options: Any) -> list[str]:
            return [state.conversation_id for state in await storage.search_conversations(**options)]

        assert await ids(content_contains="hidden") == ["parts", "branched"]
        assert await ids(content_contains="hidden", limit=1, offset=1) == ["branched"]
        assert await ids(content_contains="hidden", sort_order="asc") == ["branched", "parts"]
        assert await ids(created_after=DAY + timedelta(days=2)) == ["plain", "parts"]
        assert await ids(created_before=DAY + timedelta(days=1)) == ["branched"]
        assert await ids(content_contains="nowhere") == []
        assert await ids() == ["plain", "parts", "branched"]

    run(scenario())


def test_delete_of_many_needs_a_filter_and_returns_ids(storage: Storage) -> None:
    async def scenario() -> None:
        for number in range(4):
            await storage.save_conversation(start(f"c{number}", number, said="odd" if number % 2 else "even", n=number))
        with pytest.raises(ValueError, match="at least one filter"):
            await storage.delete_conversations()
        assert sorted(await storage.delete_conversations(content_contains="ODD")) == ["c1", "c3"]
        assert await storage.delete_conversations(filter_metadata={"n": 7}) == []
        assert await storage.delete_conversations(created_before=DAY) == ["c0"]
        assert await storage.count_conversations() == 1

    run(scenario())


def announce_in_vain(store: ScriptedStore, **metadata: Any) -> None:
    """Another process announces a save of "c" with this metadata, and dies before it is made."""

    async def save() -> None:
        archive = AsyncArchive(store, InlineTaskRunner())
        state = await archive.load("c")
        assert state is not None
        state.metadata.update(metadata)
        store.fail("put", "conversations/", RuntimeError("killed"))
        with pytest.raises(RuntimeError, match="killed"):
            await archive.save(state)

    run(save())


def test_what_an_announcement_alone_says_is_not_deleted(storage: Storage, store: ScriptedStore) -> None:
    run(storage.save_conversation(start("c", status="keep")))
    announce_in_vain(store, status="trash")
    assert run(storage.count_conversations({"status": "trash"})) == 1
    assert run(storage.delete_conversations(filter_metadata={"status": "trash"})) == []
    assert run(load(storage)).metadata == {"status": "keep"}


@pytest.mark.parametrize("what", ["its status", "its text"])
def test_what_changes_between_the_list_and_its_delete_stays(storage: Storage, store: ScriptedStore, what: str) -> None:
    run(storage.save_conversation(start("c", said="old", status="trash")))
    other = Archive.open(store.inner)

    def change() -> None:
        if what == "its status":
            with other.edit("c") as state:
                state.metadata["status"] = "keep"
        else:
            other.delete("c")
            other.save(start("c", said="new", status="trash"))

    store.before("put", "index/log/", change)  # the delete is announced: it has looked at the conversation
    assert run(storage.delete_conversations("old", filter_metadata={"status": "trash"})) == []
    assert run(storage.load_conversation("c")) is not None


def test_a_conversation_that_does_not_meet_the_filter_is_not_given(store: ScriptedStore) -> None:
    async def scenario() -> None:
        storage: Storage = S3ConversationStorage(await AsyncArchive.create(store, partition_by="metadata.user_id"))
        await storage.save_conversation(start("c", said="alice's secret", user_id="alice", x="y" * 9000))

    async def given_to(user: str) -> list[list[ConversationState]]:
        storage: Storage = S3ConversationStorage(AsyncArchive(store, InlineTaskRunner()))
        mine = {"user_id": user}
        return [
            await storage.list_conversations(mine),
            await storage.search_conversations(filter_metadata=mine),
            await storage.search_conversations("SECRET", filter_metadata=mine),
        ]

    run(scenario())
    assert all(run(given_to("alice")))
    announce_in_vain(store, user_id="bob")
    assert run(given_to("bob")) == [[], [], []]


def test_update_metadata_replaces_it(storage: Storage) -> None:
    async def scenario() -> None:
        await storage.save_conversation(start("c", a=1, b=2))
        await storage.update_metadata(conversation_id="c", metadata={"b": 3})
        assert (await load(storage)).metadata == {"b": 3}
        with pytest.raises(NotFoundError):
            await storage.update_metadata(conversation_id="nope", metadata={})

    run(scenario())


def test_update_metadata_takes_the_place_of_what_another_process_wrote() -> None:
    async def scenario() -> None:
        store = open_store("memory://")
        await AsyncArchive.create(store)
        here: Storage = S3ConversationStorage(AsyncArchive.open(store))
        there: Storage = S3ConversationStorage(AsyncArchive.open(store))
        await here.save_conversation(start("c"))
        await here.update_metadata("c", {"title": "A"})
        await there.update_metadata("c", {"title": "B", "secret": "x"})
        await here.update_metadata("c", {"title": "A"})
        assert (await load(there)).metadata == {"title": "A"}

    run(scenario())


def test_create_makes_the_archive_or_opens_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        config = {"url": f"file://{tmp_path}/chats", "partition_by": "metadata.user_id"}
        first: Storage = await S3ConversationStorage.create(config)
        await first.save_conversation(start("c", user_id="alice"))
        await first.close()
        second: Storage = await S3ConversationStorage.create(config)
        assert (await load(second)).metadata == {"user_id": "alice"}
        third: Storage = await S3ConversationStorage.create({"url": config["url"]})
        assert (await load(third)).metadata == {"user_id": "alice"}
        with pytest.raises(AlreadyExistsError, match=r"'metadata\.user_id'"):
            await S3ConversationStorage.create({**config, "partition_by": "metadata.team"})
        with pytest.raises(InvalidInputError, match="'url'"):
            await S3ConversationStorage.create({"backend": "s3"})
        with pytest.raises(InvalidInputError, match="bucket"):
            await S3ConversationStorage.create({"url": "memory://", "bucket": "x"})

    run(scenario())


def test_a_synchronous_archive_will_do() -> None:
    storage: Storage = S3ConversationStorage(Archive.create("memory://"))
    run(storage.save_conversation(start("c")))
    assert run(storage.count_conversations()) == 1


def test_a_type_checker_knows_what_a_storage_returns() -> None:
    """Mypy reads the types; that they are right is part of its run over the tests."""

    async def scenario() -> None:
        archive = await AsyncArchive.create("memory://")
        plain, foreign = S3ConversationStorage(archive), S3ConversationStorage(archive, Foreign)
        assert_type(await plain.load_conversation("c"), ConversationState | None)
        assert_type(await foreign.load_conversation("c"), Foreign | None)
        first = await S3ConversationStorage.create({"url": "memory://"})
        second = await S3ConversationStorage.create({"url": "memory://"}, Foreign)
        assert_type(first, S3ConversationStorage[ConversationState])
        assert_type(second, S3ConversationStorage[Foreign])

    run(scenario())


def test_the_errors_are_those_that_code_of_the_seed_catches(storage: Storage) -> None:
    with pytest.raises(StorageError):
        run(storage.save_conversation(start("x" * 2000)))


def test_the_interface_is_the_seeds() -> None:
    """Names, order and defaults of parameters, as dataknobs 0.5 calls them."""
    signatures = {
        "save_conversation": "(self, state)",
        "load_conversation": "(self, conversation_id)",
        "delete_conversation": "(self, conversation_id)",
        "list_conversations": "(self, filter_metadata=None, limit=100, offset=0, sort_by=None, sort_order='desc')",
        "count_conversations": "(self, filter_metadata=None)",
        "search_conversations": "(self, content_contains=None, created_after=None, created_before=None, "
        "filter_metadata=None, limit=100, offset=0, sort_by='updated_at', sort_order='desc')",
        "delete_conversations": "(self, content_contains=None, created_after=None, created_before=None, "
        "filter_metadata=None)",
        "update_metadata": "(self, conversation_id, metadata)",
        "close": "(self)",
    }
    for name, expected in signatures.items():
        signature = inspect.signature(getattr(S3ConversationStorage, name))
        bare = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in signature.parameters.values()]
        assert str(signature.replace(parameters=bare, return_annotation=inspect.Signature.empty)) == expected, name
    assert issubclass(S3ConversationStorage, ConversationStorage)
    with pytest.raises(TypeError, match="abstract"):
        ConversationStorage()  # type: ignore[abstract]  # that is the point


# --- a state class of somebody else's -------------------------------------------------------------------------------


@dataclass
class Foreign:
    """A state as another library has it: a dataclass, unhashable, with its own idea of messages.

    Made up for these tests after the shape of dataknobs' state: flat nodes and edges, and a transient attribute.
    """

    conversation_id: str
    nodes: list[dict[str, Any]]
    edges: list[list[str]]
    current_node_id: str
    rest: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.turn_data: dict[str, Any] = {}

    def to_dict(self) -> dict[str, Any]:
        return {
            "conversation_id": self.conversation_id,
            "nodes": self.nodes,
            "edges": self.edges,
            "current_node_id": self.current_node_id,
            **self.rest,
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        rest = dict(data)
        return cls(rest.pop("conversation_id"), rest.pop("nodes"), rest.pop("edges"), rest.pop("current_node_id"), rest)

    def say(self, content: str) -> None:
        position = sum(parent == self.current_node_id for parent, _ in self.edges)
        node_id = f"{self.current_node_id}.{position}".removeprefix(".")
        self.nodes = [
            *self.nodes,
            {
                "message": {"role": "user", "content": content},
                "node_id": node_id,
                "timestamp": datetime.now(UTC).isoformat(),
                "prompt_name": None,
                "branch_name": None,
                "metadata": {},
            },
        ]
        self.edges = [*self.edges, [self.current_node_id, node_id]]
        self.current_node_id = node_id

    def said(self) -> list[str]:
        return [node["message"]["content"] for node in self.nodes]


@pytest.fixture
def foreign(store: ScriptedStore) -> S3ConversationStorage[Foreign]:
    return S3ConversationStorage(run(AsyncArchive.create(store)), Foreign)


def test_a_foreign_state_is_saved_and_loaded_in_its_own_class(
    foreign: S3ConversationStorage[Foreign], store: ScriptedStore
) -> None:
    async def scenario() -> None:
        state = Foreign.from_dict(start("c", team="x").to_dict())
        await foreign.save_conversation(state)
        store.reset()
        state.say("more")
        await foreign.save_conversation(state)
        assert store.counts == {"put": 1}  # it is known which version the state is, and what its intent said
        loaded = await foreign.load_conversation("c")
        assert isinstance(loaded, Foreign)
        assert loaded.to_dict() == state.to_dict()
        assert await foreign.list_conversations({"team": "x"}) == [loaded]
        assert len(await foreign.search_conversations(content_contains="MORE")) == 1

    run(scenario())


def test_a_foreign_state_in_use_takes_in_what_another_writer_saved_and_loses_nothing(
    foreign: S3ConversationStorage[Foreign],
) -> None:
    async def scenario() -> None:
        await foreign.save_conversation(Foreign.from_dict(start("c").to_dict()))
        mine, other = await foreign.load_conversation("c"), await foreign.load_conversation("c")
        assert mine is not None
        assert other is not None
        mine.turn_data["kept"] = "by the caller"
        other.say("other")
        await foreign.save_conversation(other)
        mine.say("mine")
        await foreign.save_conversation(mine)
        assert sorted(mine.said()) == ["Hello", "You are helpful", "mine", "other"]
        assert mine.turn_data == {"kept": "by the caller"}
        mine.say("after mine")
        await foreign.save_conversation(mine)
        final = await foreign.load_conversation("c")
        assert final is not None
        assert final.to_dict() == mine.to_dict()
        assert [parent for parent, child in final.edges if child == mine.current_node_id] == ["0.1"]

    run(scenario())


def test_a_state_class_that_cannot_read_its_conversation_is_an_error_that_names_both(
    store: ScriptedStore,
) -> None:
    class Picky(Foreign):
        @classmethod
        def from_dict(cls, data: dict[str, Any]) -> Self:
            raise KeyError("mood")

    async def scenario() -> None:
        archive = await AsyncArchive.create(store)
        await archive.save(start("c"))
        with pytest.raises(StorageError, match=r"'c' cannot be read by Picky\.from_dict: KeyError"):
            await S3ConversationStorage(archive, Picky).load_conversation("c")

    run(scenario())
