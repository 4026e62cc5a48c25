"""The descriptor: exact bytes, and what is refused by name."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given

from s3conv.errors import CorruptError, UnsupportedFormatError
from s3conv.format.control import Descriptor, decode_descriptor
from tests.format.mutating import damaged, refused_only_as

DESCRIPTOR = '{"format":1,"kind":"archive","requires":[],"partition_by":"metadata.user_id","nonce":"0a","settings":{}}'


def test_the_descriptor_is() -> None:
    assert Descriptor("metadata.user_id", "0a").encode().decode() == DESCRIPTOR
    assert decode_descriptor(DESCRIPTOR.encode(), "it") == Descriptor("metadata.user_id", "0a")
    assert decode_descriptor(Descriptor(None, "0b").encode(), "it") == Descriptor(None, "0b")


def body(golden: str, **changes: Any) -> bytes:
    return json.dumps({**json.loads(golden), **changes}).encode()


@pytest.mark.parametrize(
    "change", [{"format": 2}, {"kind": "manifest"}, {"requires": ["packs"]}, {"requires": ["b", "a"], "kind": "album"}]
)
def test_a_descriptor_of_another_format_kind_or_feature_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedFormatError, match=r"the object .*upgrade s3conv"):
        decode_descriptor(body(DESCRIPTOR, **change), "the object")


@pytest.mark.parametrize(
    "change",
    [{"format": "1"}, {"kind": 1}, {"requires": "x"}, {"partition_by": 5}, {"partition_by": "user"},
    {"partition_by": ""},
     {"nonce": None}],
)  # fmt: skip
def test_a_descriptor_with_a_wrong_value_is_corrupt(change: dict[str, Any]) -> None:
    with pytest.raises(CorruptError, match="the object"):
        decode_descriptor(body(DESCRIPTOR, **change), "the object")


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"null", b"1", b"\xff"])
def test_what_is_no_object_is_corrupt(raw: bytes) -> None:
    with pytest.raises(CorruptError, match="the object"):
        decode_descriptor(raw, "the object")


@given(damaged(json.loads(DESCRIPTOR)))
def test_no_value_makes_another_error(descriptor: Any) -> None:
    with refused_only_as(CorruptError, UnsupportedFormatError, named="the object"):
        decode_descriptor(json.dumps(descriptor).encode(), "the object")
