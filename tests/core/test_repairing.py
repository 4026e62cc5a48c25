"""A repair may be killed anywhere and meet anybody: no save gets lost, no document changes, the next one finishes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, TypeVar

import pytest

from s3conv import Archive, UnavailableError, UnsupportedFormatError
from s3conv.bridge import run_sync
from s3conv.core import repairing
from s3conv.errors import IndexDamagedError
from s3conv.format.codec import compress
from s3conv.format.keys import CONVERSATIONS, MANIFEST, SEGMENTS
from s3conv.format.manifest import Manifest, decode_manifest
from s3conv.store.base import Listing, ObjectHead, ObjectStore, StoredObject, Written
from s3conv.store.counting import CountingStore
from tests.core.stores import ScriptedStore
from tests.core.verified import (
    Objects,
    assert_lists_say_the_truth,
    build,
    documents,
    make_small,
    merge,
    opened,
    put,
    space_of,
    start,
    store_with,
)

DELETED = {"a01", "b01", "c01", "a03"}

R = TypeVar("R")


class Killed(BaseException):
    """Nothing catches it, as nothing catches the end of a process."""


class Mortal(CountingStore):
    """A store whose client is killed at its request number `last`: before it is applied, or after."""

    def __init__(self, inner: ObjectStore, last: int, applied: bool) -> None:
        super().__init__(inner)
        self.left, self.applied = last, applied

    def _turn(self) -> bool:
        """Whether the client dies when this request is applied."""
        self.left -= 1
        if self.left < 0 or (self.left == 0 and not self.applied):
            raise Killed
        return self.left == 0

    async def get(
        self, key: str, *, if_none_match: str | None = None, span: tuple[int, int] | None = None
    ) -> StoredObject | None:
        dies = self._turn()
        found = await super().get(key, if_none_match=if_none_match, span=span)
        return _unless(dies, found)

    async def head(self, key: str) -> ObjectHead | None:
        dies = self._turn()
        return _unless(dies, await super().head(key))

    async def put(
        self,
        key: str,
        body: bytes,
        *,
        if_match: str | None = None,
        if_none_match: Literal["*"] | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> Written:
        dies = self._turn()
        written = await super().put(key, body, if_match=if_match, if_none_match=if_none_match, metadata=metadata)
        return _unless(dies, written)

    async def delete(self, keys: Sequence[str]) -> None:
        dies = self._turn()
        await super().delete(keys)
        _unless(dies, None)

    async def list(self, prefix: str, *, after: str = "") -> Listing:
        dies = self._turn()
        return _unless(dies, await super().list(prefix, after=after))


def _unless(dies: bool, answer: R) -> R:
    if dies:
        raise Killed
    return answer


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    make_small(monkeypatch.setattr)


@pytest.fixture(scope="module")
def objects() -> Iterator[Objects]:
    with pytest.MonkeyPatch.context() as patch:
        make_small(patch.setattr)
        yield build(each=6)


def lose_the_manifest(store: ScriptedStore) -> None:
    put(store, MANIFEST, None)


def lose_the_index(store: ScriptedStore) -> None:
    for key in store.keys("index/"):
        put(store, key, None)


def empty_manifest(store: ScriptedStore) -> None:
    put(store, MANIFEST, Manifest(generation=0, nonce="x").encode())


def cut_a_segment(store: ScriptedStore) -> None:
    key = named(store).base[0].key
    put(store, key, space_of(store).objects[key].body[:-20])


def cut_an_intent(store: ScriptedStore) -> None:
    key = next(iter(store.keys("index/log/")))
    put(store, key, b"cut")


DAMAGES = (lose_the_index, empty_manifest, cut_an_intent)


def named(store: ScriptedStore) -> Manifest:
    return decode_manifest(space_of(store).objects[MANIFEST].body, MANIFEST)


def rebuild(archive: Archive) -> None:
    run_sync(repairing.rebuild(archive._context, (), lambda share: None))


def requests_of(objects: Objects, damage: Callable[[ScriptedStore], None]) -> list[tuple[str, str]]:
    """The requests of a verify that repairs, in order."""
    store = store_with(objects)
    damage(store)
    opened(store).verify(repair=True)
    return list(store.log)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("applied", [False, True])
def test_a_repair_that_is_killed_at_any_request_is_repaired_by_the_next(
    objects: Objects, damage: Callable[[ScriptedStore], None], applied: bool
) -> None:
    whole = store_with(objects)
    damage(whole)
    counting = Mortal(whole, 10**9, applied)
    Archive(counting, opened(whole)._context.runner).verify(repair=True)
    number = 10**9 - counting.left
    assert number >= 70
    for last in range(1, number):
        store = store_with(objects)
        damage(store)
        before = documents(store)
        with pytest.raises(Killed):
            Archive(Mortal(store, last, applied), opened(store)._context.runner).verify(repair=True)
        assert documents(store) == before
        if store.keys(MANIFEST):
            missing = named(store).named() - set(store.keys("index/"))
            assert not missing or damage is lose_the_index
        assert opened(store).verify(repair=True).differences == [], f"after the end at request {last}"
        assert documents(store) == before
        assert_lists_say_the_truth(store)


def test_what_a_killed_repair_left_is_collected_after_a_day(objects: Objects) -> None:
    store = store_with(objects)
    empty_manifest(store)
    plain = requests_of(objects, empty_manifest)
    last_put = max(number for number, (kind, _) in enumerate(plain) if kind == "put")
    with pytest.raises(Killed):
        Archive(Mortal(store, last_put, False), opened(store)._context.runner).verify(repair=True)
    assert set(store.keys(SEGMENTS)) > {key for key in objects if key.startswith(SEGMENTS)}
    opened(store).verify(repair=True)
    store.clock += 26 * 3600
    opened(store).maintain()
    folded = opened(store)
    store.clock += 26 * 3600
    folded.maintain()
    assert set(store.keys(SEGMENTS)) | set(store.keys("index/recent/")) == named(store).named()


@pytest.mark.parametrize("damage", [lose_the_manifest, empty_manifest, cut_a_segment])
def test_others_may_do_anything_between_any_two_requests(
    objects: Objects, damage: Callable[[ScriptedStore], None]
) -> None:
    plain = requests_of(objects, damage)
    for number in range(3, len(plain), 5):
        store = store_with(objects)
        damage(store)
        other = Archive(store.inner, opened(store)._context.runner)
        kind, key = plain[number]
        # A key that this repair makes up is another one in each; the folder is the same.
        part = key if kind == "list" or not key.startswith("index/") else key.rpartition("/")[0]
        before = sum(one == kind and part in at for one, at in plain[:number])

        def work(other: Archive = other, number: int = number) -> None:
            other.save(start(f"new{number}", "user1", 500))
            with other.edit("b05") as state:
                state.metadata["user_id"] = f"mover{number}"
            other.delete("c04")
            for target in (None, "mid", "base")[: number % 4]:
                try:
                    other.maintain()
                    if target:
                        merge(other, target)
                except IndexDamagedError:
                    assert number

        for _ in range(before):
            store.before(kind, part, lambda: None)
        store.before(kind, part, work)
        opened(store).verify(repair=True)
        # What was done after the documents were compared again may have met a damaged index: nothing, if it was mended.
        left = opened(store).verify()
        assert left.differences == [], f"{kind} {key}, number {number}"
        assert_lists_say_the_truth(store)


def test_a_fold_that_read_the_old_manifest_loses_to_a_repair(objects: Objects) -> None:
    store = store_with(objects)
    other = ScriptedStore(store.inner)
    other.clock = store.clock
    other.before("put", MANIFEST, lambda: rebuild(opened(store)))
    opened(other).maintain()
    assert opened(store).verify().differences == []
    assert_lists_say_the_truth(store)


@pytest.mark.parametrize("target", ["mid", "base"])
def test_a_merge_that_read_the_old_manifest_loses_to_a_repair(objects: Objects, target: Any) -> None:
    """What it merged may be what the repair did away with."""
    from s3conv.core import maintaining
    from s3conv.core.segments import read_manifest

    store = store_with(objects)
    put(store, next(key for key in documents(store) if "a05" in key), None)
    other = ScriptedStore(store.inner)
    archive = opened(other)
    now = run_sync(read_manifest(archive._context))
    other.before("put", SEGMENTS, lambda: rebuild(opened(store)))
    assert run_sync(maintaining.merge(archive._context, archive._cache, now, target)) is None
    assert opened(store).verify().differences == []


def test_a_repair_leaves_no_row_where_another_one_found_nothing(objects: Objects) -> None:
    """It has read a document that then moved; the manifest that knew of the move is lost, and made anew without it."""
    store = store_with(objects)
    other = ScriptedStore(store.inner)
    other.clock = store.clock

    def meanwhile() -> None:
        archive = opened(store)
        with archive.edit("c05") as state:
            state.metadata["user_id"] = "mover8"
        archive.maintain()
        lose_the_manifest(store)
        rebuild(opened(store))

    # Read before the documents, and again after them.
    other.before("get", MANIFEST, lambda: other.before("get", MANIFEST, meanwhile))
    rebuild(opened(other))
    assert opened(store).verify().differences == []
    assert_lists_say_the_truth(store)


def test_a_repair_that_loses_again_and_again_says_so(objects: Objects) -> None:
    store = store_with(objects)

    def bump() -> None:
        found = named(store)
        put(store, MANIFEST, Manifest(generation=found.generation + 1, nonce="n", base=found.base).encode())
        store.before("put", MANIFEST, bump)

    store.before("put", MANIFEST, bump)
    with pytest.raises(UnavailableError, match="run `s3conv verify --repair` again"):
        rebuild(opened(store))
    assert set(store.keys(SEGMENTS)) >= named(store).named() - set(store.keys("index/recent/"))


def test_what_is_lost_while_it_reads_the_documents_makes_it_read_them_again(objects: Objects) -> None:
    """A save that was folded meanwhile is only in the segment that was lost: the documents have to be asked anew."""
    store = store_with(objects)
    empty_manifest(store)
    other = Archive(store.inner, opened(store)._context.runner)
    last = max(documents(store))

    def work() -> None:
        with other.edit("a05") as state:
            state.metadata["title"] = "saved and folded while the documents were read"
        other.maintain()
        lose_the_manifest(store)

    store.before("get", last, work)
    rebuild(opened(store))
    assert sum(key == last for kind, key in store.log if kind == "get") == 2
    assert opened(store).verify().differences == []
    assert_lists_say_the_truth(store)


def test_a_lost_answer_to_the_swap_is_no_loss(objects: Objects) -> None:
    for applied in (False, True):
        store = store_with(objects)
        lose_the_manifest(store)
        store.fail("put", MANIFEST, UnavailableError("no answer"), applied=applied)
        assert opened(store).verify(repair=True).differences == []
        assert_lists_say_the_truth(store)


def test_a_newer_manifest_is_refused_and_left_alone(objects: Objects) -> None:
    store = store_with(objects)
    put(store, MANIFEST, b'{"format":2,"kind":"manifest"}')
    cut_an_intent(store)
    with pytest.raises(UnsupportedFormatError, match="format 2"):
        opened(store).verify(repair=True)
    assert space_of(store).objects[MANIFEST].body == b'{"format":2,"kind":"manifest"}'
    assert store.counts["put"] == store.counts["delete"] == 0


def test_what_it_costs(objects: Objects) -> None:
    """Each document is read by the comparison, the rebuilding, and the comparison after that: once by each."""
    store = store_with(objects)
    lose_the_manifest(store)
    opened(store).verify(repair=True)
    reads = [key for kind, key in store.log if kind == "get" and key.startswith(CONVERSATIONS)]
    assert sorted(reads) == sorted([*documents(store)] * 3)
    assert not [key for kind, key in store.log if kind in ("put", "delete") and key.startswith(CONVERSATIONS)]


def test_rows_that_are_sorted_in_the_store_leave_nothing_there(objects: Objects) -> None:
    store = store_with(objects)
    lose_the_index(store)
    opened(store).verify(repair=True)
    assert set(store.keys("index/")) == {MANIFEST, *named(store).named()}
    spilled = [key for kind, key in store.log if kind == "delete"]
    assert len(spilled) > 1


def test_deleted_rows_go_after_a_week_as_by_a_merge(objects: Objects) -> None:
    def gone(store: ScriptedStore) -> int:
        from s3conv.core.merging import rows_of
        from s3conv.format.rows import RowReader

        archive = opened(store)
        reader = RowReader("metadata.user_id")

        async def count() -> int:
            base = rows_of(archive._context, archive._cache, named(store).base, reader)
            return sum([row.gone async for rows in base for row in rows])

        run_sync(archive._context.descriptor())
        return run_sync(count())

    store = store_with(objects)
    opened(store).maintain()
    rebuild(opened(store))
    assert gone(store) >= len(DELETED)
    store.clock += 8 * 24 * 3600
    rebuild(opened(store))
    assert gone(store) == 0
    assert opened(store).verify().differences == []


def test_forged_rows_that_would_break_a_segment_are_left_out(objects: Objects) -> None:
    """A moved row is copied as it is; not so one that no reader could read."""
    from s3conv.core.merging import of_list, rows_of, write_segments
    from s3conv.format.rows import RowReader

    store = store_with(objects)
    archive = opened(store)
    reader = RowReader("metadata.user_id")
    run_sync(archive._context.descriptor())

    async def forged() -> Any:
        tail = named(store).tail
        rows = [row async for some in rows_of(archive._context, archive._cache, tail, reader) for row in some]
        changed = []
        for row in rows:
            line = row.line.replace(b'"updated_at":"2', b'"updated_at":"x') if row.gone else row.line
            changed.append(row._replace(line=line))
        assert changed != rows
        return await write_segments(archive._context, of_list(changed), 0.0, None, tail=True)

    import msgspec

    put(store, MANIFEST, msgspec.structs.replace(named(store), tail=run_sync(forged())).encode())
    assert {one.kind for one in opened(store).verify().differences} == {"damaged-segment"}
    assert opened(store).verify(repair=True).differences == []
    assert_lists_say_the_truth(store)


def test_an_object_of_the_log_that_was_packed_by_nobody(objects: Objects) -> None:
    store = store_with(objects)
    key = next(iter(store.keys("index/log/")))
    put(store, key, compress(b'{"format":1,"kind":"intent","entry":{}}'))
    assert opened(store).verify(repair=True).differences == []
    assert not store.keys(key)


def test_what_documents_said_a_week_ago_does_not_come_back(objects: Objects, monkeypatch: pytest.MonkeyPatch) -> None:
    """A seed of the simulation found it: the row that shadows a conversation where it was is dropped after a week."""
    store = store_with(objects)
    opened(store).maintain()
    moved = next(iter(opened(store).iterate(order="conversation_id"))).conversation_id
    replaced = repairing._replaced
    late = iter([True])

    async def a_week_later(*args: Any) -> bool:
        if next(late, False):
            with opened(store).edit(moved) as state:
                state.metadata["user_id"] = "somebody else"
            opened(store).maintain()
            store.clock += 8 * 24 * 3600
            merge(opened(store), "base")
        return await replaced(*args)

    monkeypatch.setattr(repairing, "_replaced", a_week_later)
    rebuild(opened(store))
    assert opened(store).verify().differences == []
    assert_lists_say_the_truth(store)
