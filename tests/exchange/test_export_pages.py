"""Exports for people: a file per conversation, one that lists them, and both whole after an interruption."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from s3conv import ConversationState, CorruptError, InvalidInputError
from s3conv.bridge import run_sync
from s3conv.exchange.exporting import Job, export_files, export_stream
from s3conv.exchange.html import conversation_page
from s3conv.exchange.markdown import conversation_markdown
from s3conv.exchange.naming import file_name
from s3conv.exchange.outputs import Bucket, Folder, Output
from s3conv.format.keys import document_key
from s3conv.model.message import utcnow
from s3conv.store import open_store
from tests.exchange.test_exporting import chats, read


@pytest.fixture(params=["folder", "bucket"])
def output(request: pytest.FixtureRequest, tmp_path: Path) -> Output:
    if request.param == "folder":
        (tmp_path / "out").mkdir()
        return Folder(tmp_path / "out")
    return Bucket(open_store("memory://"), "out")


def test_pages_and_their_list(output: Output) -> None:
    archive = chats(3)
    done = export_files(archive, output, Job("html"))
    assert sorted(output.names()) == ["c00.html", "c01.html", "c02.html", "index.html"]
    for document in archive.export():
        page = read(output, file_name(document.conversation_id, ".html")).decode()
        assert page == conversation_page(document.state(), back="index.html")
    index = read(output, "index.html").decode()
    assert [f'href="c0{n}.html"' in index for n in range(4)] == [True, True, True, False]
    assert index.rstrip().endswith("</html>")
    assert (done.conversations, done.rows, done.files) == (3, 3, 4)
    assert done.bytes == sum(len(read(output, name)) for name in output.names())


def test_markdown_files_and_their_list(output: Output) -> None:
    archive = chats(2)
    export_files(archive, output, Job("markdown", branches="leaves"))
    rows = [json.loads(line) for line in read(output, "index.jsonl").splitlines()]
    assert [row["conversation_id"] for row in rows] == ["c00#1", "c00#2", "c01#1", "c01#2"]
    assert [row["file"] for row in rows[:2]] == ["c00~1.md", "c00~2.md"]
    assert sorted(output.names()) == sorted([*(row["file"] for row in rows), "index.jsonl"])
    for row in rows:
        assert f'conversation_id: "{row["conversation_id"]}"' in read(output, row["file"]).decode()
    whole = Bucket(open_store("memory://"), "out")
    export_files(archive, whole, Job("markdown"))
    for document in archive.export():
        assert read(whole, f"{document.conversation_id}.md").decode() == conversation_markdown(document.state())


@pytest.mark.parametrize("form", ["html", "markdown"])
def test_every_conversation_has_a_file_of_its_own(output: Output, form: str) -> None:
    """Also where an id is the name of the list, or looks like that of a branch."""
    archive = chats(1)
    ids = ["index", "Index", "INDEX", "c00~1", "c00#1", "C00"]
    archive.save_many([ConversationState.start(one, system=f"I am {one}.") for one in ids])
    done = export_files(archive, output, Job(form, branches="leaves"))
    assert (done.conversations, done.rows) == (7, 8)
    names = set(output.names())
    assert len({name.lower() for name in names}) == 9
    suffix = {"html": ".html", "markdown": ".md"}[form]
    for one in ids:
        assert f"I am {one}." in read(output, file_name(one, suffix)).decode()


def test_what_is_redacted_is_in_no_file(output: Output) -> None:
    for job in (Job("html", redact=("one|two",)), Job("markdown", redact=("one|two",))):
        place = output if job.format == "html" else Bucket(open_store("memory://"), "out")
        done = export_files(chats(2), place, job)
        assert done.redacted == 4
        for name in place.names():
            text = read(place, name).decode()
            assert "one 0" not in text
            if not name.startswith("index"):
                assert "redacted" in text


@pytest.mark.parametrize("job", [Job("html"), Job("markdown")])
@pytest.mark.parametrize("damaged", ["c00", "c05"])
def test_an_interrupted_export_goes_on(output: Output, job: Job, damaged: str, monkeypatch: pytest.MonkeyPatch) -> None:
    now = utcnow()
    monkeypatch.setattr("s3conv.exchange.pages.utcnow", lambda: now)
    archive = chats(8)
    store, key = archive._context.store, document_key(damaged)
    whole = run_sync(store.get(key))
    assert whole is not None
    run_sync(store.put(key, b"damaged"))
    with pytest.raises(CorruptError, match=damaged):
        export_files(archive, output, job)
    run_sync(store.put(key, whole.body))
    done = export_files(archive, output, job)
    assert done.conversations == 8
    assert done.continued == (int(damaged[1:]) if isinstance(output, Folder) else 0)
    once = Bucket(open_store("memory://"), "out")
    export_files(archive, once, job)
    assert {name: read(output, name) for name in output.names()} == {name: read(once, name) for name in once.names()}


@pytest.mark.parametrize("job", [Job("html", shards=2), Job("markdown", shard_size=1)])
def test_there_are_no_shards_of_pages(output: Output, job: Job) -> None:
    with pytest.raises(InvalidInputError, match="is a folder of files, and no shards"):
        export_files(chats(1), output, job)


def test_pages_go_to_an_empty_folder_and_to_no_stream(output: Output, tmp_path: Path) -> None:
    archive = chats(1)
    export_files(archive, output, Job("html"))
    with pytest.raises(InvalidInputError, match="holds something else"):
        export_files(archive, output, Job("html"))
    with pytest.raises(InvalidInputError, match="expected a folder"):
        export_files(archive, Folder(tmp_path, ".x/"), Job("html"), "x.html")
    out: Any = None
    with pytest.raises(InvalidInputError, match="cannot be a stream"):
        export_stream(archive, out, Job("html"))
