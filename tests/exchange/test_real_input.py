"""All of the real conversations arrive whole, in every kind of store, and arriving again changes nothing."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from s3conv import Archive
from s3conv.exchange.importing import import_files
from tests.exchange import shared
from tests.exchange.count_lists import FOLDERS, count_list_export, count_list_file
from tests.exchange.independent_count import count_export, count_file
from tests.exchange.shared import real_file, real_files

REPEATED_KEY = "osteele_sample_business-strategy.json"
"""One conversation, of which an object has a key twice: it is refused, as one of the values would be lost."""


@pytest.fixture(params=["memory", "file", "s3"])
def archive(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Archive]:
    if request.param == "s3":
        place, endpoint = request.getfixturevalue("s3_place"), request.getfixturevalue("s3_endpoint")
        session = request.getfixturevalue("s3_session")
        made = Archive.create(f"{place.url}/a", endpoint_url=endpoint, session=session)
    else:
        made = Archive.create({"memory": f"memory://{tmp_path.name}", "file": f"file://{tmp_path}/a"}[request.param])
    with made:
        yield made


def exported(archive: Archive) -> list[str]:
    return [document.line.decode() for document in archive.export()]


def key(counted: tuple[str | None, Any]) -> tuple[str, str]:
    return str(counted[0]), repr(sorted(counted[1].items()))


def test_every_conversation_arrives_with_every_message_edge_and_branch(archive: Archive) -> None:
    files = real_files()
    report = import_files(archive, files)
    expected: list[tuple[str | None, Any]] = []
    malformed: list[tuple[str, str]] = []
    for path in files:
        counted = count_file(path)
        expected.extend(counted.conversations)
        malformed.extend((str(path), name) for name in counted.malformed)
    with_times = [one for path in files if path.parent.name == "dataknobs" for one in count_file(path).conversations]
    lines = exported(archive)
    foreign = [line for line in lines if '"source_format":' in line]
    own = [line for line in lines if '"source_format":' not in line]
    assert sorted(map(key, count_export(own, with_times=True))) == sorted(map(key, with_times))
    others = [one for one in expected if one not in with_times]
    assert sorted(map(key, count_export(foreign, with_times=False))) == sorted(map(key, others))
    assert len(lines) == len(expected) == report.new + len(report.renamed)
    assert sorted((problem.file, problem.reason.split("'")[1]) for problem in report.problems) == sorted(
        (file, {"missingParent": "a1", "cycle": "a", "test-123": "test-123"}[name]) for file, name in malformed
    )

    before = {entry.conversation_id: entry.revision for entry in archive.iterate()}
    again = import_files(archive, files)
    assert (again.new, again.updated, again.renamed) == (0, 0, [])
    assert again.unchanged == len(before)
    assert {entry.conversation_id: entry.revision for entry in archive.iterate()} == before
    assert exported(archive) == lines


def test_files_in_any_order_and_one_by_one_give_the_same_messages(tmp_path: Path) -> None:
    counts: list[list[tuple[str, str]]] = []
    for files in (real_files(), real_files()[::-1]):
        with Archive.create(f"memory://{tmp_path.name}-{len(counts)}") as archive:
            for path in files:
                import_files(archive, [path])
            counts.append(sorted(map(key, count_export(exported(archive), with_times=False))))
            assert import_files(archive, files).updated == 0
    assert counts[0] == counts[1]


def test_an_export_imports_into_the_same_export(tmp_path: Path) -> None:
    with Archive.create(f"memory://{tmp_path.name}-a") as one, Archive.create(f"memory://{tmp_path.name}-b") as other:
        import_files(one, real_files())
        lines = tmp_path / "lines"
        lines.write_text("".join(f"{line}\n" for line in exported(one)), encoding="utf-8")
        report = import_files(other, [lines])
        assert report.problems == []
        assert exported(other) == exported(one)
        assert import_files(other, [lines]).unchanged == report.new


@pytest.mark.parametrize(
    ("name", "problems"),
    [
        ("malformed/llm-logparser_fragment.json", 1),
        ("malformed/osteele_testdata_simple-invalid.json", 1),
        ("claude/osteele_sample_business-strategy.json", 1),
    ],
)
def test_what_is_malformed_is_named(name: str, problems: int, tmp_path: Path) -> None:
    with Archive.create(f"memory://{tmp_path.name}") as archive:
        report = import_files(archive, [real_file(name), real_file("chatgpt/mem0ry_a.json")])
    assert len(report.problems) == problems
    assert all(problem.file.endswith(name) and problem.reason for problem in report.problems)
    assert report.new == 2


def test_every_message_and_call_of_lists_blocks_and_sessions_arrives(tmp_path: Path) -> None:
    files = [path for path in real_files(FOLDERS) if path.name != REPEATED_KEY]
    expected = [one for path in files for one in count_list_file(path)]
    with Archive.create(f"memory://{tmp_path.name}") as archive:
        report = import_files(archive, files)
        assert report.problems == []
        lines = exported(archive)
        counted = count_list_export(lines)
        assert len(counted) == report.new == len(expected)
        assert Counter(talk.key() for _, talk in counted) == Counter(talk.key() for _, talk in expected)
        assert sum(talk.calls for _, talk in counted) == sum(talk.calls for _, talk in expected) == 2005
        named = {name for name, _ in expected if name is not None}
        assert named == {name for name, _ in counted if not re.search("-[0-9a-f]{32}(~[0-9]+)?$", name)}
        assert len(named) == 510

        before = {entry.conversation_id: entry.revision for entry in archive.iterate()}
        again = import_files(archive, files)
        assert (again.new, again.updated, again.renamed, again.unchanged) == (0, 0, [], len(before))
        assert exported(archive) == lines


def test_no_folder_of_real_conversations_is_forgotten() -> None:
    folders = {path.name for path in real_file("").iterdir() if path.is_dir()}
    assert folders == {*shared.FOLDERS, *FOLDERS, "malformed"}


def test_a_repeated_key_is_named_with_its_place_and_the_rest_is_imported(tmp_path: Path) -> None:
    with Archive.create(f"memory://{tmp_path.name}") as archive:
        report = import_files(archive, [real_file("claude")])
        (problem,) = report.problems
        assert problem.file.endswith(REPEATED_KEY)
        assert "the key 'type' is twice in one object (line 117 column 11)" in problem.reason
        assert report.new == 9


def test_a_conversation_with_contents_of_every_wrong_type_arrives_whole(tmp_path: Path) -> None:
    path = real_file("malformed/osteele_testdata_conversation-with-errors.json")
    with Archive.create(f"memory://{tmp_path.name}") as archive:
        assert import_files(archive, [path]).problems == []
        (line,) = exported(archive)
    messages = json.loads(path.read_text(encoding="utf-8"))["chat_messages"]
    nodes = json.loads(line)["nodes"]
    assert [node["metadata"]["source_id"] for node in nodes] == [message["uuid"] for message in messages]
    by_id = {node["metadata"]["source_id"]: node for node in nodes}
    assert by_id["msg-3"]["message"]["content"] == messages[2]["text"]
    assert by_id["msg-3"]["metadata"]["source"]["content"] is None
    assert by_id["msg-4"]["message"]["content"] == [{"type": "text", "text": None}]
    assert by_id["msg-8"]["message"]["content"] == [{"type": "text", "text": 12345}]
