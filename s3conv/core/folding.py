"""Fold: turn intents into rows of the tail. DESIGN.md, section 6.

Law: the document has the last word on what its intents become, and wherever else they say that the conversation is or
was, a row shadows it. An intent is deleted only after a manifest that has its row, so that a crash anywhere leaves at
worst an intent that is folded again. Who loses the manifest begins again.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

import msgspec

from s3conv.bridge import ordered_map
from s3conv.core.context import Context
from s3conv.core.loading import fetch_document
from s3conv.core.log import LogObject, OvertakenError, Seen, entry_named, entry_of_document, hinted, read_intents
from s3conv.core.merging import fresh_ulid, merged, of_list, rows_of, store_time, write_segments
from s3conv.core.segments import (
    IndexCache,
    Manifested,
    check_overtaken,
    read_manifest,
    recent_text,
    swap_manifest,
)
from s3conv.errors import IndexDamagedError
from s3conv.format.blocks import BlockWriter
from s3conv.format.document import NOTHING, Stamp
from s3conv.format.entry import Entry, Intent, SortKey, partition_metadata, sort_key
from s3conv.format.keys import RECENT, document_key
from s3conv.format.manifest import REPAIR, RUNS, Manifest, Recent, Retired, Segment
from s3conv.format.rows import Row, RowReader, encode_row
from s3conv.store.base import LIST_PAGE

DEAD = 24 * 3600.0
"""Seconds after which an intent without its document is dropped (DESIGN.md, section 6)."""

DEAD_MOVE = 30 * DEAD
"""The same for one that moves its conversation: whoever builds on it names the old key no more (docs/adr/0010)."""

SHORT_LIVED = 3600.0
"""An object that counted for less than this is not listed as retired: its age tells enough (docs/adr/0008)."""

RECENT_ROWS = 1000
"""Most live entries in `recent` (DESIGN.md, section 3)."""

RECENT_OLDER = 200
"""Most deleted entries, and most older ones, that `recent` has besides: they keep late intents of conversations that
were folded a moment ago from showing (docs/adr/0009)."""

RECENT_TEXT = 512 * 1024
"""Most bytes of lines of its live entries, some 128 KiB stored; of the other two, a quarter of it each."""

ATTEMPTS = 5
"""How often a fold or a merge begins again because another one was faster."""


@dataclass(slots=True)
class Folded:
    """What folding did: intents by what became of them, and whether it was overtaken too often to finish."""

    folded: int = 0
    dropped: int = 0
    pending: int = 0
    segments_written: int = 0
    bytes_written: int = 0
    finished: bool = True


@dataclass(slots=True)
class _Plan:
    """What is to become of some intents. `reached`: those of each entry that its document is at or past."""

    entries: dict[str, Entry] = field(default_factory=dict)
    reached: dict[str, list[Intent]] = field(default_factory=dict)
    done: list[str] = field(default_factory=list)
    result: Folded = field(default_factory=Folded)


async def fold(context: Context, cache: IndexCache, listed: Sequence[LogObject], attempts: int = ATTEMPTS) -> Folded:
    """Fold the intents in some objects of the log.

    Args:
        context: the open archive.
        cache: what earlier reads remember.
        listed: objects of the log, as a list has just shown them.
        attempts: how often to begin again if another one is faster.
    """
    for attempt in range(attempts):
        if attempt:
            await context.back_off(attempt)
        # Before the documents are looked at: a fold that saw older documents must lose to one that saw newer ones.
        now = await read_manifest(context)
        by_id = await read_intents(context, cache.log, listed, gone=True)
        plan = await _plan(context, by_id)
        try:
            if plan.entries and not await _commit(context, cache, now, plan):
                continue
        except OvertakenError as gone:
            await check_overtaken(context, now, gone)
            continue
        for begin in range(0, len(plan.done), LIST_PAGE):
            await context.store.delete(plan.done[begin : begin + LIST_PAGE])
        return plan.result
    return Folded(finished=False)


async def _plan(context: Context, by_id: dict[str, list[Seen]]) -> _Plan:
    plan = _Plan()
    unsettled: set[str] = set()
    settled: set[str] = set()
    ready = []
    for seen in by_id.values():
        if any(one.speaks for one in seen):
            plan.result.pending += len(seen)
            unsettled.update(one.place.key for one in seen)
        else:
            ready.append(seen)

    async def look(seen: list[Seen]) -> tuple[list[Seen], Stamp, Entry | None]:
        return seen, *await _document_of(context, seen)

    async for seen, stamp, entry in ordered_map(context.runner, look, ready, context.store.fan_out):
        behind = [one for one in seen if one.intent.entry.revision > stamp.revision]
        reached = [one for one in seen if one.intent.entry.revision <= stamp.revision]
        for one in behind:
            if one.place.age > (DEAD if one.intent.replaces is None else DEAD_MOVE):
                plan.result.dropped += 1
                settled.add(one.place.key)
            else:
                plan.result.pending += 1
                unsettled.add(one.place.key)
        if reached and entry is not None:
            plan.result.folded += len(reached)
            plan.entries[entry.conversation_id] = entry
            plan.reached[entry.conversation_id] = [one.intent for one in reached]
            settled.update(one.place.key for one in reached)
    # A batch goes when all of its intents are settled.
    plan.done = sorted(settled - unsettled)
    return plan


async def _document_of(context: Context, seen: list[Seen]) -> tuple[Stamp, Entry | None]:
    """Which write a conversation's document is, and the entry that it stands for; `NOTHING` if there is none.

    The entry is None where the document is behind all of the intents: nothing is to be folded then.
    """
    conversation_id = seen[0].intent.entry.conversation_id
    head = await context.store.head(document_key(conversation_id))
    if head is None:
        return NOTHING, None
    written = hinted(head)
    if written is not None and (entry := entry_named((one.intent for one in seen), written, head.size)) is not None:
        return Stamp(*written, ()), entry
    if written is not None and written[0] < min(one.intent.entry.revision for one in seen):
        return Stamp(*written, ()), None
    document = await fetch_document(context, conversation_id)
    if document is None:
        return NOTHING, None
    return document.stamp, await entry_of_document(context, document)


async def _commit(context: Context, cache: IndexCache, now: Manifested, plan: _Plan) -> bool:
    """Merge the plan's rows into the tail, and let the manifest name it. False: another one was faster."""
    archive = await context.descriptor()
    reader = RowReader(archive.partition_by)
    manifest = now.manifest
    rows = _rows_of_plan(plan, archive.partition_by, store_time(now.date), reader)
    tail = rows_of(context, cache, manifest.tail, reader)
    segments = await write_segments(context, merged([of_list(rows), tail]), now.date, None, tail=True)
    recent = await _new_recent(context, cache, now, plan)
    changed = msgspec.structs.replace(
        manifest,
        generation=manifest.generation + 1,
        nonce=context.new_id(),
        tail=segments,
        recent=recent,
        retired=retire(manifest, now.date, [*manifest.tail, *([manifest.recent] if manifest.recent else [])]),
    )
    plan.result.segments_written = len(segments)
    plan.result.bytes_written = sum(segment.size for segment in segments) + (recent.size if recent else 0)
    return await swap_manifest(context, now.etag, changed)


def _rows_of_plan(plan: _Plan, partition_by: str | None, date: str, reader: RowReader) -> list[Row]:
    """The rows in order: one for each conversation at its sort key, and one that shadows it at each of its old ones.

    Those are where an intent says that it was, and where an older one says that it is: the document may have moved on
    by a save whose intent was not there yet when the log was listed.
    """
    rows: dict[SortKey, Row] = {}
    for conversation_id, entry in plan.entries.items():
        key = sort_key(entry, partition_by)
        rows[key] = Row(key, entry.revision, entry.updated, entry.deleted, encode_row(entry))
        old_keys = {sort_key(intent.entry, partition_by) for intent in plan.reached[conversation_id]}
        old_keys |= {
            (intent.replaces.partition, intent.replaces.created_at, conversation_id)
            for intent in plan.reached[conversation_id]
            if intent.replaces is not None
        }
        for old_key in old_keys - {key}:
            partition, created, _ = old_key
            gone = msgspec.structs.replace(
                entry,
                created=created,
                updated=date,
                metadata=partition_metadata(partition, partition_by),
                metadata_truncated=False,
                message_count=0,
                branch_count=0,
                size=0,
                deleted=False,
                moved=True,
            )
            rows[old_key] = Row(old_key, entry.revision, date, True, encode_row(gone))
    # Read as a reader will: a row whose key is not what it was meant to be must not get into a segment.
    for key, row in zip(rows, reader.rows([row.line for row in rows.values()], "a fold"), strict=True):
        if key != row.key:
            raise IndexDamagedError(
                f"conversation {key[2]!r}: its intent names the partition {key[0][:60]!r}; {REPAIR}"
            )
    return sorted(rows.values(), key=lambda row: row.key)


async def _new_recent(context: Context, cache: IndexCache, now: Manifested, plan: _Plan) -> Recent | None:
    archive = await context.descriptor()
    reader = RowReader(archive.partition_by)
    known = now.manifest.recent
    rows = await rows_of_recent(context, cache, known, reader)
    if known is not None:
        floor = known.floor
    else:
        floor = max((segment.newest for name in RUNS for segment in now.manifest.run(name)), default="")
    rows = [row for row in rows if row.key[2] not in plan.entries]
    for entry in plan.entries.values():
        row = Row(
            sort_key(entry, archive.partition_by), entry.revision, entry.updated, entry.deleted, encode_row(entry)
        )
        rows.append(row)
    return await write_recent(context, rows, floor, now.date, plan.entries.keys())


async def rows_of_recent(context: Context, cache: IndexCache, recent: Recent | None, reader: RowReader) -> list[Row]:
    """The rows of `recent`, one for each conversation."""
    if recent is None:
        return []
    text = await recent_text(context, cache, recent)
    return reader.rows(text[:-1].split(b"\n"), context.name(recent.key))


async def write_recent(
    context: Context, rows: Iterable[Row], floor: str, date: float, folded: Collection[str] = ()
) -> Recent | None:
    """Write the newest of some rows as `recent`, and those that late intents may have to be told by.

    Args:
        context: the open archive.
        rows: one for each conversation.
        floor: all entries newer than it are among them.
        date: the store's clock when the manifest was read that is to be changed.
        folded: ids of those that are folded just now.
    """
    rows = list(rows)
    live = [row for row in rows if not row.gone and row.updated > floor]
    live.sort(key=lambda row: row.updated, reverse=True)
    fitting = _fitting(live, RECENT_ROWS, RECENT_TEXT)
    if fitting < len(live):
        floor = live[fitting].updated
        live = [row for row in live[:fitting] if row.updated > floor]
    newest: list[Row] = []
    for older in ([row for row in rows if row.gone], [row for row in rows if not row.gone and row.updated <= floor]):
        older.sort(key=lambda row: (row.key[2] in folded, row.updated), reverse=True)
        newest += older[: _fitting(older, RECENT_OLDER, RECENT_TEXT // 4)]
    if not live and not newest:
        return None
    writer = BlockWriter()
    for row in sorted((*live, *newest), key=lambda row: row.key):
        writer.add(row.key, row.updated, row.line)
    blocks = writer.finish()
    name = fresh_ulid(context)
    await context.store.put(f"{RECENT}{name}.jsonl.zst", blocks.body)
    return Recent(
        name=name,
        rows=blocks.rows,
        size=len(blocks.body),
        end=blocks.fence_start,
        fence_length=blocks.fence_length,
        floor=floor,
        written=store_time(date),
    )


def _fitting(rows: Sequence[Row], most: int, room: int) -> int:
    """How many of some rows, from the first on, are at most `most` and have at most `room` bytes of lines."""
    return bisect_right(list(accumulate(len(row.line) + 1 for row in rows[:most])), room)


def retire(manifest: Manifest, date: float, objects: Sequence[Recent | Segment]) -> list[Retired]:
    """What the manifest lists as retired once `objects`, which it names, no longer count.

    One that counted for less than `SHORT_LIVED` is left out, or an archive that is folded every minute would carry
    thousands: collecting tells such by its age.
    """
    at = store_time(date)
    young = store_time(date - SHORT_LIVED)
    gone = [one for one in objects if one.written <= young]
    return [*manifest.retired, *(Retired(key=one.key, retired_at=at) for one in gone)]
