"""Documents that cannot be read: an export names them and goes on, its manifest says so, and a check tells it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest

from s3conv import Archive, AsyncArchive, CorruptError, SchemaVersionError, StorageError, UnsupportedFormatError
from s3conv.bridge import run_sync
from s3conv.exchange.checkpoint import check_export
from s3conv.exchange.exporting import Job, export_files, export_stream
from s3conv.exchange.outputs import Folder
from s3conv.exchange.writing import FORMATS
from s3conv.format.codec import compress, decompress
from s3conv.format.keys import document_key
from s3conv.store.base import ObjectStore
from tests.exchange.test_exporting import chats


def body_of(store: ObjectStore, conversation_id: str) -> bytes:
    found = run_sync(store.get(document_key(conversation_id)))
    assert found is not None
    return found.body


def edited(old: bytes, new: bytes) -> Callable[[bytes], bytes]:
    """The document with a piece of its JSON replaced, in a frame that is whole."""

    def edit(body: bytes) -> bytes:
        text = decompress(body, "a document")
        assert old in text
        return compress(text.replace(old, new, 1))

    return edit


MISSING = "missing"

READ: dict[str, tuple[Callable[[bytes], bytes] | str, type[StorageError], str]] = {
    "truncated": (lambda body: body[: len(body) // 2], CorruptError, "not a whole zstd frame"),
    "empty": (lambda body: b"", CorruptError, "not a whole zstd frame"),
    "no-zstd": (lambda body: b'{"not": "zstd"}', CorruptError, "not a whole zstd frame"),
    "no-json": (lambda body: compress(b"{"), CorruptError, "is not JSON"),
    "another-id": (edited(b'"c03"', b'"c04"'), CorruptError, "holds conversation 'c04'; expected 'c03'"),
    "newer-format": (edited(b'"format":1', b'"format":2'), UnsupportedFormatError, "format 2"),
    "newer-feature": (edited(b'"format":1', b'"format":1,"requires":["x"]'), UnsupportedFormatError, "x"),
    "missing": (MISSING, CorruptError, "is missing, and the index has"),
}
"""What is found wrong when a document is fetched."""

DECODED: dict[str, tuple[Callable[[bytes], bytes] | str, type[StorageError], str]] = {
    "newer-schema": (edited(b'"schema_version":"1.1.0"', b'"schema_version":"9.0.0"'), SchemaVersionError, "9.0.0"),
    "no-tree": (edited(b'"parent":0', b'"parent":7'), CorruptError, "parent"),
}
"""What is found wrong when it is decoded: lines that are copied pass it on, as nothing is lost by that."""


def damage(archive: Archive, conversation_id: str, how: Callable[[bytes], bytes] | str) -> bytes:
    """Damage a document; what it was."""
    store = archive._context.store
    body, key = body_of(store, conversation_id), document_key(conversation_id)
    if callable(how):
        run_sync(store.put(key, how(body)))
    else:
        run_sync(store.delete([key]))
    return body


@pytest.mark.parametrize("what", READ)
def test_without_a_callback_the_first_one_ends_the_export(what: str) -> None:
    archive = chats()
    how, kind, said = READ[what]
    damage(archive, "c03", how)
    given: list[str] = []
    with pytest.raises(kind, match=said):
        given.extend(document.conversation_id for document in archive.export())
    with pytest.raises(kind, match=said):
        export_stream(archive, BytesIO(), Job())


@pytest.mark.parametrize("what", READ)
def test_with_one_it_is_told_and_the_others_come(what: str) -> None:
    archive = chats()
    how, kind, said = READ[what]
    damage(archive, "c03", how)
    told: list[tuple[str, StorageError]] = []
    given = [one.conversation_id for one in archive.export(on_damaged=lambda *what: told.append(what))]
    assert given == [f"c{n:02}" for n in range(10) if n != 3]
    ((conversation_id, error),) = told
    assert conversation_id == "c03"
    assert type(error) is kind
    assert said in str(error)

    async def go() -> list[str]:
        async with AsyncArchive.open(archive._context.store) as other:
            return [one.conversation_id async for one in other.export(on_damaged=lambda *what: told.append(what))]

    assert asyncio.run(go()) == given
    assert len(told) == 2


def test_a_filter_that_needs_the_document_tells_it_too() -> None:
    archive = chats()
    damage(archive, "c03", edited(b'"parent":0', b'"parent":7'))
    with archive.edit("c05") as state:
        state.metadata["n"] = 50
    told: list[str] = []
    given = archive.export({"metadata.n": {"lte": 3}}, on_damaged=lambda one, error: told.append(one))
    assert [one.conversation_id for one in given] == ["c00", "c01", "c02", "c03"]  # the row vouches for what it says
    run_sync(archive._context.store.put(document_key("c05"), b""))
    given = archive.export({"metadata.n": 50}, on_damaged=lambda one, error: told.append(one))
    assert not list(given)
    assert told == ["c05"]


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_goes_on_without_it_and_has_no_half_of_it(tmp_path: Path, form: str) -> None:
    kinds = {**READ, **({} if form == "jsonl" else DECODED)}
    archive = chats(len(kinds) + 2)
    wanted = {}
    for number, (how, _, said) in enumerate(kinds.values(), 1):
        conversation_id = f"c{number:02}"
        if how is READ["another-id"][0]:
            how = edited(f'"{conversation_id}"'.encode(), b'"else"')
            said = f"holds conversation 'else'; expected '{conversation_id}'"
        damage(archive, conversation_id, how)
        wanted[conversation_id] = said
    job = Job(form, branches="leaves" if form != "html" else None)
    calls: list[tuple[int, int]] = []
    told: list[str] = []
    done = export_files(
        archive,
        Folder(tmp_path),
        job,
        progress=lambda *call: calls.append(call),
        on_damaged=lambda conversation_id, error: told.append(conversation_id),
    )
    assert told == [one.conversation_id for one in done.damaged] == list(wanted)
    for one in done.damaged:
        assert wanted[one.conversation_id] in one.reason
    assert done.conversations == 2
    assert sum(conversations for conversations, _ in calls) == len(kinds) + 2
    healthy = Archive.create("memory://")
    healthy.save_many([state for state in archive.load_many(["c00", f"c{len(kinds) + 1:02}"]) if state])
    (tmp_path / "healthy").mkdir()
    export_files(healthy, Folder(tmp_path / "healthy"), job)
    for path in (tmp_path / "healthy").iterdir():
        if path.name not in ("_manifest.json", "index.html"):
            assert (tmp_path / path.name).read_bytes() == path.read_bytes()


def test_the_manifest_says_so_and_a_check_tells_it(tmp_path: Path) -> None:
    archive = chats()
    damage(archive, "c03", MISSING)
    damage(archive, "c09", READ["truncated"][0])
    export_files(archive, Folder(tmp_path), Job(shards=3), on_damaged=lambda *what: None)
    manifest = json.loads((tmp_path / "_manifest.json").read_bytes())
    assert [one["conversation_id"] for one in manifest["damaged"]] == ["c03", "c09"]
    assert "is missing, and the index has" in manifest["damaged"][0]["reason"]
    assert manifest["conversations"] == 8
    first, second = check_export(Folder(tmp_path)).problems
    assert first.startswith("conversation 'c03' is not in it, as it could not be read: ")
    assert second.startswith("conversation 'c09' is not in it, as it could not be read: ")


def test_an_archive_of_nothing_else_is_an_export_of_nothing(tmp_path: Path) -> None:
    archive = chats(2)
    damage(archive, "c00", MISSING)
    damage(archive, "c01", MISSING)
    done = export_files(archive, Folder(tmp_path), Job(shards=2), on_damaged=lambda *what: None)
    assert (done.conversations, len(done.damaged)) == (0, 2)
    assert (tmp_path / "part-00000.jsonl").read_bytes() == b""


@pytest.mark.parametrize("restored", [False, True])
def test_what_was_damaged_before_an_interruption_is_tried_again(tmp_path: Path, restored: bool) -> None:
    archive = chats()
    whole = damage(archive, "c01", READ["truncated"][0])
    taken = 0

    def stop(conversations: int, size: int) -> None:
        nonlocal taken
        taken += conversations
        if taken == 7:
            raise KeyboardInterrupt

    told: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        export_files(
            archive,
            Folder(tmp_path),
            Job(shards=5),
            progress=stop,
            on_damaged=lambda conversation_id, error: told.append(conversation_id),
        )
    assert told == ["c01"]
    if restored:
        run_sync(archive._context.store.put(document_key("c01"), whole))
    done = export_files(
        archive,
        Folder(tmp_path),
        Job(shards=5),
        on_damaged=lambda conversation_id, error: told.append(conversation_id),
    )
    assert done.continued
    assert told == (["c01"] if restored else ["c01", "c01"])
    assert [one.conversation_id for one in done.damaged] == ([] if restored else ["c01"])
    lines = [line for path in sorted(tmp_path.glob("part-*")) for line in path.read_bytes().splitlines()]
    found = sorted(json.loads(line)["conversation_id"] for line in lines)
    assert found == [f"c{n:02}" for n in range(10) if restored or n != 1]
    assert len(check_export(Folder(tmp_path)).problems) == (0 if restored else 1)
