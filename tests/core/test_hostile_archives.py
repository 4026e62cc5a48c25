"""A hostile archive: whatever its objects hold, verify and repair end, with differences or one of our errors.

Every JSON value in every object may be replaced, removed or joined by another; objects may be swapped, copied from
another archive, or be bytes of any kind. Whatever is sealed or compressed is sealed and compressed again, so that what
was changed is read. No document ever changes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from s3conv import Archive, IndexDamagedError, StorageError, Verified
from s3conv.format.blocks import BlockWriter, decode_fence, encode_fence
from s3conv.format.codec import compress
from s3conv.format.keys import DESCRIPTOR, MANIFEST
from s3conv.format.manifest import decode_manifest
from tests.core.stores import ScriptedStore
from tests.core.verified import Objects, build, documents, make_small, merge, opened, put, space_of, store_with
from tests.format.mutating import damaged

Archives = tuple[Objects, Objects]


@pytest.fixture(scope="module")
def archives() -> Iterator[Archives]:
    """Two archives with the same ids, and with small sizes for as long as the module's tests run."""
    with pytest.MonkeyPatch.context() as patch:
        make_small(patch.setattr)
        yield build(each=6), build(each=7)


def unpacked(body: bytes) -> Any:
    return json.loads(zstandard.ZstdDecompressor().decompress(body))


def packed(value: Any) -> bytes:
    return compress(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode())


def sealed(manifest: dict[str, Any]) -> bytes:
    """A manifest whose last field is the hash of the others, as a reader expects it."""
    manifest.pop("sha256", None)
    head = json.dumps(manifest, ensure_ascii=False, separators=(",", ":")).encode()[:-1]
    return head + b',"sha256":"%s"}' % hashlib.sha256(head).hexdigest().encode()


def survives(store: ScriptedStore) -> None:
    """Verify, and repair twice: each ends soon, and changes no document."""
    before = documents(store)
    for repair in (False, True, True):
        requests = sum(store.counts.values())
        found = Verified()
        with contextlib.suppress(StorageError):
            found = opened(store).verify(repair=repair)
        for one in (*found.differences, *found.mended):
            assert one.object.startswith(store.url.rstrip("/"))
            assert 0 < len(one.sentence) < 2_000
        assert sum(store.counts.values()) - requests < 3_000
        assert documents(store) == before
    if found.repaired and {one.kind for one in found.differences} <= {"damaged-document", "misplaced-document"}:
        works(opened(store))


def works(archive: Archive) -> None:
    """What `--repair` was promised to mend is mended: nothing says any more that the index is damaged."""
    for use in (
        lambda: list(archive.iterate()),
        lambda: archive.list(limit=3),
        archive.maintain,
        lambda: merge(archive, "base"),
        archive.stats,
    ):
        try:
            use()
        except IndexDamagedError:
            raise
        except StorageError as error:
            if "conversations/" not in str(error):  # a document that is damaged, and that an intent asks for
                raise


@settings(max_examples=60)
@given(data=st.data())
def test_any_value_of_a_document(archives: Archives, data: st.DataObject) -> None:
    store = store_with(archives[0])
    for key in data.draw(st.lists(st.sampled_from(sorted(documents(store))), min_size=1, max_size=3, unique=True)):
        put(store, key, packed(data.draw(damaged(unpacked(archives[0][key].body)))))
    survives(store)


@settings(max_examples=50)
@given(data=st.data())
def test_any_value_of_an_object_of_the_log(archives: Archives, data: st.DataObject) -> None:
    store = store_with(archives[0])
    key = data.draw(st.sampled_from(store.keys("index/log/")))
    put(store, key, packed(data.draw(damaged(unpacked(archives[0][key].body)))))
    survives(store)


@settings(max_examples=60)
@given(data=st.data())
def test_any_value_of_the_manifest(archives: Archives, data: st.DataObject) -> None:
    store = store_with(archives[0])
    put(store, MANIFEST, sealed(data.draw(damaged(json.loads(archives[0][MANIFEST].body)))))
    survives(store)


@settings(max_examples=25)
@given(data=st.data())
def test_any_value_of_the_descriptor(archives: Archives, data: st.DataObject) -> None:
    store = store_with(archives[0])
    put(store, DESCRIPTOR, json.dumps(data.draw(damaged(json.loads(archives[0][DESCRIPTOR].body)))).encode())
    survives(store)


def forged_segment(store: ScriptedStore, lines: list[Any], key: str, fence: Any = None) -> None:
    """Put a segment or `recent` with other lines in its place, and let the manifest describe what is really there."""
    manifest = decode_manifest(space_of(store).objects[MANIFEST].body, MANIFEST)
    writer = BlockWriter()
    for number, line in enumerate(lines):
        text = json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode()
        writer.add(("", "", f"{number:05}"), "2025-03-01T00:00:00.000000Z", text)
    blocks = writer.finish()
    body, length = blocks.body, blocks.fence_length
    if fence is not None:
        frame = compress(json.dumps(fence).encode())
        new = b"\x5e\x2a\x4d\x18" + len(frame).to_bytes(4, "little") + frame
        body = body[: blocks.fence_start] + new + body[blocks.fence_start + length :]
        length = len(new)
    put(store, key, body)
    changed = {"rows": blocks.rows, "size": len(body), "end": blocks.fence_start, "fence_length": length}
    fields = msgspec.to_builtins(manifest)
    for one in (*fields["tail"], *fields["mid"], *fields["base"], fields["recent"]):
        if one["name"] in key:
            one |= changed
            if one.get("fence"):
                one["fence"] = msgspec.to_builtins(blocks.fence)
    put(store, MANIFEST, sealed({"format": 1, "kind": "manifest", **fields}))


def files(store: ScriptedStore) -> list[str]:
    return [*store.keys("index/segments/"), *store.keys("index/recent/")]


def lines_of(body: bytes) -> list[Any]:
    """The lines of a file of blocks: what `zstd -dc` gives."""
    text = zstandard.ZstdDecompressor().stream_reader(body, read_across_frames=True).read()
    return [json.loads(line) for line in text.splitlines()]


@settings(max_examples=80)
@given(data=st.data())
def test_any_value_of_a_row(archives: Archives, data: st.DataObject) -> None:
    store = store_with(archives[0])
    named = decode_manifest(archives[0][MANIFEST].body, MANIFEST).named()
    key = data.draw(st.sampled_from([key for key in files(store) if key in named]))
    lines = lines_of(archives[0][key].body)
    at = data.draw(st.integers(0, len(lines) - 1))
    lines[at] = data.draw(damaged(lines[at]))
    forged_segment(store, lines, key)
    survives(store)


@settings(max_examples=50)
@given(data=st.data())
def test_any_value_of_a_fence(archives: Archives, data: st.DataObject) -> None:
    store = store_with(archives[0])
    manifest = decode_manifest(archives[0][MANIFEST].body, MANIFEST)
    segment = data.draw(st.sampled_from([*manifest.mid, *manifest.base]))
    body = archives[0][segment.key].body
    frame = body[segment.end : segment.end + segment.fence_length]
    fence = decode_fence(frame, segment.rows, segment.end, segment.key)
    assert encode_fence(fence) == frame
    fields = {"format": 1, "kind": "fence", **msgspec.to_builtins(fence)}
    forged_segment(store, lines_of(body), segment.key, data.draw(damaged(fields)))
    survives(store)


@settings(max_examples=60)
@given(data=st.data())
def test_objects_are_swapped_and_copied_from_another_archive(archives: Archives, data: st.DataObject) -> None:
    store = store_with(archives[0])
    own, foreign = archives
    keys = sorted(own)
    for _ in range(data.draw(st.integers(1, 4))):
        key = data.draw(st.sampled_from(keys))
        match data.draw(st.sampled_from(["swap", "copy", "foreign", "all of a kind", "bytes"])):
            case "swap":
                other = data.draw(st.sampled_from(keys))
                put(store, key, own[other].body)
                put(store, other, own[key].body)
            case "copy":
                put(store, key, own[data.draw(st.sampled_from(keys))].body)
            case "foreign":
                other = data.draw(st.sampled_from(sorted(foreign)))
                put(store, data.draw(st.sampled_from([key, other])), foreign[other].body)
            case "all of a kind":
                prefix = data.draw(st.sampled_from(["index/", "conversations/", "index/log/", "index/manifest.json"]))
                for other, found in foreign.items():
                    if other.startswith(prefix):
                        put(store, other, found.body)
            case "bytes":
                put(store, key, data.draw(st.binary(max_size=60)))
    survives(store)
