"""All of the real conversations arrive whole, in every kind of store, and arriving again changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from s3conv import Archive
from s3conv.exchange.importing import import_files
from tests.exchange.independent_count import count_export, count_file
from tests.exchange.shared import real_file, real_files


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
        ("malformed/osteele_testdata_conversation-with-errors.json", 1),
        ("malformed/osteele_testdata_simple-invalid.json", 1),
        ("sharegpt/smile_first3000.tar.gz", 1),
        ("claude/yanndebray.json", 3),
    ],
)
def test_what_is_malformed_or_of_another_format_is_named(name: str, problems: int, tmp_path: Path) -> None:
    with Archive.create(f"memory://{tmp_path.name}") as archive:
        report = import_files(archive, [real_file(name), real_file("chatgpt/mem0ry_a.json")])
    assert len(report.problems) == problems
    assert all(problem.file.endswith(name) and problem.reason for problem in report.problems)
    assert report.new == 2
