"""Canonical JSON and zstd frames: exact bytes out, and nothing hostile comes in."""

from __future__ import annotations

import tracemalloc
from datetime import UTC, datetime
from typing import Any

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from s3conv.errors import CorruptError, InvalidInputError
from s3conv.format.codec import MAX_DEPTH, compress, decompress, from_json, to_json
from tests.format.mutating import refused_only_as
from tests.strategies import as_json, json_values

MiB = 1024 * 1024


# --- JSON -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"b": 1, "a": [None, True, False]}, b'{"b":1,"a":[null,true,false]}'),
        ("ü🌳\u2028\x7f", "\"ü🌳\u2028\x7f\"".encode()),
        ("\x00\n\t\"\\/", b'"\\u0000\\n\\t\\"\\\\/"'),
        ([0, -1, 10**30, 2**64], b"[0,-1,1000000000000000000000000000000,18446744073709551616]"),
        ([0.1, -0.0, 1.0, 1e22, 5e-324], b"[0.1,-0.0,1.0,1e+22,5e-324]"),
        ({}, b"{}"),
        ("", b'""'),
    ],
)  # fmt: skip
def test_canonical_json_is(value: object, expected: bytes) -> None:
    assert to_json(value, "it") == expected


@given(json_values)
def test_every_json_value_comes_back_the_same(value: object) -> None:
    again = from_json(to_json(value, "it"), "it")
    assert again == value
    assert as_json(again) == as_json(value)
    assert to_json(again, "it") == to_json(value, "it")


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_float_comes_back_to_the_last_bit(value: float) -> None:
    assert from_json(to_json(value, "it"), "it").hex() == value.hex()


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


UNWRITABLE: list[Any] = [
    float("nan"), float("inf"), -float("inf"), [float("nan")], {"a": float("inf")},
    "\ud800", ["a\udfff"], {"\udc00": 1}, "\ud83c\udf33",
    {1, 2}, frozenset(), b"bytes", datetime(2025, 1, 1), datetime(2025, 1, 1, tzinfo=UTC), object(), 1j, 10**5000,
    [...],
]  # fmt: skip


@pytest.mark.parametrize("value", UNWRITABLE, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("wrap", [lambda value: value, lambda value: {"deep": [{"er": value}]}])
def test_what_has_no_json_form_is_refused_by_name(wrap: Any, value: Any) -> None:
    with pytest.raises(
        InvalidInputError, match=r"^the thing cannot be written as JSON: .*nothing was written$"
    ) as told:
        to_json(wrap(value), "the thing")
    str(told.value).encode()


@pytest.mark.parametrize(
    ("value", "again"), [({1: 2}, {"1": 2}), ({None: 1}, {"null": 1}), ((1, (2,)), [1, [2]]), ({"a": ()}, {"a": []})]
)
def test_as_everywhere_in_python_a_tuple_becomes_a_list_and_a_key_text(value: object, again: object) -> None:
    assert from_json(to_json(value, "it"), "it") == again


@pytest.mark.parametrize("value", [{1: 2, "1": 3}, [{"a": {None: 1, "null": 2}}], {True: 1, "true": 2}], ids=repr)
def test_two_keys_that_would_become_one_are_refused(value: Any) -> None:
    with pytest.raises(InvalidInputError, match="the thing cannot be written as JSON"):
        to_json(value, "the thing")


@pytest.mark.parametrize("depth", [MAX_DEPTH + 1, 5_000, 100_000])
def test_what_is_nested_too_deeply_is_not_written(depth: int) -> None:
    with pytest.raises(InvalidInputError, match="nested too deeply"):
        to_json(nested(depth), "the thing")


def test_what_is_nested_too_deeply_for_this_python_is_not_read() -> None:
    # How deeply that is differs between Pythons, and is always more than is written.
    with pytest.raises(CorruptError, match="nested too deeply"):
        from_json(b"[" * 100_000 + b"]" * 100_000, "the thing")


def test_a_value_that_contains_itself_is_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(InvalidInputError):
        to_json(loop, "the thing")


@pytest.mark.parametrize(
    "body",
    [
        b"", b" ", b"{", b"[1,]", b"{'a':1}", b"NaN", b"Infinity", b"-Infinity", b"1e400", b"01", b"{} {}",
        b"\xef\xbb\xbf{}",
        b'"\xff"', b'"\xc3"', b'"\\ud800"', b'{"a":"\\udc00"}', b'"\x00"', b"nul", b"{1:2}", b"\x28\xb5\x2f\xfd",
        b"1" * 10_000, '"ü"'.encode("utf-16"),
    ],
)  # fmt: skip
def test_what_is_not_json_is_corrupt_and_named(body: bytes) -> None:
    with pytest.raises(CorruptError, match=r"^the thing is not JSON"):
        from_json(body, "the thing")


@given(st.binary(max_size=40))
def test_any_bytes_are_json_or_corrupt(body: bytes) -> None:
    with refused_only_as(CorruptError, named="it"):
        from_json(body, "it")


# --- frames ---------------------------------------------------------------------------------------------------------


@given(st.binary(max_size=2000))
def test_every_content_comes_back(content: bytes) -> None:
    frame = compress(content)
    assert decompress(frame, "it") == content
    assert zstandard.ZstdDecompressor().decompress(frame) == content


def test_a_frame_is_standard_names_its_size_and_has_a_checksum() -> None:
    parameters = zstandard.get_frame_parameters(compress(b"hello"))
    assert parameters.content_size == 5
    assert parameters.has_checksum
    assert parameters.dict_id == 0


def of_unknown_size(content: bytes) -> bytes:
    return zstandard.ZstdCompressor(write_content_size=False, write_checksum=True).compress(content)


def test_a_frame_that_does_not_name_its_size_is_read() -> None:
    assert decompress(of_unknown_size(b"hello" * 1000), "it") == b"hello" * 1000
    assert decompress(of_unknown_size(b""), "it") == b""


FRAMES = [compress(b"hello" * 100), of_unknown_size(b"hello" * 100)]


@pytest.mark.parametrize("frame", FRAMES, ids=["known size", "unknown size"])
def test_a_truncated_frame_is_corrupt_wherever_it_ends(frame: bytes) -> None:
    for length in range(len(frame)):
        with pytest.raises(CorruptError, match=r"^it is not a whole zstd frame"):
            decompress(frame[:length], "it")


@pytest.mark.parametrize("frame", FRAMES, ids=["known size", "unknown size"])
@pytest.mark.parametrize("extra", [b"x", b"\x00", FRAMES[0], b"\x50\x2a\x4d\x18\x01\x00\x00\x00x"])
def test_anything_behind_the_frame_is_corrupt(frame: bytes, extra: bytes) -> None:
    with pytest.raises(CorruptError, match=r"^it "):
        decompress(frame + extra, "it")


@pytest.mark.parametrize("frame", FRAMES, ids=["known size", "unknown size"])
def test_a_frame_with_a_flipped_bit_is_corrupt_or_says_the_same(frame: bytes) -> None:
    for position in range(len(frame)):
        for bit in range(8):
            damaged = bytearray(frame)
            damaged[position] ^= 1 << bit
            with refused_only_as(CorruptError, named="it"):
                assert decompress(bytes(damaged), "it", limit=MiB) == b"hello" * 100


@given(st.binary(max_size=60), st.booleans())
def test_any_bytes_are_a_frame_or_corrupt(body: bytes, marked: bool) -> None:
    with refused_only_as(CorruptError, named="it"):
        decompress(b"\x28\xb5\x2f\xfd" + body if marked else body, "it", limit=MiB)


@pytest.mark.parametrize("body", [b"\x50\x2a\x4d\x18\x04\x00\x00\x00abcd", b"{}", b"\x1f\x8b\x08\x00", b"PK\x03\x04"])
def test_what_is_no_frame_is_corrupt(body: bytes) -> None:
    with pytest.raises(CorruptError, match=r"^it is not a whole zstd frame"):
        decompress(body, "it")


@pytest.mark.parametrize("make", [compress, of_unknown_size], ids=["known size", "unknown size"])
def test_the_limit_is_the_most_that_is_read(make: Any) -> None:
    assert decompress(make(b"a" * 1000), "it", limit=1000) == b"a" * 1000
    with pytest.raises(CorruptError, match=r"^it "):
        decompress(make(b"a" * 1001), "it", limit=1000)


@pytest.mark.parametrize("make", [compress, of_unknown_size], ids=["known size", "unknown size"])
def test_a_bomb_takes_little_more_memory_than_the_limit(make: Any) -> None:
    bomb = make(bytes(64 * MiB))
    assert len(bomb) < MiB
    tracemalloc.start()
    try:
        with pytest.raises(CorruptError, match=r"^it "):
            decompress(bomb, "it", limit=MiB)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 12 * MiB


def test_a_frame_that_promises_more_than_it_holds_is_corrupt() -> None:
    # A single-segment frame with an 8-byte content size of 4 EiB: magic, descriptor, size, and one empty last block.
    for size in (2**40, 2**62, 2**64 - 3):
        lying = b"\x28\xb5\x2f\xfd\xe0" + size.to_bytes(8, "little") + b"\x01\x00\x00"
        with pytest.raises(CorruptError, match=r"^it says that it holds"):
            decompress(lying, "it")
    small = b"\x28\xb5\x2f\xfd\xe0" + (10).to_bytes(8, "little") + b"\x01\x00\x00"
    with pytest.raises(CorruptError, match=r"^it is not a whole zstd frame"):
        decompress(small, "it")


def test_a_frame_that_needs_a_dictionary_is_corrupt() -> None:
    dictionary = zstandard.ZstdCompressionDict(b"hello world " * 100)
    frame = zstandard.ZstdCompressor(dict_data=dictionary).compress(b"hello world hello")
    with pytest.raises(CorruptError, match=r"^it is not a whole zstd frame"):
        decompress(frame + b"", "it")
