"""Of any number of writers that name one ETag, exactly one wins; and a reader never sees a half of a write."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
from botocore.config import Config

from s3conv.bridge import run_sync
from s3conv.store import Contended, ObjectStore, PreconditionFailed, open_store
from tests.servers.place import Place

WRITERS = 16


@pytest.fixture(params=["memory", "file", "s3-boto3"])
def opener(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], ObjectStore]]:
    """Opens a store; however often, over the same objects."""
    if request.param == "s3-boto3":
        place: Place = request.getfixturevalue("s3_place")
        endpoint, session = request.getfixturevalue("s3_endpoint"), request.getfixturevalue("s3_session")
        client = session.client("s3", endpoint_url=endpoint, config=Config(max_pool_connections=WRITERS))
        yield lambda: open_store(f"{place.url}/archive", client=client)
        client.close()
        return
    url = f"memory:/{tmp_path}" if request.param == "memory" else f"file://{tmp_path}/archive"
    yield lambda: open_store(url)


@pytest.mark.parametrize("shared", [True, False], ids=["one store", "a store each"])
def test_one_writer_wins(opener: Callable[[], ObjectStore], shared: bool) -> None:
    one = opener()
    stores = [one if shared else opener() for _ in range(WRITERS)]
    conditions: dict[str, Any] = {"if_none_match": "*"}
    start = Barrier(WRITERS)
    numbers = count()  # No two bodies alike: where the ETag is a hash, a body written over itself changes nothing.

    def write(number: int) -> str | None:
        start.wait()
        try:
            return run_sync(stores[number].put("k/a", b"%d" % next(numbers), **conditions)).etag
        except (PreconditionFailed, Contended):
            return None

    with ThreadPoolExecutor(WRITERS) as pool:
        for _ in range(10):
            won = [etag for etag in pool.map(write, range(WRITERS)) if etag is not None]
            assert len(won) == 1
            found = run_sync(one.get("k/a"))
            assert found is not None
            assert found.etag == won[0]
            conditions = {"if_match": found.etag}


def test_one_task_wins(s3_endpoint: str | None, aio_session: Any, s3_place: Place) -> None:
    async def body() -> None:
        store = open_store(s3_place.url, asynchronous=True, session=aio_session, endpoint_url=s3_endpoint)
        conditions: dict[str, Any] = {"if_none_match": "*"}
        numbers = count()

        async def write() -> str | None:
            try:
                return (await store.put("k/a", b"%d" % next(numbers), **conditions)).etag
            except (PreconditionFailed, Contended):
                return None

        for _ in range(10):
            answers = await asyncio.gather(*(write() for _ in range(WRITERS)))
            won = [etag for etag in answers if etag is not None]
            assert len(won) == 1
            found = await store.get("k/a")
            assert found is not None
            assert found.etag == won[0]
            conditions = {"if_match": found.etag}
        await store.close()

    asyncio.run(body())


def test_a_reader_sees_all_of_the_old_or_all_of_the_new(opener: Callable[[], ObjectStore]) -> None:
    bodies = [bytes([letter]) * 300_000 for letter in b"abcdefgh"]
    run_sync(opener().put("k/a", bodies[0]))

    def write(body: bytes) -> None:
        store = opener()
        for _ in range(5):
            run_sync(store.put("k/a", body))

    with ThreadPoolExecutor(4) as pool:
        writing = [pool.submit(write, body) for body in bodies]
        store = opener()
        while not all(job.done() for job in writing):
            found = run_sync(store.get("k/a"))
            assert found is not None
            assert found.body in bodies
        for job in writing:
            job.result()
