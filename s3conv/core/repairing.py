"""Repair: rebuild the index from the documents, while others go on saving, folding and merging.

Law: nothing under `conversations/` is ever written or deleted. What is rebuilt counts when the manifest is replaced, by
a compare-and-swap against the one whose rows were compared with it: whoever folded, merged, collected or repaired
meanwhile makes it begin that comparison again, and whoever did so from an older manifest loses to it. Killed anywhere,
it leaves segments that no manifest names, which are collected. Why no save gets lost: docs/adr/0011.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field

import msgspec

from s3conv.core.comparing import Said
from s3conv.core.context import Context
from s3conv.core.folding import ATTEMPTS, retire, write_recent
from s3conv.core.inspecting import SETTLED, Log, ManifestSeen, Part, manifest_as_it_is, read_log
from s3conv.core.log import OvertakenError
from s3conv.core.maintaining import GONE_KEPT, Newest, newest_of
from s3conv.core.merging import Rows, merged, of_list, rows_of, store_time, write_segments
from s3conv.core.scanning import Scanned, read_documents, scan
from s3conv.core.segments import IndexCache, swap_manifest
from s3conv.errors import CorruptError, IndexDamagedError, StorageError, UnavailableError
from s3conv.format.keys import CONVERSATIONS, document_key, id_hash
from s3conv.format.manifest import RUNS, Manifest, Segment
from s3conv.format.rows import Row, RowReader, decode_row
from s3conv.store.base import LIST_PAGE, is_key

SPILL_ROWS = 100_000
SPILL_BYTES = 64 * 1024 * 1024
"""Most rows, and most bytes of them, that are sorted in memory; what is more is written as sorted segments."""

SCANS = 3
"""How often all documents are read again because the index was damaged once more meanwhile, or it took too long."""

OUTDATED = GONE_KEPT / 2
"""Seconds after which what documents said is no longer held against the index: the rows that tell where a conversation
was before it moved are dropped a week after the move."""


async def rebuild(context: Context, wrong: Collection[str], tell: Callable[[float], None]) -> None:
    """Replace the index by one that says what the documents say.

    Args:
        context: the open archive.
        wrong: full names of objects of the log that say something else than their documents.
        tell: is told the share that is done.

    Raises:
        UnavailableError: others maintained the index and were faster again and again: try again later.
        UnsupportedFormatError: a part of the index was written by a newer s3conv, which has to do this.
        StoreError: the store refused, or did not answer.
    """
    archive = await context.descriptor()
    reader = RowReader(archive.partition_by)
    for _ in range(SCANS):
        # Before the documents are read: what is damaged later may have held newer rows than they will give.
        noted = await manifest_as_it_is(context)
        log = await read_log(context, {}, IndexCache())
        sorted_ = _Sorted(context)
        try:
            async with aclosing(scan(context, Part(), archive.partition_by)) as pages_of_documents:
                async for scanned in pages_of_documents:
                    await sorted_.add(scanned)
                    if scanned:
                        tell(_share(scanned[-1].key))
            if await _replaced(context, reader, noted, log.date, sorted_):
                await _delete(context, _doomed(context, log, wrong))
                return
        finally:
            with suppress(StorageError):  # nobody names them: they are collected
                await _delete(context, [segment.key for run in sorted_.runs for segment in run])
    raise UnavailableError(
        f"the index of {context.store.url} was damaged again while it was rebuilt, or that took days, {SCANS} times: "
        "look for who deletes or overwrites its objects, then run `s3conv verify --repair` again"
    )


def _share(key: str) -> float:
    try:
        return int(key.removeprefix(CONVERSATIONS)[:2], 16) / 256
    except ValueError:
        return 0.0


def _doomed(context: Context, log: Log, wrong: Collection[str]) -> list[str]:
    """The objects of the log that are damaged or wrong, and whose saves are among the documents, or never will be.

    A younger one may announce a save that is still under way, and stays.
    """
    return [
        key
        for key, place in log.places.items()
        if (key in log.troubles and log.troubles[key].mendable) or context.name(key) in wrong
        if place.age > SETTLED and is_key(key)
    ]


async def _delete(context: Context, keys: Sequence[str]) -> None:
    for begin in range(0, len(keys), LIST_PAGE):
        await context.store.delete(keys[begin : begin + LIST_PAGE])


@dataclass(slots=True)
class _Sorted:
    """The rows of all documents, sorted in pieces: most in the store, as segments that nobody names, the rest here."""

    context: Context
    runs: list[list[Segment]] = field(default_factory=list)
    rest: list[Row] = field(default_factory=list)
    size: int = 0

    async def add(self, scanned: Sequence[Scanned]) -> None:
        for one in scanned:
            if one.said is not None:
                self.rest.append(_row_of(one.said))
                self.size += len(one.said.line)
                if len(self.rest) >= SPILL_ROWS or self.size >= SPILL_BYTES:
                    self.rest.sort(key=_key)
                    self.runs.append(await write_segments(self.context, of_list(self.rest), 0.0, None))
                    self.rest, self.size = [], 0

    def rows(self, reader: RowReader) -> Rows:
        """All of them, in order."""
        cache, runs = IndexCache(), len(self.runs)
        spilled = [rows_of(self.context, cache, run, reader, runs) for run in self.runs]
        return merged([*spilled, of_list(sorted(self.rest, key=_key))])


def _row_of(said: Said) -> Row:
    return Row(said.key, said.entry.revision, said.entry.updated, said.entry.deleted, said.line)


def _key(row: Row) -> tuple[str, str, str]:
    return row.key


async def _replaced(context: Context, reader: RowReader, noted: ManifestSeen, begun: float, sorted_: _Sorted) -> bool:
    """Write the rebuilt index and let the manifest name it. False: the documents have to be read again.

    That is so if something of the index was lost that was not there when they were read: it may have held rows of newer
    documents, whose intents are gone. And if they were read too long ago (`begun`, by the store's clock).
    """
    before = noted.found.manifest.named() if noted.found else set()
    for attempt in range(ATTEMPTS):
        if attempt:
            await context.back_off(attempt)
        now = await manifest_as_it_is(context)
        if now.found is None and now.etag != noted.etag:
            return False
        manifest = now.found.manifest if now.found else Manifest(generation=0, nonce="")
        log = await read_log(context, Part(), IndexCache())
        date = now.found.date if now.found else log.date
        if date - begun > OUTDATED:
            return False
        current = _Current(context, reader, manifest)
        newest = Newest()
        try:
            is_new = now.etag != noted.etag
            rows = _decided(context, reader, sorted_.rows(reader), current.rows(), is_new)
            base = await write_segments(context, newest.watch(rows), date, _keep(log, date))
        except OvertakenError as gone:
            raise UnavailableError(
                f"{context.name(gone.key)}, which the rebuilding of the index had written, was deleted before it was "
                "done: run `s3conv verify --repair` again"
            ) from None
        recent = await write_recent(context, newest_of(newest.rows()), newest.floor, date)
        if any(segment.key not in before for segment in current.broken):
            return False
        changed = msgspec.structs.replace(
            manifest,
            generation=manifest.generation + 1,
            nonce=context.new_id(),
            tail=[],
            mid=[],
            base=base,
            recent=recent,
            retired=retire(manifest, date, manifest.all()),
        )
        with suppress(IndexDamagedError):  # it was lost just now: the next attempt looks at what is there
            if await swap_manifest(context, now.etag, changed):
                return True
    raise UnavailableError(
        f"the index of {context.store.url} was maintained by others, who were faster {ATTEMPTS} times: stop the "
        "scheduled maintenance for a while, or run `s3conv verify --repair` again later"
    )


def _keep(log: Log, date: float) -> Callable[[Row], bool] | None:
    """Which rows are written: as in a merge into base; all, where the log cannot be read whole."""
    if log.troubles:
        return None
    before, in_log = store_time(date - GONE_KEPT), {id_hash(conversation_id) for conversation_id in log.intents}
    return lambda row: not row.gone or row.updated > before or id_hash(row.key[2]) in in_log


@dataclass(slots=True)
class _Current:
    """What a manifest's segments say, as far as they can be read; `broken` are those that cannot."""

    context: Context
    reader: RowReader
    manifest: Manifest
    broken: list[Segment] = field(default_factory=list)

    def rows(self) -> Rows:
        return merged([self._run(self.manifest.run(name)) for name in RUNS])

    async def _run(self, segments: Sequence[Segment]) -> Rows:
        last = None
        for segment in segments:
            try:
                async with aclosing(rows_of(self.context, IndexCache(), [segment], self.reader)) as blocks:
                    async for rows in blocks:
                        if last is not None and rows[0].key <= last:
                            raise CorruptError(f"{self.context.name(segment.key)}: its blocks are not in order")
                        last = rows[-1].key
                        yield rows
            except (CorruptError, OvertakenError):
                self.broken.append(segment)


Pair = tuple[Row | None, Row | None]
"""What the documents gave for a sort key, and what the index has there."""


async def _paired(rebuilt: Rows, current: Rows) -> AsyncGenerator[list[Pair], None]:
    """Both in step, by sort key."""
    async with aclosing(rebuilt) as left, aclosing(current) as right:
        streams = (left, right)
        heads = [await anext(stream, []) for stream in streams]
        while any(heads):
            cut = min(head[-1].key for head in heads if head)
            taken: list[dict[tuple[str, str, str], Row]] = []
            for number, head in enumerate(heads):
                end = bisect_right(head, cut, key=_key)
                taken.append({row.key: row for row in head[:end]})
                if head:
                    heads[number] = head[end:] or await anext(streams[number], [])
            yield [(taken[0].get(key), taken[1].get(key)) for key in sorted(taken[0].keys() | taken[1].keys())]


async def _decided(context: Context, reader: RowReader, rebuilt: Rows, current: Rows, is_new: bool) -> Rows:
    """The rows of the rebuilt index. Where the documents gave another row than the index has, the document is asked.

    What they gave where the index has nothing stands: if the document was changed since, that was folded, and then the
    index has a row there; or it was not, and then the log has it. Only if the manifest `is_new` since, another
    repair may have left out what this one still had read: then these are asked, too.
    """
    archive = await context.descriptor()
    async with aclosing(_paired(rebuilt, current)) as chunks:
        async for pairs in chunks:
            doubtful: dict[tuple[str, str, str], str | None] = {}
            for new, old in pairs:
                row = old or new
                if row is not None and (is_new if old is None else new is None or new.line != old.line):
                    doubtful[row.key] = _document_key(row)
            asked = [key for key in doubtful.values() if key is not None]
            answers = {one.key: one for one in await read_documents(context, asked, archive.partition_by)}
            rows = []
            for new, old in pairs:
                row = old or new
                if row is not None and row.key in doubtful:
                    answer = answers.get(doubtful[row.key] or "")
                    row = _last_word(new, None if old is None else _usable(reader, old), answer, row.key)
                if row is not None:
                    rows.append(row)
            if rows:
                yield rows


def _last_word(new: Row | None, old: Row | None, answer: Scanned | None, key: tuple[str, str, str]) -> Row | None:
    """The row at a sort key where documents and index differ. A row of a moved conversation goes on shadowing."""
    if answer is None:
        return None
    if answer.difference is not None:
        return old or new  # an unreadable document says nothing: what is known of it stays
    said = answer.said
    if said is None:
        return None
    if said.key == key:
        return _row_of(said)
    if old is not None and old.gone and old.revision <= said.entry.revision and decode_row(old.line, "a row").moved:
        return old
    return None


def _document_key(row: Row) -> str | None:
    try:
        return document_key(row.key[2])
    except StorageError:
        return None  # no conversation can have this id


def _usable(reader: RowReader, row: Row) -> Row | None:
    """The row, if everything in it is what it must be."""
    try:
        decode_row(row.line, "a row")
        return row if reader.rows([row.line], "a row") == [row] else None
    except IndexDamagedError:
        return None
