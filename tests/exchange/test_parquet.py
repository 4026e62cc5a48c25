"""Parquet files hold what the conversations hold, typed, for readers that know nothing of s3conv."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings

from s3conv import Archive, ConversationState, CorruptError, InvalidInputError, StorageError
from s3conv.bridge import run_sync
from s3conv.exchange import parquet
from s3conv.exchange.checkpoint import check_export
from s3conv.exchange.exporting import Job, export_files, export_stream
from s3conv.exchange.outputs import Folder
from s3conv.format.document import state_to_stored
from s3conv.format.keys import document_key
from s3conv.model.message import as_utc
from tests.strategies import states


def written(states: list[ConversationState], folder: Path, job: Job) -> Path:
    """A file with these conversations."""
    archive = Archive.create("memory://")
    archive.save_many(states)
    export_files(archive, Folder(folder, ".working/"), job, "all.parquet")
    return folder / "all.parquet"


def rows_of(path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pyarrow.parquet.read_table(path).to_pylist()
    return rows


def as_json(text: str | None) -> Any:
    return None if text is None else json.loads(text)


def check_message(row: dict[str, Any], node: dict[str, Any]) -> None:
    """Compare a message as it was read with the stored form's node."""
    message = node["message"]
    content = message.get("content")
    assert row["content"] == (content if isinstance(content, str) else None)
    assert as_json(row["parts"]) == (content if isinstance(content, list) else None)
    assert row["parent"] == node.get("parent")
    for name in ("role", "name", "tool_call_id"):
        assert row[name] == message.get(name)
    for name in ("tool_calls", "function_call"):
        assert as_json(row[name]) == message.get(name)
    assert row["timestamp"] == as_utc(datetime.fromisoformat(node["timestamp"]))
    assert (row["prompt_name"], row["branch_name"]) == (node.get("prompt_name"), node.get("branch_name"))
    assert as_json(row["metadata"]) == (node.get("metadata") or None)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(states())
def test_any_conversation_is_there_whole(tmp_path: Path, state: ConversationState) -> None:
    stored = state_to_stored(state)
    (row,) = rows_of(written([state], tmp_path, Job("parquet")))
    assert row["conversation_id"] == state.conversation_id
    assert (row["created_at"], row["updated_at"]) == (as_utc(state.created_at), as_utc(state.updated_at))
    assert as_json(row["metadata"]) == state.metadata
    assert (row["message_count"], row["branch_count"]) == (len(stored["nodes"]), len(state.leaves()))
    assert row["current"] == (stored.get("current") or 0)
    for message, node in zip(row["messages"], stored["nodes"], strict=True):
        check_message(message, node)
    rows = rows_of(written([state], tmp_path, Job("parquet-messages")))
    for position, (message, node) in enumerate(zip(rows, stored["nodes"], strict=True)):
        assert (message["conversation_id"], message["position"]) == (state.conversation_id, position)
        check_message(message, node)
    current = state.get_current_messages()
    assert [one["role"] for one in rows if one["is_current"]] == [message.role for message in current]


def several(number: int) -> list[ConversationState]:
    made = []
    for n in range(number):
        state = ConversationState.start(f"c{n:02}", system="Hi", metadata={"n": n})
        state.add_message("user", "x" * 100)
        state.add_message("user", "y", parent=state.path_to("")[0])
        state.created_at = datetime(2025, 3, 1, tzinfo=UTC) + timedelta(days=n)
        made.append(state)
    return made


def test_row_groups_are_bounded_and_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "BATCH", 300)
    monkeypatch.setattr(parquet, "GROUP", 1000)
    path = written(several(20), tmp_path, Job("parquet"))
    assert pyarrow.parquet.ParquetFile(path).metadata.num_row_groups == 7
    assert [row["metadata"] for row in rows_of(path)] == [f'{{"n":{n}}}' for n in range(20)]


CALL = {"id": "c", "type": "function", "function": {"name": "write", "arguments": "x" * 1000}}


@pytest.mark.parametrize("form", ["parquet", "parquet-messages"])
@pytest.mark.parametrize("said", [{"tool_calls": [CALL]}, {"function_call": CALL["function"]}, {"name": "x" * 1000}])
def test_a_row_group_ends_whatever_it_is_full_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str, said: dict[str, Any]
) -> None:
    """Memory would grow with the archive otherwise, and a column of more than 2 GiB cannot be written at all."""
    monkeypatch.setattr(parquet, "BATCH", 1000)
    monkeypatch.setattr(parquet, "GROUP", 4000)
    made = several(16)
    for state in made:
        state.add_message("assistant", None, **said)
    path = written(made, tmp_path, Job(form))
    assert pyarrow.parquet.ParquetFile(path).metadata.num_row_groups >= 4


def test_others_read_it(tmp_path: Path) -> None:
    path = written(several(5), tmp_path, Job("parquet"))
    asked = "SELECT conversation_id, len(messages), messages[2].content[1], year(created_at) FROM read_parquet(?)"
    with duckdb.connect() as base:
        assert base.execute(asked, [str(path)]).fetchall()[1] == ("c01", 3, "x", 2025)
    path = written(several(5), tmp_path, Job("parquet-messages", branches="leaves"))
    with duckdb.connect() as base:
        asked = "SELECT count(*), count(DISTINCT conversation_id), bool_and(is_current) FROM read_parquet(?)"
        assert base.execute(asked, [str(path)]).fetchone() == (20, 10, True)


def test_shards_of_it_are_gone_on_with_and_checked(tmp_path: Path) -> None:
    archive = Archive.create("memory://")
    archive.save_many(several(10))
    key = document_key("c07")
    whole = run_sync(archive._context.store.get(key))
    assert whole is not None
    run_sync(archive._context.store.put(key, b"damaged"))
    folder, job = Folder(tmp_path), Job("parquet", shards=4)
    with pytest.raises(CorruptError, match="c07"):
        export_files(archive, folder, job)
    run_sync(archive._context.store.put(key, whole.body))
    done = export_files(archive, folder, job)
    assert (done.conversations, done.continued) == (10, 6)
    found = [row["conversation_id"] for n in range(4) for row in rows_of(tmp_path / f"part-{n:05}.parquet")]
    assert found == [f"c{n:02}" for n in range(10)]
    checked = check_export(folder)
    assert (checked.rows, checked.problems) == (10, [])


def test_a_file_of_nothing_has_its_columns(tmp_path: Path) -> None:
    path = written([], tmp_path, Job("parquet"))
    assert pyarrow.parquet.read_schema(path).names == [*parquet.CONVERSATION, "messages"]
    assert rows_of(path) == []


def test_it_is_no_stream() -> None:
    with pytest.raises(InvalidInputError, match="parquet cannot be a stream"):
        export_stream(Archive.create("memory://"), sys.stdout.buffer, Job("parquet"))


def test_without_pyarrow_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(StorageError, match=r"pip install '\.\[parquet\]'"):
        written([], tmp_path, Job("parquet"))
    with pytest.raises(StorageError, match=r"pip install"):
        written(several(1), tmp_path, Job("parquet"))
    assert list(tmp_path.iterdir()) == []
