"""Files of an export: complete or absent, gone on with after any interruption, and checked without the archive."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import pytest

from s3conv import Archive, ConflictError, ConversationState, CorruptError, InvalidInputError, UnavailableError
from s3conv.bridge import run_sync
from s3conv.exchange import exporting, writing
from s3conv.exchange.checkpoint import check_export
from s3conv.exchange.exporting import Exported, Job, export_files, export_stream
from s3conv.exchange.importing import import_files
from s3conv.exchange.outputs import Bucket, Folder, Output, check_apart, open_bucket
from s3conv.format.document import state_to_stored
from s3conv.format.keys import document_key
from s3conv.store import open_store

DAY = datetime(2025, 3, 1, tzinfo=UTC)


def chats(number: int = 10) -> Archive:
    """An archive of conversations c00, c01 … of two branches each."""
    archive = Archive.create("memory://")
    states = []
    for n in range(number):
        state = ConversationState.start(f"c{n:02}", system="Hi", metadata={"n": n})
        state.add_message("assistant", f"one {n}")
        state.add_message("assistant", "two", parent=state.path_to("")[0])
        state.created_at = state.updated_at = DAY + timedelta(days=n)
        states.append(state)
    archive.save_many(states)
    archive.maintain()
    return archive


@pytest.fixture(params=["folder", "bucket"])
def output(request: pytest.FixtureRequest, tmp_path: Path) -> Output:
    """A place for shards."""
    if request.param == "folder":
        (tmp_path / "out").mkdir()
        return Folder(tmp_path / "out")
    return Bucket(open_store("memory://"), "out")


def read(output: Output, name: str) -> bytes:
    file = output.open(name)
    assert file is not None
    with file:
        return file.read()


def lines(output: Output) -> list[dict[str, Any]]:
    """What is in all shards, in their order."""
    return [
        json.loads(line)
        for name in sorted(output.names())
        if name.startswith("part-")
        for line in read(output, name).splitlines()
    ]


def ids(output: Output) -> list[str]:
    return [line["conversation_id"] for line in lines(output)]


@pytest.mark.parametrize("link", [False, True])
def test_an_export_stays_out_of_the_archive_that_it_reads(tmp_path: Path, link: bool) -> None:
    root = tmp_path / "out" / "_checkpoint"
    root.mkdir(parents=True)
    seen = tmp_path / "link" if link else root
    if link:
        seen.symlink_to(root)
    with Archive.create(f"file://{root}") as archive:
        archive.save(ConversationState.start("c", system="Hi"))
        before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
        for place in (seen, seen / "new", seen / "conversations"):
            with pytest.raises(InvalidInputError, match="is in the archive"):
                export_files(archive, Folder(place), Job())
        with pytest.raises(InvalidInputError, match="is in the archive"):
            export_files(archive, Folder(seen, ".x/"), Job(), "s3conv.json")
        with pytest.raises(InvalidInputError, match="which an export removes at its end"):
            export_files(archive, Folder(tmp_path / "out"), Job())
        assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before
        assert not (root / "new").exists()
        beside = tmp_path / "out" / "_checkpoint2"
        beside.mkdir()
        assert export_files(archive, Folder(beside), Job()).conversations == 1


@pytest.mark.parametrize(
    ("archive", "place", "fits"),
    [
        ("s3://bucket/chats", "s3://bucket/chats", False),
        ("s3://bucket/chats/", "s3://bucket/chats/export", False),
        ("s3://bucket/chats", "s3://bucket/chats-export", True),
        ("s3://bucket/chats", "s3://other/chats", True),
        ("s3://bucket", "s3://bucket/export", False),
        ("s3://bucket/export/_checkpoint/a", "s3://bucket/export", False),
        ("s3://bucket/export/a", "s3://bucket/export", True),
        ("file:///bucket/chats", "s3://bucket/chats", True),
    ],
)
def test_an_export_to_s3_stays_out_of_the_archive_too(archive: str, place: str, fits: bool) -> None:
    bucket, _ = open_bucket(place, {"region": "eu-west-1"})
    with nullcontext() if fits else pytest.raises(InvalidInputError, match="the archive"):
        check_apart(archive, bucket)


# --- one file, or many ----------------------------------------------------------------------------------------------


def test_a_stream_has_a_line_for_each() -> None:
    archive, out = chats(3), BytesIO()
    calls: list[tuple[int, int]] = []
    done = export_stream(archive, out, Job(where={"metadata.n": {"gte": 1}}), progress=lambda *call: calls.append(call))
    assert (done.conversations, done.rows, done.bytes) == (2, 2, len(out.getvalue()))
    assert [sum(column) for column in zip(*calls, strict=True)] == [2, done.bytes]
    assert out.getvalue() == b"".join(document.line + b"\n" for document in archive.export({"metadata.n": {"gte": 1}}))


def test_an_export_imports_into_an_equal_archive(tmp_path: Path) -> None:
    archive = chats()
    export_files(archive, Folder(tmp_path, ".x/"), Job(), "all.jsonl")
    other = Archive.create("memory://")
    assert import_files(other, [tmp_path / "all.jsonl"]).new == 10
    for document in archive.export():
        assert other.load(document.conversation_id) == document.state()
    assert [one.line for one in other.export()] == [one.line for one in archive.export()]


@pytest.mark.parametrize(("shards", "sizes"), [(1, [10]), (3, [4, 4, 2]), (10, [1] * 10), (20, [1] * 10)])
def test_so_many_shards_of_as_many_conversations(output: Output, shards: int, sizes: list[int]) -> None:
    archive = chats()
    done = export_files(archive, output, Job(shards=shards))
    assert [len(read(output, f"part-{n:05}.jsonl").splitlines()) for n in range(len(sizes))] == sizes
    assert ids(output) == [f"c{n:02}" for n in range(10)]
    assert sorted(output.names()) == ["_manifest.json", *(f"part-{n:05}.jsonl" for n in range(len(sizes)))]
    assert (done.conversations, done.rows, done.files, done.continued) == (10, 10, len(sizes), 0)


def test_what_is_saved_after_the_count_goes_to_the_last_shard(output: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = chats()
    monkeypatch.setattr(archive, "count", lambda where: 6)
    export_files(archive, output, Job(shards=3))
    assert [len(read(output, f"part-{n:05}.jsonl").splitlines()) for n in range(3)] == [2, 2, 6]


def test_shards_of_a_size(output: Output) -> None:
    archive = chats()
    size = len(next(archive.export()).line) * 2
    export_files(archive, output, Job(shard_size=size))
    assert [len(read(output, f"part-{n:05}.jsonl").splitlines()) for n in range(5)] == [2] * 5


def test_shards_of_nothing_are_one_that_is_empty(output: Output) -> None:
    export_files(chats(0), output, Job(shards=3))
    assert read(output, "part-00000.jsonl") == b""
    assert check_export(output).problems == []


def test_the_manifest_says_what_there_is(output: Output) -> None:
    where = {"metadata.n": {"lt": 5}}
    export_files(chats(), output, Job(where=where, branches="leaves", redact=("secret",), shards=2))
    manifest = json.loads(read(output, "_manifest.json"))
    assert manifest["settings"]["where"] == ["metadata.n lt 5"]
    assert manifest["settings"]["redact"] == 1  # neither the pattern nor its hash, which may give it away
    assert manifest["started"] <= manifest["finished"]
    assert (manifest["conversations"], manifest["rows"]) == (5, 10)
    for shard in manifest["shards"]:
        body = read(output, shard["name"])
        assert shard["sha256"] == hashlib.sha256(body).hexdigest()
        assert (shard["bytes"], shard["rows"]) == (len(body), body.count(b"\n"))


# --- interruptions --------------------------------------------------------------------------------------------------


class Flaky:
    """An output at which the machine fails at the `n`th step: before it is done, or after."""

    def __init__(self, inner: Output, fail_at: int, after: bool) -> None:
        self.inner = inner
        self.steps = fail_at
        self.after = after
        self.url, self.working, self.keeps_parts = inner.url, inner.working, inner.keeps_parts

    def _step(self, do: Callable[[], Any]) -> Any:
        self.steps -= 1
        if self.steps == 0 and not self.after:
            raise Crash
        result = do()
        if self.steps == 0:
            if result is not None:
                result.close()  # as the end of a process does
            raise Crash
        return result

    def hold(self) -> AbstractContextManager[None]:
        return self.inner.hold()

    def take_over(self, names: Iterable[str]) -> None:
        self.inner.take_over(names)

    def begin(self, length: int = 0) -> IO[bytes]:
        file: IO[bytes] = self._step(lambda: self.inner.begin(length))
        return file

    def flush(self, file: IO[bytes]) -> None:
        self._step(lambda: self.inner.flush(file))

    def finish(self, file: IO[bytes], name: str) -> None:
        self._step(lambda: self.inner.finish(file, name))

    def put(self, name: str, body: bytes, *, durable: bool = True) -> None:
        self._step(lambda: self.inner.put(name, body, durable=durable))

    def open(self, name: str) -> IO[bytes] | None:
        return self.inner.open(name)

    def names(self) -> Iterator[str]:
        return self.inner.names()

    def clear(self) -> None:
        self._step(self.inner.clear)


class Crash(BaseException):
    """The end of the process."""


@pytest.fixture(params=["raised", "killed"])
def ending(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How a process ends: with an error, or with no chance to do anything more."""
    kind: str = request.param
    if kind == "killed":
        monkeypatch.setattr(exporting._Run, "abandon", lambda run: run.file and run.file.close())
    return kind


@pytest.mark.usefixtures("ending")
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("job", [Job(shards=3), Job(branches="leaves", shard_size=700), Job(format="openai", shards=2)])
def test_shards_are_gone_on_with_wherever_it_was_interrupted(output: Output, job: Job, after: bool) -> None:
    archive = chats(5)
    for fail_at in range(1, 100):
        flaky = Flaky(output, fail_at, after)
        try:
            done = export_files(archive, flaky, job)
        except Crash:
            if _finished(output):
                with pytest.raises(InvalidInputError, match="holds a finished export"):
                    export_files(archive, Flaky(output, -1, after), job)
                done = Exported(5)
            else:
                done = export_files(archive, output, job)
        else:
            assert fail_at > 10
            break
        assert done.conversations == 5
        assert check_export(output).problems == []
        found = lines(output)
        assert found == _all(archive, job)
        assert {name.split("-")[0] for name in output.names()} == {"_manifest.json", "part"}
        _empty(output)
    else:
        pytest.fail("it never came to an end")


def _finished(output: Output) -> bool:
    return "_manifest.json" in set(output.names()) and not any(name.startswith("_check") for name in output.names())


def _all(archive: Archive, job: Job) -> list[Any]:
    out = BytesIO()
    export_stream(archive, out, Job(job.format, branches=job.branches))
    return [json.loads(line) for line in out.getvalue().splitlines()]


def _empty(output: Output) -> None:
    if isinstance(output, Folder):
        for name in list(output.names()):
            (output.root / name).unlink()
    else:
        assert isinstance(output, Bucket)
        run_sync(output._store.delete([f"out/{name}" for name in output.names()]))


@pytest.mark.usefixtures("ending")
@pytest.mark.parametrize("job", [Job(), Job(branches="leaves"), Job(format="sharegpt")])
@pytest.mark.parametrize("damaged", ["c00", "c04", "c09"])
def test_one_file_is_gone_on_with(tmp_path: Path, job: Job, damaged: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A document cannot be read; when it is restored, the export goes on behind what it had."""
    monkeypatch.setattr(exporting, "CHECKPOINT_EVERY", -1.0)  # after each conversation
    archive = chats()
    store = archive._context.store
    key = document_key(damaged)
    whole = run_sync(store.get(key))
    assert whole is not None
    target = tmp_path / "all.jsonl"
    target.write_bytes(b"what was there before\n")
    folder = Folder(tmp_path, ".all.jsonl.checkpoint/")
    run_sync(store.put(key, b"damaged"))
    with pytest.raises(CorruptError, match=damaged):
        export_files(archive, folder, job, "all.jsonl")
    assert target.read_bytes() == b"what was there before\n"
    run_sync(store.put(key, whole.body))
    done = export_files(archive, folder, job, "all.jsonl")
    out = BytesIO()
    export_stream(archive, out, job)
    assert target.read_bytes() == out.getvalue()
    assert (done.conversations, done.continued) == (10, int(damaged[1:]))
    assert [path.name for path in tmp_path.iterdir()] == ["all.jsonl"]


def test_a_file_that_was_interrupted_before_anything_was_written_leaves_nothing(tmp_path: Path) -> None:
    archive = chats(1)
    run_sync(archive._context.store.put(document_key("c00"), b"damaged"))
    with pytest.raises(CorruptError):
        export_files(archive, Folder(tmp_path, ".x.checkpoint/"), Job(), "x")
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_conversation_is_whole_or_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process is told to stop between the branches of a conversation."""
    archive, folder = chats(), Folder(tmp_path, ".x.checkpoint/")
    job = Job(branches="leaves")
    taken = 0
    take = writing.LineWriter.add

    def interrupted(self: Any, document: Any) -> int:
        nonlocal taken
        taken += 1
        if taken == 4:
            self._file.write(b'{"half of it": true}\n')
            self.size += 21
            raise KeyboardInterrupt
        return take(self, document)

    monkeypatch.setattr(writing.LineWriter, "add", interrupted)
    with pytest.raises(KeyboardInterrupt):
        export_files(archive, folder, job, "x")
    done = export_files(archive, folder, job, "x")
    assert done.continued == 3
    out = BytesIO()
    export_stream(archive, out, job)
    assert (tmp_path / "x").read_bytes() == out.getvalue()


def test_an_interrupted_export_with_other_settings_is_refused(output: Output) -> None:
    archive = chats()
    with pytest.raises(Crash):
        export_files(archive, Flaky(output, 6, True), Job(shards=3))
    for other in (Job(shards=4), Job(format="openai", shards=3), Job(where={"metadata.n": 1}, shards=3)):
        with pytest.raises(InvalidInputError, match="interrupted export that differs in"):
            export_files(archive, output, other)
    with pytest.raises(InvalidInputError, match="differs in redact"):
        export_files(archive, output, Job(shards=3, redact=("x",)))
    export_files(archive, output, Job(shards=3))
    assert ids(output) == [f"c{n:02}" for n in range(10)]


def test_a_checkpoint_whose_file_is_gone_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "CHECKPOINT_EVERY", -1.0)
    archive, folder = chats(), Folder(tmp_path, ".x/")
    with pytest.raises(Crash):
        export_files(archive, Flaky(folder, 12, True), Job(), "x")
    (tmp_path / ".x" / "part").write_bytes(b"")
    with pytest.raises(InvalidInputError, match=r"part has 0 bytes, and .* remove .*\.x to begin again"):
        export_files(archive, folder, Job(), "x")


def test_shards_go_to_an_empty_place(output: Output) -> None:
    output.put("somebody-elses", b"x")
    with pytest.raises(InvalidInputError, match="holds something else"):
        export_files(chats(), output, Job(shards=3))
    assert list(output.names()) == ["somebody-elses"]


@pytest.mark.parametrize("job", [Job(shards=0), Job(shard_size=0), Job(shards=1, shard_size=1), Job(format="x")])
def test_a_job_that_cannot_be_done_is_refused(output: Output, job: Job) -> None:
    with pytest.raises(InvalidInputError):
        export_files(chats(), output, job)


@pytest.mark.parametrize("fail_at", [4, 7, 10])
@pytest.mark.usefixtures("ending")
def test_what_was_counted_before_an_interruption_counts(
    output: Output, fail_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "CHECKPOINT_EVERY", -1.0)
    archive = chats()
    with archive.edit("c01") as state:
        state.add_message("user", [{"type": "image"}])
    for name in (None, "x") if isinstance(output, Folder) else (None,):
        job = Job("sharegpt", redact=("two|one",), shards=None if name else 5)
        with pytest.raises(Crash):
            export_files(archive, Flaky(output, fail_at, False), job, name)
        done = export_files(archive, output, job, name)
        once = export_stream(archive, BytesIO(), job)
        assert (done.redacted, done.left_out) == (once.redacted, once.left_out)
        assert (done.redacted, len(done.left_out)) == (20, 2)
        _empty(output)


class Full(Folder):
    """A folder on a disk that has room for so many bytes of the file that is written."""

    room = 0

    def begin(self, length: int = 0) -> IO[bytes]:
        super().begin(length).close()
        disk = self

        class File(io.FileIO):
            def write(self, data: Any) -> int:
                if self.tell() + len(data) > disk.room:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                return super().write(data)

        file = io.BufferedRandom(File(self.root / self.working / "part", "r+"), 1000)
        file.seek(length)
        return file


@pytest.mark.parametrize("job", [Job(), Job("parquet"), Job("html"), Job(shards=3), Job("parquet", shards=3)])
@pytest.mark.parametrize("room", [0, 1000])
@pytest.mark.parametrize("every", [-1.0, 10.0])
def test_a_full_disk_ends_an_export_that_goes_on_when_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, job: Job, room: int, every: float
) -> None:
    monkeypatch.setattr(exporting, "CHECKPOINT_EVERY", every)
    archive, disk = chats(30), Full(tmp_path, ".x/")
    name = None if job.shards or job.format == "html" else "x"
    disk.room = room
    with pytest.raises(OSError, match="No space left") as caught:
        export_files(archive, disk, job, name)
    assert caught.value.filename == str(tmp_path / (name or ""))
    if room == 0:
        assert not any(tmp_path.iterdir())
    disk.room = 1_000_000
    assert export_files(archive, disk, job, name).conversations == 30
    assert not (tmp_path / ".x").exists()
    if job.format == "jsonl":
        written = b"".join(path.read_bytes() for path in sorted(tmp_path.iterdir()) if path.name[0] != "_")
        assert written == b"".join(document.line + b"\n" for document in archive.export())


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_a_file_that_cannot_get_its_name_is_gone_on_with(tmp_path: Path, form: str) -> None:
    archive, folder = chats(), Folder(tmp_path, ".x/")

    def block(conversations: int, size: int) -> None:
        (tmp_path / "x").mkdir(exist_ok=True)

    with pytest.raises(IsADirectoryError):
        export_files(archive, folder, Job(form), "x", progress=block)
    (tmp_path / "x").rmdir()
    done = export_files(archive, folder, Job(form), "x")
    assert (done.conversations, done.continued) == (10, 10 if form == "jsonl" else 0)
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


# --- two at once ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [None, "x.jsonl"])
def test_a_second_export_to_a_folder_is_refused_while_the_first_one_runs(tmp_path: Path, name: str | None) -> None:
    archive, refused = chats(), list[str]()
    working = "_checkpoint/" if name is None else ".x.jsonl.checkpoint/"

    def again(conversations: int, size: int) -> None:
        with pytest.raises(ConflictError, match="another export is writing to") as caught:
            export_files(archive, Folder(tmp_path, working), Job(), name)
        refused.append(str(caught.value))

    export_files(archive, Folder(tmp_path, working), Job(), name, progress=again)
    assert len(refused) == 10
    out = BytesIO()
    export_stream(archive, out, Job())
    assert (tmp_path / (name or "part-00000.jsonl")).read_bytes() == out.getvalue()
    assert not (tmp_path / working).exists()


def test_the_lock_of_a_process_that_is_gone_holds_nobody_up(tmp_path: Path) -> None:
    (tmp_path / "_checkpoint").mkdir()
    (tmp_path / "_checkpoint" / "lock").write_bytes(b"")
    assert export_files(chats(), Folder(tmp_path), Job(shards=2)).conversations == 10
    assert not (tmp_path / "_checkpoint").exists()


@pytest.mark.parametrize("at", range(1, 11))
def test_of_two_exports_to_a_bucket_the_later_one_goes_on(at: int) -> None:
    archive, store, taken = chats(), open_store("memory://"), 0
    job = Job(shards=5)

    def again(conversations: int, size: int) -> None:
        nonlocal taken
        taken += 1
        if taken == at:
            done = export_files(archive, Bucket(store, "out"), job)
            assert done.conversations == 10

    with pytest.raises(ConflictError, match="out: wait until it has ended"):
        export_files(archive, Bucket(store, "out"), job, progress=again)
    output = Bucket(store, "out")
    assert check_export(output).problems == []
    assert lines(output) == _all(archive, job)


def test_a_shard_that_arrives_late_replaces_nothing() -> None:
    archive, store = chats(), open_store("memory://")
    slow, output = Bucket(store, "out"), Bucket(store, "out")
    with slow.hold():
        slow.put("_checkpoint/checkpoint.json", b"{}")
    run_sync(store.delete(["out/_checkpoint/checkpoint.json"]))
    export_files(archive, output, Job(shards=2))
    with pytest.raises(ConflictError):
        slow.put("part-00001.jsonl", b"late")
    slow.clear()
    assert check_export(output).problems == []


def test_a_request_without_an_answer_is_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each one arrives, and its answer is lost: what is refused then is its own echo."""
    monkeypatch.setattr("s3conv.exchange.outputs.time.sleep", lambda seconds: None)
    store: Any = open_store("memory://")
    put, sent = store.put, 0

    async def lossy(key: str, body: bytes, **conditions: Any) -> Any:
        nonlocal sent
        sent += 1
        written = await put(key, body, **conditions)
        if sent % 2:
            raise UnavailableError("no answer")
        return written

    store.put = lossy
    with pytest.raises(UnavailableError):  # the fake answers every second one
        run_sync(store.put("x", b""))
    output = Bucket(store, "out")
    sent = 0
    assert export_files(chats(), output, Job(shards=3)).conversations == 10
    assert sent > 10
    assert check_export(output).problems == []


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_a_single_file_is_begun_with_a_checkpoint(tmp_path: Path, form: str) -> None:
    """So that a process that is killed before the first one that is due is not gone on with by other settings."""
    archive, folder = chats(), Folder(tmp_path, ".x/")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exporting._Run, "abandon", lambda run: run.file and run.file.close())
        with pytest.raises(Crash):
            export_files(archive, Flaky(folder, 4, False), Job(form), "x")
    with pytest.raises(InvalidInputError, match="interrupted export that differs in branches"):
        export_files(archive, folder, Job(form, branches="leaves"), "x")
    assert export_files(archive, folder, Job(form), "x").conversations == 10
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        export_files(chats(), Folder(tmp_path / "none", ".x/"), Job(), "x")
    assert caught.value.filename == str(tmp_path / "none")


@pytest.mark.parametrize(
    ("name", "form"),
    [("x.parquet", "jsonl"), ("x.jsonl.gz", "jsonl"), ("x.HTML", "jsonl"), ("x.jsonl", "parquet"), ("x.zst", "openai")],
)
def test_a_name_that_says_something_else_is_refused(tmp_path: Path, name: str, form: str) -> None:
    with pytest.raises(InvalidInputError, match=f"ends in .*, and would be {form}: choose the format"):
        export_files(chats(1), Folder(tmp_path, ".x/"), Job(form), name)
    assert not any(tmp_path.iterdir())
    for plain in ("x", "x.json", "x.v2", "x.txt"):
        export_files(chats(1), Folder(tmp_path, ".x/"), Job(form), plain)


# --- checking -------------------------------------------------------------------------------------------------------


def test_a_check_finds_what_is_wrong(output: Output) -> None:
    export_files(chats(), output, Job(shards=3))
    assert check_export(output).problems == []
    whole = read(output, "part-00001.jsonl")
    for body, said in (
        (whole[:-1], f"part-00001.jsonl: has {len(whole) - 1:,} bytes, expected {len(whole):,}"),
        (whole.replace(b"one", b"two", 1), "part-00001.jsonl: its SHA-256 is"),
        (b"", "part-00001.jsonl: has 0 bytes"),
    ):
        output.put("part-00001.jsonl", body)
        (problem,) = check_export(output).problems
        assert problem.startswith(said)
    output.put("part-00001.jsonl", whole)
    output.put("part-00009.jsonl", whole)
    assert check_export(output).problems == ["part-00009.jsonl: is not in the manifest"]
    manifest = json.loads(read(output, "_manifest.json"))
    manifest["shards"][2]["name"] = "part-00003.jsonl"
    manifest["shards"][0]["rows"] += 1
    output.put("_manifest.json", json.dumps(manifest).encode())
    assert check_export(output).problems == [
        "part-00002.jsonl: is not in the manifest",
        "part-00009.jsonl: is not in the manifest",
        "part-00000.jsonl: has 4 rows, expected 5",
        "part-00003.jsonl: is missing",
        "_manifest.json: says 10 rows, its shards have 11",
    ]


def test_a_check_of_what_is_no_finished_export_says_so(output: Output) -> None:
    with pytest.raises(InvalidInputError, match=r"has no _manifest\.json.*a single file, and pages, have none"):
        check_export(output)
    output.put("_manifest.json", b"{")
    with pytest.raises(CorruptError, match=r"_manifest\.json cannot be used"):
        check_export(output)


def test_a_state_is_written_as_an_export_writes_it() -> None:
    archive = chats(1)
    (document,) = archive.export()
    assert json.loads(document.line) == state_to_stored(document.state())
