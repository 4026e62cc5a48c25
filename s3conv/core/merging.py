"""Merging runs: sorted rows in, sorted segments out, streaming.

Law: at one sort key the highest revision wins, at equal revisions the newer run; rows are copied as bytes. What is in
memory at once is a range of each input and the segment that is being written, whatever the archive's size.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack, aclosing
from datetime import UTC, datetime

from s3conv.core.context import Context
from s3conv.core.segments import IndexCache, fences_of, pieces_of, texts_of
from s3conv.format.blocks import Blocks, BlockWriter
from s3conv.format.entry import index_time
from s3conv.format.keys import SEGMENTS, ulid
from s3conv.format.manifest import Segment
from s3conv.format.rows import Row, RowReader

SEGMENT = 24 * 1024 * 1024
"""Stored bytes after which a segment ends at the next change of partition (DESIGN.md, section 6)."""

MAX_SEGMENT = 32 * 1024 * 1024
"""Stored bytes at which it ends at the latest."""

STREAMED = 512 * 1024
"""Most stored bytes of a run that are fetched as one range: some 3 MB of rows."""

STREAMS = 5
"""Most such ranges that each run of a merge has in memory."""

Rows = AsyncGenerator[list[Row], None]


async def rows_of(
    context: Context, cache: IndexCache, segments: Sequence[Segment], reader: RowReader, runs: int = 1
) -> Rows:
    """All rows of a run, block by block, in order. `runs`: how many such runs share the memory that one may have."""
    for segment in segments:
        (fence,) = await fences_of(context, cache, [segment])
        name = context.name(segment.key)
        pieces = pieces_of(segment, fence, range(len(fence.rows)), STREAMED // runs)
        window = min(context.store.fan_out, max(1, STREAMS // runs))
        async with aclosing(texts_of(context, cache, pieces, keep=False, window=window)) as fetched:
            async for _, texts in fetched:
                for text in texts:
                    yield reader.block(text, name)


async def of_list(rows: list[Row]) -> Rows:
    """Rows in memory, as a run."""
    if rows:
        yield rows


async def merged(runs: Sequence[Rows]) -> Rows:
    """The rows of several runs, given from the newest to the oldest, in order: one for each sort key."""
    async with AsyncExitStack() as stack:
        streams = [await stack.enter_async_context(aclosing(run)) for run in runs]
        heads: list[list[Row]] = [await anext(stream, []) for stream in streams]
        while any(heads):
            if sum(map(bool, heads)) == 1:  # one run alone is in order already
                number, head = next((number, head) for number, head in enumerate(heads) if head)
                yield head
                heads[number] = await anext(streams[number], [])
                continue
            cut = min(head[-1].key for head in heads if head)
            taken: list[Row] = []
            for number, head in enumerate(heads):
                if not head:
                    continue
                end = len(head) if head[-1].key <= cut else bisect_right(head, cut, key=_key)
                taken += head[:end]
                heads[number] = head[end:] or await anext(streams[number], [])
            # Stable: among equal keys the newer run stays first.
            taken.sort(key=_key)
            kept: list[Row] = []
            last = None
            for row in taken:
                key = row[0]
                if key != last:
                    kept.append(row)
                    last = key
                elif row[1] > kept[-1][1]:
                    kept[-1] = row
            yield kept


def _key(row: Row) -> tuple[str, str, str]:
    return row[0]


async def write_segments(
    context: Context, rows: Rows, date: float, keep: Callable[[Row], bool] | None, *, tail: bool = False
) -> list[Segment]:
    """Write rows as segments.

    Args:
        context: the open archive.
        rows: in order.
        date: the store's clock when the manifest was read that these segments will change.
        keep: which rows to write; None: all.
        tail: write one segment that has its fence in the manifest.
    """
    segments: list[Segment] = []
    writer = BlockWriter()
    count = 0
    last = ""
    async with aclosing(rows) as stream:
        async for some in stream:
            for row in some:
                if keep is not None and not keep(row):
                    continue
                key = row[0]
                if not tail and (writer.size >= MAX_SEGMENT or (writer.size >= SEGMENT and key[0] != last)):
                    segments.append(await _put_segment(context, writer.finish(), date, tail))
                    writer, count = BlockWriter(), 0
                writer.add(key, row[2], row[4])
                last = key[0]
                count += 1
    if count:
        segments.append(await _put_segment(context, writer.finish(), date, tail))
    return segments


async def _put_segment(context: Context, blocks: Blocks, date: float, tail: bool) -> Segment:
    name = fresh_ulid(context)
    await context.store.put(f"{SEGMENTS}{name}.jsonl.zst", blocks.body)
    return Segment(
        name=name,
        first=blocks.first,
        last=blocks.last,
        oldest=blocks.oldest,
        newest=blocks.newest,
        rows=blocks.rows,
        size=len(blocks.body),
        end=blocks.fence_start,
        fence_length=blocks.fence_length,
        written=store_time(date),
        fence=blocks.fence if tail else None,
    )


def fresh_ulid(context: Context) -> str:
    """A name for a segment: no two are the same, and they sort by this machine's time."""
    return ulid(context.wall_clock(), int(context.new_id() + context.new_id(), 16))


def store_time(date: float) -> str:
    """A moment of the store's clock as the index writes it."""
    return index_time(datetime.fromtimestamp(date, UTC))
