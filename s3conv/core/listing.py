"""List, count, iterate, export: what is shown of the entries, and in which order."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

import msgspec

from s3conv.bridge import ordered_map
from s3conv.core.context import Context
from s3conv.core.index import IndexCache, documents_of, read_entries
from s3conv.core.loading import fetch_document, state_of
from s3conv.errors import InvalidInputError
from s3conv.format.document import Document
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
) -> Page:
    """See `Archive.list`."""
    conditions, sorting = parse_where(where), parse_order(order)
    for name, value, least in (("limit", limit, 1), ("offset", offset, 0)):
        if type(value) is not int or value < least:
            raise InvalidInputError(f"{name}: expected a whole number of at least {least}, found {value!r}")
    hashed = list_hash(conditions, sorting)
    cursor = parse_cursor(after, hashed) if after is not None else None
    placed = await _select(context, cache, conditions, sorting)
    if cursor is not None:
        placed = [one for one in placed if sorting.follows(one[0], one[1].conversation_id, cursor)]
    shown = placed[offset : offset + limit]
    more = len(placed) > offset + limit
    last = _Cursor(hashed, shown[-1][0], shown[-1][1].conversation_id).encode() if more and shown else None
    return Page([entry for _, entry in shown], last)


async def count(context: Context, cache: IndexCache, where: Where | None) -> int:
    """See `Archive.count`."""
    return len(await _matching(context, cache, parse_where(where)))


async def iterate(context: Context, cache: IndexCache, where: Where | None, order: str) -> AsyncGenerator[Entry, None]:
    """See `Archive.iterate`."""
    for _, entry in await _select(context, cache, parse_where(where), parse_order(order)):
        yield entry


async def export(context: Context, cache: IndexCache, where: Where | None) -> AsyncGenerator[Document, None]:
    """See `Archive.export`."""
    entries = await _select(context, cache, parse_where(where), parse_order("created_at"))

    async def fetch(conversation_id: str) -> Document | None:
        return await fetch_document(context, conversation_id)

    ids = (entry.conversation_id for _, entry in entries)
    async with aclosing(ordered_map(context.runner, fetch, ids, context.store.fan_out)) as documents:
        async for document in documents:
            if document is not None and not document.deleted:  # it may have been deleted since the list
                yield document


async def _matching(context: Context, cache: IndexCache, conditions: Filter) -> list[Entry]:
    """The entries that meet all conditions. Where an entry's metadata was cut, its document is asked."""
    archive = await context.descriptor()
    entries = await read_entries(context, cache, conditions.partition(archive.partition_by))
    answers = [conditions.matches(entry) for entry in entries]
    undecided = [entry for entry, answer in zip(entries, answers, strict=True) if answer is None]
    whole = await _whole(context, undecided)
    return [
        entry
        for entry, answer in zip(entries, answers, strict=True)
        if answer or (answer is None and conditions.matches(whole[entry.conversation_id]))
    ]


async def _select(
    context: Context, cache: IndexCache, conditions: Filter, order: Order
) -> list[tuple[Position, Entry]]:
    """The matching entries in order, with their positions in it."""
    entries = await _matching(context, cache, conditions)
    whole = await _whole(context, [entry for entry in entries if order.position(entry) is None])
    placed = []
    for entry in entries:
        position = order.position(whole.get(entry.conversation_id, entry))
        if position is not None:
            placed.append((position, entry))
    order.sort(placed)
    return placed


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
