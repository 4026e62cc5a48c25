"""Where bytes come from: folders, patterns, streams and packed files, one in another, whole and damaged."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
import zstandard

from s3conv.exchange.found import Found, Ignored, Problem
from s3conv.exchange.reading import read_conversations
from tests.exchange.chats import branching


class Pipe(io.RawIOBase):
    """A stream that cannot be sought in and gives a few bytes at a time, as a pipe does."""

    def __init__(self, data: bytes, step: int = 1000) -> None:
        self._data, self._step = io.BytesIO(data), step

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._data.read(min(self._step, len(buffer)))
        buffer[: len(data)] = data
        return len(data)


def chats(*names: str) -> bytes:
    return b"".join(json.dumps(branching(id=name)).encode() + b"\n" for name in names)


def zipped(**members: bytes) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, data in members.items():
            archive.writestr(name.replace("__", "/").replace("_dot_", "."), data)
    return made.getvalue()


def tarred(mode: Any = "w", **members: bytes) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode=mode) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name.replace("__", "/").replace("_dot_", "."))
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        folder = tarfile.TarInfo("folder")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
    return made.getvalue()


def zstd(data: bytes, pieces: int = 1) -> bytes:
    step = -(-len(data) // pieces)
    compressor = zstandard.ZstdCompressor()
    return b"".join(compressor.compress(data[at : at + step]) for at in range(0, len(data), step))


def ids(items: list[Any]) -> list[str]:
    return [item.state.conversation_id for item in items if isinstance(item, Found)]


PACKED = {
    "plain": chats("a", "b"),
    "gzip": gzip.compress(chats("a", "b")),
    "two gzip members": gzip.compress(chats("a")) + gzip.compress(chats("b")),
    "zstd": zstd(chats("a", "b")),
    "three zstd frames": zstd(chats("a", "b"), 3),
    "zip": zipped(x_dot_json=chats("a"), folder__y_dot_jsonl=chats("b")),
    "tar": tarred(x_dot_json=chats("a"), folder__y_dot_jsonl=chats("b")),
    "tar.gz": tarred("w:gz", x_dot_json=chats("a"), y_dot_json=chats("b")),
    "tar.zst": zstd(tarred(x_dot_json=chats("a"), y_dot_json=chats("b"))),
    "gzip in tar": tarred(x_dot_json_dot_gz=gzip.compress(chats("a")), y_dot_json_dot_zst=zstd(chats("b"))),
    "gzip in zip": zipped(x_dot_json_dot_gz=gzip.compress(chats("a", "b"))),
    "zip in gzip": gzip.compress(zipped(x_dot_json=chats("a", "b"))),
    "zip in zip": zipped(x_dot_zip=zipped(x_dot_json=chats("a")), y_dot_ZIP=zipped(x_dot_json=chats("b"))),
    "zip in tar": tarred(x_dot_zip=zipped(x_dot_json=chats("a", "b"))),
    "tar in zip": zipped(x_dot_tar=tarred(x_dot_json=chats("a")), y_dot_tgz=tarred("w:gz", x_dot_json=chats("b"))),
    "tar in tar": tarred(x_dot_tar_dot_zst=zstd(tarred(x_dot_json=chats("a", "b")))),
}


@pytest.mark.parametrize("kind", PACKED)
def test_whatever_it_is_packed_in(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(PACKED[kind])
    counted: list[int] = []
    items = list(read_conversations(path, counted.append))
    assert ids(items) == ["a", "b"]
    assert not any(isinstance(item, Problem) for item in items)
    if "in zip" not in kind and kind != "zip":  # which is read from its list at the end, in any order
        assert sum(counted) == path.stat().st_size
    for stream in (io.BytesIO(PACKED[kind]), io.BufferedReader(Pipe(PACKED[kind]), 64)):
        assert ids(list(read_conversations(stream))) == ["a", "b"]


def test_the_place_in_what_is_packed_is_named(tmp_path: Path) -> None:
    path = tmp_path / "file.tar"
    path.write_bytes(tarred(conversations_dot_json=chats("a") + b"{\n", picture_dot_png=b"x"))
    found, problem, picture = read_conversations(path)
    assert isinstance(found, Found)
    assert found.position == "conversations.json: line 1"
    assert str(problem).startswith(f"{path}: conversations.json: line 2: not JSON")
    assert picture == Ignored(str(path), "picture.png")


# A ZIP ends in its list. Of one that is cut off and ends in a ZIP as it is, that one's list is taken for it.
@pytest.mark.parametrize("kind", [kind for kind in PACKED if kind not in ("plain", "tar", "zip in zip")])
def test_what_breaks_off_is_a_problem(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    # A tar ends in thousands of empty bytes, of which some may be missing.
    path.write_bytes(PACKED[kind][: -30 if "in tar" not in kind else 900])
    items = list(read_conversations(path))
    assert any(isinstance(item, Problem) and "cannot be read" in item.reason for item in items), items


def test_a_frame_that_breaks_off_gives_what_is_before_it(tmp_path: Path) -> None:
    path = tmp_path / "file.zst"
    path.write_bytes(zstd(chats("a", "b")) + zstd(chats("c"))[:-5])
    *found, problem = read_conversations(path)
    assert ids(found)[:2] == ["a", "b"]
    assert "ends in the middle of a zstd frame" in str(problem)


@pytest.mark.parametrize("pack", [gzip.compress, zstd])
@pytest.mark.parametrize("how", ["cut", "followed by something else"])
def test_what_was_whole_before_it_breaks_off_is_read(tmp_path: Path, pack: Any, how: str) -> None:
    names = [f"c{n}" for n in range(200)]
    lines = [json.dumps({"id": name, "messages": [{"role": "user", "content": _noise(name)}]}) for name in names]
    packed = pack("".join(f"{line}\n" for line in lines).encode())
    path = tmp_path / "rows"
    path.write_bytes(packed[: len(packed) // 2] if how == "cut" else packed + b"garbage")
    *found, problem = read_conversations(path)
    assert isinstance(problem, Problem)
    assert len(ids(found)) >= (65 if how == "cut" else 200)  # zstd packs 128 KiB at a time, which are 30 of them


def _noise(seed: str) -> str:
    """A text that packs badly."""
    return "".join(hashlib.sha256(f"{seed} {n}".encode()).hexdigest() for n in range(64))


def test_an_archive_in_an_archive_has_an_end(tmp_path: Path) -> None:
    data = chats("a")
    for _ in range(10):
        data = gzip.compress(data)
    path = tmp_path / "file"
    path.write_bytes(data)
    problems = list(read_conversations(path))
    assert "is packed more than 4 times" in str(problems[0])


def test_a_damaged_archive_in_an_archive_is_one_problem(tmp_path: Path) -> None:
    inner = zipped(x_dot_json=chats("a"))
    for number, whole in enumerate((zipped, tarred)):
        path = tmp_path / str(number)
        path.write_bytes(whole(a_dot_zip=inner[:-9], b_dot_zip=inner, c_dot_tgz=b"\x1f\x8bx", d_dot_json=chats("d")))
        first, found, second, last = read_conversations(path)
        assert str(first) == f"{path}: a.zip: cannot be read: File is not a zip file"
        assert str(second).startswith(f"{path}: c.tgz: cannot be read: ")
        assert ids([found, last]) == ["a", "d"]


def test_a_folder_is_read_with_the_folders_in_it(tmp_path: Path) -> None:
    (tmp_path / "b" / "deep").mkdir(parents=True)
    (tmp_path / "__MACOSX").mkdir()
    (tmp_path / "conversations-001.json").write_bytes(chats("c1"))
    (tmp_path / "conversations-000.json").write_bytes(chats("c0"))
    (tmp_path / "b" / "deep" / "a.JSONL.GZ").write_bytes(gzip.compress(chats("deep")))
    (tmp_path / "b" / "export.zip").write_bytes(zipped(x_dot_json=chats("zip"), user_dot_json=b'{"id": 1}'))
    (tmp_path / "user.json").write_bytes(b'{"id": "user-1", "email": "nobody@example.org"}')
    (tmp_path / "broken.json").write_bytes(b'{"mapping": ')
    (tmp_path / "picture.png").write_bytes(b"x")
    (tmp_path / ".hidden.json").write_bytes(chats("hidden"))
    (tmp_path / "__MACOSX" / "conversations.json").write_bytes(chats("mac"))
    (tmp_path / "b" / "around").symlink_to(tmp_path)
    items = list(read_conversations(tmp_path))
    assert ids(items) == ["deep", "zip", "c0", "c1"]
    assert [str(item).split(": ")[0] for item in items if isinstance(item, Problem)] == [str(tmp_path / "broken.json")]
    assert [(item.file, item.member) for item in items if isinstance(item, Ignored)] == [
        (str(tmp_path), ".hidden.json"),
        (str(tmp_path), "__MACOSX"),
        (str(tmp_path), "b/around"),
        (str(tmp_path), "b/export.zip: user.json"),
        (str(tmp_path), "picture.png"),
        (str(tmp_path), "user.json"),
    ]


def test_a_file_of_a_folder_may_begin_with_what_is_not_known(tmp_path: Path) -> None:
    (tmp_path / "some.jsonl").write_bytes(b'{"x": 1}\n' * 9 + chats("a"))
    (tmp_path / "other.jsonl").write_bytes(b'{"x": 1}\n' * 10 + chats("b"))
    items = list(read_conversations(tmp_path))
    assert ids(items) == ["a"]
    assert sum(isinstance(item, Problem) for item in items) == 9
    assert [item.member for item in items if isinstance(item, Ignored)] == ["other.jsonl"]
    (named,) = {type(item) for item in read_conversations(tmp_path / "other.jsonl") if not isinstance(item, Found)}
    assert named is Problem


def test_an_export_of_chatgpt_has_json_beside_its_conversations(tmp_path: Path) -> None:
    beside = {
        "conversation_asset_file_names_dot_json": b'{"file-1.dat": "picture.png"}',
        "shared_conversations_dot_json": b'[{"id": "s", "conversation_id": "c", "title": "T", "is_anonymous": true}]',
        "user_dot_json": b'{"id": "user-1"}',
    }
    (tmp_path / "export.zip").write_bytes(zipped(conversations_dot_json=chats("a"), **beside))
    found, *others = read_conversations(tmp_path / "export.zip")
    assert ids([found]) == ["a"]
    ignored = [name.replace("_dot_", ".") for name in beside]
    assert others == [Ignored(str(tmp_path / "export.zip"), name) for name in ignored]


@pytest.mark.parametrize("name", ["conversations.json", "conversations-003.json", "Conversation.jsonl.gz"])
def test_a_file_of_conversations_that_holds_none_is_a_problem(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b'{"x": 1}')
    (tmp_path / "good.json").write_bytes(chats("a"))
    problem, found = read_conversations(tmp_path)
    assert isinstance(problem, Problem)
    assert ids([found]) == ["a"]


def test_a_forced_format_leaves_settings_alone_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "export.zip").write_bytes(zipped(conversations_dot_json=chats("a"), user_dot_json=b'{"id": 1}'))
    found, ignored = read_conversations(tmp_path / "export.zip", format="chatgpt")
    assert isinstance(found, Found)
    assert ignored == Ignored(str(tmp_path / "export.zip"), "user.json")


def test_a_pipe_in_a_folder_is_left_alone(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "a.json").write_bytes(chats("a"))
    (tmp_path / "gone.json").symlink_to(tmp_path / "nothing")
    found, gone, pipe = read_conversations(tmp_path)
    assert ids([found]) == ["a"]
    assert str(gone) == f"{tmp_path}/gone.json: cannot be read: No such file or directory"
    assert pipe == Ignored(str(tmp_path), "pipe.json")


def test_a_url_is_no_file() -> None:
    (problem,) = read_conversations("s3://bucket/chats.jsonl")
    assert "No such file or directory; expected a path: copy it to the disk first" in str(problem)


def test_a_folder_that_may_not_be_read_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b.json").write_bytes(chats("b"))
    iterdir = Path.iterdir

    def refuse(path: Path) -> Any:
        if path.name == "a":
            raise PermissionError(13, os.strerror(13))
        return iterdir(path)

    monkeypatch.setattr(Path, "iterdir", refuse)
    problem, found = read_conversations(tmp_path)
    assert problem == Problem(str(tmp_path), "a", "cannot be read: Permission denied")
    assert isinstance(found, Found)


def test_a_pattern_that_the_shell_left_alone(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    for name in ("b.json", "a.json", "x/c.json", "[odd].json"):
        (tmp_path / name).write_bytes(chats(name))
    assert ids(list(read_conversations(str(tmp_path / "?.json")))) == ["a.json", "b.json"]
    assert ids(list(read_conversations(str(tmp_path / "**/*.json")))) == ["[odd].json", "a.json", "b.json", "x/c.json"]
    assert ids(list(read_conversations(str(tmp_path / "[odd].json")))) == ["[odd].json"]


def test_a_stream_is_named_as_on_the_command_line() -> None:
    (problem,) = read_conversations(io.BytesIO(b"{}"))
    assert str(problem) == "-: line 1: expected a conversation; found an object with no keys"
