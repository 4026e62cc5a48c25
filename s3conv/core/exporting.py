"""Export: the documents of all conversations that meet all conditions, streamed in the order of the index.

Law: the index says where to look, the document has the last word. A conversation that the log or a row says may match
is fetched once, at the first of its places in the order of keys; what it says then decides. So a save, a move, a
delete or maintenance that goes on meanwhile never makes a conversation come twice, nor be missed if it met the
conditions all the time; and what was announced and is not made rules nothing out. Memory holds the log, a few ranges of
each run, and a window of documents, whatever the archive's size; and 16 bytes for each conversation that was given.

A reader pins one manifest. Where a segment is gone (collect deletes a day after it was replaced) it begins again with
the index of today, and passes over what it gave already: going on behind the last key would miss what has moved to a
place before it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Container
from contextlib import aclosing

import msgspec
import zstandard

from s3conv.bridge import ordered_map
from s3conv.core.context import Context
from s3conv.core.index import RESTARTS, View, on_view
from s3conv.core.loading import state_of
from s3conv.core.log import OvertakenError, entry_of_document
from s3conv.core.merging import Rows, merged
from s3conv.core.segments import IndexCache, check_overtaken, fences_of, pieces_of, texts_of
from s3conv.errors import (
    CorruptError,
    InvalidInputError,
    SchemaVersionError,
    StorageError,
    UnavailableError,
    UnsupportedFormatError,
)
from s3conv.format.document import Document, decode_document
from s3conv.format.entry import SortKey, sort_key
from s3conv.format.filters import Filter, Where, parse_where
from s3conv.format.keys import SEGMENTS, digest_of, document_key
from s3conv.format.manifest import RUNS, RunName
from s3conv.format.rows import Row, decode_row
from s3conv.store.base import StoredObject

STREAMED = 64 * 1024
"""Most stored bytes of a run that are fetched as one range: some 800 rows, which take longer to fetch than these."""

STREAMS = 4
"""Most such ranges of each run that are in memory."""

DIGEST = 16
"""How many bytes of an id's hash stand for it."""

_FRESH = 1 << 16
"""How many ids are kept as they came, at most."""

_LOG_ROWS = 1000


DAMAGE = (CorruptError, SchemaVersionError, UnsupportedFormatError)
"""What is wrong with one document, whatever is right with the others."""

OnDamaged = Callable[[str, StorageError], None]
"""Is told the id of a conversation that cannot be exported, and why."""


async def export(
    context: Context,
    cache: IndexCache,
    where: Where | None,
    skip: Container[str] = (),
    on_damaged: OnDamaged | None = None,
) -> AsyncGenerator[Document, None]:
    """See `Archive.export`."""
    conditions = parse_where(where)
    if isinstance(skip, str) or not isinstance(skip, Container):
        raise InvalidInputError(f"skip is {type(skip).__name__}: expected a set of ids")
    archive = await context.descriptor()
    given = SeenIds()
    root = context.name("")
    # One for all of them, as they are unpacked here: a context for each request in flight would be megabytes.
    decompressor = zstandard.ZstdDecompressor()

    async def fetch(candidate: _Candidate) -> tuple[_Candidate, bytes, str, StoredObject | None]:
        digest = digest_of(candidate.conversation_id)
        key = document_key(candidate.conversation_id, digest)
        return candidate, digest, key, await context.store.get(key)

    def unpack(candidate: _Candidate, key: str, found: StoredObject | None) -> Document | None:
        conversation_id = candidate.conversation_id
        if found is not None:
            document = decode_document(found.body, conversation_id, root + key, decompressor, head_only=True)
            return None if document.deleted else document
        if candidate.folded:  # a row stands for a document that was there, and a delete leaves a tombstone
            raise CorruptError(
                f"{root}{key} is missing, and the index has conversation {conversation_id!r} at revision "
                f"{candidate.revision}: restore it, or delete the conversation"
            )
        return None  # announced by a writer that went no further

    async def is_wanted(candidate: _Candidate, document: Document) -> bool:
        if candidate.certain and document.stamp.revision == candidate.revision:
            return True
        return await _matches(context, conditions, document, archive.partition_by)

    overtaken, progress = 0, 0
    while True:
        view = await on_view(context, cache, conditions, "latest", _itself)
        candidates = _candidates(view, conditions, skip, given if overtaken else ())
        try:
            async with aclosing(ordered_map(context.runner, fetch, candidates, context.store.fan_out)) as fetched:
                async for candidate, digest, key, found in fetched:
                    if not given.add(digest):
                        continue  # it moved while the index was read, which has it at both places
                    try:
                        document = unpack(candidate, key, found)
                        if document is not None and conditions.conditions and not await is_wanted(candidate, document):
                            document = None
                    except DAMAGE as error:
                        if on_damaged is None:
                            raise
                        on_damaged(candidate.conversation_id, error)
                        continue
                    if document is not None:
                        yield document
            return
        except OvertakenError as gone:
            await check_overtaken(context, view.now, gone)
            overtaken = overtaken + 1 if len(given) == progress else 1
            progress = len(given)
            if overtaken > RESTARTS:
                raise UnavailableError(
                    f"the index of {context.store.url} changed under {RESTARTS} reads in a row; try again later"
                ) from None


async def _itself(view: View) -> View:
    return view


async def _matches(context: Context, conditions: Filter, document: Document, partition_by: str | None) -> bool:
    """Whether a document meets all conditions, as it is now."""
    entry = await entry_of_document(context, document)
    if entry.metadata_truncated:
        metadata = state_of(context, document).metadata
        entry = msgspec.structs.replace(entry, metadata=metadata, metadata_truncated=False)
    return conditions.matches(entry) is True


class _Candidate(msgspec.Struct, frozen=True):
    """A conversation that may match. `certain`: its document at this revision does; `folded`: a segment has it."""

    conversation_id: str
    revision: int
    certain: bool
    folded: bool


async def _candidates(
    view: View, conditions: Filter, skip: Container[str], passed: Container[str]
) -> AsyncGenerator[_Candidate, None]:
    """The conversations that may match, each once, in the order of their keys.

    Those that the log knows are candidates wherever the log or a row matches: which of them counts, the document says.
    What is unconfirmed is a candidate whatever the log says, as the document may say what it said before; and what may
    be spoken for is one whatever its activity is said to be.
    """
    low, high = conditions.key_range(view.partition_by)
    bounded = bool(low or high)
    from_log: set[str] = set()
    unconfirmed, of_id = view.told.unconfirmed, conditions.of_id()
    speaking, lasting = view.told.speaking, conditions.lasting()
    placed = {
        entry.conversation_id
        for entry in view.log.values()
        if not entry.deleted
        and conditions.matches(entry) is not False
        and _inside(sort_key(entry, view.partition_by), low, high)
    }
    # The log comes last: at equal revisions a row is right, where an intent may have lost.
    runs = [*(_run_rows(view, conditions, run) for run in RUNS), _log_rows(view)]
    async with aclosing(merged(runs)) as stream:
        async for rows in stream:
            for key, revision, _, gone, line in rows:
                conversation_id = key[2]
                elsewhere = gone or (bounded and not _inside(key, low, high))
                if elsewhere and (line or conversation_id not in unconfirmed):
                    continue
                answer: bool | None = True
                told = view.log.get(conversation_id)
                if conditions.conditions:
                    entry = decode_row(line, view.context.name(SEGMENTS)) if line else view.log[conversation_id]
                    if conversation_id in unconfirmed:
                        answer = of_id.matches(entry)
                    elif conversation_id in speaking:
                        answer = lasting.matches(entry)
                    else:
                        answer = conditions.matches(entry)
                    if answer is False:
                        continue
                if told is not None:
                    overtaken = line and told.revision > revision and conversation_id in placed
                    if overtaken or conversation_id in from_log:
                        continue  # it comes, or came, at the place that the log has for it
                    from_log.add(conversation_id)
                if conversation_id in skip or conversation_id in passed:
                    continue
                certain = answer is True and (told is None or not conditions.conditions)
                yield _Candidate(conversation_id, revision, certain, bool(line))


def _inside(key: SortKey, low: tuple[str, ...], high: tuple[str, ...]) -> bool:
    return (not low or key >= low) and (not high or key < high)


async def _log_rows(view: View) -> Rows:
    """The log as a run; its rows have no lines."""
    rows = [
        Row(sort_key(entry, view.partition_by), entry.revision, entry.updated, entry.deleted, b"")
        for entry in view.log.values()
    ]
    rows.sort(key=lambda row: row.key)
    for start in range(0, len(rows), _LOG_ROWS):
        yield rows[start : start + _LOG_ROWS]


async def _run_rows(view: View, conditions: Filter, run: RunName) -> Rows:
    """The rows of a run that can match, and what surrounds them. Only base is pruned by time, as in `core/index.py`."""
    context, (low, high) = view.context, conditions.key_range(view.partition_by)
    oldest, newest = conditions.updated_between() if run == "base" else (None, None)
    for segment in view.now.manifest.run(run):
        if (high and segment.first >= high) or (low and segment.last < low):
            continue
        (fence,) = await fences_of(context, view.cache, [segment])
        blocks = [
            block
            for block in fence.blocks_between(low, high)
            if (oldest is None or fence.newest[block] >= oldest) and (newest is None or fence.oldest[block] <= newest)
        ]
        wanted, name = set(blocks), context.name(segment.key)
        pieces = pieces_of(segment, fence, blocks, STREAMED)
        window = min(context.store.fan_out, STREAMS)
        async with aclosing(texts_of(context, view.cache, pieces, keep=False, window=window)) as fetched:
            async for piece, texts in fetched:
                for block, text in enumerate(texts, piece.span.first):
                    if block in wanted:
                        yield view.reader.block(text, name)


class SeenIds:
    """Conversation ids that were given already, in 16 bytes each: the first of their SHA-256.

    Two ids that share these are not to be expected before there are 10^18.
    """

    def __init__(self) -> None:
        """Begin with none."""
        self._fresh: set[bytes] = set()
        self._buckets: list[bytearray] = []

    def add(self, digest: bytes) -> bool:
        """Take an id's `digest_of`; False if it was there already."""
        digest = digest[:DIGEST]
        if self._has(digest):
            return False
        self._fresh.add(digest)
        if len(self._fresh) == _FRESH:
            self._sort(b"".join(self._fresh))
            self._fresh.clear()
        return True

    def add_all(self, digests: bytes) -> None:
        """Take many, end to end, of `DIGEST` bytes each, each once."""
        self._sort(digests)

    def __contains__(self, conversation_id: object) -> bool:
        return self._has(digest_of(str(conversation_id))[:DIGEST])

    def _has(self, digest: bytes) -> bool:
        if digest in self._fresh:
            return True
        if not self._buckets:
            return False
        bucket = self._buckets[digest[0] << 8 | digest[1]]
        place = bucket.find(digest)
        while place > 0 and place % DIGEST:  # the end of one and the beginning of the next
            place = bucket.find(digest, place + 1)
        return place >= 0

    def __len__(self) -> int:
        return len(self._fresh) + sum(map(len, self._buckets)) // DIGEST

    def _sort(self, digests: bytes) -> None:
        """Put ids into buckets by their first two bytes: of ten million ids each has some 2 KB to search."""
        if not self._buckets:
            self._buckets = [bytearray() for _ in range(1 << 16)]
        for start in range(0, len(digests), DIGEST):
            digest = digests[start : start + DIGEST]
            self._buckets[digest[0] << 8 | digest[1]] += digest
