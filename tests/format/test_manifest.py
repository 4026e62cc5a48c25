"""The manifest: exact bytes, what is refused by name, and that no change to it goes unnoticed."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3conv.errors import IndexDamagedError, UnsupportedFormatError
from s3conv.format.blocks import Fence
from s3conv.format.manifest import Manifest, Recent, Retired, Segment, decode_manifest
from tests.format.mutating import damaged, refused_only_as

TIME = "2026-01-31T12:00:00.000000Z"


def segment(number: int, *, tail: bool = False) -> Segment:
    key = (f'"user{number}"', TIME, "a")
    fence = Fence(keys=[("",)], lengths=[90], rows=[3], oldest=[1], newest=[2])
    return Segment(
        name=f"{number:026}",
        first=key,
        last=(key[0], TIME, "b"),
        oldest=TIME,
        newest=TIME,
        rows=3,
        size=200,
        end=90,
        fence_length=50,
        written=TIME,
        fence=fence if tail else None,
    )


FULL = Manifest(
    generation=7,
    nonce="0b",
    tail=[segment(1, tail=True)],
    mid=[segment(2), segment(3)],
    base=[segment(4)],
    recent=Recent(name="0" * 26, rows=1, size=99, end=50, fence_length=20, floor="", written=TIME),
    retired=[Retired(key="index/segments/x.jsonl.zst", retired_at=TIME)],
)


def sealed(value: object) -> bytes:
    """A body with a right checksum, whatever it says."""
    text = json.dumps(value, separators=(",", ":")).encode()[:-1]
    return text + b',"sha256":"%s"}' % hashlib.sha256(text).hexdigest().encode()


def fields(manifest: Manifest) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(manifest.encode())
    del value["sha256"]
    return value


def test_the_empty_manifest_is() -> None:
    text = (
        b'{"format":1,"kind":"manifest","generation":0,"nonce":"0a","tail":[],"mid":[],"base":[],"recent":null,'
        b'"retired":[]'
    )
    assert Manifest(generation=0, nonce="0a").encode() == text + b',"sha256":"%s"}' % (
        hashlib.sha256(text).hexdigest().encode()
    )


@pytest.mark.parametrize("manifest", [Manifest(generation=0, nonce="0a"), FULL])
def test_a_manifest_comes_back_equal(manifest: Manifest) -> None:
    assert decode_manifest(manifest.encode(), "it") == manifest
    assert decode_manifest(sealed(fields(manifest)), "it") == manifest


@pytest.mark.parametrize("change", [{"format": 2}, {"kind": "archive"}, {"requires": ["bloom"]}])
def test_a_manifest_that_this_version_cannot_read_is_refused_by_name(change: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedFormatError, match=r"the object .*upgrade s3conv"):
        decode_manifest(sealed({**fields(FULL), **change}), "the object")


@pytest.mark.parametrize(
    "change",
    [
        {"generation": -1},
        {"generation": True},
        {"nonce": 5},
        {"tail": [{}]},
        {"tail": fields(FULL)["base"]},
        {"base": fields(FULL)["tail"]},
        {"mid": list(reversed(fields(FULL)["mid"]))},
        {"recent": {}},
        {"retired": [{"key": "x", "retired_at": "yesterday"}]},
    ],
)
def test_a_manifest_that_cannot_be_right_is_damage(change: dict[str, Any]) -> None:
    with pytest.raises(IndexDamagedError, match=r"the object.*verify --repair"):
        decode_manifest(sealed({**fields(FULL), **change}), "the object")


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"null", b"1", b"\xff"])
def test_what_is_no_object_is_damage(raw: bytes) -> None:
    with pytest.raises(IndexDamagedError, match=r"the object.*verify --repair"):
        decode_manifest(raw, "the object")


@given(st.integers(0, len(FULL.encode()) - 1), st.integers(0, 255))
def test_a_byte_that_changed_is_noticed(position: int, byte: int) -> None:
    body = bytearray(FULL.encode())
    if body[position] == byte:
        return
    body[position] = byte
    with refused_only_as(IndexDamagedError, UnsupportedFormatError, named="it"):
        assert decode_manifest(bytes(body), "it") is None, "it was read"


@given(damaged(fields(FULL)))
def test_no_value_makes_another_error(value: Any) -> None:
    with refused_only_as(IndexDamagedError, UnsupportedFormatError, named="the object"):
        decode_manifest(sealed(value) if isinstance(value, dict) else json.dumps(value).encode(), "the object")
