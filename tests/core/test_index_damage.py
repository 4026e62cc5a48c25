"""What is damaged in the index is an error that names the object and what to run, and never a shorter list.

Each kind of object is deleted, cut, changed in one byte or replaced; then each query either gives exactly the right
answer, because it did not need what is broken, or says what is broken.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from s3conv import Archive, ConversationState, CorruptError, IndexDamagedError, UnsupportedFormatError
from s3conv.bridge import run_sync
from s3conv.core import folding, maintaining, merging
from s3conv.core.segments import read_manifest
from s3conv.format.blocks import BlockWriter
from s3conv.format.codec import compress
from s3conv.format.keys import MANIFEST
from s3conv.format.manifest import Manifest
from s3conv.store import open_store
from s3conv.store.base import StoredObject
from tests.cli.test_commands import run
from tests.core.conftest import NoWait, open_scripted
from tests.core.stores import ScriptedStore

DAY = datetime(2025, 3, 1, tzinfo=UTC)

Objects = dict[str, StoredObject]


@dataclass(frozen=True)
class World:
    """What lies in an archive that has all kinds of objects of the index, and what each query says of it."""

    objects: Objects
    manifest: Manifest
    answers: dict[str, Any]

    def key(self, kind: str) -> str:
        """The key of one object of a kind."""
        if kind == "manifest":
            return MANIFEST
        if kind == "recent":
            assert self.manifest.recent is not None
            return self.manifest.recent.key
        if kind in ("intent", "batch"):
            return next(
                key for key in self.objects if key.startswith("index/log/") and (kind == "batch") == ("batch" in key)
            )
        run, _, place = kind.partition(" ")
        return self.manifest.run(run)[{"first": 0, "middle": 1, "last": -1}[place]].key  # type: ignore[arg-type]

    def damaged(self, kind: str) -> dict[str, bytes | None]:
        """What may have become of such an object; None: it is gone."""
        body = self.objects[self.key(kind)].body
        changed: dict[str, bytes | None] = {damage: change(body) for damage, change in DAMAGES.items()}
        if kind in FILES:
            changed |= {damage: change(body) for damage, change in FENCE_DAMAGES.items()}
        if kind not in ("intent", "batch"):  # such a loss is for `verify` to find
            changed["deleted"] = None
        if kind not in ("manifest", "intent", "batch"):
            changed["another of its kind"] = self.sibling(kind)
        return changed

    def sibling(self, kind: str) -> bytes:
        """Another object of the same kind."""
        if kind == "recent":
            return self.objects[self.key("tail first")].body
        key = self.key(kind)
        folder = key.rsplit("/", 2 if "/log/" in key else 1)[0]
        others = [one for one in self.objects if one.startswith(folder) and one != key]
        return self.objects[next(one for one in others if ("batch" in one) == (kind == "batch"))].body


def start(conversation_id: str, user: object, minute: int, **metadata: Any) -> ConversationState:
    state = ConversationState.start(conversation_id, system="Hi", metadata={"user_id": user, **metadata})
    state.created_at = state.updated_at = DAY + timedelta(minutes=minute)
    return state


def small(patch: pytest.MonkeyPatch) -> None:
    """Blocks, segments and `recent` that are full soon."""
    patch.setattr("s3conv.format.blocks.BLOCK", 600)
    patch.setattr(merging, "SEGMENT", 1200)
    patch.setattr(merging, "MAX_SEGMENT", 1200)
    for module in (folding, maintaining):
        patch.setattr(module, "RECENT_ROWS", 20)


def build() -> tuple[Archive, ScriptedStore]:
    """Three segments in base and in mid, one in the tail, `recent`, intents and a batch in the log."""
    archive, store = open_scripted("metadata.user_id")

    def merge(target: str) -> None:
        now = run_sync(read_manifest(archive._context))
        assert run_sync(maintaining.merge(archive._context, archive._cache, now, target))  # type: ignore[arg-type]

    def wave(name: str, minute: int) -> None:
        states = [start(f"{name}{n:02}", f"user{n % 5}", minute + n, title=f"title {n % 7}") for n in range(40)]
        archive.save_many(states)
        for state in states[::9]:
            state.metadata["title"] = "changed"
            archive.save(state)
        archive.delete(f"{name}07")

    for number, target in enumerate(("base", "mid", None)):
        wave("abc"[number], 50 * number)
        with archive.edit("a11") as state:
            state.metadata["user_id"] = f"user{number}"
        archive.maintain()
        if target:
            merge(target)
    archive.save_many([start(f"d{n}", "user3", 200 + n) for n in range(3)])
    archive.save_many([start(f"e{n}", "user4", 210 + n) for n in range(3)])
    archive.save(start("f", "user3", 220, title="title 3"))
    archive.save(start("g", "user3", 221, title="title 4"))
    return archive, store


QUERIES: dict[str, Callable[[Archive], Any]] = {
    "newest of all": lambda archive: archive.list(limit=5),
    "newest of all, beyond recent": lambda archive: archive.list(limit=60),
    "newest of all, second page": lambda archive: archive.list(limit=60, after=archive.list(limit=60).next),
    "oldest of all": lambda archive: archive.list(order="updated_at", limit=5),
    "newest of a partition": lambda archive: archive.list({"metadata.user_id": "user3"}, limit=5),
    "of a partition, by time of creation": lambda archive: archive.list(
        {"metadata.user_id": "user1", "created_at": {"gte": DAY, "lt": DAY + timedelta(minutes=70)}}, "created_at"
    ),
    "filter": lambda archive: archive.list({"metadata.title": "title 3"}, "conversation_id"),
    "filter by time": lambda archive: archive.list({"updated_at": {"lt": DAY + timedelta(minutes=60)}}),
    "count": lambda archive: archive.count(),
    "count of a filter": lambda archive: archive.count({"metadata.user_id": {"in": ["user1", "user2"]}}),
    "iterate": lambda archive: list(archive.iterate()),
    "iterate by a field": lambda archive: list(archive.iterate(order="-metadata.title")),
    "export": lambda archive: [document.conversation_id for document in archive.export()],
    "snapshot": lambda archive: archive.list(limit=1000, consistency="snapshot"),
    "count of a snapshot": lambda archive: archive.count(consistency="snapshot"),
    "stats": lambda archive: {**asdict(archive.stats()), "oldest_intent_age": None},
}

KINDS = (
    "manifest", "tail first", "mid first", "mid middle", "mid last", "base first", "base middle", "base last", "recent",
    "intent", "batch",
)  # fmt: skip
FILES = tuple(kind for kind in KINDS if kind not in ("manifest", "intent", "batch"))


def flip(at: float) -> Callable[[bytes], bytes]:
    """Change one bit, at some part of the way through."""

    def flipped(body: bytes) -> bytes:
        place = min(int(at * len(body)), len(body) - 1)
        return body[:place] + bytes([body[place] ^ 4]) + body[place + 1 :]

    return flipped


def flip_in_fence(at: float) -> Callable[[bytes], bytes]:
    """The same, in the fence of a file of blocks: it begins with the first skippable frame."""

    def flipped(body: bytes) -> bytes:
        start, end = (found := body.index(b"\x5e\x2a\x4d\x18")), body.index(b"\x5e\x2a\x4d\x18", found + 1)
        return body[:start] + flip(at)(body[start:end]) + body[end:]

    return flipped


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda body: b"",
    "half": lambda body: body[: len(body) // 2],
    "longer": lambda body: b"\n" + body,
    **{f"flipped at {at}": flip(at) for at in (0.0, 0.1, 0.2, 0.31, 0.42, 0.5)},
    "plain JSON": lambda body: b'{"format":1,"kind":"manifest","generation":0,"nonce":"0"}',
    "packed JSON": lambda body: compress(b'{"format":1,"kind":"intent"}'),
    "JSON that is none of ours": lambda body: compress(b'{"a":1}'),
}
"""Damage that whoever needs the object must notice."""

FENCE_DAMAGES = {f"fence flipped at {at}": flip_in_fence(at) for at in (0.0, 0.05, 0.3, 0.5, 0.99)}


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with pytest.MonkeyPatch.context() as patch:
        small(patch)
        archive, store = build()
        manifest = run_sync(read_manifest(archive._context)).manifest
        assert [len(manifest.run(name)) > 2 for name in ("tail", "mid", "base")] == [False, True, True]
        fresh = Archive(store, NoWait())
        objects = dict(store.inner._space.objects)  # type: ignore[attr-defined]  # a MemoryStore's
        yield World(objects, manifest, {name: query(fresh) for name, query in QUERIES.items()})


def spoil(store: ScriptedStore, key: str, body: bytes | None) -> None:
    if body is None:
        run_sync(store.inner.delete([key]))
    else:
        run_sync(store.inner.put(key, body))


def opened(objects: Objects) -> tuple[Archive, ScriptedStore]:
    store = ScriptedStore(open_store("memory://"))
    space = store.inner._space  # type: ignore[attr-defined]  # a MemoryStore's
    space.objects, space.keys = dict(objects), sorted(objects)
    return Archive(store, NoWait()), store


def outcome(query: Callable[[Archive], Any], archive: Archive) -> Any:
    """The answer, or the error that takes its place."""
    try:
        return query(archive)
    except (CorruptError, UnsupportedFormatError) as error:
        return error


def says(error: Exception, key: str) -> bool:
    """Whether an error names the object and what to run."""
    if isinstance(error, UnsupportedFormatError):  # nobody can tell a flipped digit of the format from a newer format
        return key in str(error) and "upgrade s3conv" in str(error)
    return isinstance(error, IndexDamagedError) and key in str(error) and "verify --repair" in str(error)


@pytest.mark.parametrize("name", QUERIES)
@pytest.mark.parametrize("kind", KINDS)
def test_the_answer_is_right_or_the_error_says_what_is_broken(world: World, kind: str, name: str) -> None:
    key = world.key(kind)
    for damage, body in world.damaged(kind).items():
        for warm in (False, True):
            archive, store = opened(world.objects)
            if warm:
                assert QUERIES["newest of all"](archive) == world.answers["newest of all"]
            spoil(store, key, body)
            answer = outcome(QUERIES[name], archive)
            if isinstance(answer, Exception):
                assert says(answer, key), (damage, answer)
            else:
                assert answer == world.answers[name], damage


@pytest.mark.parametrize("kind", KINDS)
def test_who_reads_all_notices_all_damage(world: World, kind: str) -> None:
    for damage, body in world.damaged(kind).items():
        archive, store = opened(world.objects)
        spoil(store, world.key(kind), body)
        if kind == "tail first" and "fence" in damage:
            assert list(archive.iterate()) == world.answers["iterate"]  # the manifest has a copy of it
        else:
            with pytest.raises((IndexDamagedError, UnsupportedFormatError)):
                list(archive.iterate())


@pytest.mark.parametrize("lines", [[b"{}"], [b"[1]", b"null"], [b'{"conversation_id":"c"}'], [b"nothing"]])
@pytest.mark.parametrize("kind", ["tail first", "recent"])
def test_lines_that_are_no_entries_are_damage(world: World, kind: str, lines: list[bytes]) -> None:
    """Whole and as the manifest says, but not what it should be."""
    writer = BlockWriter()
    for number, line in enumerate(lines):
        writer.add(("null", "", str(number)), "2025-03-01T00:00:00.000000Z", line)
    made = writer.finish()
    told = {"rows": made.rows, "size": len(made.body), "end": made.fence_start, "fence_length": made.fence_length}
    (tail,), recent = world.manifest.tail, world.manifest.recent
    assert recent is not None
    if kind == "recent":
        changed = replace(world.manifest, recent=replace(recent, **told))
    else:
        changed = replace(world.manifest, tail=[replace(tail, fence=made.fence, **told)])
    for query in (QUERIES["newest of all"], QUERIES["iterate"], QUERIES["filter by time"], Archive.maintain):
        archive, store = opened(world.objects)
        spoil(store, world.key(kind), made.body)
        spoil(store, MANIFEST, changed.encode())
        answer = outcome(query, archive)
        if isinstance(answer, Exception):
            assert says(answer, world.key(kind)), answer
        else:
            assert (kind, answer) == ("tail first", world.answers["newest of all"])  # told by `recent` alone


@pytest.mark.parametrize("kind", [kind for kind in FILES if kind != "recent"])  # which is read whole
def test_nobody_needs_the_seek_table(world: World, kind: str) -> None:
    """It is for other programs."""
    archive, store = opened(world.objects)
    spoil(store, world.key(kind), world.objects[world.key(kind)].body[:-9])
    assert {name: query(archive) for name, query in QUERIES.items()} == world.answers


@pytest.mark.parametrize("merges", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_maintenance_does_its_work_or_says_what_is_broken_and_makes_nothing_worse(
    world: World, kind: str, merges: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    small(monkeypatch)
    if merges:  # into base: all runs are read
        monkeypatch.setattr(maintaining, "FULL_TAIL", 0)
        monkeypatch.setattr(maintaining, "FULL_MID", 0)
    key = world.key(kind)
    failed: set[str] = set()
    cases = world.damaged(kind)
    for damage, body in cases.items():
        archive, store = opened(world.objects)
        spoil(store, key, body)
        done = outcome(Archive.maintain, archive)
        if isinstance(done, Exception):
            assert says(done, key), (damage, done)
            failed.add(damage)
        else:
            assert done.finished, damage
        # Put back, or no longer needed: nothing was lost.
        if key in store.keys("") or damage == "deleted":
            spoil(store, key, world.objects[key].body)
        assert list(Archive(store, NoWait()).iterate()) == world.answers["iterate"], damage
    needed = merges or not kind.startswith(("mid", "base"))
    assert failed == (
        {damage for damage in cases if "fence" not in damage or kind != "tail first"} if needed else set()
    )


def test_an_intent_in_the_place_of_another_is_noticed(world: World) -> None:
    archive, store = opened(world.objects)
    spoil(store, world.key("intent"), world.sibling("intent"))
    with pytest.raises(IndexDamagedError, match=world.key("intent")):
        archive.count()


def test_an_inline_fold_that_meets_damage_does_not_disturb_its_reader(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maintaining, "INLINE", 2)
    for damage, body in world.damaged("tail first").items():
        archive, store = opened(world.objects)
        spoil(store, world.key("tail first"), body)
        assert archive.list(limit=5) == world.answers["newest of all"], damage


def test_the_command_line_prints_one_message(tmp_path: Path) -> None:
    with Archive.create(f"file://{tmp_path}/chats", partition_by="metadata.user_id") as archive:
        archive.save_many([start(f"c{n}", "alice", n) for n in range(5)])
        archive.maintain()
        archive.save(start("new", "alice", 6))
    for part in ("index/segments", "index/recent", "index/log", "index/manifest.json"):
        (path,) = (one for one in (tmp_path / "chats").rglob("*") if one.is_file() and part in str(one))
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        failed = run(
            "list", f"{tmp_path}/chats", "--order", "updated_at" if "segments" in part else "-updated_at", code=1
        )
        assert failed.out == ""
        assert len(re.findall("s3conv:", failed.err)) == 1
        assert path.name in failed.err
        assert "verify --repair" in failed.err
        path.write_bytes(whole)
    assert len(run("list", f"{tmp_path}/chats", "--json").out.splitlines()) == 6
