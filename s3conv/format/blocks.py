"""Blocks: sorted JSON lines in zstd frames, with a fence that says what lies where. DESIGN.md, section 3.

A blocks file is a row of zstd frames, each a block of about 64 KiB of whole lines; then the fence in a skippable frame;
then the seek table of the zstd seekable format. `zstd -dc` gives the lines and passes over the rest, so that the file
stays readable without s3conv; a reader that knows the fence fetches it with one range, and then only the blocks it
needs.

Law: a line is copied as it is and never interpreted here. Every block and the fence carry their own checksum, since a
part of an object cannot be checked against a checksum of the whole.
"""

from __future__ import annotations

import struct
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import cached_property
from io import BytesIO
from itertools import accumulate, pairwise
from operator import lt
from typing import NamedTuple

import msgspec
import zstandard

from s3conv.errors import CorruptError
from s3conv.format.codec import LEVEL, compress, decompress, to_json
from s3conv.format.entry import SortKey
from s3conv.format.support import FORMAT, read_kind

BLOCK = 64 * 1024
"""Bytes of text after which a block ends (DESIGN.md, section 3)."""

MAX_BLOCK = 32 * 1024 * 1024
"""Most bytes of text in one block: twice the largest line, as a block ends with the line that fills it."""

GAP = 3
"""Most unwanted blocks between two wanted ones that are fetched in one range (DESIGN.md, section 3)."""

_SKIPPABLE = 0x184D2A5E
"""Magic number of a skippable frame; the seekable format uses this one of the sixteen for its table, we for both."""

_SEEKABLE = 0x8F92EAB1
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND = timedelta(seconds=1)
_HEAD = struct.Struct("<II")
_FRAME = struct.Struct("<II")
_FOOT = struct.Struct("<IBI")


class Span(NamedTuple):
    """The blocks `first` to `last` (exclusive) of a file, and where they lie in it, in bytes."""

    first: int
    last: int
    start: int
    length: int


class Fence(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """What lies where in a blocks file: one item per block in each list.

    `keys` are separators: all sort keys of a block are equal to or above its own and below the next one's. Each is the
    shortest that does it, a sort key cut off after any character. `lengths` are bytes as stored. `oldest` and `newest`
    bound the lines' `updated_at`, in seconds since 1970, rounded outward.
    """

    keys: list[tuple[str, ...]]
    lengths: list[int]
    rows: list[int]
    oldest: list[int]
    newest: list[int]

    @cached_property
    def offsets(self) -> list[int]:
        """Where each block begins, and where the last one ends."""
        return list(accumulate(self.lengths, initial=0))

    def block_of(self, key: SortKey) -> int:
        """The block that a sort key is in if it is in the file; -1: it is before all of them."""
        return bisect_right(self.keys, key) - 1

    def blocks_between(self, low: tuple[str, ...], high: tuple[str, ...]) -> range:
        """The blocks that may hold sort keys from `low` on and below `high`; () is no bound."""
        first = max(0, bisect_right(self.keys, low) - 1) if low else 0
        return range(first, bisect_left(self.keys, high) if high else len(self.keys))

    def spans(self, wanted: Sequence[int], longest: int) -> Iterator[Span]:
        """The ranges that fetch some blocks (ascending), neighbours joined up to `longest` bytes."""
        offsets = self.offsets
        begin = 0
        for position, block in enumerate(wanted):
            after = wanted[position + 1] if position + 1 < len(wanted) else None
            first = wanted[begin]
            if after is None or after - block > GAP + 1 or offsets[after + 1] - offsets[first] > longest:
                yield Span(first, block + 1, offsets[first], offsets[block + 1] - offsets[first])
                begin = position + 1

    def check(self, rows: int, end: int) -> None:
        """Raise `ValueError` unless it describes a file with `rows` lines whose last block ends at byte `end`."""
        columns = (self.keys, self.lengths, self.rows, self.oldest, self.newest)
        if len({len(column) for column in columns}) != 1 or not self.keys:
            raise ValueError("its lists differ in length, or are empty")
        if min(self.lengths) < 1 or min(self.rows) < 1 or not all(map(lt, self.keys, self.keys[1:])):
            raise ValueError("its keys do not ascend, or a block is empty")
        if (sum(self.rows), sum(self.lengths)) != (rows, end):
            raise ValueError(
                f"it describes {sum(self.rows):,} rows in {sum(self.lengths):,} bytes; expected {rows:,} in {end:,}"
            )


_fence_decoder = msgspec.json.Decoder(Fence)


class Blocks(NamedTuple):
    """A file that `BlockWriter` finished. `fence_start` is also where its last block ends."""

    body: bytes
    fence: Fence
    fence_start: int
    fence_length: int
    rows: int
    first: SortKey
    last: SortKey
    oldest: str
    newest: str


class BlockWriter:
    """Writes one blocks file: `add` lines in the order of their keys, then `finish`.

    A zstd context belongs to one thread, and so does a writer.
    """

    def __init__(self) -> None:
        self.size = 0
        """Bytes of the blocks that are complete."""
        self._compressor = zstandard.ZstdCompressor(level=LEVEL, write_checksum=True)
        # Not a list of frames: so many pieces among short-lived rows would leave the heap full of holes.
        self._body = BytesIO()
        self._fence = Fence(keys=[], lengths=[], rows=[], oldest=[], newest=[])
        self._texts: list[int] = []
        self._lines: list[bytes] = []
        self._length = 0
        self._first: SortKey | None = None
        self._begin: SortKey | None = None
        self._last: SortKey = ("", "", "")
        self._oldest = ""
        self._newest = ""
        self._all_oldest = ""
        self._all_newest = ""

    def add(self, key: SortKey, updated: str, line: bytes) -> None:
        """Append a line, given without its newline. Keys ascend; `updated` is the line's `updated_at`."""
        if self._begin is None:
            separator = _separator(self._last, key) if self._first is not None else ("",)
            self._fence.keys.append(separator)
            self._begin = key
            self._first = self._first or key
            self._oldest = self._newest = updated
        elif updated < self._oldest:
            self._oldest = updated
        elif updated > self._newest:
            self._newest = updated
        self._last = key
        self._lines.append(line)
        self._length += len(line) + 1
        if self._length >= BLOCK:
            self._end_block()

    def _end_block(self) -> None:
        text = b"\n".join(self._lines) + b"\n"
        frame = self._compressor.compress(text)
        self._body.write(frame)
        self._texts.append(len(text))
        fence = self._fence
        fence.lengths.append(len(frame))
        fence.rows.append(len(self._lines))
        fence.oldest.append(_since_1970(self._oldest) // _SECOND)
        fence.newest.append(-(-_since_1970(self._newest) // _SECOND))
        self._all_oldest = min(self._all_oldest or self._oldest, self._oldest)
        self._all_newest = max(self._all_newest, self._newest)
        self.size += len(frame)
        self._lines, self._length, self._begin = [], 0, None

    def finish(self) -> Blocks:
        """The file. At least one line must have been added."""
        if self._lines:
            self._end_block()
        assert self._first is not None, "a blocks file has at least one line"
        fence = encode_fence(self._fence)
        table = b"".join(map(_FRAME.pack, (*self._fence.lengths, len(fence)), (*self._texts, 0)))
        table += _FOOT.pack(len(self._texts) + 1, 0, _SEEKABLE)
        self._body.writelines((fence, _HEAD.pack(_SKIPPABLE, len(table)), table))
        return Blocks(
            self._body.getvalue(),
            self._fence,
            self.size,
            len(fence),
            sum(self._fence.rows),
            self._first,
            self._last,
            self._all_oldest,
            self._all_newest,
        )


def encode_fence(fence: Fence) -> bytes:
    """The skippable frame that holds a fence: JSON in a zstd frame of its own."""
    content = compress(to_json({"format": FORMAT, "kind": "fence", **msgspec.to_builtins(fence)}, "a fence"))
    return _HEAD.pack(_SKIPPABLE, len(content)) + content


def decode_fence(body: bytes, rows: int, end: int, what: str) -> Fence:
    """Read a fence's skippable frame.

    Args:
        body: the frame's bytes.
        rows: how many lines the file has.
        end: where its last block ends and the fence begins, in bytes.
        what: the object's name, for errors.

    Raises:
        CorruptError: it is not the fence of such a file.
        UnsupportedFormatError: it is of a format, or requires a feature, that this version does not know.
    """
    if len(body) < _HEAD.size or _HEAD.unpack_from(body) != (_SKIPPABLE, len(body) - _HEAD.size):
        raise CorruptError(f"the fence of {what} is not where it is expected ({len(body):,} bytes from {end:,} on)")
    raw = decompress(body[_HEAD.size :], f"the fence of {what}")
    try:
        read_kind(raw, ("fence",), f"the fence of {what}")
        fence = _fence_decoder.decode(raw)
        fence.check(rows, end)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise CorruptError(f"the fence of {what} cannot be used: {error}") from None
    return fence


def find_fence(end: bytes, size: int, what: str) -> tuple[int, int]:
    """Where the fence of a file lies, (start, length), told by the file alone.

    Args:
        end: the last bytes of the file, at least its seek table (8 bytes a block, and 25).
        size: of the file, in bytes.
        what: the object's name, for errors.

    Raises:
        CorruptError: the file does not end in a seek table, or in more than `end` holds.
    """
    if len(end) >= _FOOT.size:
        frames, _, magic = _FOOT.unpack_from(end, len(end) - _FOOT.size)
        table = _FRAME.size * frames + _FOOT.size
        if magic == _SEEKABLE and frames >= 2 and table + _HEAD.size <= len(end):
            start = len(end) - table
            lengths = [_FRAME.unpack_from(end, start + _FRAME.size * number)[0] for number in range(frames)]
            if sum(lengths) + _HEAD.size + table == size:
                return sum(lengths[:-1]), lengths[-1]
    raise CorruptError(f"{what} does not end in the seek table of a blocks file ({size:,} bytes found)")


def read_blocks(body: bytes, lengths: Sequence[int], rows: Sequence[int], what: str) -> list[bytes]:
    """The text of neighbouring blocks.

    Args:
        body: their bytes as stored, one after the other.
        lengths: of each, in bytes.
        rows: lines in each.
        what: the object's name, for errors.

    Raises:
        CorruptError: a block is damaged, or has another number of lines.
    """
    decompressor = zstandard.ZstdDecompressor()
    texts = []
    for (start, end), count in zip(pairwise(accumulate(lengths, initial=0)), rows, strict=True):
        text = decompress(body[start:end], what, MAX_BLOCK, decompressor)
        if text.count(b"\n") != count or not text.endswith(b"\n"):
            raise CorruptError(f"{what}: a block has {text.count(10)} lines; expected {count}")
        texts.append(text)
    return texts


def _separator(before: SortKey, key: SortKey) -> tuple[str, ...]:
    """The shortest beginning of `key` that is above `before`."""
    for position, (left, right) in enumerate(zip(before, key, strict=True)):
        if left != right:
            same = next((i for i, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), len(left))
            return (*key[:position], right[: same + 1])
    raise ValueError(f"the key {key} was added twice")


def _since_1970(updated: str) -> timedelta:
    # No float: far from 1970 it holds no microseconds, and a bound might be rounded inward.
    return datetime.fromisoformat(updated) - _EPOCH
