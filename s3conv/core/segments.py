"""Segments and the manifest in the store: fetching what is wanted of them, and replacing the manifest.

Law: segments never change, so whatever was fetched may be kept; the manifest changes by compare-and-swap only. What
cannot be read is an `IndexDamagedError` that names the object; what is gone is an `OvertakenError`, because maintenance
may have replaced it, and the caller begins again.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from s3conv.bridge import ordered_map
from s3conv.core.cache import Cache
from s3conv.core.commit import SENDS
from s3conv.core.context import Context
from s3conv.core.log import LogCache, OvertakenError
from s3conv.errors import CorruptError, IndexDamagedError, UnavailableError
from s3conv.format.blocks import Fence, Span, decode_fence, read_blocks
from s3conv.format.keys import MANIFEST
from s3conv.format.manifest import REPAIR, Manifest, Recent, Segment, decode_manifest
from s3conv.store.base import Contended, NotModified, PreconditionFailed, RangeNotSatisfiable

CACHED_TEXT = 64 * 1024 * 1024
"""Most bytes of blocks that one open archive keeps in memory."""

CACHED_FENCES = 100_000
"""Most blocks whose fences it keeps: about 400 bytes each."""

RANGE = 1024 * 1024
"""Most bytes that are fetched as one range; a window of them is in flight."""


@dataclass(frozen=True, slots=True)
class Manifested:
    """The manifest, its ETag, and the store's clock when it was read (0 if it was not modified since)."""

    manifest: Manifest
    etag: str
    date: float


@dataclass(slots=True)
class IndexCache:
    """What reading the index remembers."""

    log: LogCache = field(default_factory=LogCache)
    manifest: Manifested | None = None
    fences: Cache[str, Fence] = field(default_factory=lambda: Cache(CACHED_FENCES, lambda fence: len(fence.rows)))
    texts: Cache[tuple[str, int], bytes] = field(default_factory=lambda: Cache(CACHED_TEXT, len))


class Piece(NamedTuple):
    """Some neighbouring blocks of a segment."""

    segment: Segment
    fence: Fence
    span: Span


async def read_manifest(context: Context, cache: IndexCache | None = None) -> Manifested:
    """The manifest as it is now; with a cache, by conditional GET.

    Raises:
        IndexDamagedError: it is missing or unreadable.
    """
    known = cache.manifest if cache else None
    try:
        found = await context.store.get(MANIFEST, if_none_match=known.etag if known else None)
    except NotModified:
        if known is None:
            raise
        return known
    if found is None:
        raise IndexDamagedError(f"{context.name(MANIFEST)} is missing; {REPAIR}")
    read = Manifested(decode_manifest(found.body, context.name(MANIFEST)), found.etag, found.date)
    if cache:
        cache.manifest = replace(read, date=0.0)
    return read


async def check_overtaken(context: Context, read: Manifested, gone: OvertakenError) -> None:
    """Return if what is gone may have been replaced since the manifest was read, so that the caller begins again.

    Raises:
        IndexDamagedError: the manifest is still the same, and names it.
    """
    if gone.key in read.manifest.named() and (await read_manifest(context)).etag == read.etag:
        raise IndexDamagedError(f"{context.name(gone.key)} is missing, and the manifest names it; {REPAIR}") from None


async def swap_manifest(context: Context, etag: str | None, manifest: Manifest) -> bool:
    """Replace the manifest if it is still the one with this ETag (None: if there is none). False: it is not.

    Raises:
        UnavailableError: no answer, so that it may or may not have been replaced.
        StoreError: it was not replaced.
        IndexDamagedError: it was not, and what is there now is none.
    """
    body = manifest.encode()
    unanswered: UnavailableError | None = None
    for attempt in range(SENDS):
        if attempt:
            await context.back_off(attempt)
        try:
            await context.store.put(MANIFEST, body, if_match=etag, if_none_match=None if etag else "*")
        except PreconditionFailed:
            # It may be the echo of our own write; if that was built upon since, the next attempt finds its work done.
            return (await read_manifest(context)).manifest.nonce == manifest.nonce
        except Contended:
            continue
        except UnavailableError as error:
            unanswered = error
            continue
        return True
    if unanswered is not None:
        raise unanswered
    return False


async def fences_of(context: Context, cache: IndexCache, segments: Sequence[Segment]) -> list[Fence]:
    """The fences of some segments, each by one exact range unless it is known."""

    async def fetch(segment: Segment) -> Fence:
        known = segment.fence or cache.fences.get(segment.name)
        if known is not None:
            return known
        body = await get_range(context, segment, segment.end, segment.fence_length)
        try:
            fence = decode_fence(body, segment.rows, segment.end, context.name(segment.key))
        except CorruptError as error:
            raise IndexDamagedError(f"{error}; {REPAIR}") from None
        cache.fences.put(segment.name, fence)
        return fence

    return [fence async for fence in ordered_map(context.runner, fetch, segments, context.store.fan_out)]


async def get_range(context: Context, segment: Segment, start: int, length: int) -> bytes:
    """Some bytes of a segment; `OvertakenError` if it is not there, `IndexDamagedError` if it is shorter."""
    try:
        found = await context.store.get(segment.key, span=(start, length))
    except RangeNotSatisfiable as error:
        raise IndexDamagedError(f"{context.name(segment.key)} was cut short: {error}; {REPAIR}") from None
    if found is None:
        raise OvertakenError(segment.key)
    return found.body


async def texts_of(
    context: Context, cache: IndexCache, pieces: Iterable[Piece], *, keep: bool, window: int | None = None
) -> AsyncGenerator[tuple[Piece, list[bytes]], None]:
    """The text of the blocks of each piece, in their order, many pieces at a time.

    Args:
        context: the open archive.
        cache: what earlier reads remember.
        pieces: what to fetch.
        keep: whether the blocks are worth remembering.
        window: how many pieces may be in flight or unread; as many as requests may be, if not given.
    """

    async def fetch(piece: Piece) -> tuple[Piece, list[bytes]]:
        segment, fence, span = piece
        texts = [cache.texts.get((segment.name, block)) for block in range(span.first, span.last)]
        unknown = [block for block, text in enumerate(texts, span.first) if text is None]
        if unknown:
            # From the first to the last of them, in one request: what lies between is fetched again.
            first, last = unknown[0], unknown[-1] + 1
            start, end = fence.offsets[first], fence.offsets[last]
            body = await get_range(context, segment, start, end - start)
            try:
                read = read_blocks(body, fence.lengths[first:last], fence.rows[first:last], context.name(segment.key))
            except CorruptError as error:
                raise IndexDamagedError(f"{error}; {REPAIR}") from None
            texts[first - span.first : last - span.first] = read
            if keep:
                for block, text in enumerate(read, first):
                    cache.texts.put((segment.name, block), text)
        return piece, [text for text in texts if text is not None]

    async with aclosing(ordered_map(context.runner, fetch, pieces, window or context.store.fan_out)) as fetched:
        async for one in fetched:
            yield one


def pieces_of(segment: Segment, fence: Fence, blocks: Sequence[int], longest: int = RANGE) -> list[Piece]:
    """What to fetch for some blocks of a segment, ascending."""
    return [Piece(segment, fence, span) for span in fence.spans(blocks, longest)]


async def recent_text(context: Context, cache: IndexCache, recent: Recent) -> bytes:
    """The lines of `recent`; one GET unless it is known."""
    known = cache.texts.get((recent.name, 0))
    if known is not None:
        return known
    found = await context.store.get(recent.key)
    if found is None:
        raise OvertakenError(recent.key)
    name = context.name(recent.key)
    try:
        if len(found.body) != recent.size:
            raise CorruptError(f"{name} has {len(found.body):,} bytes; expected {recent.size:,}")
        fence_end = recent.end + recent.fence_length
        fence = decode_fence(found.body[recent.end : fence_end], recent.rows, recent.end, name)
        text = b"".join(read_blocks(found.body[: recent.end], fence.lengths, fence.rows, name))
    except CorruptError as error:
        raise IndexDamagedError(f"{error}; {REPAIR}") from None
    cache.texts.put((recent.name, 0), text)
    return text
