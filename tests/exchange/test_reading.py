"""Files of every kind and format are read; what cannot be is a problem with its position, and the rest is read."""

from __future__ import annotations

import gzip
import json
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import pytest

from s3conv import ConversationState
from s3conv.exchange.found import Found, Ignored, Problem
from s3conv.exchange.reading import read_conversations
from s3conv.format.codec import to_json
from s3conv.format.document import state_to_stored
from tests.exchange.chats import branching, chat, place, said


def read(path: Path, data: bytes | str | Any = None) -> list[Any]:
    if data is not None:
        raw = data if isinstance(data, bytes) else (data if isinstance(data, str) else json.dumps(data)).encode()
        path.write_bytes(raw)
    return list(read_conversations(path))


def ids(items: list[Any]) -> list[str]:
    return [item.state.conversation_id if isinstance(item, Found) else f"{item.position}!" for item in items]


def started(name: str) -> ConversationState:
    state = ConversationState.start(name, system="Hello")
    state.add_message("user", "Hi")
    return state


def stored(name: str) -> Any:
    return json.loads(to_json(state_to_stored(started(name)), "a state"))


def test_every_format_in_one_file_of_lines(tmp_path: Path) -> None:
    items = [
        branching(id="chat"),
        {"message_tree_id": "tree", "prompt": {"message_id": "m", "role": "prompter", "text": "Hi", "replies": []}},
        started("dataknobs").to_dict(),
        stored("own"),
        {"s3conv": {"format": 1, "kind": "document", "revision": 3, "write": "w", "lineage": ["w"]}, **stored("raw")},
        {"message_id": "flat", "parent_id": None, "role": "prompter", "text": "Hi"},
        {"key": chat({"a": place(None, said("user", "Hi"))}, id=None)},
    ]
    path = tmp_path / "no-extension"
    found = read(path, "\n".join(json.dumps(item) for item in items))
    assert ids(found) == ["chat", "tree", "dataknobs", "own", "raw", "key", "flat"]
    assert [item.position for item in found][-2:] == ["line 7: key", "line 6"]
    assert [item.foreign for item in found] == [True, True, True, False, False, True, True]
    assert ids(read(path, items)) == ids(found)
    for item in items:
        (one,) = read(path, json.dumps(item, indent=2))
        assert one.state.message_tree is not None


def test_gzip_and_zip_are_told_by_their_bytes(tmp_path: Path) -> None:
    lines = "\n".join(json.dumps(branching(id=f"c{n}")) for n in range(3)).encode()
    assert ids(read(tmp_path / "a.txt", gzip.compress(lines))) == ["c0", "c1", "c2"]
    with zipfile.ZipFile(tmp_path / "b.bin", "w") as archive:
        archive.writestr("conversations.json", json.dumps([branching(id="z"), {"x": 1}]))
        archive.writestr("deep/more.JSONL", lines)
        archive.writestr("chat.html", "<html>")
        archive.writestr("user.json", '{"id": "user-1", "email": "nobody@example.org"}')
        archive.writestr("shared_conversations.json", '[{"id": "1", "conversation_id": "z"}]')
        archive.writestr("__MACOSX/._conversations.json", "x")
    items = read(tmp_path / "b.bin")
    assert [item.position for item in items if not isinstance(item, Ignored)] == [
        "conversations.json: [0]",
        "conversations.json: [1]",
        "deep/more.JSONL: line 1",
        "deep/more.JSONL: line 2",
        "deep/more.JSONL: line 3",
    ]
    assert [item.member for item in items if isinstance(item, Ignored)] == [
        "chat.html",
        "user.json",
        "shared_conversations.json",
        "__MACOSX/._conversations.json",
    ]
    with zipfile.ZipFile(tmp_path / "c.zip", "w") as archive:
        archive.writestr("picture.png", b"")
    assert [type(item) for item in read(tmp_path / "c.zip")] == [Ignored, Problem]


def test_damaged_files_give_what_can_be_read(tmp_path: Path) -> None:
    lines = [json.dumps(branching(id=f"c{n}", pad=f"{n}" * 3000)).encode() for n in range(500)]
    packed = gzip.compress(b"\n".join(lines))
    *found, problem = read(tmp_path / "cut.gz", packed[: len(packed) // 2])
    assert found
    assert isinstance(problem, Problem)
    assert "cannot be read" in problem.reason
    damaged = bytearray(packed)
    damaged[-8] ^= 1
    items = read(tmp_path / "crc.gz", bytes(damaged))
    assert isinstance(items[-1], Problem)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("conversations.json", json.dumps([branching()]))
        archive.writestr("more.json", json.dumps([branching(id="more")]))
    broken = (tmp_path / "a.zip").read_bytes().replace(b"text of a3", b"text of A3", 1)
    assert any(isinstance(item, Problem) for item in read(tmp_path / "b.zip", broken))
    for data in (b"PK\x03\x04 and no more", b"\x1f\x8b", b"\x1f\x8b\x08 nonsense", b"", b"\x00\x01", b"[", b"{"):
        assert [type(item) for item in read(tmp_path / "bad", data)] == [Problem], data


def test_files_that_are_not_there(tmp_path: Path) -> None:
    (missing,) = read(tmp_path / "missing")
    assert missing == Problem(str(tmp_path / "missing"), "", "cannot be read: No such file or directory")
    (tmp_path / "empty").mkdir()
    (none,) = read(tmp_path / "empty" / "*.json")
    assert none == Problem(str(tmp_path / "empty" / "*.json"), "", "cannot be read: No such file or directory")
    (tmp_path / "empty" / "notes.txt").write_text("no JSON", encoding="utf-8")
    assert read(tmp_path / "empty") == [
        Ignored(str(tmp_path / "empty"), "notes.txt"),
        Problem(str(tmp_path / "empty"), "", "holds no conversations"),
    ]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"mapping": {"a": ', "not JSON"),
        ('{"mapping": {}, "x": NaN}', "NaN is not a JSON value"),
        ('{"mapping": {}, "x": -Infinity}', "-Infinity is not a JSON value"),
        ('{"mapping": {}, "x": 1e999}', "too large a number"),
        ('{"mapping": {}, "x": ' + "9" * 5000 + "}", "cannot be kept"),
        ('{"mapping": {}, "x": "\\ud83d"}', "lone surrogate"),
        ('{"mapping": {}, "x": 1, "x": 2}', "the key 'x' is twice"),
        ('{"mapping": {}, "x": ' + "[" * 100_000 + "]" * 100_000 + "}", "nested too deeply"),
        ('{"mapping": []}', "mapping: expected an object, found list"),
        ('{"nodes": [], "edges": []}', "nodes: expected at least one"),
        ('{"nodes": 3}', "nodes"),
        ('{"something": "else"}', "found an object with 'something'"),
        ("[1, 2]", "found a list"),
        ('"text"', "found a text"),
        ("null", "found null"),
    ],
)
def test_a_line_that_cannot_be_read_is_reported_alone(line: str, reason: str, tmp_path: Path) -> None:
    good = json.dumps(branching())
    before, problem, after = read(tmp_path / "lines", f"{good}\n{line}\n{good}\n")
    assert isinstance(before, Found)
    assert isinstance(after, Found)
    assert isinstance(problem, Problem)
    assert problem.position == "line 2"
    assert reason in problem.reason
    assert len(problem.reason) < 300


def test_bytes_that_are_not_utf_8(tmp_path: Path) -> None:
    good = json.dumps(branching()).encode()
    _, problem, _ = read(tmp_path / "lines", good + b'\n{"mapping": "\xff"}\n' + good)
    assert problem.reason == "not UTF-8: byte 0xff at offset 13"


def test_newer_versions_and_tombstones_are_problems(tmp_path: Path) -> None:
    newer = {**started("x").to_dict(), "schema_version": "2.0.0"}
    tombstone = {"s3conv": {"format": 1, "kind": "tombstone"}, "conversation_id": "x", "metadata": {}}
    items = read(tmp_path / "a", [newer, tombstone, {**stored("y"), "schema_version": "1.5.0"}])
    assert "2.0.0" in items[0].reason
    assert isinstance(items[1], Problem)
    assert items[2].state.schema_version == "1.5.0"


def test_what_is_read_of_own_forms_is_what_was_written(tmp_path: Path) -> None:
    state = started("x")
    state.extra["unknown"] = {"a": None}
    (exchange,) = read(tmp_path / "a", state.to_dict())
    (own,) = read(tmp_path / "a", json.loads(to_json(state_to_stored(state), "a state")))
    assert exchange.state == own.state == state


def test_bytes_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(json.dumps([branching()] * 50).encode()))
    counted: list[int] = []
    assert len(list(read_conversations(path, counted.append))) == 50
    assert sum(counted) == path.stat().st_size


@pytest.mark.parametrize("separator", ["\n", ","])
def test_memory_does_not_grow_with_the_file(separator: str, tmp_path: Path) -> None:
    peaks = []
    for count in (300, 3000):
        text = separator.join(json.dumps(branching(id=str(n), pad="x" * 5000)) for n in range(count))
        path = tmp_path / "file"
        path.write_text(f"[{text}]" if separator == "," else text, encoding="utf-8")
        del text
        tracemalloc.start()
        assert sum(1 for _ in read_conversations(path)) == count
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]


def test_an_export_of_chatgpt_as_it_is_today(tmp_path: Path) -> None:
    """Numbered files, custom instructions, thoughts, images; in a ZIP and in the folder that it unpacks to."""
    instructions = {"content_type": "user_editable_context", "user_profile": "A cook", "user_instructions": "Be brief"}
    thoughts = {
        "content_type": "thoughts",
        "thoughts": [{"summary": "S", "content": "T"}],
        "source_analysis_msg_id": "m",
    }
    image = {"content_type": "image_asset_pointer", "asset_pointer": "sediment://file_1", "size_bytes": 1}
    parts = {"content_type": "multimodal_text", "parts": [image, "What is this?"]}
    contents = {"i": instructions, "u": parts, "t": thoughts}
    mapping = {
        "root": place(None, None, ["i"]),
        "i": place("root", {**said("user", ""), "content": instructions}, ["u"]),
        "u": place("i", {**said("user", ""), "content": parts}, ["t"]),
        "t": place("u", {**said("assistant", ""), "content": thoughts}, []),
    }
    members = {f"conversations-{n:03}.json": json.dumps([chat(mapping, id=f"c{n}")]) for n in range(3)}
    members |= {"user.json": '{"id": "user-1"}', "user_settings.json": '[{"announcement": 1}]', "chat.html": "<html>"}
    folder = tmp_path / "unpacked"
    folder.mkdir()
    with zipfile.ZipFile(tmp_path / "export.zip", "w") as archive:
        for name, text in members.items():
            archive.writestr(name, text)
            (folder / name).write_text(text, encoding="utf-8")
    for path in (tmp_path / "export.zip", folder):
        items = read(path)
        states = [item.state for item in items if isinstance(item, Found)]
        assert [state.conversation_id for state in states] == ["c0", "c1", "c2"]
        assert sorted(item.member for item in items if isinstance(item, Ignored)) == [
            "chat.html",
            "user.json",
            "user_settings.json",
        ]
        assert len(items) == 6
        found = {node.data.metadata["source_id"]: node.data for node in states[0].message_tree.walk()}
        assert [found[name].message.content for name in contents] == [[instructions], parts["parts"], [thoughts]]
