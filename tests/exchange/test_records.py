"""The JSON texts of a stream are found whatever the pieces in which it arrives, and a broken one stays alone."""

from __future__ import annotations

import io
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from s3conv.exchange.records import Piece, split

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.sampled_from(['"', "\\", "[", "}", '\\"', ","]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


class Drip(io.RawIOBase):
    """A stream that gives a few bytes at a time."""

    def __init__(self, data: bytes, size: int) -> None:
        self.data, self.step = io.BytesIO(data), size

    def read(self, size: int = -1, /) -> bytes:
        return self.data.read(self.step)


def pieces(data: bytes, size: int = 1 << 20, limit: int = 1000) -> list[Piece]:
    return list(split(Drip(data, size), limit))


@given(st.lists(values), st.integers(1, 7), st.sampled_from([None, 1]), st.booleans())
def test_a_list_in_any_pieces(items: list[Any], size: int, indent: int | None, ascii_only: bool) -> None:
    data = json.dumps(items, indent=indent, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    found = pieces(data, size, 10_000)
    assert [piece.reason for piece in found] == [None] * len(items)
    assert [json.loads(piece.data.decode("utf-8", "surrogatepass")) for piece in found] == items
    assert [piece.position for piece in found] == [f"[{n}]" for n in range(len(items))]


@given(st.lists(st.dictionaries(st.text(max_size=5), values, max_size=3), min_size=1), st.integers(1, 7))
def test_lines_in_any_pieces(items: list[Any], size: int) -> None:
    data = b"".join(json.dumps(item).encode() + b"\n" for item in items)
    found = pieces(data, size, 10_000)
    assert [json.loads(piece.data) for piece in found] == items
    assert [piece.position for piece in found] == [f"line {n + 1}" for n in range(len(items))]


@given(st.binary(max_size=60), st.integers(1, 9), st.integers(1, 30))
def test_any_bytes_give_pieces_and_no_error(data: bytes, size: int, limit: int) -> None:
    assert all(piece.reason or len(piece.data) <= limit for piece in pieces(data, size, limit))


def test_a_broken_item_stays_alone() -> None:
    found = pieces(b'[{"a": 1}, {"b": NaN, }, {"c": "]"}, , {"d": 2}]')
    assert [(piece.position, piece.data or piece.reason) for piece in found] == [
        ("[0]", b'{"a": 1}'),
        ("[1]", b'{"b": NaN, }'),
        ("[2]", b'{"c": "]"}'),
        ("[3]", "expected a conversation, found nothing"),
        ("[4]", b'{"d": 2}'),
    ]


def test_a_broken_first_line_does_not_hide_that_these_are_lines() -> None:
    found = pieces(b'\n{"a": \n\n{"b": 1}\n{"c": 2}')
    assert [(piece.position, piece.data) for piece in found] == [
        ("line 2", b'{"a": '),
        ("line 4", b'{"b": 1}'),
        ("line 5", b'{"c": 2}'),
    ]


def test_one_value_over_many_lines() -> None:
    data = json.dumps({"a": [{"b": 1}, {}]}, indent=2).encode()
    assert pieces(b"\xef\xbb\xbf  \n" + data) == [Piece("", b"  \n" + data)]


def test_what_is_too_large_is_named_and_the_next_is_found() -> None:
    big = json.dumps({"a": "x" * 2000}).encode()
    small = b'{"a": 1}'
    for size in (1, 100, 1 << 20):
        found = pieces(b"[" + small + b"," + big + b"," + small + b"]", size)
        assert [(piece.data, piece.reason is None) for piece in found] == [(small, True), (b"", False), (small, True)]
        found = pieces(small + b"\n" + big + b"\n" + small, size)
        assert [(piece.data, piece.reason is None) for piece in found] == [(small, True), (b"", False), (small, True)]
    assert "larger than 1,000 bytes" in str(found[1].reason)
    (piece,) = pieces(json.dumps({"a": "x" * 2000}, indent=1).encode())
    assert "larger than 1,000 bytes" in str(piece.reason)


def test_what_ends_too_early_or_too_late() -> None:
    assert [piece.reason for piece in pieces(b'[{"a": 1}, {"b": ')] == [None, "the file ends in the middle of the list"]
    assert [piece.position for piece in pieces(b'[{"a": 1}, {"b": ')] == ["[0]", "[1]"]
    assert [piece.position for piece in pieces(b"[1] x")] == ["[0]", "after the list"]
    assert pieces(b"[]\n") == []
    assert pieces(b" \n ") == [Piece("", b"", "is empty")]
    assert pieces(b"") == [Piece("", b"", "is empty")]
