"""The contract of `ObjectStore`, sentence by sentence, over every backend."""

from __future__ import annotations

import hashlib
from itertools import pairwise
from typing import Any

import pytest

from s3conv.errors import InvalidInputError
from s3conv.store import LIST_PAGE, Listing, NotModified, ObjectStore, PreconditionFailed, RangeNotSatisfiable
from tests.store.conftest import Backend

HOSTILE = [
    "",
    "/",
    "/a",
    "a/",
    "a//b",
    ".",
    "..",
    "../a",
    "a/..",
    "a/../b",
    "a/./b",
    "a\\b",
    "a b",
    "a\0b",
    "a\n",
    "a?b",
    "a#b",
    "ä",
    "a/../../../etc/passwd",
]
ODD = [
    "%2E",
    "%2E%2E/%2F",
    "a~b",
    "~",
    "a%20b/%C3%A4.json",
    "a-b",
    "a.b",
    "a_b",
    "A.json.zst",
    "%",
    "%zz",
    "...a",
    "a..",
]


def test_a_put_is_read_back_whole(backend: Backend) -> None:
    async def body(store: ObjectStore) -> None:
        data = bytes(range(256)) * 300
        written = await store.put("a/b.json.zst", data, metadata={"s3conv-revision": "7"})
        found = await store.get("a/b.json.zst")
        head = await store.head("a/b.json.zst")
        assert found is not None
        assert head is not None
        assert found.body == data
        assert found.etag == head.etag == written.etag
        assert head.size == len(data)
        assert found.last_modified == head.last_modified
        assert abs(found.last_modified - written.date) <= 2
        assert dict(found.metadata) == dict(head.metadata)
        assert dict(found.metadata) == ({"s3conv-revision": "7"} if backend.keeps_metadata else {})

    backend.run(body)


def test_an_empty_body_is_an_object(backend: Backend) -> None:
    async def body(store: ObjectStore) -> None:
        await store.put("a/empty", b"")
        found = await store.get("a/empty")
        assert found is not None
        assert found.body == b""

    backend.run(body)


def test_what_is_not_there_is_none(backend: Backend) -> None:
    async def body(store: ObjectStore) -> None:
        assert await store.head("a/b") is None
        assert await store.get("a/b") is None
        assert await store.get("a/b", if_none_match='"any"') is None
        await store.put("a/b/c", b"1")
        assert await store.get("a/b") is None
        assert await store.head("a/b") is None
        assert await store.get("a/b/c/d") is None

    backend.run(body)


def test_a_put_replaces(backend: Backend) -> None:
    async def body(store: ObjectStore) -> None:
        first = await store.put("k/a", b"one", metadata={"s3conv-write": "1"})
        second = await store.put("k/a", b"two")
        assert first.etag != second.etag
        found = await store.get("k/a")
        assert found is not None
        assert found.body == b"two"
        assert dict(found.metadata) == {}
        assert second.date >= first.date

    backend.run(body)


def test_if_none_match_creates_only_once(backend: Backend) -> None:
    async def body(store: ObjectStore) -> None:
        await store.put("k/a", b"one", if_none_match="*")
        with pytest.raises(PreconditionFailed, match="k/a"):
            await store.put("k/a", b"two", if_none_match="*")
        found = await store.get("k/a")
        assert found is not None
        assert found.body == b"one"
        await store.delete(["k/a"])
        await store.put("k/a", b"three", if_none_match="*")

    backend.run(body)


def test_if_match_writes_over_what_it_names_and_nothing_else(backend: Backend) -> None:
    async def body(store: ObjectStore) -> None:
        one = await store.put("k/a", b"one")
        two = await store.put("k/a", b"two", if_match=one.etag)
        with pytest.raises(PreconditionFailed, match="k/a"):
            await store.put("k/a", b"three", if_match=one.etag)
        found = await store.get("k/a")
        assert found is not None
        assert (found.body, found.etag) == (b"two", two.etag)
        head = await store.head("k/a")
        assert head is not None
        await store.put("k/a", b"four", if_match=head.etag)

    backend.run(body)


def test_if_match_on_a_key_that_is_not_there_creates_nothing(backend: Backend) -> None:
    async def body(store: ObjectStore) -> None:
        etag = (await store.put("k/a", b"one")).etag
        await store.delete(["k/a"])
        with pytest.raises(PreconditionFailed):
            await store.put("k/a", b"two", if_match=etag)
        with pytest.raises(PreconditionFailed):
            await store.put("never/b", b"two", if_match=etag)
        assert await store.get("k/a") is None
        assert await store.get("never/b") is None

    backend.run(body)


def test_conditions_that_make_no_sense_are_refused(backend: Backend) -> None:
    async def body(store: ObjectStore) -> None:
        wrong: list[dict[str, Any]] = [
            {"if_match": "x", "if_none_match": "*"},
            {"if_match": ""},
            {"if_none_match": "x"},
        ]
        for conditions in wrong:
            with pytest.raises(InvalidInputError):
                await store.put("k/a", b"one", **conditions)
        assert await store.get("k/a") is None

    backend.run(body)


def test_a_get_of_what_is_known_is_not_modified(backend: Backend) -> None:
    async def body(store: ObjectStore) -> None:
        etag = (await store.put("k/a", b"one")).etag
        with pytest.raises(NotModified):
            await store.get("k/a", if_none_match=etag)
        await store.put("k/a", b"two")
        found = await store.get("k/a", if_none_match=etag)
        assert found is not None
        assert found.body == b"two"

    backend.run(body)


def test_a_span_gives_exactly_its_bytes(backend: Backend) -> None:
    async def body(store: ObjectStore) -> None:
        data = bytes(range(256)) * 300
        await store.put("k/a", data, metadata={"s3conv-revision": "7"})
        head = await store.head("k/a")
        assert head is not None
        for start, length in [(0, 1), (0, 10), (7, 1), (1000, 3000), (65_535, 2), (len(data) - 1, 1), (0, len(data))]:
            found = await store.get("k/a", span=(start, length))
            assert found is not None
            assert found.body == data[start : start + length]
            assert found.etag == ""
            assert found.last_modified == head.last_modified
            assert dict(found.metadata) == dict(head.metadata)
        await store.put("k/a", b"other")
        found = await store.get("k/a", span=(1, 3))
        assert found is not None
        assert found.body == b"the"

    backend.run(body)


@pytest.mark.parametrize("span", [(0, 6), (4, 2), (5, 1), (6, 1), (1000, 1), (2, 2**40), (2**40, 1), (2**61, 2**61)])
def test_a_span_that_the_object_does_not_hold_is_an_error(backend: Backend, span: tuple[int, int]) -> None:
    async def body(store: ObjectStore) -> None:
        await store.put("k/a", b"12345")
        await store.put("k/empty", b"")
        for key in ("k/a", "k/empty"):
            with pytest.raises(RangeNotSatisfiable, match=key):
                await store.get(key, span=span)
        found = await store.get("k/a", span=(0, 5))
        assert found is not None
        assert found.body == b"12345"

    backend.run(body)


def test_no_byte_of_an_empty_body_can_be_had(backend: Backend) -> None:
    async def body(store: ObjectStore) -> None:
        await store.put("k/empty", b"")
        with pytest.raises(RangeNotSatisfiable):
            await store.get("k/empty", span=(0, 1))

    backend.run(body)


def test_a_span_of_what_is_not_there_is_none(backend: Backend) -> None:
    async def body(store: ObjectStore) -> None:
        assert await store.get("a/b", span=(0, 1)) is None
        await store.put("a/b/c", b"1")
        assert await store.get("a/b", span=(0, 1)) is None
        assert await store.get("a/b/c/d", span=(0, 1)) is None
        await store.delete(["a/b/c"])
        assert await store.get("a/b/c", span=(0, 1)) is None

    backend.run(body)


def test_a_span_that_makes_no_sense_is_refused(backend: Backend) -> None:
    async def body(store: ObjectStore) -> None:
        etag = (await store.put("k/a", b"12345")).etag
        for span in [(-1, 1), (-5, 10), (0, 0), (2, 0), (0, -1), (3, -2)]:
            with pytest.raises(InvalidInputError, match="span"):
                await store.get("k/a", span=span)
        for known in (etag, '"another"'):
            with pytest.raises(InvalidInputError, match="not both"):
                await store.get("k/a", span=(0, 1), if_none_match=known)

    backend.run(body)


def test_delete_takes_what_is_there_and_minds_nothing_else(backend: Backend) -> None:
    async def body(store: ObjectStore) -> None:
        for name in "abcd":
            await store.put(f"k/{name}", b"1")
        await store.delete([])
        await store.delete(["k/a"])
        await store.delete(["k/a"])
        await store.delete(["k/b", "k/c", "k/never", "nowhere/at/all"])
        assert [entry.key for entry in (await store.list("k/")).objects] == ["k/d"]
        with pytest.raises(InvalidInputError, match="1001"):
            await store.delete([f"k/{n}" for n in range(LIST_PAGE + 1)])
        with pytest.raises(InvalidInputError):
            await store.delete(["k/d", "../d"])
        assert await store.head("k/d") is not None

    backend.run(body)


@pytest.mark.parametrize("key", HOSTILE)
def test_hostile_keys_are_refused(backend: Backend, key: str) -> None:
    async def body(store: ObjectStore) -> None:
        with pytest.raises(InvalidInputError):
            await store.get(key)
        with pytest.raises(InvalidInputError):
            await store.get(key, span=(0, 1))
        with pytest.raises(InvalidInputError):
            await store.head(key)
        with pytest.raises(InvalidInputError):
            await store.put(key, b"")
        with pytest.raises(InvalidInputError):
            await store.delete([key])
        with pytest.raises(InvalidInputError):
            await store.list(key + "/")
        with pytest.raises(InvalidInputError):
            await store.list(key.rstrip("/") + "x")

    backend.run(body)


def test_odd_keys_come_back_exactly(backend: Backend) -> None:
    async def body(store: ObjectStore) -> None:
        odd = [key for key in ODD if backend.kind != "file" or not key.startswith(".")]
        for key in odd:
            await store.put(f"k/{key}", key.encode())
        listed = [entry.key for entry in (await store.list("k/")).objects]
        assert listed == sorted(f"k/{key}" for key in odd)
        for key in odd:
            found = await store.get(f"k/{key}")
            assert found is not None
            assert found.body == key.encode()
        await store.delete(listed)
        assert not (await store.list("k/")).objects

    backend.run(body)


def test_a_list_shows_its_prefix_and_nothing_beside_it(backend: Backend) -> None:
    async def body(store: ObjectStore) -> None:
        empty = await store.list("user1/")
        assert (list(empty.objects), empty.more) == ([], False)
        for key in ["user1/a", "user10/a", "user1-a", "user1.a", "user", "user1/b/c", "user2/a"]:
            await store.put(key, b"1")
        assert _keys(await store.list("user1/")) == ["user1/a", "user1/b/c"]
        assert _keys(await store.list("user1/b/")) == ["user1/b/c"]
        assert _keys(await store.list("user1/", after="user1/a")) == ["user1/b/c"]
        assert _keys(await store.list("user1/", after="user0")) == ["user1/a", "user1/b/c"]
        assert _keys(await store.list("user1/", after="user1/b/c")) == []
        assert _keys(await store.list("user1/", after="user2/x")) == []

    backend.run(body)


def test_a_list_is_in_byte_order_of_the_whole_key(backend: Backend) -> None:
    keys = ["k/a-b", "k/a.b", "k/a/b", "k/a/c/d", "k/a/c-d", "k/a0", "k/B", "k/Z/z", "k/~", "k/%41"]

    async def body(store: ObjectStore) -> None:
        for key in keys:
            await store.put(key, b"1")
        assert _keys(await store.list("k/")) == sorted(keys)
        for position, key in enumerate(sorted(keys)):
            assert _keys(await store.list("k/", after=key)) == sorted(keys)[position + 1 :]
        # `after` need not be a key that exists, nor one that could.
        assert _keys(await store.list("k/", after="k/a/")) == [key for key in sorted(keys) if key > "k/a/"]
        assert _keys(await store.list("k/", after="k/a/c")) == [key for key in sorted(keys) if key > "k/a/c"]

    backend.run(body)


def test_a_listing_dates_itself_and_its_objects(backend: Backend) -> None:
    async def body(store: ObjectStore) -> None:
        written = await store.put("k/a", b"1")
        listing = await store.list("k/")
        head = await store.head("k/a")
        assert head is not None
        assert abs(listing.objects[0].last_modified - head.last_modified) < 1  # S3 rounds one of the two.
        assert abs(listing.objects[0].last_modified - written.date) <= 2
        assert written.date <= listing.date <= written.date + 60

    backend.run(body)


def test_a_listing_says_how_large_its_objects_are(backend: Backend) -> None:
    async def body(store: ObjectStore) -> None:
        sizes = {"k/a": 0, "k/b/c": 1, "k/b/d": 70_000, "k/e": 5}
        for key, size in sizes.items():
            await store.put(key, b"x" * size)
        await store.put("k/e", b"longer than before")
        listed = (await store.list("k/")).objects
        assert {entry.key: entry.size for entry in listed} == {**sizes, "k/e": 18}

    backend.run(body)


def test_pages_join_without_a_gap(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    size = 30
    for module in ("memory", "local", "s3"):
        monkeypatch.setattr(f"s3conv.store.{module}.LIST_PAGE", size)

    async def body(store: ObjectStore) -> None:
        keys = [f"k/{n % 7}/{n:05}" for n in range(2 * size + 1)]
        for key in [*keys, "k.", "k0/a", "l/a"]:
            await store.put(key, b"")
        keys.sort()
        seen: list[str] = []
        sizes = []
        more = True
        while more:
            page = await store.list("k/", after=seen[-1] if seen else "")
            seen += _keys(page)
            sizes.append(len(page.objects))
            more = page.more
        assert seen == keys
        assert sizes == [size, size, 1]
        # The edge: exactly one page left is not "more".
        last = await store.list("k/", after=keys[size])
        assert (len(last.objects), last.more) == (size, False)
        almost = await store.list("k/", after=keys[size - 1])
        assert (len(almost.objects), almost.more) == (size, True)
        await store.delete(keys[:size])
        assert _keys(await store.list("k/")) == keys[size : 2 * size]

    backend.run(body)


def test_a_page_holds_a_thousand_keys_and_a_delete_takes_as_many(backend: Backend) -> None:
    async def body(store: ObjectStore) -> None:
        keys = [f"k/{n:05}" for n in range(LIST_PAGE + 1)]
        for key in keys:
            await store.put(key, b"")
        first = await store.list("k/")
        assert (_keys(first), first.more) == (keys[:LIST_PAGE], True)
        rest = await store.list("k/", after=keys[LIST_PAGE - 1])
        assert (_keys(rest), rest.more) == (keys[LIST_PAGE:], False)
        await store.delete(keys[:LIST_PAGE])
        assert _keys(await store.list("k/")) == keys[LIST_PAGE:]

    backend.run(body)


def test_stores_of_one_url_see_each_other(backend: Backend) -> None:
    async def body(store: ObjectStore) -> None:
        other = backend.open()
        written = await store.put("k/a", b"1")
        found = await other.get("k/a")
        assert found is not None
        assert found.etag == written.etag
        assert _keys(await other.list("k/")) == ["k/a"]
        await other.close()
        await other.close()

    backend.run(body)


def test_a_store_opens_and_closes_without_use(backend: Backend) -> None:
    async def body(store: ObjectStore) -> None:
        assert store.url
        assert store.fan_out >= 1

    backend.run(body)


def test_a_chain_of_compare_and_swap_loses_nothing(backend: Backend) -> None:
    async def body(store: ObjectStore) -> None:
        etag = (await store.put("k/a", b"0")).etag
        for n in range(1, 20):
            etag = (await store.put("k/a", b"%d" % n, if_match=etag)).etag
        found = await store.get("k/a")
        assert found is not None
        assert found.body == b"19"

    backend.run(body)


def test_large_bodies_survive(backend: Backend) -> None:
    async def body(store: ObjectStore) -> None:
        data = hashlib.sha256(b"x").digest() * (256 * 1024)
        await store.put("k/large", data)
        found = await store.get("k/large")
        assert found is not None
        assert found.body == data
        found = await store.get("k/large", span=(12_345, 5 << 20))
        assert found is not None
        assert found.body == data[12_345 : 12_345 + (5 << 20)]

    backend.run(body)


def _keys(listing: Listing) -> list[str]:
    keys = [entry.key for entry in listing.objects]
    assert all(one < other for one, other in pairwise(keys))
    return keys
