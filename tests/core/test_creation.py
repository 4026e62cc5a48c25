"""Creating an archive: refused where updates would be lost, and where there is one already."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from s3conv import (
    AlreadyExistsError,
    Archive,
    AsyncArchive,
    ConversationState,
    InvalidInputError,
    NotFoundError,
    UnavailableError,
    UnsafeStoreError,
)
from s3conv.bridge import run_sync
from s3conv.format.manifest import Manifest
from s3conv.store import Contended, PreconditionFailed, open_store
from tests.core.stores import Liar, ScriptedStore
from tests.servers.place import Place


@pytest.mark.parametrize(
    ("lie", "named"),
    [
        ("ignores If-None-Match", r"created an object that was there \(If-None-Match"),
        ("ignores If-Match", r"replaced an object whose ETag was another one \(If-Match\)"),
        ("creates by If-Match", r"created an object although If-Match named one"),
        ("refuses but writes", r"a write that it had refused changed the object"),
        ("lets racing writers win", r"parallel writers that named one ETag all won"),
        ("lets nobody win", r"none of 16 parallel writers"),
        ("changes ETags", r"two different ETags"),
    ],
)
def test_a_store_that_lies_about_conditional_writes_is_refused_by_what_it_did(lie: str, named: str) -> None:
    store = Liar(open_store("memory://"), lie)
    with pytest.raises(UnsafeStoreError, match=named):
        Archive.create(store)


@pytest.mark.parametrize("lie", ["ignores If-None-Match", "lets racing writers win"])
def test_a_refused_store_is_left_as_it_was(lie: str) -> None:
    inner = ScriptedStore(open_store("memory://"))
    with pytest.raises(UnsafeStoreError):
        Archive.create(Liar(inner, lie))
    assert inner.keys("") == []


def test_create_leaves_a_descriptor_and_an_empty_manifest_and_nothing_else() -> None:
    store = ScriptedStore(open_store("memory://"))
    Archive.create(store, partition_by="metadata.user_id")
    assert store.keys("") == ["index/manifest.json", "s3conv.json"]
    space = store.inner._space.objects  # type: ignore[attr-defined]  # a MemoryStore's
    descriptor = json.loads(space["s3conv.json"].body)
    assert (descriptor["format"], descriptor["requires"], descriptor["partition_by"]) == (1, [], "metadata.user_id")
    manifest = json.loads(space["index/manifest.json"].body)
    assert (manifest["generation"], manifest["tail"], manifest["mid"], manifest["base"]) == (0, [], [], [])


def test_an_archive_is_not_created_twice(store: ScriptedStore) -> None:
    with pytest.raises(AlreadyExistsError, match="open it"):
        Archive.create(store)
    assert store.counts == {"get": 1}


def test_exist_ok_without_a_partition_opens_whatever_archive_is_there() -> None:
    store = ScriptedStore(open_store("memory://"))
    Archive.create(store, partition_by="metadata.user_id")
    assert Archive.create(store, exist_ok=True).count() == 0


def test_exist_ok_opens_the_archive_that_is_there_if_it_is_partitioned_alike(store: ScriptedStore) -> None:
    assert Archive.create(store, exist_ok=True).count() == 0
    with pytest.raises(AlreadyExistsError, match="partition_by None"):
        Archive.create(store, partition_by="metadata.user_id", exist_ok=True)


def test_a_create_whose_last_answer_was_lost_has_succeeded() -> None:
    store = ScriptedStore(open_store("memory://"))
    store.fail("put", "s3conv.json", UnavailableError("no answer"), applied=True)
    store.fail("put", "index/manifest.json", UnavailableError("no answer"), applied=True)
    assert Archive.create(store).count() == 0


def test_of_two_creates_at_once_one_is_told_that_the_other_was_faster() -> None:
    store = ScriptedStore(open_store("memory://"))
    store.before("put", "s3conv.json", lambda: Archive.create(store.inner))
    with pytest.raises(AlreadyExistsError):
        Archive.create(store)


@pytest.mark.parametrize("exist_ok", [True, False])
def test_one_that_is_slower_finds_an_archive_that_is_in_use_already(exist_ok: bool) -> None:
    store = ScriptedStore(open_store("memory://"))

    def first() -> None:
        archive = Archive.create(store.inner)
        archive.save(ConversationState.start("c", system="x"))
        assert archive.maintain().folded == 1

    store.before("put", "index/manifest.json", first)
    if exist_ok:
        assert Archive.create(store, exist_ok=True).count() == 1
    else:
        with pytest.raises(AlreadyExistsError):
            Archive.create(store)


def test_a_probe_that_is_answered_409_tries_again() -> None:
    store = ScriptedStore(open_store("memory://"))
    store.fail("put", "/missing", Contended("409"))
    store.fail("put", "/race1", PreconditionFailed("412"), times=0)
    assert Archive.create(store).count() == 0


def test_what_is_left_of_an_archive_is_not_taken_for_an_empty_place() -> None:
    store = ScriptedStore(open_store("memory://"))
    left = Manifest(generation=7, nonce="x")
    space = store.inner
    archive = Archive.create(space)
    archive.close()
    objects = space._space.objects  # type: ignore[attr-defined]  # a MemoryStore's
    run_sync(space.delete(["s3conv.json"]))
    run_sync(space.put("index/manifest.json", left.encode()))
    with pytest.raises(InvalidInputError, match="what is left of an archive"):
        Archive.create(store)
    assert json.loads(objects["index/manifest.json"].body)["generation"] == 7


def test_an_archive_may_not_lie_in_another() -> None:
    Archive.create("memory://outer-of-nested")
    with pytest.raises(InvalidInputError, match="lies inside the archive memory://outer-of-nested"):
        Archive.create("memory://outer-of-nested/inner")


def test_an_archive_that_was_made_around_others_by_mistake_can_be_taken_away() -> None:
    inner = Archive.create("memory://around/inner")
    inner.save(ConversationState.start("c", system="x"))
    Archive.create("memory://around")
    with pytest.raises(InvalidInputError, match=r"delete its s3conv\.json and index/manifest\.json"):
        Archive.create("memory://around/other")
    run_sync(open_store("memory://around").delete(["s3conv.json", "index/manifest.json"]))
    assert Archive.create("memory://around/other").count() == 0
    assert inner.verify().differences == []


@pytest.mark.parametrize("partition_by", ["user_id", "metadata.", "updated_at", ""])
def test_partition_by_names_metadata(partition_by: str) -> None:
    with pytest.raises(InvalidInputError, match=r"metadata\.user_id"):
        Archive.create("memory://", partition_by=partition_by)


def test_where_there_is_no_archive_every_operation_says_so() -> None:
    archive = Archive.open("memory://")
    for operation in (lambda: archive.load("x"), archive.count, lambda: archive.delete("x"), archive.list):
        with pytest.raises(NotFoundError, match=r"no archive at memory://.*s3conv init"):
            operation()


def test_a_server_that_keeps_conditional_writes_passes_and_is_left_clean(
    s3_endpoint: str | None, s3_session: Any, s3_client: Any, s3_place: Place
) -> None:
    Archive.create(f"{s3_place.url}/a", session=s3_session, endpoint_url=s3_endpoint).close()
    left = s3_client.list_objects_v2(Bucket=s3_place.bucket, Prefix=f"{s3_place.prefix}/")["Contents"]
    assert [one["Key"].removeprefix(f"{s3_place.prefix}/") for one in left] == [
        "a/index/manifest.json",
        "a/s3conv.json",
    ]


def test_it_passes_for_tasks_too(s3_endpoint: str | None, aio_session: Any, s3_place: Place) -> None:
    async def body() -> int:
        async with await AsyncArchive.create(s3_place.url, session=aio_session, endpoint_url=s3_endpoint) as archive:
            with pytest.raises(InvalidInputError, match="lies inside the archive"):
                await AsyncArchive.create(f"{s3_place.url}/inner", session=aio_session, endpoint_url=s3_endpoint)
            return await archive.count()

    assert asyncio.run(body()) == 0
