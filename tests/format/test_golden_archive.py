"""An archive of format 1, written once by the version that introduced its index and never again, is read for ever.

It was made with blocks and segments of about 1 KiB, so that there are several; all three runs, `recent`, deleted,
created again and moved conversations, and in the log: saves, a move, a delete, a batch, an activity window with a save
that was not announced, a writer that lost, and one that died.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from s3conv import Archive, ConversationState
from s3conv.core.window import MARGIN
from tests.format.independent_reader import Reader

GOLDEN = Path(__file__).parent.parent / "golden" / "archive-1"
EXPECTED = json.loads(GOLDEN.with_suffix(".expected.json").read_bytes())


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    """A copy in which every intent is older than any limit but that of the dead."""
    copy = tmp_path / "archive-1"
    shutil.copytree(GOLDEN, copy)
    written = time.time() - 600 - MARGIN
    for path in copy.rglob("*"):
        os.utime(path, (written, written))
    with Archive.open(f"file://{copy}") as archive:
        yield archive


def of_golden() -> Reader:
    def get(key: str) -> bytes | None:
        path = GOLDEN / key
        return path.read_bytes() if path.exists() else None

    def keys(prefix: str) -> list[str]:
        return sorted(str(path.relative_to(GOLDEN)) for path in (GOLDEN / prefix).rglob("*") if path.is_file())

    return Reader(get, keys)


def entries(archive: Archive, **options: Any) -> dict[str, Any]:
    return {entry.conversation_id: entry.to_dict() for entry in archive.iterate(**options)}


def test_a_reader_written_from_the_page_alone_reads_it() -> None:
    reader = of_golden()
    assert reader.list() == EXPECTED["entries"]
    partitions = {reader.partition(entry["metadata"]) for entry in EXPECTED["entries"].values()}
    assert len(partitions) == 11
    for partition in partitions:
        assert reader.list(partition) == {
            conversation_id: entry
            for conversation_id, entry in EXPECTED["entries"].items()
            if reader.partition(entry["metadata"]) == partition
        }


def test_the_entries_are_those_of_the_documents() -> None:
    reader = of_golden()
    documents = {document["conversation_id"]: reader.entry_of(document) for document in reader.all_documents()}
    assert {key: entry for key, entry in documents.items() if not entry.get("deleted")} == EXPECTED["entries"]


def test_recent_holds_what_is_newer_than_its_floor() -> None:
    reader = of_golden()
    manifest = reader.manifest()
    recent = manifest["recent"]
    rows = reader.rows(f"index/recent/{recent['name']}.jsonl.zst", recent)
    counts = {row["conversation_id"]: row for row in reader.runs(manifest).values() if not row.get("moved")}
    live = {row["conversation_id"]: row for row in rows if not row.get("deleted")}
    assert live == {
        conversation_id: row
        for conversation_id, row in counts.items()
        if row["updated_at"] > recent["floor"] and not row.get("deleted")
    }
    assert recent["floor"] > min(row["updated_at"] for row in counts.values())


def test_it_has_something_of_everything() -> None:
    manifest = of_golden().manifest()
    assert [len(manifest[run]) for run in ("tail", "mid", "base")] == [1, 2, 3]
    assert len(manifest["tail"][0]["fence"]["keys"]) == 2
    rows = list(of_golden().runs(manifest).values())
    assert sum(bool(row.get("moved")) for row in rows) == 3
    assert sum(bool(row.get("deleted")) for row in rows) == 2
    assert sum(bool(row.get("metadata_truncated")) for row in rows) == 1
    assert len(of_golden().keys("index/log/")) == 9


def test_it_is_listed(archive: Archive) -> None:
    assert entries(archive) == EXPECTED["entries"]
    for user in ("alice", "bob", "Zoë", 5, True, ["a", 1], {"k": None}, None):
        expected = {key for key, entry in EXPECTED["entries"].items() if entry["metadata"].get("user_id") == user}
        assert entries(archive, where={"metadata.user_id": {"eq": user}}).keys() == expected - {"no-user"}
    newest = [entry.conversation_id for entry in archive.list(limit=8).items]
    assert newest == sorted(EXPECTED["entries"], key=lambda key: EXPECTED["entries"][key]["updated_at"])[:-9:-1]


def test_its_documents_are_loaded(archive: Archive) -> None:
    states = {state.conversation_id: state.to_dict() for state in archive.load_many(EXPECTED["states"]) if state}
    assert states == EXPECTED["states"]
    assert all(archive.load(conversation_id) is None for conversation_id in EXPECTED["deleted"])


def test_it_is_maintained_and_written_to(archive: Archive) -> None:
    done = archive.maintain()
    assert (done.pending, done.folded) == (1, 10)  # what is pending is the intent of the writer that died
    assert entries(archive) == EXPECTED["entries"]
    with archive.edit("tree") as state:
        state.add_message("user", "Still there?")
    archive.save(ConversationState.start("new", system="Hi"))
    assert entries(archive).keys() == EXPECTED["entries"].keys() | {"new"}
