"""Blocks files: every row comes back, a part of a file is enough to read a part, no damage makes a list shorter, and
zstd, DuckDB and polars read them as plain compressed JSON lines.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import struct
import subprocess
import tracemalloc
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import example, given
from hypothesis import strategies as st

from s3conv.errors import CorruptError, UnsupportedFormatError
from s3conv.format import blocks as module
from s3conv.format.blocks import (
    BLOCK,
    GAP,
    MAX_BLOCK,
    Blocks,
    BlockWriter,
    Fence,
    Span,
    decode_fence,
    find_fence,
    read_blocks,
)
from s3conv.format.codec import MAX_BYTES, compress, decompress, to_json
from s3conv.format.entry import Entry, SortKey, index_time
from s3conv.format.rows import RowReader, decode_row, encode_row
from tests.format.mutating import damaged, refused_only_as
from tests.strategies import naive_times, texts

MiB = 1024 * 1024
GOLDEN = Path(__file__).parent.parent / "golden" / "blocks-1.jsonl.zst"

Given = tuple[SortKey, str, bytes]
"""What `BlockWriter.add` takes: a key, `updated_at`, a line."""

# Keys of which many begin alike.
close = st.text(st.sampled_from("ab\0é🌳\U0010ffff"), max_size=3) | texts
index_times = st.builds(index_time, naive_times)
rows = st.dictionaries(
    st.tuples(close, close, close),
    st.tuples(index_times, st.binary(max_size=30).map(lambda line: line.replace(b"\n", b" "))),
    min_size=1,
    max_size=20,
).map(lambda made: [(key, *made[key]) for key in sorted(made)])
block_sizes = st.integers(1, 120)


def written(given: Sequence[Given], block: int = BLOCK) -> Blocks:
    """A file with blocks of `block` bytes of text."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BLOCK", block)
        writer = BlockWriter()
        for key, updated, line in given:
            writer.add(key, updated, line)
        return writer.finish()


def fence_of(body: bytes, file: Blocks, what: str = "the object") -> Fence:
    return decode_fence(body, file.rows, file.fence_start, what)


def fence_bytes(file: Blocks) -> bytes:
    return file.body[file.fence_start :][: file.fence_length]


def texts_of(file: Blocks, first: int = 0, last: int | None = None) -> list[bytes]:
    """The text of the blocks from `first` to `last` (exclusive), by their bytes alone."""
    fence, offsets = file.fence, file.fence.offsets
    last = len(fence.keys) if last is None else last
    return read_blocks(
        file.body[offsets[first] : offsets[last]], fence.lengths[first:last], fence.rows[first:last], "the object"
    )


def by_block(given: Sequence[Given], fence: Fence) -> list[list[Given]]:
    """The rows of each block, going by the fence's counts."""
    return [list(given[first:last]) for first, last in pairwise(accumulate(fence.rows, initial=0))]


# --- writing and reading --------------------------------------------------------------------------------------------


@given(rows, block_sizes)
def test_every_row_comes_back_in_its_order_whatever_the_size_of_blocks(given: list[Given], block: int) -> None:
    file = written(given, block)
    fence = fence_of(fence_bytes(file), file)
    assert fence == file.fence
    together = texts_of(file)
    assert b"".join(together) == b"".join(line + b"\n" for _, _, line in given)
    for number, (text, some) in enumerate(zip(together, by_block(given, fence), strict=True)):
        assert text == b"".join(line + b"\n" for _, _, line in some)
        assert texts_of(file, number, number + 1) == [text]


@given(rows, block_sizes)
def test_a_block_ends_with_the_line_that_fills_it(given: list[Given], block: int) -> None:
    *full, last = by_block(given, written(given, block).fence)
    for some in (*full, last):
        sizes = list(accumulate(len(line) + 1 for _, _, line in some))
        assert all(size < block for size in sizes[:-1])
        assert some is last or sizes[-1] >= block


def test_a_block_has_64_kib_of_text_unless_it_is_the_last() -> None:
    line = b"x" * 999
    file = written([(("", "", f"{number:04}"), index_time(datetime.min), line) for number in range(200)])
    assert [len(text) for text in texts_of(file)] == [66_000, 66_000, 66_000, 2_000]


@given(rows, block_sizes)
def test_finish_tells_what_the_manifest_records(given: list[Given], block: int) -> None:
    file = written(given, block)
    times = [updated for _, updated, _ in given]
    assert (file.first, file.last) == (given[0][0], given[-1][0])
    assert (file.oldest, file.newest) == (min(times), max(times))
    assert file.rows == len(given) == sum(file.fence.rows)
    assert file.fence_start == sum(file.fence.lengths)


@given(rows, block_sizes)
def test_a_writer_knows_the_size_of_its_complete_blocks(given: list[Given], block: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BLOCK", block)
        writer = BlockWriter()
        sizes = [0]
        for key, updated, line in given:
            writer.add(key, updated, line)
            sizes.append(writer.size)
        file = writer.finish()
    assert set(sizes) <= set(file.fence.offsets)
    assert sizes == sorted(sizes)
    assert len(set(sizes)) >= len(file.fence.keys), "it tells each block when it is complete"


@given(rows, block_sizes)
def test_the_same_rows_give_the_same_bytes(given: list[Given], block: int) -> None:
    assert written(given, block) == written(given, block)


def test_a_key_that_is_added_twice_at_the_border_of_blocks_is_refused() -> None:
    with pytest.raises(ValueError, match="twice"):
        written([(("p", "t", "a"), index_time(datetime.min), b"{}")] * 2, 1)


# --- what the fence says --------------------------------------------------------------------------------------------


@given(rows, block_sizes)
def test_a_blocks_key_is_the_shortest_that_separates_it_from_the_one_before(given: list[Given], block: int) -> None:
    file = written(given, block)
    keys = file.fence.keys
    assert keys[0] == ("",)
    some = by_block(given, file.fence)
    for separator, before, after in zip(keys[1:], some, some[1:], strict=False):
        last, first = before[-1][0], after[0][0]
        assert last < separator <= first
        *whole, cut = separator
        assert tuple(whole) == first[: len(whole)]
        assert first[len(whole)].startswith(cut)
        # Shorter ones: a text less, or a character less.
        assert tuple(whole) <= last
        assert not cut or (*whole, cut[:-1]) <= last


@given(rows, block_sizes)
@example([(("p", "t", name), "1970-01-01T00:00:00.000000Z", b"") for name in "abc"], 1)
def test_a_key_is_looked_for_in_the_block_that_has_it(given: list[Given], block: int) -> None:
    file = written(given, block)
    for number, some in enumerate(by_block(given, file.fence)):
        assert {file.fence.block_of(key) for key, _, _ in some} == {number}


bounds = st.just(()) | st.tuples(close) | st.tuples(close, close) | st.tuples(close, close, close)


@given(rows, block_sizes, bounds, bounds, st.data())
def test_the_blocks_between_two_keys_hold_every_row_between_them(
    given: list[Given], block: int, low: tuple[str, ...], high: tuple[str, ...], data: st.DataObject
) -> None:
    keys = [key for key, _, _ in given]
    if data.draw(st.booleans()):
        low = data.draw(st.sampled_from(keys))[: data.draw(st.integers(1, 3))]
    if data.draw(st.booleans()):
        high = data.draw(st.sampled_from(keys))[: data.draw(st.integers(1, 3))]
    fence = written(given, block).fence
    found = fence.blocks_between(low, high)
    holding = [
        number
        for number, some in enumerate(by_block(given, fence))
        if any((not low or key >= low) and (not high or key < high) for key, _, _ in some)
    ]
    assert set(holding) <= set(found)
    # And no more than the keys in the fence can exclude.
    begin = max(0, bisect_right(fence.keys, low) - 1) if low else 0
    assert list(found) == [n for n in range(begin, len(fence.keys)) if not high or fence.keys[n] < high]


EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@given(rows, block_sizes)
@example([(("", "", ""), "9999-12-31T23:59:59.999999Z", b"")], 1)
@example([(("", "", ""), "0001-01-01T00:00:00.000001Z", b"")], 1)
@example([(("", "", ""), "1969-12-31T23:59:59.999999Z", b"")], 1)
@example([(("", "", ""), "1970-01-01T00:00:00.000000Z", b"")], 1)
def test_oldest_and_newest_are_whole_seconds_rounded_outward(given: list[Given], block: int) -> None:
    fence = written(given, block).fence
    second = timedelta(seconds=1)
    for oldest, newest, some in zip(fence.oldest, fence.newest, by_block(given, fence), strict=True):
        since = [datetime.fromisoformat(updated) - EPOCH for _, updated, _ in some]
        assert timedelta(0) <= min(since) - oldest * second < second
        assert timedelta(0) <= newest * second - max(since) < second


def test_a_fence_is_this_json_in_a_skippable_frame() -> None:
    file = written(
        [
            (('"a"', "2026-01-31T12:00:00.000000Z", "1"), "2026-01-31T12:00:00.000001Z", b"{}"),
            (('"a"', "2026-02-01T12:00:00.000000Z", "ü"), "2026-02-01T12:00:00.000000Z", b"{ }"),
            (('"b"', "2026-01-31T12:00:00.000000Z", "1"), "2026-01-01T00:00:00.500000Z", b"{}"),
        ],
        1,
    )
    frame = fence_bytes(file)
    assert frame[:4] == bytes.fromhex("5e2a4d18")
    assert int.from_bytes(frame[4:8], "little") == len(frame) - 8
    parameters = zstandard.get_frame_parameters(frame[8:])
    assert parameters.has_checksum
    assert zstandard.ZstdDecompressor().decompress(frame[8:]).decode() == (
        '{"format":1,"kind":"fence","keys":[[""],["\\"a\\"","2026-02"],["\\"b"]],'
        f'"lengths":[{file.fence.lengths[0]},{file.fence.lengths[1]},{file.fence.lengths[2]}],"rows":[1,1,1],'
        '"oldest":[1769860800,1769947200,1767225600],"newest":[1769860801,1769947200,1767225601]}'
    )


# --- where the fence lies -------------------------------------------------------------------------------------------


def three_blocks() -> Blocks:
    """A small file with blocks of 2, 1 and 2 rows, of which no two have the same length."""
    lines = [b'{"a":1}', b'{"b":"xyz"}', b'{"c":"' + bytes(range(48, 91)) + b'"}', b'{"d":4}', b'{"e":[5,6,7,8,9]}']
    file = written(
        [
            (("null", f"2026-0{number}", f"conv-{number}"), f"2026-0{number}-01T00:00:00.500000Z", line)
            for number, line in enumerate(lines, start=1)
        ],
        16,
    )
    assert file.fence.rows == [2, 1, 2]
    assert len(set(file.fence.lengths)) == 3
    return file


FILE = three_blocks()


@given(rows, block_sizes)
def test_the_fence_is_one_exact_range(given: list[Given], block: int) -> None:
    file = written(given, block)
    start, end = file.fence_start, file.fence_start + file.fence_length
    assert fence_of(file.body[start:end], file) == file.fence
    for first, last in ((start - 1, end), (start + 1, end), (start, end - 1), (start, end + 1), (end, start)):
        with pytest.raises(CorruptError, match=r"^the fence of the object "):
            fence_of(file.body[max(0, first) : last], file)


@given(rows, block_sizes, st.integers(0, 100))
def test_the_end_of_a_file_tells_where_its_fence_lies(given: list[Given], block: int, more: int) -> None:
    file = written(given, block)
    table = 8 * len(file.fence.keys) + 25
    where = (file.fence_start, file.fence_length)
    assert find_fence(file.body, len(file.body), "the object") == where
    assert find_fence(file.body[-table - more :], len(file.body), "the object") == where
    assert sum(where) == len(file.body) - table


def test_less_than_the_seek_table_is_not_enough_to_find_the_fence() -> None:
    for length in range(8 * 3 + 25):
        with pytest.raises(CorruptError, match=r"^the object does not end in the seek table"):
            find_fence(FILE.body[len(FILE.body) - length :], len(FILE.body), "the object")


def test_what_does_not_end_in_the_seek_table_of_a_file_of_its_size_tells_no_fence() -> None:
    body, size = FILE.body, len(FILE.body)
    ends = {
        "another size": (body, size + 1),
        "another magic number": (body[:-1] + b"\x90", size),
        "no blocks": (body[:-9] + struct.pack("<IBI", 1, 0, 0x8F92EAB1), size),
        "more blocks": (body[:-9] + struct.pack("<IBI", 5, 0, 0x8F92EAB1), size),
        "more blocks than there is room for": (body[:-9] + struct.pack("<IBI", 2**32 - 1, 0, 0x8F92EAB1), size),
    }
    for why, (end, told) in ends.items():
        with pytest.raises(CorruptError, match=r"^the object does not end in the seek table of a blocks file"):
            pytest.fail(f"{why}: {find_fence(end, told, 'the object')}")


# --- ranges ---------------------------------------------------------------------------------------------------------


@st.composite
def wanted_blocks(draw: st.DrawFn) -> tuple[Fence, list[int]]:
    """A fence with blocks of any lengths, and some of its blocks in their order."""
    lengths = draw(st.lists(st.integers(1, 50), min_size=1, max_size=30))
    count = len(lengths)
    fence = Fence(
        keys=[(f"{number:02}",) for number in range(count)],
        lengths=lengths,
        rows=[1] * count,
        oldest=[0] * count,
        newest=[0] * count,
    )
    return fence, sorted(draw(st.sets(st.integers(0, count - 1))))


@given(wanted_blocks(), st.integers(1, 300))
def test_the_ranges_have_all_wanted_blocks_once_and_at_most_gap_unwanted_ones_between_two(
    of: tuple[Fence, list[int]], longest: int
) -> None:
    fence, wanted = of
    spans = list(fence.spans(wanted, longest))
    fetched = [block for span in spans for block in range(span.first, span.last)]
    assert fetched == sorted(set(fetched))
    assert set(wanted) <= set(fetched)
    for span in spans:
        inside = [block for block in wanted if span.first <= block < span.last]
        assert (inside[0], inside[-1] + 1) == (span.first, span.last), "it begins and ends with a wanted block"
        assert all(after - before - 1 <= GAP for before, after in pairwise(inside))
        assert (span.start, span.length) == (
            sum(fence.lengths[: span.first]), sum(fence.lengths[span.first : span.last])
        )  # fmt: skip
        assert span.length <= longest or len(inside) == 1


@given(wanted_blocks(), st.integers(1, 300))
def test_no_two_ranges_could_have_been_one(of: tuple[Fence, list[int]], longest: int) -> None:
    fence, wanted = of
    for one, other in pairwise(fence.spans(wanted, longest)):
        further = next(block for block in wanted if block >= other.first)
        joined = sum(fence.lengths[one.first : further + 1])
        assert other.first - one.last > GAP or joined > longest


def test_neighbours_are_joined_over_three_unwanted_blocks_and_not_over_four() -> None:
    fence = Fence(
        keys=[(str(n),) for n in range(10)], lengths=[10] * 10, rows=[1] * 10, oldest=[0] * 10, newest=[0] * 10
    )
    assert list(fence.spans([1, 5, 6], 1000)) == [Span(1, 7, 10, 60)]
    assert list(fence.spans([0, 5, 9], 1000)) == [Span(0, 1, 0, 10), Span(5, 10, 50, 50)]
    assert list(fence.spans([], 1000)) == []


@given(rows, block_sizes, st.data())
def test_any_range_of_blocks_is_read_without_the_others(given: list[Given], block: int, data: st.DataObject) -> None:
    file = written(given, block)
    everything = texts_of(file)
    wanted = sorted(data.draw(st.sets(st.sampled_from(range(len(everything))))))
    for first, last, start, length in file.fence.spans(wanted, data.draw(st.integers(1, 2000))):
        body = file.body[start : start + length]
        assert (
            read_blocks(body, file.fence.lengths[first:last], file.fence.rows[first:last], "it")
            == (everything[first:last])
        )


# --- damage ---------------------------------------------------------------------------------------------------------


def damages(body: bytes) -> Iterator[bytes]:
    """A bit flipped; a byte zeroed, left out, doubled or swapped with the next; what is before it, or from it on."""
    for at in range(len(body)):
        before, byte, after = body[:at], body[at : at + 1], body[at + 1 :]
        yield from (before + bytes([body[at] ^ 1 << bit]) + after for bit in range(8))
        yield from (before + b"\0" + after, before + after, before + byte + byte + after, before, after)
        yield before + after[:1] + byte + after[1:]


MEANINGLESS = 30
"""Most bits of a frame of zstd that may be flipped without changing what it holds: how it is cut into parts, and one
bit that has no meaning."""


def unnoticed(damages: Iterator[bytes], read: Callable[[bytes], object], expected: object, named: str) -> int:
    """How many damages are not noticed, but harmless: what is read is what was written."""
    harmless = 0
    for body in damages:
        with refused_only_as(CorruptError, UnsupportedFormatError, named=named):
            assert read(body) == expected
            harmless += 1
    return harmless


def same(body: bytes) -> int:
    """How many of the damages are none: a byte that is zero already, two that are equal."""
    return sum(damaged == body for damaged in damages(body))


def test_damage_to_a_fence_is_noticed_and_the_object_named() -> None:
    body = fence_bytes(FILE)
    harmless = unnoticed(damages(body), lambda body: fence_of(body, FILE), FILE.fence, "the fence of the object")
    assert harmless <= same(body) + MEANINGLESS


def test_damage_to_a_block_is_noticed_and_the_object_named() -> None:
    fence = FILE.fence
    for number, text in enumerate(texts_of(FILE)):
        body = FILE.body[fence.offsets[number] : fence.offsets[number + 1]]

        def read(body: bytes, rows: int = fence.rows[number]) -> list[bytes]:
            return read_blocks(body, [len(body)], [rows], "the object")

        assert unnoticed(damages(body), read, [text], "the object") <= same(body) + MEANINGLESS


def test_damage_to_one_of_several_blocks_is_noticed_and_the_object_named() -> None:
    body = FILE.body[: FILE.fence_start]

    def read(body: bytes) -> list[bytes]:
        return read_blocks(body, FILE.fence.lengths, FILE.fence.rows, "the object")

    # A byte too many at the end is not asked for, and so not looked at.
    assert unnoticed(damages(body), read, texts_of(FILE), "the object") <= same(body) + 3 * MEANINGLESS + 1


def by_its_end(body: bytes) -> Fence:
    """The fence of `FILE`, read by who knows nothing but a file and how many rows it has."""
    start, length = find_fence(body, len(body), "the object")
    return decode_fence(body[start : start + length], FILE.rows, start, "the object")


def test_damage_to_a_seek_table_is_noticed_or_leads_to_the_same_fence() -> None:
    before, table = FILE.body[: -(8 * 3 + 25)], FILE.body[-(8 * 3 + 25) :]
    harmless = unnoticed((before + damage for damage in damages(table)), by_its_end, FILE.fence, "the object")
    assert same(table) < harmless < len(list(damages(table))) / 2


def test_a_file_that_was_cut_short_has_no_fence_wherever_it_ends() -> None:
    for length in range(len(FILE.body)):
        with pytest.raises(CorruptError, match=r"the object"):
            by_its_end(FILE.body[:length])


@given(st.integers(0, len(FILE.body) - 1), st.integers(0, len(FILE.body) - 1))
def test_two_bytes_that_changed_places_are_noticed(one: int, other: int) -> None:
    swapped = bytearray(FILE.body)
    swapped[one], swapped[other] = swapped[other], swapped[one]
    with refused_only_as(CorruptError, UnsupportedFormatError, named="the object"):
        fence = by_its_end(bytes(swapped))
        assert fence == FILE.fence
        body = bytes(swapped[: FILE.fence_start])
        assert read_blocks(body, fence.lengths, fence.rows, "the object") == texts_of(FILE)


@given(st.binary(max_size=100), st.booleans())
def test_any_bytes_are_a_fence_a_block_an_end_or_corrupt(body: bytes, framed: bool) -> None:
    if framed:
        body = bytes.fromhex("5e2a4d18") + len(body).to_bytes(4, "little") + body
    with pytest.raises(CorruptError, match=r"^the fence of the object "):
        decode_fence(body, 1, 1, "the object")
    with pytest.raises(CorruptError, match=r"^the object "):
        find_fence(body, len(body), "the object")
    with refused_only_as(CorruptError, named="the object"):
        read_blocks(body, [len(body)], [1], "the object")


@pytest.mark.parametrize("lines", [b"", b"a", b"a\n", b"a\nb", b"a\nb\nc", b"a\nb\nc\n", b"\n"])
def test_a_block_with_another_number_of_lines_than_the_fence_says_is_corrupt(lines: bytes) -> None:
    frame = compress(lines)
    with pytest.raises(CorruptError, match=r"^the object: a block has \d lines; expected 2"):
        read_blocks(frame, [len(frame)], [2], "the object")
    good = compress(b"a\nb\n")
    with pytest.raises(CorruptError, match=r"^the object: a block has"):
        read_blocks(good + frame, [len(good), len(frame)], [2, 2], "the object")


def test_blocks_that_are_not_where_the_fence_says_are_corrupt() -> None:
    first, second, third = (FILE.body[start:end] for start, end in pairwise(FILE.fence.offsets))
    for body in (second + first + third, first + first + third, first + third, first + second, b"", FILE.body[1:]):
        with pytest.raises(CorruptError, match=r"^the object"):
            read_blocks(body, FILE.fence.lengths, FILE.fence.rows, "the object")


@pytest.mark.parametrize(
    ("rows", "end"), [(4, 0), (6, 0), (0, 0), (5, 1), (5, -1), (5, 10**12), (-5, 0)]
)  # fmt: skip
def test_the_fence_of_another_file_is_corrupt(rows: int, end: int) -> None:
    with pytest.raises(CorruptError, match=r"^the fence of the object cannot be used: it describes 5 rows in .* bytes"):
        decode_fence(fence_bytes(FILE), rows, FILE.fence_start + end, "the object")


FIELDS: dict[str, Any] = json.loads(decompress(fence_bytes(FILE)[8:], "it"))


def framed(value: object) -> bytes:
    content = compress(to_json(value, "it"))
    return bytes.fromhex("5e2a4d18") + len(content).to_bytes(4, "little") + content


def test_a_fence_with_fields_that_are_not_known_is_read() -> None:
    assert fence_of(framed({**FIELDS, "requires": [], "bloom": [1, 2]}), FILE) == FILE.fence


@pytest.mark.parametrize(
    "change",
    [{"format": 2}, {"kind": "fences"}, {"requires": ["bloom"]}, {"format": 2, "keys": {"packed": "…"}, "rows": None}],
)
def test_a_fence_that_this_version_cannot_read_is_refused_by_name(change: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedFormatError, match=r"^the fence of the object .*upgrade s3conv"):
        fence_of(framed({**FIELDS, **change}), FILE)


@pytest.mark.parametrize(
    "change",
    [
        {"format": None}, {"format": "1"}, {"format": True}, {"kind": 1}, {"kind": None}, {"requires": "bloom"},
        {"keys": []}, {"keys": [[""], ["a"]]}, {"keys": [[""], ["b"], ["a"]]}, {"keys": [[""], ["a"], ["a"]]},
        {"keys": ["", "a", "b"]}, {"keys": [[""], [None], ["b"]]}, {"keys": None},
        {"lengths": [1, 2]}, {"lengths": [0, 1, 2]},
        {"lengths": [sum(FIELDS["lengths"]) - 1, 0, 1]}, {"lengths": [sum(FIELDS["lengths"]), 1, -1]},
        {"lengths": [-1, 1, 2]}, {"lengths": [1, 2, "3"]},
        {"lengths": [*FIELDS["lengths"][:2], FIELDS["lengths"][2] + 1]}, {"lengths": [FIELDS["lengths"]] * 3},
        {"rows": [2, 0, 3]}, {"rows": [2, 2, 2]}, {"rows": [5]}, {"rows": [2, 1, 2, 0]}, {"rows": [2, 1.5, 1.5]},
        {"oldest": []}, {"oldest": [1, 2, None]}, {"newest": [1] * 4}, {"newest": {}},
        {"keys": [], "lengths": [], "rows": [], "oldest": [], "newest": []},
    ],
)  # fmt: skip
def test_a_fence_that_cannot_be_right_is_corrupt_and_the_object_named(change: dict[str, Any]) -> None:
    with pytest.raises(CorruptError, match=r"^the fence of the object"):
        fence_of(framed({**FIELDS, **change}), FILE)


@pytest.mark.parametrize("missing", ["format", "kind", "keys", "lengths", "rows", "oldest", "newest"])
def test_a_fence_without_one_of_its_lists_is_corrupt(missing: str) -> None:
    with pytest.raises(CorruptError, match=rf"^the fence of the object.*{missing}"):
        fence_of(framed({name: value for name, value in FIELDS.items() if name != missing}), FILE)


@given(damaged(FIELDS))
def test_no_value_in_a_fence_makes_another_error(value: Any) -> None:
    with refused_only_as(CorruptError, UnsupportedFormatError, named="the fence of the object"):
        fence = fence_of(framed(value), FILE)
        assert (sum(fence.rows), sum(fence.lengths)) == (FILE.rows, FILE.fence_start)


@pytest.mark.parametrize("raw", [b"", b"[", b"[]", b"null", b"1", b"\xff", b"[" * 100_000, b'{"format":' * 50_000])
def test_what_is_no_json_of_a_fence_is_corrupt(raw: bytes) -> None:
    content = compress(raw)
    body = bytes.fromhex("5e2a4d18") + len(content).to_bytes(4, "little") + content
    with pytest.raises(CorruptError, match=r"^the fence of the object"):
        fence_of(body, FILE)


# --- bombs ----------------------------------------------------------------------------------------------------------


def bomb(size: int, *, told: bool) -> bytes:
    """A frame of `size` (in MiB) zeros and a newline, in some bytes a MiB; whether it names its size."""
    chunk = bytes(MiB)
    maker = zstandard.ZstdCompressor(write_checksum=True).compressobj(size=size * MiB if told else -1)
    return b"".join(maker.compress(chunk) for _ in range(size)) + maker.flush()


def peak_of(read: Callable[[], object], match: str) -> int:
    """The most memory that is taken until it is refused."""
    tracemalloc.start()
    try:
        with pytest.raises(CorruptError, match=match):
            read()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("told", [True, False], ids=["known size", "unknown size"])
def test_a_bomb_in_a_block_is_refused_before_it_fills_the_memory(told: bool) -> None:
    frame = bomb(4 * MAX_BLOCK // MiB, told=told)
    assert len(frame) < MiB
    peak = peak_of(lambda: read_blocks(frame, [len(frame)], [1], "the object"), r"^the object .* are read$")
    assert peak < (MiB if told else 2 * MAX_BLOCK)


@pytest.mark.parametrize("told", [True, False], ids=["known size", "unknown size"])
def test_a_bomb_in_a_fence_is_refused_before_it_fills_the_memory(told: bool) -> None:
    content = bomb(2 * MAX_BYTES // MiB, told=told)
    body = bytes.fromhex("5e2a4d18") + len(content).to_bytes(4, "little") + content
    assert len(body) < MiB
    peak = peak_of(lambda: fence_of(body, FILE), r"^the fence of the object .* are read$")
    assert peak < (MiB if told else 2 * MAX_BYTES)


def test_a_block_with_the_longest_line_that_may_be_is_read() -> None:
    long = b"x" * (MAX_BLOCK // 2 - 1)
    time = index_time(datetime.min)
    file = written([(("", "", "a"), time, b"x" * (BLOCK - 2)), (("", "", "b"), time, long)])
    (text,) = texts_of(file)
    assert text.endswith(b"\n" + long + b"\n")


# --- other people's tools -------------------------------------------------------------------------------------------


def conversations(count: int, **always: Any) -> list[Given]:
    """The rows of an archive, with metadata of many shapes."""
    given: list[Given] = []
    for number in range(count):
        entry = Entry(
            conversation_id=f"conv-{number:06}",
            revision=number + 1,
            created=index_time(EPOCH + timedelta(hours=number)),
            updated=index_time(EPOCH + timedelta(hours=number, microseconds=1)),
            schema_version="1.1.0",
            message_count=2,
            branch_count=1,
            size=300,
            metadata={
                "user_id": str(number % 7) if number % 2 else number % 7,
                "title": 'Zoë said: "🌳\u2028\\n"\n' * (number % 5),
                **({"late": {"deep": [number, None, "x"]}} if number > count // 2 else {}),
                **always,
            },
            deleted=number % 11 == 0,
        )
        given.append((("null", entry.created, entry.conversation_id), entry.updated, encode_row(entry)))
    return given


CONVERSATIONS = conversations(3_000)
SUM = sum(range(3_001))


@pytest.fixture(scope="module", params=[BLOCK, 300], ids=["blocks of 64 KiB", "blocks of 300 bytes"])
def file(request: pytest.FixtureRequest) -> Blocks:
    """A file of several blocks, or of very many and a fence that is larger than what a reader has in its hand."""
    return written(CONVERSATIONS, request.param)


@pytest.fixture
def path(file: Blocks, tmp_path: Path) -> Path:
    """It, in a directory."""
    path = tmp_path / "segment.jsonl.zst"
    path.write_bytes(file.body)
    return path


@pytest.fixture(scope="module")
def zstd() -> Callable[..., bytes]:
    """The command `zstd`: takes its arguments and its input, gives its output."""
    command = shutil.which("zstd")
    if command is None:
        pytest.skip("the zstd command is not installed")

    def run(*arguments: str, given: bytes = b"") -> bytes:
        done = subprocess.run([command, *arguments], input=given, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    return run


def test_zstd_gives_exactly_the_lines(path: Path, zstd: Callable[..., bytes]) -> None:
    lines = zstd("-dc", str(path)).splitlines()
    assert lines == [line for _, _, line in CONVERSATIONS]
    assert zstd("-dc", given=path.read_bytes()).splitlines() == lines
    assert [json.loads(line)["revision"] for line in lines] == list(range(1, 3_001))


def test_zstd_tests_it_and_counts_its_frames(file: Blocks, path: Path, zstd: Callable[..., bytes]) -> None:
    zstd("--test", str(path))
    heads, values = zstd("--list", str(path)).decode().splitlines()
    assert heads.split()[:2] == ["Frames", "Skips"]
    assert values.split()[:2] == [str(len(file.fence.keys) + 2), "2"]
    assert "XXH64" in values


def test_zstd_reads_any_range_of_blocks_alone(file: Blocks, zstd: Callable[..., bytes]) -> None:
    some = by_block(CONVERSATIONS, file.fence)
    count = len(some)
    for first, last in ((0, 1), (1, 2), (count - 1, count), (count // 2, count)):
        start, end = file.fence.offsets[first], file.fence.offsets[last]
        lines = zstd("-dc", given=file.body[start:end]).splitlines()
        assert lines == [line for block in some[first:last] for _, _, line in block]


def seek_table(body: bytes) -> list[tuple[int, int]]:
    """The (stored, decompressed) sizes of all frames, read by what zstd's `seekable_format.md` says alone."""
    frames, descriptor, magic = struct.unpack("<IBI", body[-9:])
    assert magic == 0x8F92EAB1
    assert descriptor == 0, "no checksums in the table, no reserved bits"
    frame = body[-(8 * frames + 9 + 8) :]
    assert struct.unpack("<II", frame[:8]) == (0x184D2A5E, len(frame) - 8)
    return [struct.unpack_from("<II", frame, 8 + 8 * number) for number in range(frames)]


def test_the_seek_table_is_that_of_the_seekable_format(file: Blocks) -> None:
    """Each frame alone has the size that the table tells; all of them and the table are the whole file."""
    body = file.body
    table = seek_table(body)
    *blocks, fence = table
    assert len(blocks) == len(file.fence.keys)
    assert sum(stored for stored, _ in table) + 8 * len(table) + 17 == len(body)
    at = row = 0
    for stored, size in blocks:
        text = zstandard.ZstdDecompressor().decompress(body[at : at + stored], allow_extra_data=False)
        assert len(text) == size
        lines = text.splitlines()
        assert lines == [line for _, _, line in CONVERSATIONS[row : row + len(lines)]]
        at, row = at + stored, row + len(lines)
    assert row == len(CONVERSATIONS)
    assert fence[1] == 0, "a skippable frame has no content"
    assert struct.unpack_from("<II", body, at) == (0x184D2A5E, fence[0] - 8)


def test_duckdb_reads_it_whole(path: Path) -> None:
    duckdb = pytest.importorskip("duckdb", reason="duckdb is not installed")
    with duckdb.connect() as database:
        whole = "SELECT count(*), sum(revision), count(DISTINCT conversation_id) FROM "
        explicit = "read_json(?, format = 'newline_delimited', compression = 'zstd')"
        assert database.execute(whole + explicit, [str(path)]).fetchall() == [(3_000, SUM, 3_000)]
        # By its name alone, too.
        assert database.execute(whole + "read_json(?)", [str(path)]).fetchall() == [(3_000, SUM, 3_000)]
        titles = database.execute(f"SELECT metadata.title FROM {explicit} ORDER BY revision", [str(path)]).fetchall()
    assert [title for (title,) in titles] == [json.loads(line)["metadata"]["title"] for _, _, line in CONVERSATIONS]


def test_polars_reads_it_whole(path: Path) -> None:
    polars = pytest.importorskip("polars", reason="polars is not installed")
    # The types of what is in metadata are told by all rows, not by the first hundred.
    frame = polars.read_ndjson(path, infer_schema_length=None)
    assert frame["revision"].to_list() == list(range(1, 3_001))
    assert frame["metadata"].struct.field("title").to_list() == [
        json.loads(line)["metadata"]["title"] for _, _, line in CONVERSATIONS
    ]
    lazy = polars.scan_ndjson(path, infer_schema_length=None)
    assert lazy.select(polars.len(), polars.col("revision").sum()).collect().rows() == [(3_000, SUM)]


# --- a file that is kept --------------------------------------------------------------------------------------------


def golden_lines() -> list[bytes]:
    """The rows of the golden file, in its order.

    By this formula and a `BlockWriter` with blocks of 1 KiB the file was made once, with the version that introduced
    the format and zstandard 0.25.0. It is never made again: what is read here lies in buckets for years.
    """
    lines = []
    for number in range(30):
        user = ('"Zoë"', '"alice"', "5")[number // 10]
        deleted = ',"deleted":true' if number == 17 else ""
        lines.append(
            f'{{"conversation_id":"conv-{number:02}","revision":{number % 3 + 1},'
            f'"created_at":"2025-{number % 10 + 1:02}-01T08:00:00.000000Z",'
            f'"updated_at":"2025-11-{number + 1:02}T12:34:56.{number:06}Z","schema_version":"1.1.0",'
            f'"message_count":{number},"branch_count":1,"size":{300 + number},'
            f'"metadata":{{"user_id":{user},"title":"\\"{number}\\" 🌳\\n\\\\"}}'
            f"{deleted}}}"
        )
    return [line.encode() for line in lines]


GOLDEN_FENCE = Fence(
    keys=[
        ("",), ('"Zoë"', "2025-06"), ('"a',), ('"alice"', "2025-05"), ('"alice"', "2025-09"), ("5", "2025-04"),
        ("5", "2025-09"),
    ],
    lengths=[273, 285, 260, 276, 293, 278, 229],
    rows=[5, 5, 4, 4, 5, 5, 2],
    oldest=[1762000496, 1762432496, 1762864496, 1763210096, 1763555696, 1763987696, 1764419696],
    newest=[1762346097, 1762778097, 1763123697, 1763469297, 1763901297, 1764333297, 1764506097],
)  # fmt: skip


def test_the_golden_file_is_still_the_one_that_was_made() -> None:
    assert hashlib.sha256(GOLDEN.read_bytes()).hexdigest() == (
        "16450bd40aed2c2580bac03effc3e5e3c1bd31e81583eb8e521b60add7c44052"
    )


def test_the_golden_file_is_read_for_ever() -> None:
    body = GOLDEN.read_bytes()
    assert find_fence(body, len(body), "it") == (1894, 242)
    fence = decode_fence(body[1894 : 1894 + 242], 30, 1894, "it")
    assert fence == GOLDEN_FENCE
    texts = read_blocks(body[:1894], fence.lengths, fence.rows, "it")
    assert b"".join(texts) == b"".join(line + b"\n" for line in golden_lines())


def test_each_block_of_the_golden_file_is_read_alone() -> None:
    body, reader, before = GOLDEN.read_bytes(), RowReader("metadata.user_id"), 0
    for number, (start, end) in enumerate(pairwise(GOLDEN_FENCE.offsets)):
        count = GOLDEN_FENCE.rows[number]
        (text,) = read_blocks(body[start:end], [end - start], [count], "it")
        found = reader.block(text, "it")
        assert [row.line for row in found] == golden_lines()[before : before + count]
        assert {GOLDEN_FENCE.block_of(row.key) for row in found} == {number}
        assert [decode_row(row.line, "it").conversation_id for row in found] == [row.key[2] for row in found]
        assert [row.key[2] for row in found if row.gone] == (["conv-17"] if number == 3 else [])
        before += count
    assert before == 30
    assert list(GOLDEN_FENCE.blocks_between(('"alice"',), ('"alice"\0',))) == [2, 3, 4]


def test_the_golden_file_is_read_with_nothing_of_ours(zstd: Callable[..., bytes]) -> None:
    assert zstd("-dc", given=GOLDEN.read_bytes()) == b"".join(line + b"\n" for line in golden_lines())
    sizes = [1275, 1275, 1032, 1047, 1272, 1260, 504]
    assert seek_table(GOLDEN.read_bytes()) == [*zip(GOLDEN_FENCE.lengths, sizes, strict=True), (242, 0)]
