"""What only an archive in a directory has: locks, folders, links, permissions, other people's files."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from typing import Any, TypeVar

import pytest

from s3conv.bridge import run_sync
from s3conv.errors import AccessDeniedError, InvalidInputError, StorageError, StoreError, UnavailableError
from s3conv.store import PreconditionFailed, RangeNotSatisfiable
from s3conv.store.local import LocalStore

R = TypeVar("R")

_INCREMENT = """
import sys
from s3conv.bridge import run_sync
from s3conv.store import PreconditionFailed, open_store

store = open_store(sys.argv[1])
for _ in range(int(sys.argv[2])):
    while True:
        found = run_sync(store.get("k/counter"))
        try:
            run_sync(store.put("k/counter", b"%d" % (int(found.body) + 1), if_match=found.etag))
            break
        except PreconditionFailed:
            continue
"""


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(str(tmp_path / "archive"))


def test_processes_that_hammer_one_key_lose_no_update(store: LocalStore) -> None:
    run_sync(store.put("k/counter", b"0"))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", _INCREMENT, store.url, "200"]
    running = [subprocess.Popen(command, env=environment) for _ in range(2)]
    assert [process.wait() for process in running] == [0, 0]
    found = run_sync(store.get("k/counter"))
    assert found is not None
    assert found.body == b"400"


def test_deletes_and_plain_puts_do_not_slip_into_a_compare_and_swap(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    etag = run_sync(store.put("k/a", b"one")).etag
    others = [
        Thread(target=lambda: run_sync(store.put("k/a", b"plain"))),
        Thread(target=lambda: run_sync(store.delete(["k/a"]))),
    ]
    compare = LocalStore._compare

    def compare_while_others_try(*arguments: Any) -> None:
        compare(*arguments)
        for other in others:
            other.start()
        for other in others:
            other.join(0.05)
        assert all(other.is_alive() for other in others)

    monkeypatch.setattr(LocalStore, "_compare", compare_while_others_try)
    run_sync(store.put("k/a", b"two", if_match=etag))
    for other in others:
        other.join()


def test_a_missing_root_is_empty_and_a_put_makes_it(tmp_path: Path) -> None:
    root = tmp_path / "some" / "deep" / "archive"
    store = LocalStore(str(root))
    assert run_sync(store.get("k/a")) is None
    assert run_sync(store.head("k/a")) is None
    assert not run_sync(store.list("k/")).objects
    run_sync(store.delete(["k/a"]))
    assert not (tmp_path / "some").exists()
    run_sync(store.put("k/a", b"1"))
    assert (root / "k" / "a").read_bytes() == b"1"


def test_an_archive_that_was_removed_begins_anew(store: LocalStore) -> None:
    run_sync(store.put("k/x/a", b"1"))
    shutil.rmtree(store.root)
    assert run_sync(store.get("k/x/a")) is None
    run_sync(store.put("k/x/a", b"2", if_none_match="*"))
    assert [entry.key for entry in run_sync(store.list("k/")).objects] == ["k/x/a"]


def test_reading_leaves_no_trace(tmp_path: Path) -> None:
    (tmp_path / "k").mkdir()
    (tmp_path / "k" / "a").write_bytes(b"1")
    store = LocalStore(str(tmp_path))
    run_sync(store.get("k/a"))
    assert [entry.key for entry in run_sync(store.list("k/")).objects] == ["k/a"]
    assert os.listdir(tmp_path) == ["k"]


def test_what_begins_with_a_dot_belongs_to_the_directory(store: LocalStore) -> None:
    run_sync(store.put("k/a", b"1"))
    root = Path(store.root)
    (root / "k" / ".DS_Store").write_bytes(b"x")
    (root / "k" / ".git").mkdir()
    (root / "k" / ".git" / "config").write_bytes(b"x")
    (root / "k" / "not a key").write_bytes(b"x")
    assert [entry.key for entry in run_sync(store.list("k/")).objects] == ["k/a"]
    for key in [".s3conv/locks/00", "k/.DS_Store", ".a", "k/.git/config"]:
        with pytest.raises(InvalidInputError):
            run_sync(store.get(key))
        with pytest.raises(InvalidInputError):
            run_sync(store.put(key, b""))
        with pytest.raises(InvalidInputError):
            run_sync(store.delete([key]))
    with pytest.raises(InvalidInputError):
        run_sync(store.list(".s3conv/"))


def test_nothing_temporary_stays_and_no_lock_goes(store: LocalStore) -> None:
    etag = run_sync(store.put("k/a", b"1")).etag
    with pytest.raises(PreconditionFailed):
        run_sync(store.put("k/a", b"2", if_none_match="*"))
    run_sync(store.put("k/a", b"2", if_match=etag))
    run_sync(store.delete(["k/a"]))
    own = Path(store.root) / ".s3conv"
    assert os.listdir(own / "tmp") == []
    assert len(os.listdir(own / "locks")) == 1


def test_a_crashed_writers_file_is_swept_after_a_day(store: LocalStore) -> None:
    run_sync(store.put("k/a", b"1"))
    left = Path(store.root) / ".s3conv" / "tmp"
    for name, age in [("old", 2 * 86400), ("new", 0)]:
        (left / name).write_bytes(b"x")
        status = (left / name).stat()
        os.utime(left / name, (status.st_atime - age, status.st_mtime - age))
    run_sync(LocalStore(store.root).put("k/b", b"1"))
    assert os.listdir(left) == ["new"]


def test_no_symbolic_link_leads_out(store: LocalStore, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    run_sync(store.put("k/a", b"1"))
    root = Path(store.root)
    (root / "folder").symlink_to(outside)
    (root / "k" / "link").symlink_to(outside / "secret")
    attempts: list[Callable[[], Coroutine[Any, Any, object]]] = [
        lambda: store.get("folder/secret"),
        lambda: store.head("folder/secret"),
        lambda: store.put("folder/secret", b"x"),
        lambda: store.put("folder/new", b"x"),
        lambda: store.put("folder/deep/new", b"x"),
        lambda: store.list("folder/"),
        lambda: store.get("k/link"),
        lambda: store.get("k/link", span=(0, 1)),
        lambda: store.get("folder/secret", span=(0, 1)),
        lambda: store.put("k/link", b"x", if_none_match="*"),
        lambda: store.list("k/"),
    ]
    for attempt in attempts:
        with pytest.raises(StoreError, match="symbolic link"):
            run_sync(attempt())
    with pytest.raises(StoreError, match="symbolic link"):
        run_sync(store.delete(["folder/secret"]))
    # A put replaces the link and does not write through it; a delete takes the link.
    run_sync(store.put("k/link", b"x"))
    assert not (root / "k" / "link").is_symlink()
    (root / "k" / "other").symlink_to(outside / "secret")
    run_sync(store.delete(["k/other"]))
    assert os.listdir(outside) == ["secret"]
    assert (outside / "secret").read_bytes() == b"secret"


@pytest.mark.parametrize("swapped", ["k", "k/deep", "k/deep/a"])
def test_a_link_that_takes_the_place_of_what_was_just_read_is_refused(
    store: LocalStore, tmp_path: Path, swapped: str
) -> None:
    outside = tmp_path / "outside" / "deep"
    outside.mkdir(parents=True)
    (outside / "a").write_bytes(b"secret")
    run_sync(store.put("k/deep/a", b"ours"))
    place, away = Path(store.root) / swapped, tmp_path / "away"
    for _ in range(3):
        found = run_sync(store.get("k/deep/a"))
        assert found is not None
        assert found.body == b"ours"
        place.rename(away)
        place.symlink_to({"k": outside.parent, "k/deep": outside, "k/deep/a": outside / "a"}[swapped])
        with pytest.raises(StoreError, match="symbolic link"):
            run_sync(store.get("k/deep/a"))
        with pytest.raises(StoreError, match="symbolic link"):
            run_sync(store.head("k/deep/a"))
        place.unlink()
        away.rename(place)


def test_a_link_that_comes_between_the_check_and_the_read_shows_nothing(
    store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder is swapped at each system call of a read in turn: what comes is ours, or a refusal."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "a").write_bytes(b"secret")
    run_sync(store.put("k/a", b"ours"))
    folder, away = Path(store.root) / "k", tmp_path / "away"
    outcomes: set[bytes | str | None] = set()
    for swap_at in range(12):
        calls = iter(range(1000))

        def swapping(
            call: Callable[..., Any], *arguments: Any, at: int = swap_at, now: Any = calls, **options: Any
        ) -> Any:
            if next(now) == at:
                folder.rename(away)
                folder.symlink_to(outside)
            return call(*arguments, **options)

        with monkeypatch.context() as patch:
            for name in ("open", "readlink", "fstat", "read", "close"):
                patch.setattr(f"s3conv.store.local.os.{name}", partial(swapping, getattr(os, name)))
            try:
                found = run_sync(store.get("k/a"))
                outcomes.add(found.body if found is not None else None)
            except StoreError as error:
                outcomes.add(str(error).rpartition("symbolic")[1])
        if away.exists():
            folder.unlink()
            away.rename(folder)
    assert outcomes == {b"ours", "symbolic"}


def test_a_root_that_leads_elsewhere_is_read_where_it_leads(tmp_path: Path) -> None:
    for name in ("blue", "green"):
        (tmp_path / name / "k").mkdir(parents=True)
        (tmp_path / name / "k" / "a").write_text(name)
    link = tmp_path / "link"
    store = LocalStore(str(link))
    for name in ("blue", "green", "blue"):
        link.unlink(missing_ok=True)
        link.symlink_to(tmp_path / name)
        found = run_sync(store.get("k/a"))
        assert found is not None
        assert found.body.decode() == name


def test_the_root_itself_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    run_sync(LocalStore(str(tmp_path / "link")).put("k/a", b"1"))
    assert (tmp_path / "real" / "k" / "a").read_bytes() == b"1"


def test_a_folder_or_a_pipe_is_no_object(store: LocalStore) -> None:
    run_sync(store.put("k/a/b", b"1"))
    os.mkfifo(Path(store.root) / "k" / "pipe")
    assert run_sync(store.get("k/a")) is None
    assert run_sync(store.get("k/pipe")) is None
    assert run_sync(store.get("k/pipe", span=(0, 1))) is None
    with pytest.raises(StoreError, match="k/a"):
        run_sync(store.put("k/a", b"1"))
    with pytest.raises(StoreError, match="k/a/b/c"):
        run_sync(store.put("k/a/b/c", b"1"))
    run_sync(store.delete(["k/a"]))
    assert run_sync(store.get("k/a/b")) is not None


def test_a_root_that_is_a_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    store = LocalStore(str(tmp_path / "file"))
    for attempt in (store.get("k/a"), store.list("k/"), store.put("k/a", b"")):
        coroutine: Coroutine[Any, Any, object] = attempt
        with pytest.raises(StoreError, match=r"file.*[Nn]ot a directory"):
            run_sync(coroutine)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EROFS])
def test_a_directory_that_may_not_be_written_says_so(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    run_sync(store.put("k/a", b"1"))
    _fail(monkeypatch, "rename", number)
    with pytest.raises(AccessDeniedError, match="k/a"):
        run_sync(store.put("k/a", b"2"))
    _fail(monkeypatch, "unlink", number)
    with pytest.raises(AccessDeniedError, match="k/a"):
        run_sync(store.delete(["k/a"]))


def test_a_read_only_directory_is_still_read(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    run_sync(store.put("k/a", b"1"))
    _fail(monkeypatch, "utime", errno.EROFS)
    listing = run_sync(store.list("k/"))
    assert [entry.key for entry in listing.objects] == ["k/a"]
    assert listing.date >= listing.objects[0].last_modified - 1


_UNPRIVILEGED = """
import os, sys
from s3conv.bridge import run_sync
from s3conv.errors import AccessDeniedError
from s3conv.store.local import LocalStore

if os.getuid() == 0:
    os.setuid(65534)
store = LocalStore(sys.argv[1])
assert run_sync(store.get("open/a")).body == b"1"
assert len(run_sync(store.list("open/")).objects) == 1
for attempt in (
    store.put("open/a", b"2"),
    store.put("new/a", b"2"),
    store.delete(["open/a"]),
    store.get("shut/a"),
    store.get("shut/a", span=(0, 1)),
    store.head("shut/a"),
    store.list("shut/"),
):
    try:
        run_sync(attempt)
    except AccessDeniedError:
        continue
    raise SystemExit(f"{attempt} was allowed")
"""


def test_permissions_of_the_operating_system_count() -> None:
    # Not in tmp_path, into which only this user may look.
    with TemporaryDirectory() as folder:
        root = Path(folder)
        store = LocalStore(folder)
        run_sync(store.put("open/a", b"1"))
        run_sync(store.put("shut/a", b"1"))
        modes = {".s3conv/tmp": 0o555, ".s3conv/locks": 0o555, ".s3conv": 0o555, "open": 0o555, "shut": 0, "": 0o555}
        for name, mode in modes.items():
            (root / name).chmod(mode)
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        try:
            command = [sys.executable, "-c", _UNPRIVILEGED, folder]
            ran = subprocess.run(command, env=environment, capture_output=True, text=True)
        finally:
            for name in reversed(modes):
                (root / name).chmod(0o755)
    assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_write_that_fails_before_the_rename_was_not_applied(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    run_sync(store.put("k/a", b"1"))
    _fail(monkeypatch, "fsync", number)
    with pytest.raises(StoreError) as raised:
        run_sync(store.put("k/a", b"2"))
    assert not isinstance(raised.value, UnavailableError)
    monkeypatch.undo()
    found = run_sync(store.get("k/a"))
    assert found is not None
    assert found.body == b"1"
    assert os.listdir(Path(store.root) / ".s3conv" / "tmp") == []


def test_a_failure_after_the_rename_leaves_the_outcome_open(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    run_sync(store.put("k/a", b"1"))
    fsync = os.fsync

    def fail_for_folders(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EIO, "broken")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fail_for_folders)
    with pytest.raises(UnavailableError, match="k/a"):
        run_sync(store.put("k/a", b"2"))


def test_a_put_is_on_the_disk_before_it_is_acknowledged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []
    fsync, rename = os.fsync, os.rename

    def watched_fsync(descriptor: int) -> None:
        kind = "folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file"
        steps.append(f"{kind} {os.path.relpath(os.readlink(f'/proc/self/fd/{descriptor}'), tmp_path)}")
        fsync(descriptor)

    def watched_rename(*arguments: Any, **keywords: Any) -> None:
        steps.append("rename")
        rename(*arguments, **keywords)

    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("needs /proc to name an open folder")
    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(os, "rename", watched_rename)
    run_sync(LocalStore(str(tmp_path / "new" / "archive")).put("k/x/a", b"1"))
    at = steps.index("rename")
    before = [step for step in steps[:at] if ".s3conv" not in step]
    # The parent of every folder newly made.
    assert {"folder .", "folder new", "folder new/archive", "folder new/archive/k"} <= set(before)
    assert any(step.startswith("file new/archive/.s3conv/tmp/") for step in steps[:at])
    assert steps[at + 1 :] == ["folder new/archive/k/x"]


def test_no_descriptor_leaks(store: LocalStore, tmp_path: Path) -> None:
    def use() -> None:
        etag = run_sync(store.put("k/a/b", b"1")).etag
        for attempt in (
            store.get("k/a/b"),
            store.get("k/a/b", span=(0, 1)),
            store.get("k/a/b", span=(0, 100)),
            store.get("k/a", span=(0, 1)),
            store.get("k/a"),
            store.get("k/a/b/c"),
            store.get("x/y"),
            store.list("k/"),
            store.put("k/a/b", b"1", if_none_match="*"),
            store.put("k/a", b"1"),
            store.put("k/a/b", b"2", if_match=etag),
            store.delete(["k/a/b"]),
        ):
            coroutine: Coroutine[Any, Any, object] = attempt
            try:
                run_sync(coroutine)
            except StorageError:
                continue

    use()
    before = len(os.listdir("/dev/fd"))
    for _ in range(5):
        use()
    assert len(os.listdir("/dev/fd")) == before


def test_a_page_scans_no_folder_before_after(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in "abcdef":
        run_sync(store.put(f"k/{folder}/x", b""))
    scans = []
    scandir = os.scandir

    def watched(folder: Any) -> Any:
        scans.append(folder)
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", watched)
    assert [entry.key for entry in run_sync(store.list("k/", after="k/d/x")).objects] == ["k/e/x", "k/f/x"]
    assert len(scans) == 4  # k, k/d, k/e, k/f


def test_a_span_reads_nothing_else(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    run_sync(store.put("k/a", b"0123456789" * 100_000))
    calls: list[tuple[int, int]] = []
    pread = os.pread

    def watched(descriptor: int, length: int, start: int) -> bytes:
        if length:
            calls.append((start, length))
        return pread(descriptor, length, start)

    def refused(*_: Any, **__: Any) -> None:
        raise AssertionError("the whole file is read")

    monkeypatch.setattr(os, "pread", watched)
    monkeypatch.setattr("s3conv.store.local.open", refused, raising=False)
    found = run_sync(store.get("k/a", span=(500_003, 7)))
    assert found is not None
    assert found.body == b"3456789"
    with pytest.raises(RangeNotSatisfiable, match="k/a has 1000000 bytes"):
        run_sync(store.get("k/a", span=(999_999, 2)))
    assert calls == [(500_003, 7)]


def test_a_span_that_is_read_in_parts_is_whole(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    run_sync(store.put("k/a", b"0123456789"))
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda descriptor, length, start: pread(descriptor, min(length, 3), start))
    found = run_sync(store.get("k/a", span=(1, 8)))
    assert found is not None
    assert found.body == b"12345678"


def test_a_file_that_is_cut_while_a_span_is_read_gives_no_part(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_sync(store.put("k/a", b"0123456789"))
    pread = os.pread

    def cutting(descriptor: int, length: int, start: int) -> bytes:
        os.truncate(Path(store.root) / "k" / "a", 4)
        return pread(descriptor, length, start)

    monkeypatch.setattr(os, "pread", cutting)
    with pytest.raises(RangeNotSatisfiable, match="k/a has 4 bytes"):
        run_sync(store.get("k/a", span=(1, 8)))


def test_enclosing_looks_in_every_parent(tmp_path: Path) -> None:
    inner = tmp_path / "a" / "b b" / "c"
    inner.mkdir(parents=True)
    for folder in (tmp_path / "a" / "b b", inner):
        (folder / "s3conv.json").write_bytes(b"{}")
    store = LocalStore(str(inner))
    assert run_sync(store.enclosing("s3conv.json")) == [f"file://{tmp_path}/a/b%20b"]
    assert run_sync(store.enclosing("other.json")) == []


def _fail(monkeypatch: pytest.MonkeyPatch, function: str, number: int) -> None:
    def failing(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, function, failing)
