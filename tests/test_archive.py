"""The whole way on every store, for sync and async callers alike: the same test bodies over both kinds of archive."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from s3conv import (
    AlreadyExistsError,
    Archive,
    AsyncArchive,
    BucketNotFoundError,
    ConflictError,
    ConversationState,
    InvalidInputError,
    StorageError,
)
from tests.servers.place import Place

HOSTILE_IDS = [
    "..",
    "../../etc/passwd",
    "/",
    "a/b",
    "a//b",
    ".",
    "%",
    "%2E%2E",
    "a%2Fb",
    "~",
    " ",
    "\n",
    "line\r\nfeed",
    "\0",
    "tab\t",
    "🙂👍🏽",
    "ü",
    "u\u0308",
    "日本語",
    "العربية",
    "\u202e right to left",
    "con",
    "A",
    "a",
    "x" * 300,
    "x" * 299 + "y",
    "é" * 512,
    "<script>",
    "'; DROP TABLE conversations; --",
    "s3conv.json",
    "index/manifest.json",
]


class Awaited:
    """A synchronous archive with the face of an asynchronous one."""

    def __init__(self, archive: Archive) -> None:
        self.archive = archive

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.archive, name)

        async def call(*args: Any, **options: Any) -> Any:
            return method(*args, **options)

        async def iterate(*args: Any, **options: Any) -> AsyncIterator[Any]:
            for item in method(*args, **options):
                yield item

        return iterate if name in ("iterate", "export", "load_many") else call

    @asynccontextmanager
    async def edit(self, *args: Any, **options: Any) -> AsyncIterator[ConversationState]:
        with self.archive.edit(*args, **options) as state:
            yield state


@dataclass
class Kind:
    """How to make and open an archive of one kind, at one place."""

    url: str
    asynchronous: bool
    options: dict[str, Any]

    def run(self, body: Callable[[Any], Coroutine[Any, Any, None]], **create: Any) -> None:
        """Create an archive, hand it to the body, and close it."""

        async def whole() -> None:
            if self.asynchronous:
                async with await AsyncArchive.create(self.url, **create, **self.options) as archive:
                    await body(archive)
            else:
                with Archive.create(self.url, **create, **self.options) as archive:
                    await body(Awaited(archive))

        asyncio.run(whole())

    def reopened(self) -> Any:
        """The archive, opened once more."""
        opened = (AsyncArchive if self.asynchronous else Archive).open(self.url, **self.options)
        return opened if isinstance(opened, AsyncArchive) else Awaited(opened)


@pytest.fixture(params=["memory", "memory-async", "file", "file-async", "s3-boto3", "s3-aioboto3"])
def kind(request: pytest.FixtureRequest, tmp_path: Path) -> Kind:
    name: str = request.param
    asynchronous = name.endswith(("-async", "-aioboto3"))
    if name.startswith("memory"):
        return Kind(f"memory:/{tmp_path}", asynchronous, {})
    if name.startswith("file"):
        return Kind(f"file://{tmp_path}/archive", asynchronous, {})
    session = request.getfixturevalue("aio_session" if asynchronous else "s3_session")
    options = {"session": session, "endpoint_url": request.getfixturevalue("s3_endpoint")}
    return Kind(f"{request.getfixturevalue('s3_place').url}/prod", asynchronous, options)


def start(conversation_id: str, **metadata: Any) -> ConversationState:
    state = ConversationState.start(conversation_id, system="You are helpful", metadata=metadata)
    state.add_message("user", f"I am {conversation_id[:20]!a}")
    return state


def test_a_conversation_goes_in_comes_back_is_listed_edited_exported_and_deleted(kind: Kind) -> None:
    async def body(archive: Any) -> None:
        state = start("conv-1", user_id="alice")
        state.add_message("assistant", None, tool_calls=[{"name": "search", "parameters": {"q": "ü"}, "id": "call_1"}])
        state.add_message("tool", [{"type": "text", "text": "found"}], tool_call_id="call_1")
        state.add_message("assistant", "another way", parent="0", branch_name="retry")
        entry = await archive.save(state)
        assert (entry.revision, entry.message_count, entry.branch_count) == (1, 5, 2)
        loaded = await archive.load("conv-1")
        assert loaded == state
        assert loaded.to_dict() == state.to_dict()
        assert await archive.load("conv-2") is None

        async with archive.edit("conv-1") as edited:
            edited.add_message("user", "And now?")
        async with archive.edit("conv-2", create=lambda: start("conv-2", user_id="bob")) as edited:
            edited.add_message("assistant", "Hi!")

        page = await archive.list({"metadata.user_id": "alice"})
        assert [(one.conversation_id, one.revision, one.message_count) for one in page.items] == [("conv-1", 2, 6)]
        assert await archive.count() == 2
        assert [one.conversation_id async for one in archive.iterate(order="conversation_id")] == ["conv-1", "conv-2"]
        assert {document.conversation_id async for document in archive.export()} == {"conv-1", "conv-2"}
        assert [one and one.conversation_id async for one in archive.load_many(["conv-2", "x", "conv-1"])] == [
            "conv-2",
            None,
            "conv-1",
        ]

        assert await archive.delete("conv-1") is True
        assert await archive.delete("conv-1") is False
        assert await archive.load("conv-1") is None
        assert await archive.count() == 1
        reopened = kind.reopened()
        assert await reopened.count() == 1
        await reopened.close()
        with pytest.raises(AlreadyExistsError):
            await (AsyncArchive.create(kind.url, **kind.options) if kind.asynchronous else _create(kind))

    kind.run(body, partition_by="metadata.user_id")


async def _create(kind: Kind) -> None:
    Archive.create(kind.url, **kind.options)


def test_hostile_ids_survive(kind: Kind) -> None:
    async def body(archive: Any) -> None:
        await archive.save_many([start(conversation_id) for conversation_id in HOSTILE_IDS])
        found = [state async for state in archive.load_many(HOSTILE_IDS)]
        assert [state and state.conversation_id for state in found] == HOSTILE_IDS
        assert all(state == start_like(state) for state in found)
        listed = {entry.conversation_id async for entry in archive.iterate()}
        assert listed == set(HOSTILE_IDS)
        for conversation_id in HOSTILE_IDS[:8]:
            assert await archive.delete(conversation_id)
        assert await archive.count() == len(HOSTILE_IDS) - 8

    def start_like(state: ConversationState) -> ConversationState:
        assert state.message_tree.children[0].data.message.content == f"I am {state.conversation_id[:20]!a}"
        return state

    kind.run(body)


def test_ids_over_the_limit_are_refused_before_anything_is_written(kind: Kind) -> None:
    async def body(archive: Any) -> None:
        for conversation_id in ("x" * 1025, "ü" * 513, "", "\ud800"):
            with pytest.raises(InvalidInputError):
                await archive.save(start(conversation_id))
            with pytest.raises(InvalidInputError):
                await archive.load(conversation_id)
        assert await archive.count() == 0

    kind.run(body)


def test_of_writers_at_once_one_wins_and_the_others_are_told(kind: Kind) -> None:
    async def body(archive: Any) -> None:
        await archive.save(start("c"))
        states = [await archive.load("c") for _ in range(3)]
        outcomes = []
        for number, state in enumerate(states):
            state.add_message("assistant", f"answer {number}")
            try:
                outcomes.append((await archive.save(state)).revision)
            except ConflictError:
                outcomes.append(None)
        assert outcomes == [2, None, None]
        for state in states[1:]:
            await archive.save(state, "merge")
        final = await archive.load("c")
        assert sorted(leaf.message.content for leaf in final.leaves()) == ["answer 0", "answer 1", "answer 2"]

    kind.run(body)


def test_tasks_at_once_on_one_conversation_lose_nothing(
    s3_endpoint: str | None, aio_session: Any, s3_place: Place
) -> None:
    async def body() -> None:
        url = f"{s3_place.url}/prod"
        async with await AsyncArchive.create(url, session=aio_session, endpoint_url=s3_endpoint) as archive:
            await archive.save(start("c"))

            async def add(number: int) -> None:
                async with archive.edit("c") as state:
                    state.add_message("user", f"from {number}")

            await asyncio.gather(*(add(number) for number in range(8)))
            final = await archive.load("c")
            assert final is not None
            said = [node.data.message.content for node in final.message_tree.walk()]
            assert sorted(str(one) for one in said if str(one).startswith("from")) == [f"from {n}" for n in range(8)]

    asyncio.run(body())


def test_many_conversations_are_saved_loaded_and_paged(kind: Kind) -> None:
    async def body(archive: Any) -> None:
        states = [start(f"c{number:03}", user_id=f"user{number % 3}") for number in range(120)]
        entries = await archive.save_many(states)
        assert [entry.conversation_id for entry in entries] == [state.conversation_id for state in states]
        seen: list[str] = []
        after = None
        while True:
            page = await archive.list({"metadata.user_id": "user1"}, limit=9, after=after)
            seen += [entry.conversation_id for entry in page.items]
            after = page.next
            if after is None:
                break
        assert sorted(seen) == [f"c{number:03}" for number in range(120) if number % 3 == 1]

    kind.run(body, partition_by="metadata.user_id")


def test_a_missing_bucket_is_its_own_error(s3_endpoint: str | None, s3_session: Any) -> None:
    archive = Archive.open("s3://no-such-bucket-7d1e04b6/prod", session=s3_session, endpoint_url=s3_endpoint)
    for operation in (lambda: archive.load("c"), archive.count, lambda: archive.save(start("c"))):
        with pytest.raises(BucketNotFoundError, match="no-such-bucket-7d1e04b6"):
            operation()
    with pytest.raises(BucketNotFoundError):
        Archive.create("s3://no-such-bucket-7d1e04b6/prod", session=s3_session, endpoint_url=s3_endpoint)


def test_both_kinds_of_archive_have_the_same_methods() -> None:
    for name, method in inspect.getmembers(Archive, inspect.isroutine):
        if name.startswith("_"):
            continue
        twin = getattr(AsyncArchive, name)
        ours, theirs = inspect.signature(method), inspect.signature(twin)
        assert list(ours.parameters.values()) == list(theirs.parameters.values()), name


any_id = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=300).filter(
    lambda text: len(text.encode()) <= 1024
)


def test_any_archive_is_verified_and_its_index_rebuilt(kind: Kind) -> None:
    """With every kind of id, folded and not, deleted ones too; then the manifest and an intent are lost."""

    async def body(archive: Any) -> None:
        await archive.save_many(
            [start(conversation_id, user_id=number) for number, conversation_id in enumerate(HOSTILE_IDS)]
        )
        await archive.maintain()
        await archive.save_many([start(f"later {number}", user_id=number) for number in range(5)])
        await archive.delete("..")
        before = {entry.conversation_id: entry async for entry in archive.iterate()}
        found = await archive.verify()
        assert (found.conversations, found.deleted, found.differences) == (len(HOSTILE_IDS) + 4, 1, [])
        store = getattr(archive, "archive", archive)._context.store
        lost = [one.key for one in (await store.list("index/log/")).objects if "/batch." in one.key]
        await store.delete(["index/manifest.json", *lost])
        shares: list[float] = []
        found = await archive.verify(repair=True, progress=lambda what, share: shares.append(share))
        assert found.repaired
        assert found.differences == []
        assert shares[-1] == 1.0
        assert {entry.conversation_id: entry async for entry in archive.iterate()} == before

    kind.run(body, partition_by="metadata.user_id")


@given(st.lists(any_id, min_size=1, max_size=8, unique=True))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_ids_survive_in_memory_and_in_a_directory(tmp_path_factory: pytest.TempPathFactory, ids: list[str]) -> None:
    for url in ("memory://", f"file://{tmp_path_factory.mktemp('ids')}"):
        archive = Archive.open(url)
        _make_plainly(archive)
        archive.save_many([start(conversation_id) for conversation_id in ids])
        assert [state and state.conversation_id for state in archive.load_many(ids)] == ids
        assert {entry.conversation_id for entry in archive.iterate()} == set(ids)


def _make_plainly(archive: Archive) -> None:
    """Make an archive without probing the store, which the tests of `create` do: 60 times over it takes long."""
    from s3conv.bridge import run_sync
    from s3conv.core.creation import _write_manifest
    from s3conv.format.control import Descriptor
    from s3conv.format.keys import DESCRIPTOR

    run_sync(_write_manifest(archive._context))
    run_sync(archive._context.store.put(DESCRIPTOR, Descriptor(None, "nonce").encode(), if_none_match="*"))


def test_every_error_of_the_package_is_a_storage_error() -> None:
    import s3conv.errors as errors
    import s3conv.store.base as base

    for module in (errors, base):
        for name, thing in vars(module).items():
            if inspect.isclass(thing) and issubclass(thing, Exception):
                assert issubclass(thing, StorageError), name


async def _no_state() -> ConversationState:
    return ConversationState.start("c", system="x")


WRONG: list[tuple[str, Callable[[Any], object]]] = [
    (r"a ConversationState, found dict: .*from_dict", lambda archive: archive.save({})),
    (r"a ConversationState, found NoneType", lambda archive: archive.save(None)),
    (r"a ConversationState, found str", lambda archive: archive.save_many([ConversationState.start("c"), "c"])),
    (r"found ConversationState: save takes one", lambda archive: archive.save_many(ConversationState.start("c"))),
    (r"a ConversationState, found coroutine", lambda archive: archive.edit("c", _no_state).__enter__()),
    (r"conversation_ids is the string 'conv-1'", lambda archive: list(archive.load_many("conv-1"))),
    (r"skip is str: expected a set of ids", lambda archive: list(archive.export(skip="conv-10"))),
    (r"skip is list_iterator", lambda archive: list(archive.export(skip=iter(["conv-10"])))),
    (r"timeout 'x': expected seconds", lambda archive: archive.load("c", timeout="x")),
    (r"timeout '1': expected seconds", lambda archive: list(archive.export(timeout="1"))),
    (r"'/folder' is a path: expected a URL", lambda _: Archive.open(Path("/folder"))),  # type: ignore[arg-type]
    (r"url is int: expected a URL", lambda _: AsyncArchive.open(7)),  # type: ignore[arg-type]
]


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
@pytest.mark.parametrize(("said", "use"), WRONG, ids=[said for said, _ in WRONG])
def test_what_is_of_the_wrong_kind_is_refused_by_a_sentence(said: str, use: Callable[[Any], object]) -> None:
    with Archive.create("memory://") as archive:
        with pytest.raises(InvalidInputError, match=said):
            use(archive)
        assert archive.count() == 0
