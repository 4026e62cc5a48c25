"""CountingStore counts requests and changes nothing."""

from __future__ import annotations

import pytest

from s3conv.bridge import run_sync
from s3conv.store import PreconditionFailed, open_store
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
