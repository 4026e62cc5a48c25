"""Small objects that unpack to gigabytes are refused by name and in bounded memory; and what is refused when it is read
is refused when it is written."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random
from unittest import mock

import pytest

from s3conv import Archive, ConversationState
from s3conv.bridge import run_sync
from s3conv.core.segments import read_manifest
from s3conv.errors import InvalidInputError, StorageError
from s3conv.format.codec import MAX_BYTES, decompress
from s3conv.format.entry import MAX_LOG_OBJECT
from s3conv.format.keys import DESCRIPTOR, LOG, MANIFEST, RECENT, SEGMENTS, document_key
from s3conv.format.manifest import Segment
from s3conv.store.memory import MemoryStore
from tests.integration.workload import PARTITION_BY

GIB = 1 << 30
BLOCK = 128 * 1024
MAX_BLOCK = 32 * 1024 * 1024
"""Text of a block (docs/format.md, Limits)."""

BESIDES = 160 * 1024 * 1024
"""What a Python process with s3conv needs besides what it unpacks, generously."""

# Loads or lists in a process of its own, and says what it met and the most memory that it ever had.
_VICTIM = """
import sys
from s3conv import Archive
from s3conv.errors import StorageError
url, what = sys.argv[1:]
try:
    archive = Archive.open(url, auto_maintain=False)
    {"load": lambda: archive.load("conv-0"), "list": archive.list, "count": archive.count}[what]()
    print("no error")
except StorageError as error:
    print(type(error).__name__, error)
(peak,) = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")]
print(int(peak) * 1024)
"""


def bomb(claims: int | None, length: int = 0, content: int = 2 * GIB) -> bytes:
    """A zstd frame of runs of blanks.

    Args:
        claims: the size that it names; None: none.
        length: of the frame in bytes, which then holds what can be held in it; 0: as many as it takes.
        content: how many bytes it unpacks to, if `length` does not say.
    """
    head = bytes.fromhex("28b52ffd")
    head += bytes.fromhex("0068") if claims is None else b"\xe0" + claims.to_bytes(8, "little")
    runs = (length - len(head) - 3) // 4 if length else content // BLOCK
    run = (BLOCK << 3 | 1 << 1).to_bytes(3, "little") + b" "
    rest = max(length - len(head) - 4 * runs - 3, 0)
    return head + runs * run + (rest << 3 | 1).to_bytes(3, "little") + b" " * rest


def victim(url: str, what: str) -> tuple[str, int]:
    """What a fresh process meets, and its peak of memory in bytes."""
    done = subprocess.run(
        [sys.executable, "-c", _VICTIM, url, what], capture_output=True, text=True, check=True, timeout=120
    )
    met, peak = done.stdout.splitlines()
    return met, int(peak)


@pytest.fixture(scope="module")
def objects() -> list[tuple[str, bytes]]:
    """An archive: 400 conversations in a segment of base, and in recent."""
    store = MemoryStore()
    archive = Archive.create(store, partition_by=PARTITION_BY)
    noise = Random(1)
    for number in range(400):
        state = ConversationState.start(f"conv-{number}", system="Hi", metadata={"noise": noise.randbytes(20).hex()})
        archive.save(state)
    with mock.patch("s3conv.core.maintaining.FULL_TAIL", 0), mock.patch("s3conv.core.maintaining.FULL_MID", 0):
        archive.maintain()
    keys = [DESCRIPTOR, MANIFEST, document_key("conv-0")]
    keys += [one.key for prefix in (SEGMENTS, RECENT) for one in run_sync(store.list(prefix)).objects]
    return [(key, _get(archive, key)) for key in keys]


@pytest.fixture
def archive(tmp_path: Path, objects: list[tuple[str, bytes]]) -> Archive:
    """The same in a directory, where another process can open it."""
    archive = Archive.open(f"file://{tmp_path}/archive")
    for key, body in objects:
        _put(archive, key, body)
    return archive


def _document(archive: Archive, claims: int | None) -> str:
    return _put(archive, document_key("conv-0"), bomb(claims))


def _intent(archive: Archive, claims: int | None) -> str:
    return _put(archive, f"{LOG}0000/{'0' * 32}.1.0.json.zst", bomb(claims))


def _batch(archive: Archive, claims: int | None) -> str:
    return _put(archive, f"{LOG}0000/batch.0.json.zst", bomb(claims))


def _block(archive: Archive, claims: int | None) -> str:
    segment = _segment(archive)
    body = _get(archive, segment.key)
    # The blocks of a segment are as long as its fence says: this one takes the place of the first.
    first = next(length for length in range(1, len(body)) if body.startswith(bytes.fromhex("28b52ffd"), length))
    return _put(archive, segment.key, bomb(claims, first) + body[first:])


def _fence(archive: Archive, claims: int | None) -> str:
    segment = _segment(archive)
    body = _get(archive, segment.key)
    end = segment.end + segment.fence_length
    return _put(archive, segment.key, body[: segment.end] + bomb(claims, segment.fence_length) + body[end:])


def _recent(archive: Archive, claims: int | None) -> str:
    recent = run_sync(read_manifest(archive._context)).manifest.recent
    assert recent is not None
    body = _get(archive, recent.key)
    first = next(length for length in range(1, len(body)) if body.startswith(bytes.fromhex("28b52ffd"), length))
    return _put(archive, recent.key, bomb(claims, first) + body[first:])


def _segment(archive: Archive) -> Segment:
    (segment,) = run_sync(read_manifest(archive._context)).manifest.base
    return segment


def _get(archive: Archive, key: str) -> bytes:
    found = run_sync(archive._context.store.get(key))
    assert found is not None
    return found.body


def _put(archive: Archive, key: str, body: bytes) -> str:
    run_sync(archive._context.store.put(key, body))
    return key


@pytest.mark.parametrize("claims", [2 * GIB, None, 1000], ids=["named", "unnamed", "understated"])
@pytest.mark.parametrize(
    ("plant", "what", "limit"),
    [
        (_document, "load", MAX_BYTES),
        (_intent, "list", MAX_LOG_OBJECT),
        (_batch, "list", MAX_LOG_OBJECT),
        (_block, "count", MAX_BLOCK),
        (_fence, "count", MAX_BLOCK),
        (_recent, "list", MAX_BLOCK),
    ],
    ids=["document", "intent", "batch", "block", "fence", "recent"],
)
def test_what_unpacks_to_gigabytes(
    archive: Archive, plant: Callable[[Archive, int | None], str], what: str, limit: int, claims: int | None
) -> None:
    before, least = victim(archive.url, what)
    assert before == "no error"
    key = plant(archive, claims)
    met, peak = victim(archive.url, what)
    assert met.startswith(("CorruptError", "IndexDamagedError")), met
    assert key in met
    # Named, it is refused unread; unnamed, where it passes the limit.
    assert peak < least + (limit if claims is None else 0) + BESIDES, f"{peak:,}, without the bomb {least:,}"


def _state_of(size: int) -> ConversationState:
    """A state whose document has as many bytes of JSON."""
    archive = Archive.create("memory://")
    empty = ConversationState.start("conv", system="")
    archive.save(empty)
    overhead = len(decompress(_get(archive, document_key("conv")), "a document"))
    state = ConversationState.start("conv", system="x" * (size - overhead))
    state.created_at, state.updated_at = empty.created_at, empty.updated_at
    state.message_tree.data.timestamp = empty.message_tree.data.timestamp
    return state


def test_the_limit_is_the_same_on_both_sides() -> None:
    archive = Archive.create("memory://")
    state = _state_of(MAX_BYTES + 1)
    with pytest.raises(InvalidInputError, match=f"conversation 'conv' has {MAX_BYTES + 1:,} bytes of JSON"):
        archive.save(state)
    assert archive.list().items == []
    assert run_sync(archive._context.store.list("conversations/")).objects == []
    assert run_sync(archive._context.store.list(LOG)).objects == []
    content = state.message_tree.data.message.content
    assert isinstance(content, str)
    state.message_tree.data.message.content = content[:-1]
    archive.save(state)
    loaded = archive.load("conv")
    assert loaded is not None
    assert loaded.message_tree.data.message.content == content[:-1]


def test_what_only_a_save_refuses_could_not_be_loaded() -> None:
    archive = Archive.create("memory://")
    with mock.patch("s3conv.format.document.MAX_BYTES", 1 << 40):
        archive.save(_state_of(MAX_BYTES + 1))
    with pytest.raises(StorageError, match=f"says that it holds {MAX_BYTES + 1:,} bytes; at most {MAX_BYTES:,}"):
        archive.load("conv")


def test_a_manifest_that_is_no_manifest_is_refused(tmp_path: Path) -> None:
    archive = Archive.create(f"file://{tmp_path}/archive")
    for key, what in ((MANIFEST, "list"), (DESCRIPTOR, "load")):
        whole = _get(archive, key)
        _put(archive, key, bomb(2 * GIB))
        met, peak = victim(archive.url, what)
        assert met.startswith(("IndexDamagedError", "CorruptError")), met
        assert key in met
        assert peak < BESIDES
        _put(archive, key, whole)
