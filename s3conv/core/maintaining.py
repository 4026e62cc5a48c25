"""Maintain: fold the log, merge the runs, collect what no longer counts. DESIGN.md, section 6.

Law: any number may run at once and be killed anywhere; no lock is needed. Everything becomes visible by replacing the
manifest, and nothing is deleted that a manifest names or named until a day ago.
"""

from __future__ import annotations

import heapq
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from itertools import accumulate

import msgspec

from s3conv.core.context import Context
from s3conv.core.folding import (
    ATTEMPTS,
    RECENT_OLDER,
    RECENT_ROWS,
    SHORT_LIVED,
    fold,
    retire,
    rows_of_recent,
    write_recent,
)
from s3conv.core.log import LogObject, OvertakenError, Seen, list_log, pages, read_intents
from s3conv.core.merging import Rows, merged, rows_of, store_time, write_segments
from s3conv.core.segments import IndexCache, Manifested, check_overtaken, read_manifest, swap_manifest
from s3conv.errors import AccessDeniedError, StorageError
from s3conv.format.entry import SortKey, read_index_time
from s3conv.format.keys import LOG, RECENT, SEGMENTS, id_hash, parse_log_key
from s3conv.format.manifest import Manifest, Recent, RunName, Segment
from s3conv.format.rows import Row, RowReader, decode_row
from s3conv.store.base import LIST_PAGE

FULL_TAIL = 4 * 1024 * 1024
"""Stored bytes beyond which the tail is merged into mid (DESIGN.md, section 5)."""

FULL_MID = 32 * 1024 * 1024
"""Stored bytes beyond which mid is merged into base, unless a tenth of base is more (DESIGN.md, section 6)."""

GONE_KEPT = 7 * 24 * 3600.0
"""Seconds for which rows of deleted and moved conversations are kept (DESIGN.md, section 6)."""

RETIRED_KEPT = 24 * 3600.0
"""Seconds for which what no longer counts is kept for readers that still use it (DESIGN.md, section 6)."""

LATEST = RETIRED_KEPT / 2
"""Seconds after which a merge is given up: what it wrote counts nowhere yet, and is collected a day later."""

SLICE = 10_000
"""Intents that are folded at once, by what their objects may hold: what is done until then counts, and is in memory."""

INLINE = 1000
"""Open intents beyond which a reader folds, and most that it folds (DESIGN.md, section 6)."""

_log = logging.getLogger("s3conv")


@dataclass(slots=True)
class Maintained:
    """What `maintain` did: intents by what became of them, segments, and bytes written."""

    folded: int = 0
    dropped: int = 0
    pending: int = 0
    segments_written: int = 0
    segments_merged: int = 0
    deleted: int = 0
    bytes_written: int = 0
    finished: bool = True


async def maintain(context: Context, cache: IndexCache) -> Maintained:
    """See `Archive.maintain`."""
    done = Maintained()
    try:
        await _maintain(context, cache, done)
    except StorageError:
        if context.call is None or context.call.left() > 0:
            raise
        done.finished = False
    return done


async def _maintain(context: Context, cache: IndexCache, done: Maintained) -> None:
    await context.descriptor()  # before all else: an archive that is not there has no damaged index
    after = ""
    while True:
        listed = await list_log(context, LOG, after, SLICE)
        if listed:
            await _fold(context, cache, listed, done)
            after = listed[-1].key
            await _merge_full(context, cache, done)
        if sum(one.most for one in listed) < SLICE:
            break
    await _merge_full(context, cache, done)
    await _collect(context, done)


async def _fold(context: Context, cache: IndexCache, listed: Sequence[LogObject], done: Maintained) -> None:
    folded = await fold(context, cache, listed)
    done.folded += folded.folded
    done.dropped += folded.dropped
    done.pending += folded.pending
    done.segments_written += folded.segments_written
    done.bytes_written += folded.bytes_written
    done.finished &= folded.finished


async def fold_inline(context: Context, cache: IndexCache, by_id: Mapping[str, Sequence[Seen]]) -> None:
    """What a reader does that met many intents: fold some of them, and never fail for it.

    Args:
        context: the open archive.
        cache: what earlier reads remember.
        by_id: all intents that the reader met, by conversation id.
    """
    if sum(map(len, by_id.values())) <= INLINE or not (context.auto_maintain and context.kept.may_maintain):
        return
    held = Counter(one.place for seen in by_id.values() for one in seen)
    # From a place by chance: those that are not ready must not keep the others waiting, nor two readers meet.
    places = [*held, *held][int(context.jitter() * len(held)) % len(held) :][: len(held)]
    most = sum(total <= INLINE for total in accumulate(held[place] for place in places))
    some = places[: max(1, most)]
    try:
        await fold(context, cache, some, attempts=1)
    except AccessDeniedError as error:
        context.kept.may_maintain = False
        _log.info("this process may not maintain the index, and goes on without: %s", error)
    except StorageError as error:
        _log.info("the index could not be folded, which another reader will do: %s", error)


async def _merge_full(context: Context, cache: IndexCache, done: Maintained) -> None:
    """Merge what is full, until nothing is."""
    for attempt in range(ATTEMPTS):
        if attempt:
            await context.back_off(attempt)
        now = await read_manifest(context)
        target = _due(now.manifest)
        if target is None:
            return
        try:
            merging = await merge(context, cache, now, target)
        except OvertakenError as gone:
            await check_overtaken(context, now, gone)
            continue
        if merging is not None:
            done.segments_written += len(merging.written)
            done.segments_merged += merging.merged
            done.bytes_written += sum(segment.size for segment in merging.written)
            if _due((await read_manifest(context)).manifest) is None:
                return
    done.finished = False


def _due(manifest: Manifest) -> RunName | None:
    """The run that something should be merged into."""
    tail, mid, base = (sum(segment.size for segment in manifest.run(name)) for name in ("tail", "mid", "base"))
    full = max(FULL_MID, base // 10)
    if mid > full or (tail > FULL_TAIL and mid + tail > full):
        return "base"
    return "mid" if tail > FULL_TAIL else None


@dataclass(frozen=True, slots=True)
class Merging:
    """What a merge did: the segments that it wrote, and how many it read."""

    written: list[Segment]
    merged: int


async def merge(context: Context, cache: IndexCache, now: Manifested, target: RunName) -> Merging | None:
    """Merge the tail into mid, or all runs into base. None: the manifest changed meanwhile."""
    archive = await context.descriptor()
    reader = RowReader(archive.partition_by)
    names: tuple[RunName, ...] = ("tail", "mid", "base") if target == "base" else ("tail", "mid")
    sources = [now.manifest.run(name) for name in names]
    if not any(sources):
        return Merging([], 0)
    keep = _Keep(await _ids_in_log(context, cache), store_time(now.date - GONE_KEPT)) if target == "base" else None
    runs: list[Rows] = [rows_of(context, cache, segments, reader) for segments in sources]
    recent = now.manifest.recent
    newest = Newest()
    # All runs pass by: a `recent` that has lost some of its entries is made anew from them.
    thin = target == "base" and (recent is None or recent.rows < RECENT_ROWS)
    rows = newest.watch(merged(runs)) if thin else merged(runs)
    written = await write_segments(context, rows, now.date, keep)
    if thin:
        found = await rows_of_recent(context, cache, recent, reader)
        recent = await write_recent(context, newest_of([*newest.rows(), *found]), newest.floor, now.date)
    committed = await _commit(context, now, target, written, recent)
    return Merging(written, sum(map(len, sources))) if committed else None


async def _commit(
    context: Context, merged_from: Manifested, target: RunName, written: list[Segment], recent: Recent | None
) -> bool:
    """Let the manifest name what was merged, also if there were folds meanwhile. False: there was another merge.

    A fold replaces the tail by one that holds its rows too, and leaves the older runs: they are replaced all the same,
    or an archive that is folded often would never finish a long merge.
    """
    before, now = merged_from.manifest, merged_from
    for attempt in range(ATTEMPTS):
        if attempt:
            await context.back_off(attempt)
            now = await read_manifest(context)
        manifest = now.manifest
        # Who is that late may have had its segments collected.
        if (manifest.mid, manifest.base) != (before.mid, before.base) or now.date - merged_from.date > LATEST:
            return False
        folded = manifest.tail != before.tail
        changed = msgspec.structs.replace(
            manifest,
            generation=manifest.generation + 1,
            nonce=context.new_id(),
            tail=manifest.tail if folded else [],
            mid=written if target == "mid" else [],
            base=written if target == "base" else manifest.base,
            recent=recent if manifest.recent == before.recent else manifest.recent,
        )
        taken = [one for one in manifest.all() if one.key not in changed.named()]
        changed = msgspec.structs.replace(changed, retired=retire(manifest, now.date, taken))
        if await swap_manifest(context, now.etag, changed):
            return True
    return False


class Newest:
    """The newest live rows of those that pass by, and the deleted ones that changed last."""

    def __init__(self) -> None:
        self.floor = ""
        self._live: list[tuple[str, SortKey, Row]] = []
        self._deleted: list[tuple[str, SortKey, Row]] = []

    async def watch(self, rows: Rows) -> Rows:
        async with aclosing(rows) as stream:
            async for some in stream:
                for row in some:
                    if not row.gone and row.updated > self.floor:
                        heapq.heappush(self._live, (row.updated, row.key, row))
                        if len(self._live) > RECENT_ROWS:
                            self.floor = heapq.heappop(self._live)[0]
                    elif row.gone and decode_row(row.line, "a row").deleted:
                        heapq.heappush(self._deleted, (row.updated, row.key, row))
                        if len(self._deleted) > RECENT_OLDER:
                            heapq.heappop(self._deleted)
                yield some

    def rows(self) -> list[Row]:
        return [row for _, _, row in (*self._live, *self._deleted)]


def newest_of(rows: Iterable[Row]) -> Iterable[Row]:
    """Of each conversation the row of its highest revision, the first of several.

    Two may be live: where it is, and where it was before a move of which only a part is folded.
    """
    found: dict[str, Row] = {}
    for row in rows:
        known = found.setdefault(row.key[2], row)
        if row.revision > known.revision:
            found[row.key[2]] = row
    return found.values()


class _Keep:
    """Which rows a merge into base keeps: all but those that only shadow, are old, and have nothing left to shadow."""

    def __init__(self, in_log: set[str], before: str) -> None:
        self._in_log = in_log
        self._before = before

    def __call__(self, row: Row) -> bool:
        return not row[3] or row[2] > self._before or id_hash(row[0][2]) in self._in_log


async def _ids_in_log(context: Context, cache: IndexCache) -> set[str]:
    """The hashes of all ids that an intent names. Listed after the manifest was read: no older intent is missed."""
    found: set[str] = set()
    batches: list[LogObject] = []
    for place in await list_log(context, LOG):
        name = parse_log_key(place.key)
        if name is not None and name.id_hash is not None:
            found.add(name.id_hash)
        else:
            batches.append(place)
    by_id = await read_intents(context, cache.log, batches, gone=True)
    return found | {id_hash(conversation_id) for conversation_id in by_id}


async def _collect(context: Context, done: Maintained) -> None:
    """Delete what no longer counts and no reader can still use."""
    now = await read_manifest(context)
    manifest = now.manifest
    named, retired = (
        manifest.named(),
        {one.key: read_index_time(one.retired_at).timestamp() for one in manifest.retired},
    )
    doomed: list[str] = []
    left: set[str] = set()
    for prefix in (SEGMENTS, RECENT):
        async for page in pages(context, prefix):
            for one in page.objects:
                if one.key in named:
                    continue
                # One that was never listed as retired counted for less than `SHORT_LIVED`, or never.
                since = retired.get(one.key, one.last_modified + SHORT_LIVED)
                if page.date - since > RETIRED_KEPT:
                    doomed.append(one.key)
                else:
                    left.add(one.key)
    if not doomed:
        return
    changed = msgspec.structs.replace(
        manifest,
        generation=manifest.generation + 1,
        nonce=context.new_id(),
        retired=[one for one in manifest.retired if one.key in left],
    )
    # A fold that is stalled, and might yet name what is deleted here, loses its own swap by this one.
    if not await swap_manifest(context, now.etag, changed):
        return
    for begin in range(0, len(doomed), LIST_PAGE):
        await context.store.delete(doomed[begin : begin + LIST_PAGE])
    done.deleted += len(doomed)
