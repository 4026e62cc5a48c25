"""List, count, iterate: what is shown of the entries, and in which order."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

import msgspec

from s3conv.core.context import Context
from s3conv.core.index import Consistency, Hit, View, every_hit, newest_hits, on_view, top_hits
from s3conv.core.loading import state_of
from s3conv.core.log import documents_of
from s3conv.core.segments import IndexCache
from s3conv.errors import InvalidInputError
from s3conv.format.entry import Entry
from s3conv.format.filters import Cursor as _Cursor
from s3conv.format.filters import (
    Filter,
    Order,
    Position,
    Where,
    list_hash,
    parse_cursor,
    parse_order,
    parse_where,
    seconds,
)


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a list: entries, and the cursor of the next part (`after=`), or None at the end."""

    items: list[Entry]
    next: str | None


async def list_page(
    context: Context,
    cache: IndexCache,
    where: Where | None,
    order: str,
    limit: int,
    offset: int,
    after: str | None,
    consistency: Consistency,
) -> Page:
    """See `Archive.list`."""
    conditions, sorting = parse_where(where), parse_order(order)
    for name, value, least in (("limit", limit, 1), ("offset", offset, 0)):
        if type(value) is not int or value < least:
            raise InvalidInputError(f"{name}: expected a whole number of at least {least}, found {value!r}")
    hashed = list_hash(conditions, sorting)
    cursor = parse_cursor(after, hashed, sorting) if after is not None else None
    wanted = _Wanted(context, conditions, sorting, cursor, offset + limit + 1)
    placed = await on_view(context, cache, conditions, consistency, wanted.select)
    shown = placed[offset : offset + limit]
    more = len(placed) > offset + limit
    last = _Cursor(hashed, shown[-1][0], shown[-1][1].conversation_id).encode() if more and shown else None
    return Page([entry for _, entry in shown], last)


async def count(context: Context, cache: IndexCache, where: Where | None, consistency: Consistency) -> int:
    """See `Archive.count`."""
    conditions = parse_where(where)

    async def counted(view: View) -> int:
        total = 0

        async def judge(hits: list[Hit]) -> None:
            nonlocal total
            total += len(await _matching(context, conditions, hits))

        await every_hit(view, conditions, judge)
        return total

    return await on_view(context, cache, conditions, consistency, counted)


async def iterate(
    context: Context, cache: IndexCache, where: Where | None, order: str, consistency: Consistency
) -> AsyncGenerator[Entry, None]:
    """See `Archive.iterate`."""
    conditions = parse_where(where)
    wanted = _Wanted(context, conditions, parse_order(order), None, None)
    for _, entry in await on_view(context, cache, conditions, consistency, wanted.select):
        yield entry


async def _matching(context: Context, conditions: Filter, hits: list[Hit]) -> list[Entry]:
    """The entries that meet all conditions. Where an entry's metadata was cut, its document is asked."""
    whole = await _whole(context, [hit.entry for hit in hits if not hit.certain])
    return [hit.entry for hit in hits if hit.certain or conditions.matches(whole[hit.entry.conversation_id])]


@dataclass(slots=True)
class _Wanted:
    """What a list wants: the first `most` entries behind a cursor, in an order; None: all."""

    context: Context
    conditions: Filter
    order: Order
    cursor: _Cursor | None
    most: int | None
    placed: list[tuple[Position, Entry]] = field(default_factory=list)

    async def select(self, view: View) -> list[tuple[Position, Entry]]:
        """The entries in order, with their positions in it; the caller's own, whatever he does to their metadata."""
        await self._find(view)
        return [(position, _own(entry, view)) for position, entry in self.best()]

    async def _find(self, view: View) -> None:
        self.placed = []
        by_update = self.order.field == "updated_at"
        # Only a fixed partition is cheaper to read than `recent`, which is one object.
        everywhere = view.partition_by is None or self.conditions.partition(view.partition_by) is None
        if by_update and self.order.descending and everywhere and await newest_hits(view, self.conditions, self.judge):
            recent = view.now.manifest.recent
            if recent is not None and self._complete_above(recent.floor):
                return
        self.placed = []
        if by_update and self.most is not None:
            start = seconds(str(self.cursor.position[1])) if self.cursor else None
            descending = self.order.descending
            await top_hits(view, self.conditions, self.judge, self._enough, descending=descending, start=start)
        else:
            await every_hit(view, self.conditions, self.judge)

    async def judge(self, hits: list[Hit]) -> None:
        """Take those that match and come behind the cursor."""
        entries = await _matching(self.context, self.conditions, hits)
        unplaced = [entry for entry in entries if self.order.position(entry) is None]
        whole = await _whole(self.context, unplaced)
        for entry in entries:
            position = self.order.position(whole.get(entry.conversation_id, entry))
            if position is not None and (
                self.cursor is None or self.order.follows(position, entry.conversation_id, self.cursor)
            ):
                self.placed.append((position, entry))
        if self.most is not None and len(self.placed) > 4 * self.most + 1000:
            self.placed = self.best()

    def best(self) -> list[tuple[Position, Entry]]:
        """The first of those that were taken, in order."""
        self.order.sort(self.placed)
        return self.placed[: self.most]

    def _complete_above(self, floor: str) -> bool:
        """Whether all that is wanted is newer than the floor of `recent`."""
        if not floor:
            return True
        oldest, _ = self.conditions.updated_between()
        if oldest is not None and oldest > seconds(floor):
            return True
        newer = sum(entry.updated > floor for _, entry in self.placed)
        return self.most is not None and newer >= self.most

    def _enough(self, bound: int) -> bool:
        """Whether everything wanted is better than an entry of this second can be."""
        if self.most is None or len(self.placed) < self.most:
            return False
        last = seconds(self.best()[-1][1].updated)
        return last > bound if self.order.descending else last < bound


def _own(entry: Entry, view: View) -> Entry:
    """The entry, to be given away; copied if it is of the log, which is kept for other lists and for maintenance."""
    return msgspec.convert(entry.to_dict(), Entry) if view.log.get(entry.conversation_id) is entry else entry


async def _whole(context: Context, entries: list[Entry]) -> dict[str, Entry]:
    """Entries with all of their metadata, from the documents; as they are where the document is gone since."""
    documents = await documents_of(context, [entry.conversation_id for entry in entries])
    return {
        entry.conversation_id: msgspec.structs.replace(
            entry,
            metadata=state_of(context, documents[entry.conversation_id]).metadata
            if entry.conversation_id in documents
            else entry.metadata,
            metadata_truncated=False,
        )
        for entry in entries
    }
