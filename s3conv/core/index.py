"""Searching the index: the entries that a filter and an order want, over log, tail, mid, base and `recent`.

Law: the order of reading is LIST the log, GET the manifest, GET what they name; any other can miss a save that was
acknowledged before. Nothing in the log, the tail or mid is passed over but for its sort key; a row of an older run
counts only after its sort key was looked up in every newer one. What cannot be read is an error that names the object,
never a shorter list. DESIGN.md, section 5.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Coroutine, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, TypeVar

from s3conv.core.context import Context
from s3conv.core.log import LogObject, OvertakenError, Told, list_log, read_intents, settle
from s3conv.core.maintaining import fold_inline
from s3conv.core.segments import (
    IndexCache,
    Manifested,
    Piece,
    check_overtaken,
    fences_of,
    pieces_of,
    read_manifest,
    recent_text,
    texts_of,
)
from s3conv.errors import InvalidInputError, UnavailableError
from s3conv.format.blocks import Fence
from s3conv.format.entry import Entry, SortKey, sort_key
from s3conv.format.filters import Filter
from s3conv.format.keys import LOG, log_prefix
from s3conv.format.manifest import RUNS, RunName, Segment
from s3conv.format.rows import RowReader, decode_row, lines_with

Consistency = Literal["latest", "snapshot"]

RESTARTS = 10
"""How often a read begins again because maintenance or a losing writer took away under it what it wanted."""

KEPT = 64
"""Most blocks of base that one search remembers: more would drive out what is worth it."""

AT_ONCE = 256 * 1024
"""Most bytes of base among which all blocks that may still be needed are fetched at once: to ask again takes longer."""

LAST_WAVE = 32
"""Blocks of base that are chosen as the most promising; what then is still needed is read in the order of its keys."""

R = TypeVar("R")


class Hit(NamedTuple):
    """A live row or intent that may be wanted: its key and revision, and the entry as it lies in the index.

    `certain`: it meets all conditions; else only its document can tell.
    """

    key: SortKey
    revision: int
    entry: Entry
    certain: bool


Judge = Callable[[list[Hit]], Coroutine[None, None, None]]
"""Is given hits that count, each conversation once."""


class _LoserShown(Exception):
    """Conversations of which an intent was shown that does not count: a row elsewhere has its revision or more."""


@dataclass(slots=True)
class View:
    """The index at one moment: what the log says, and the manifest.

    `losers`: conversations of which a row elsewhere has the log's revision or more. What the log says of them is not
    shown, and still tells that rows of lower revisions are behind.
    """

    context: Context
    cache: IndexCache
    told: Told
    now: Manifested
    reader: RowReader
    partition_by: str | None
    losers: set[str] = field(default_factory=set)

    @property
    def log(self) -> dict[str, Entry]:
        return self.told.entries

    def shown_in_log(self) -> list[Entry]:
        """What the log has to show: neither deleted, nor known not to count."""
        return [entry for entry in self.log.values() if not entry.deleted and entry.conversation_id not in self.losers]

    def name(self, segment: Segment) -> str:
        return self.context.name(segment.key)


async def _early_list(context: Context, conditions: Filter) -> dict[str, list[LogObject]]:
    """The list of the log by its prefix, made while the descriptor is fetched, under the prefix that is most likely
    wanted.

    Empty where the descriptor is known, or the conditions leave open which. A wrong one costs a request, once in a
    process.
    """
    fixed = conditions.fixed_metadata()
    if context.kept.descriptor is not None or len(fixed) > 1:
        return {}
    partition = conditions.partition(next(iter(fixed), None))

    async def fetch(prefix: str) -> list[LogObject]:
        return await list_log(context, prefix)

    prefix = LOG if partition is None else log_prefix(partition)
    return {prefix: await context.beside_descriptor(fetch, prefix)}


async def on_view(
    context: Context,
    cache: IndexCache,
    conditions: Filter,
    consistency: Consistency,
    use: Callable[[View], Coroutine[None, None, R]],
) -> R:
    """`use` the index as it is now; again from the start where maintenance overtakes it.

    Raises:
        IndexDamagedError: an object of the index is missing or unreadable.
        CorruptError: a document that had to be asked is unreadable.
    """
    if consistency not in ("latest", "snapshot"):
        raise InvalidInputError(f"consistency {consistency!r}: expected 'latest' or 'snapshot'")
    early = await _early_list(context, conditions) if consistency == "latest" else {}
    archive = await context.descriptor()
    partition = conditions.partition(archive.partition_by)
    prefix = LOG if partition is None else log_prefix(partition)
    for attempt in range(RESTARTS):
        if attempt:
            await context.back_off(attempt)
        listed: list[LogObject] = []
        if consistency == "latest":
            listed = early.pop(prefix) if prefix in early else await list_log(context, prefix)
        now = await read_manifest(context, cache)
        try:
            by_id = await read_intents(context, cache.log, listed)
            told = await settle(context, cache.log, by_id)
            view = View(context, cache, told, now, RowReader(archive.partition_by), archive.partition_by)
            while True:
                try:
                    result = await use(view)
                    break
                except _LoserShown as losers:
                    view.losers.update(losers.args)
        except OvertakenError as gone:
            await check_overtaken(context, now, gone)
            continue
        await fold_inline(context, cache, by_id)
        return result
    raise UnavailableError(f"the index of {context.store.url} changed under {RESTARTS} reads in a row; try again later")


# --- all that match -------------------------------------------------------------------------------------------------


async def every_hit(view: View, conditions: Filter, judge: Judge) -> None:
    """Give `judge` all live entries that meet the conditions, or may, in no order."""
    search = await _Search.begin(view, conditions)
    wanted = {run: search.blocks(run) for run in RUNS}
    await search.prefetch([*wanted["tail"], *wanted["mid"], *wanted["base"], *search.places_of_log()])
    await search.log_hits(judge)
    for run in RUNS:
        await search.run_hits(run, wanted[run], judge)


async def newest_hits(view: View, conditions: Filter, judge: Judge) -> bool:
    """Give `judge` the live entries in the log and in `recent` that meet the conditions, or may.

    Returns False where there is no `recent` to tell by. All entries newer than its floor are among those given.
    """
    recent = view.now.manifest.recent
    if recent is None:
        return False
    text = await recent_text(view.context, view.cache, recent)
    name = view.context.name(recent.key)
    rows = {row.key[2]: row for row in view.reader.rows(text[:-1].split(b"\n"), name)}
    entries = [
        entry
        for entry in view.shown_in_log()
        if not ((row := rows.get(entry.conversation_id)) and row.revision >= entry.revision)
    ]
    for row in rows.values():
        told = view.log.get(row.key[2])
        if not row.gone and (told is None or told.revision <= row.revision):
            entries.append(decode_row(row.line, name))
    await judge(
        [
            Hit(sort_key(entry, view.partition_by), entry.revision, entry, answer is True)
            for entry in entries
            if (answer := conditions.matches(entry)) is not False
        ]
    )
    return True


async def top_hits(
    view: View,
    conditions: Filter,
    judge: Judge,
    enough: Callable[[int], bool],
    *,
    descending: bool,
    start: float | None,
) -> None:
    """As `every_hit`, for an order by `updated_at`: base is read from its promising blocks on.

    It is asked once for the best, and once for all that may still be needed, where these lie together. Where they do
    not, it is read in waves that grow.

    Args:
        view: the index.
        conditions: what is searched for.
        judge: see `every_hit`.
        enough: is given the best second that what was not read yet may have; whether all that is wanted is better.
        descending: whether the newest come first.
        start: the second at which what is wanted begins; None: with the first.
    """
    search = await _Search.begin(view, conditions)
    wanted = search.blocks("base")
    bounds: list[tuple[int, Segment, int]] = []
    for segment, blocks in wanted:
        fence = search.fences[segment.name]
        for block in blocks:
            oldest, newest = fence.oldest[block], fence.newest[block]
            if start is not None and (oldest > start if descending else newest < start):
                continue
            bounds.append((newest if descending else oldest, segment, block))
    bounds.sort(key=lambda one: one[0], reverse=descending)

    def blocks_of(begin: int, end: int) -> Wanted:
        return _together([(segment, [block]) for _, segment, block in bounds[begin:end]])

    tail, mid = search.blocks("tail"), search.blocks("mid")
    # Two blocks at first, if one request gets them: with that for what lies between all others, there are two of base.
    begin, wave = 0, 2 if len(search.pieces(blocks_of(0, 2))) == 1 else 1
    await search.prefetch([*tail, *mid, *blocks_of(0, wave), *search.places_of_log()])
    await search.log_hits(judge)
    await search.run_hits("tail", tail, judge)
    await search.run_hits("mid", mid, judge)
    while begin < len(bounds) and not enough(bounds[begin][0]):
        if begin:
            needed = bisect_left(bounds, True, begin, key=lambda bound: enough(bound[0]))
            between: Wanted = [(one, range(blocks[0], blocks[-1] + 1)) for one, blocks in blocks_of(begin, needed)]
            if sum(piece.span.length for piece in search.pieces(between)) <= AT_ONCE:
                await search.prefetch(between)
                wave = needed - begin
            elif wave < LAST_WAVE:
                wave = max(4, 2 * wave)
            else:  # few match, or much is wanted
                wave = needed - begin
        await search.run_hits("base", blocks_of(begin, begin + wave), judge)
        begin += wave


Wanted = list[tuple[Segment, Sequence[int]]]
"""Blocks by segment, in the order of their keys."""


def _together(wanted: Wanted) -> Wanted:
    """The same blocks, each once, by segment and in order."""
    segments = {segment.name: segment for segment, _ in wanted}
    blocks: defaultdict[str, set[int]] = defaultdict(set)
    for segment, some in wanted:
        blocks[segment.name].update(some)
    return [(segment, sorted(blocks[segment.name])) for segment in sorted(segments.values(), key=lambda one: one.first)]


@dataclass(slots=True)
class _Search:
    """One search over the runs. `low` and `high` bound the sort keys that can match; () is no bound."""

    view: View
    conditions: Filter
    low: tuple[str, ...]
    high: tuple[str, ...]
    of_heads: Filter
    candidates: list[Hit] = field(default_factory=list)
    fences: dict[str, Fence] = field(default_factory=dict)
    from_log: set[str] = field(default_factory=set)

    @classmethod
    async def begin(cls, view: View, conditions: Filter) -> _Search:
        low, high = conditions.key_range(view.partition_by)
        search = cls(view, conditions, low, high, conditions.of_heads())
        search.candidates = search._in_log()
        segments = [segment for run in RUNS for segment in search._segments(run)]
        for segment, fence in zip(segments, await fences_of(view.context, view.cache, segments), strict=True):
            search.fences[segment.name] = fence
        return search

    def _segments(self, run: RunName) -> list[Segment]:
        return [
            segment
            for segment in self.view.now.manifest.run(run)
            if (not self.high or segment.first < self.high) and (not self.low or segment.last >= self.low)
        ]

    def blocks(self, run: RunName) -> Wanted:
        """The blocks of a run that can hold matching rows. Only base is pruned by time: see the module's law."""
        wanted: Wanted = []
        oldest, newest = self.conditions.updated_between() if run == "base" else (None, None)
        for segment in self._segments(run):
            fence = self.fences[segment.name]
            blocks: Sequence[int] = fence.blocks_between(self.low, self.high)
            if oldest is not None or newest is not None:
                blocks = [
                    block
                    for block in blocks
                    if (oldest is None or fence.newest[block] >= oldest)
                    and (newest is None or fence.oldest[block] <= newest)
                ]
            wanted.append((segment, blocks))
        return wanted

    def _in_log(self) -> list[Hit]:
        """The log's entries that may be wanted, in the order of their keys."""
        hits = []
        for entry in self.view.shown_in_log():
            key = sort_key(entry, self.view.partition_by)
            if self._inside(key) and (answer := self.conditions.matches(entry)) is not False:
                hits.append(Hit(key, entry.revision, entry, answer is True))
        return sorted(hits, key=lambda hit: hit.key)

    def places_of_log(self) -> Wanted:
        """The blocks that the log's entries have to be looked up in."""
        return [place for run in RUNS for place in self._places(run, self.candidates)]

    async def prefetch(self, wanted: Wanted) -> None:
        """Fetch blocks of several runs at once, that would else be fetched one run after the other."""
        if sum(len(blocks) for _, blocks in wanted) > KEPT:
            return
        pieces = self.pieces(_together(wanted))
        async with aclosing(texts_of(self.view.context, self.view.cache, pieces, keep=True)) as fetched:
            async for _ in fetched:
                pass

    def pieces(self, wanted: Wanted) -> list[Piece]:
        """What to fetch for some blocks, each piece by one request."""
        return [piece for segment, blocks in wanted for piece in pieces_of(segment, self.fences[segment.name], blocks)]

    async def log_hits(self, judge: Judge) -> None:
        """The log's entries, but for those that a row has overtaken."""
        shown = await self._unshadowed(self.candidates, RUNS)
        self.from_log = {hit.key[2] for hit in shown}
        await judge(shown)

    async def run_hits(self, run: RunName, wanted: Wanted, judge: Judge) -> None:
        """The rows of some blocks of a run, but for those that something newer has overtaken."""
        view = self.view
        pieces = self.pieces(wanted)
        keep = run != "base" or sum(len(blocks) for _, blocks in wanted) <= KEPT
        chosen = {(segment.name, block) for segment, blocks in wanted for block in blocks}
        newer = RUNS[: RUNS.index(run)]
        async with aclosing(texts_of(view.context, view.cache, pieces, keep=keep)) as fetched:
            async for piece, texts in fetched:
                hits = []
                for block, text in enumerate(texts, piece.span.first):
                    if (piece.segment.name, block) in chosen:
                        hits += self._hits(text, view.name(piece.segment))
                await judge(await self._unshadowed(hits, newer))

    def _hits(self, text: bytes, name: str) -> list[Hit]:
        log = self.view.log
        rows = self.view.reader.rows(list(lines_with(text, self.conditions.needles())), name)
        found = []
        losers: set[str] = set()
        for row in rows:
            told = log.get(row.key[2]) if log else None
            if told is not None and told.revision <= row.revision and row.key[2] in self.from_log:
                losers.add(row.key[2])
            if row.gone or (told is not None and told.revision > row.revision) or not self._inside(row.key):
                continue
            if self.of_heads.conditions and self.of_heads.rules_out(row.key[2], row.key[1], row.updated):
                continue
            entry = decode_row(row.line, name)
            if (answer := self.conditions.matches(entry)) is not False:
                found.append(Hit(row.key, row.revision, entry, answer is True))
        if losers:
            raise _LoserShown(*losers)
        return found

    def _inside(self, key: SortKey) -> bool:
        return (not self.low or key >= self.low) and (not self.high or key < self.high)

    async def _unshadowed(self, hits: list[Hit], runs: Sequence[RunName]) -> list[Hit]:
        """Those of some hits, in the order of their keys, that no row of `runs` at their key has overtaken."""
        for run in runs:
            if hits:
                revisions = await self._revisions(run, hits)
                hits = [hit for hit in hits if revisions.get(hit.key, 0) < hit.revision]
        return hits

    async def _revisions(self, run: RunName, hits: list[Hit]) -> dict[SortKey, int]:
        """The revisions that a run has at the keys of some hits."""
        view = self.view
        places = self._places(run, hits)
        revisions: dict[SortKey, int] = {}
        wanted = {hit.key for hit in hits}
        keep = run != "base" or sum(len(blocks) for _, blocks in places) <= KEPT
        async with aclosing(texts_of(view.context, view.cache, self.pieces(places), keep=keep)) as fetched:
            async for piece, texts in fetched:
                for text in texts:
                    rows = view.reader.block(text, view.name(piece.segment))
                    revisions.update((row.key, row.revision) for row in rows if row.key in wanted)
        return revisions

    def _places(self, run: RunName, hits: Sequence[Hit]) -> Wanted:
        """The blocks of a run that have the keys of some hits, if any have them."""
        segments = self.view.now.manifest.run(run)
        lasts = [segment.last for segment in segments]
        places: Wanted = []
        for hit in hits:
            at = bisect_left(lasts, hit.key)
            if at < len(segments) and segments[at].first <= hit.key:
                places.append((segments[at], [self.fences[segments[at].name].block_of(hit.key)]))
        return _together(places)
