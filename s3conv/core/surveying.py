"""Surveying: reading the index as far as it can be read, and noting what cannot, instead of stopping there.

Law: what one object hides is noted once, for that object; everything else is read on. The order of reading is that of
every reader: LIST the log, GET what it lists, then GET the manifest and what it names; so a save that was acknowledged
before is seen. An intent that is gone when it is read is in the manifest that is read after it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from s3conv.core.comparing import Difference, RowSeen, counting, difference
from s3conv.core.context import Context
from s3conv.core.inspecting import Log, Part, manifest_as_it_is, read_log
from s3conv.core.log import OvertakenError
from s3conv.core.merging import STREAMED, STREAMS
from s3conv.core.segments import IndexCache, Manifested, fences_of, get_range, pieces_of, recent_text, texts_of
from s3conv.errors import CorruptError, UnavailableError, UnsupportedFormatError
from s3conv.format.blocks import Fence, decode_fence, find_fence
from s3conv.format.entry import (
    SortKey,
    is_index_time,
    read_index_time,
)
from s3conv.format.keys import MANIFEST
from s3conv.format.manifest import RUNS, Segment
from s3conv.format.rows import Row, RowReader, decode_row

RESTARTS = 10
"""How often a survey begins again because maintenance took away under it what it wanted."""


@dataclass(slots=True)
class Survey:
    """What the index says of a part of the conversations, and what of it is damaged.

    `manifest` is None where it cannot be read. `broken` are the segments whose rows are not all among `rows`.
    """

    log: Log
    manifest: Manifested | None = None
    rows: dict[str, list[RowSeen]] = field(default_factory=dict)
    broken: list[Segment] = field(default_factory=list)
    differences: list[Difference] = field(default_factory=list)

    def hidden(self, *keys: SortKey) -> bool:
        """Whether a row at one of these sort keys may be among those that could not be read."""
        return any(segment.first <= key <= segment.last for segment in self.broken for key in keys)


async def survey(context: Context, part: Part, sizes: Mapping[str, int]) -> Survey:
    """Read all that the index says of some conversations.

    Args:
        context: the open archive.
        part: which.
        sizes: of the objects below `index/`, by key, in bytes, as far as they are known.
    """
    archive = await context.descriptor()
    reader = RowReader(archive.partition_by)
    for attempt in range(RESTARTS):
        if attempt:
            await context.back_off(attempt)
        cache = IndexCache()
        found = Survey(await read_log(context, part, cache))
        try:
            seen = await manifest_as_it_is(context)
        except UnsupportedFormatError as error:
            found.differences.append(difference("newer-format", context.name(MANIFEST), error))
            return found
        if seen.found is None:
            found.differences += [seen.difference] if seen.difference else []
            return found
        found.manifest = seen.found
        try:
            await _Reading(context, cache, reader, part, sizes, found, seen.found).run()
        except OvertakenError:
            continue
        return found
    raise UnavailableError(f"the index of {context.store.url} changed under {RESTARTS} reads in a row; try again later")


@dataclass(slots=True)
class _Reading:
    """Reads everything that one manifest names, into a survey."""

    context: Context
    cache: IndexCache
    reader: RowReader
    part: Part
    sizes: Mapping[str, int]
    found: Survey
    now: Manifested
    partitions: dict[str, str] = field(default_factory=dict)
    floor: str | None = None

    async def run(self) -> None:
        manifest, name = self.now.manifest, self.context.name
        recent: list[Row] | None = None
        if manifest.recent is not None:
            self.floor = manifest.recent.floor
            try:
                text = await recent_text(self.context, self.cache, manifest.recent)
                recent = self.reader.block(text, name(manifest.recent.key))
                for row in recent:
                    decode_row(row.line, name(manifest.recent.key))
            except OvertakenError as gone:
                await _check_missing(self.context, gone)
                self._note("damaged-recent", manifest.recent.key, "it is missing, and the manifest names it")
            except CorruptError as error:
                self._note("damaged-recent", manifest.recent.key, error)
            except UnsupportedFormatError as error:
                self._note("newer-format", manifest.recent.key, error)
        for run, run_name in enumerate(RUNS):
            for segment in manifest.run(run_name):
                await self._segment(run, segment)
        if recent is not None and manifest.recent is not None:
            for what in _differences_of_recent(recent, manifest.recent.floor, self.found, self.part)[:1]:
                self._note("damaged-recent", manifest.recent.key, what)

    def _note(self, kind: str, key: str, what: object) -> None:
        name = self.context.name(key)
        self.found.differences.append(difference(kind, name, what))  # type: ignore[arg-type]  # one of the kinds

    async def _segment(self, run: int, segment: Segment) -> None:
        try:
            await self._rows_of(run, segment)
            return
        except OvertakenError as gone:
            await _check_missing(self.context, gone)
            self._note("damaged-segment", segment.key, "it is missing, and the manifest names it")
        except CorruptError as error:
            self._note("damaged-segment", segment.key, error)
        except UnsupportedFormatError as error:
            self._note("newer-format", segment.key, error)
        self.found.broken.append(segment)

    async def _rows_of(self, run: int, segment: Segment) -> None:
        """All rows of a segment, each checked against fence and manifest."""
        name = self.context.name(segment.key)
        fence = await self._fence(segment, name)
        pieces = pieces_of(segment, fence, range(len(fence.rows)), STREAMED)
        window = min(self.context.store.fan_out, STREAMS)
        first: SortKey | None = None
        last: SortKey | None = None
        oldest, newest = "", ""
        async with aclosing(texts_of(self.context, self.cache, pieces, keep=False, window=window)) as fetched:
            async for piece, texts in fetched:
                for block, text in enumerate(texts, piece.span.first):
                    rows = self.reader.block(text, name)
                    first, last = first or rows[0].key, rows[-1].key
                    if (fence.block_of(rows[0].key), fence.block_of(last)) != (block, block):
                        raise CorruptError(f"{name}: the rows of a block are not where the fence says")
                    low, high = _bounds(rows, fence, block, name)
                    oldest, newest = min(oldest or low, low), max(newest, high)
                    self._add(run, segment, rows)
        if (first, last) != (segment.first, segment.last):
            raise CorruptError(f"{name}: its first and last sort key are not those that the manifest names")
        if (oldest, newest) != (segment.oldest, segment.newest):
            raise CorruptError(f"{name}: its rows are from {oldest} to {newest}; the manifest says something else")

    async def _fence(self, segment: Segment, name: str) -> Fence:
        size = self.sizes.get(segment.key, segment.size)
        if size != segment.size or segment.size <= segment.end + segment.fence_length:
            raise CorruptError(f"{name} has {size:,} bytes; the manifest says {segment.size:,}")
        end = await get_range(self.context, segment, segment.end, segment.size - segment.end)
        fence = decode_fence(end[: segment.fence_length], segment.rows, segment.end, name)
        if find_fence(end, segment.size, name) != (segment.end, segment.fence_length):
            raise CorruptError(f"{name}: its seek table says something else than the manifest")
        if segment.fence not in (None, fence):
            raise CorruptError(f"{name}: its fence is not the one that the manifest holds")
        return fence

    def _add(self, run: int, segment: Segment, rows: Sequence[Row]) -> None:
        for row in rows:
            conversation_id = row.key[2]
            if self.part.holds(conversation_id):
                # Whole: also a row that has been overtaken must be one that a reader can pass over.
                decode_row(row.line, self.context.name(segment.key))
                key = (self.partitions.setdefault(row.key[0], row.key[0]), row.key[1], conversation_id)
                newer = self.floor is not None and row.updated > self.floor
                seen = RowSeen(key, row.revision, row.gone, hash(row.line), run, segment.key, newer)
                self.found.rows.setdefault(conversation_id, []).append(seen)


async def _check_missing(context: Context, gone: OvertakenError) -> None:
    """Return if the manifest as it is now still names what is gone; else raise, to begin again."""
    seen = await manifest_as_it_is(context)
    if seen.found is None or gone.key not in seen.found.manifest.named():
        raise gone


def _bounds(rows: Sequence[Row], fence: Fence, block: int, name: str) -> tuple[str, str]:
    """The least and greatest `updated_at` of a block, checked against its fence."""
    times = [row.updated for row in rows]
    low, high = min(times), max(times)
    if not (is_index_time(low) and is_index_time(high)):
        raise CorruptError(f"{name}: a row has no time updated_at")
    if (
        read_index_time(low).timestamp() < fence.oldest[block]
        or read_index_time(high).timestamp() > fence.newest[block]
    ):
        raise CorruptError(f"{name}: the rows of a block are older or newer than the fence says")
    return low, high


def _differences_of_recent(recent: Sequence[Row], floor: str, found: Survey, part: Part) -> list[str]:
    """What `recent` has and the runs do not, or the other way round."""
    held = {row.key[2]: row for row in recent}
    if len(held) < len(recent):
        return ["it has two rows of one conversation"]
    wrong = []
    for conversation_id, row in held.items():
        if row.gone or not part.holds(conversation_id) or found.hidden(row.key):
            continue
        if hash(row.line) not in [one.digest for one in counting(found.rows.get(conversation_id, ())) if not one.gone]:
            wrong.append(f"conversation {conversation_id[:60]!r} is in it as it is in no segment")
    for conversation_id, rows in found.rows.items():
        for one in counting(rows):
            if one.newer and not one.gone and conversation_id not in held:
                wrong.append(
                    f"conversation {conversation_id[:60]!r} is not in it, and is newer than its floor {floor!r}"
                )
    return wrong


async def rows_at(context: Context, wanted: Mapping[str, Iterable[SortKey]], now: Manifested) -> Survey:
    """The rows of some conversations at some sort keys, looked up in all runs; only the blocks that may have them."""
    archive = await context.descriptor()
    reader, cache = RowReader(archive.partition_by), IndexCache()
    found = Survey(Log(), now)
    keys = sorted({key for keys in wanted.values() for key in keys})
    for run, run_name in enumerate(RUNS):
        segments = now.manifest.run(run_name)
        lasts = [segment.last for segment in segments]
        places: defaultdict[int, list[SortKey]] = defaultdict(list)
        for key in keys:
            at = bisect_left(lasts, key)
            if at < len(segments) and segments[at].first <= key:
                places[at].append(key)
        for at, some in places.items():
            segment = segments[at]
            try:
                await _look_up(context, cache, reader, run, segment, some, found)
            except OvertakenError as gone:
                await _check_missing(context, gone)
                found.broken.append(segment)
            except (CorruptError, UnsupportedFormatError):
                found.broken.append(segment)
    return found


async def _look_up(
    context: Context,
    cache: IndexCache,
    reader: RowReader,
    run: int,
    segment: Segment,
    keys: Sequence[SortKey],
    found: Survey,
) -> None:
    (fence,) = await fences_of(context, cache, [segment])
    blocks = sorted({block for key in keys if (block := fence.block_of(key)) >= 0})
    wanted = set(keys)
    pieces = pieces_of(segment, fence, blocks, STREAMED)
    async with aclosing(texts_of(context, cache, pieces, keep=False)) as fetched:
        async for _, texts in fetched:
            for text in texts:
                for key, revision, _, gone, line in reader.block(text, context.name(segment.key)):
                    if key in wanted:
                        row = RowSeen(key, revision, gone, hash(line), run, segment.key, line=line)
                        found.rows.setdefault(key[2], []).append(row)
