"""CountingStore counts requests and changes nothing."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from s3conv.bridge import run_sync
from s3conv.store import PreconditionFailed, RangeNotSatisfiable, open_store
from s3conv.store.counting import CountingStore


def test_it_counts_and_passes_through() -> None:
    inner = open_store("memory://")
    store = CountingStore(inner)
    assert (store.url, store.fan_out) == (inner.url, inner.fan_out)

    async def body() -> None:
        written = await store.put("k/a", b"1", metadata={"x": "y"})
        with pytest.raises(PreconditionFailed):
            await store.put("k/a", b"2", if_none_match="*")
        await store.put("k/a", b"2", if_match=written.etag)
        found = await store.get("k/a")
        assert found is not None
        assert found.body == b"2"
        assert await store.head("k/b") is None
        assert len((await store.list("k/", after="k/A")).objects) == 1
        assert await store.enclosing("s3conv.json") == []
        await store.delete([])
        await store.delete(["k/a", "k/b"])
        await store.close()

    run_sync(body())
    assert store.counts == {"put": 3, "get": 1, "head": 1, "list": 1, "enclosing": 1, "delete": 1}
    assert store.log == [
        ("put", "k/a"),
        ("put", "k/a"),
        ("put", "k/a"),
        ("get", "k/a"),
        ("head", "k/b"),
        ("list", "k/"),
        ("enclosing", "s3conv.json"),
        ("delete", "k/a"),
        ("delete", "k/b"),
    ]
    store.reset()
    assert not store.counts
    assert store.log == []


def test_it_counts_the_bytes_of_bodies() -> None:
    store = CountingStore(open_store("memory://"))

    async def body() -> None:
        etag = (await store.put("k/a", b"12345678")).etag
        with pytest.raises(PreconditionFailed):
            await store.put("k/a", b"12", if_none_match="*")
        await store.get("k/a")
        found = await store.get("k/a", span=(2, 3))
        assert found is not None
        assert found.body == b"345"
        with pytest.raises(RangeNotSatisfiable):
            await store.get("k/a", span=(2, 30))
        assert await store.get("k/b") is None
        await store.head("k/a")
        await store.put("k/a", b"", if_match=etag)

    run_sync(body())
    assert (store.bytes_written, store.bytes_read) == (10, 11)
    assert store.counts["get"] == 4
    store.reset()
    assert (store.bytes_written, store.bytes_read) == (0, 0)


def test_threads_lose_no_byte() -> None:
    store = CountingStore(open_store("memory://"))

    def use(number: int) -> None:
        for _ in range(200):
            run_sync(store.put(f"k/{number}", b"12345"))
            run_sync(store.get(f"k/{number}", span=(1, 3)))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(use, range(8)))
    assert (store.bytes_written, store.bytes_read) == (8 * 200 * 5, 8 * 200 * 3)
