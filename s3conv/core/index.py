"""Reading the index: which conversations there are, by the log and the manifest. DESIGN.md, section 5.

Law: the order of reading is LIST the log, GET the manifest, GET the intents; any other order can miss a save that was
acknowledged before. Per conversation the highest revision wins. An old intent, or one of two at one revision, counts
only if the document says so, since its writer may have died or lost. What cannot be read is an error that names the
object, never a shorter list.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from s3conv.bridge import ordered_map
from s3conv.core.cache import Cache
from s3conv.core.commit import STALE
from s3conv.core.context import Context
from s3conv.core.loading import fetch_document
from s3conv.errors import CorruptError, IndexDamagedError, UnavailableError
from s3conv.format.control import Manifest, decode_manifest
from s3conv.format.document import Document
from s3conv.format.entry import Entry, Intent, decode_log_object
from s3conv.format.keys import LOG, MANIFEST, document_key, log_prefix, parse_log_key
from s3conv.store.base import NotModified, ObjectHead

RESTARTS = 10
"""How often a read begins again because maintenance or a losing writer took an intent away under it."""

CACHED = 20_000
"""Most intents, and most confirmations, that one open archive keeps in memory: about 1 KB each."""


@dataclass(slots=True)
class IndexCache:
    """What reading remembers: log objects and confirmations (immutable), and the manifest with its ETag."""

    intents: Cache[str, list[Intent]] = field(default_factory=lambda: Cache(CACHED, len))
    confirmed: Cache[tuple[str, int, str], bool] = field(default_factory=lambda: Cache(CACHED))
    manifest: tuple[str, Manifest] | None = None


@dataclass(frozen=True, slots=True)
class _Seen:
    """An intent, and how old it was when it was listed, in seconds of the store's clock."""

    intent: Intent
    age: float


class _OvertakenError(Exception):
    """An intent that was listed is gone: begin again."""


async def read_entries(context: Context, cache: IndexCache, partition: str | None) -> list[Entry]:
    """The entry of every conversation that is not deleted, in no order.

    Args:
        context: the open archive.
        cache: what earlier reads remember.
        partition: canonical JSON of the only partition that is wanted, or None; entries of others may be among them.

    Raises:
        IndexDamagedError: an object of the index is missing or unreadable.
        CorruptError: a document that had to be asked is unreadable.
    """
    for attempt in range(RESTARTS):
        if attempt:
            await context.back_off(attempt)
        listed = await _list_log(context, LOG if partition is None else log_prefix(partition))
        await _read_manifest(context, cache)
        try:
            by_id = await _read_intents(context, cache, listed)
        except _OvertakenError:
            continue
        return await _settle(context, cache, by_id)
    raise UnavailableError(f"the index of {context.store.url} changed under {RESTARTS} reads in a row; try again later")


async def _list_log(context: Context, prefix: str) -> list[tuple[str, float]]:
    """The keys of the log, with their ages; all pages."""
    listed = []
    after = ""
    while True:
        page = await context.store.list(prefix, after=after)
        for one in page.objects:
            if parse_log_key(one.key) is None:
                raise IndexDamagedError(
                    f"{context.name(one.key)} is no object of the log; remove it, or run `s3conv verify --repair`"
                )
            listed.append((one.key, page.date - one.last_modified))
        if not page.more or not page.objects:
            return listed
        after = page.objects[-1].key


async def _read_manifest(context: Context, cache: IndexCache) -> Manifest:
    known = cache.manifest
    try:
        found = await context.store.get(MANIFEST, if_none_match=known[0] if known else None)
    except NotModified:
        if known is not None:
            return known[1]
        raise
    if found is None:
        raise IndexDamagedError(
            f"{context.name(MANIFEST)} is missing; no conversation is lost: run `s3conv verify --repair`"
        )
    manifest = decode_manifest(found.body, context.name(MANIFEST))
    cache.manifest = (found.etag, manifest)
    return manifest


async def _read_intents(
    context: Context, cache: IndexCache, listed: Sequence[tuple[str, float]]
) -> dict[str, list[_Seen]]:
    """All intents by conversation id."""

    async def fetch(key: str) -> list[Intent]:
        found = await context.store.get(key)
        if found is None:
            raise _OvertakenError
        try:
            return decode_log_object(found.body, context.name(key))
        except CorruptError as error:
            raise IndexDamagedError(f"{error}; no conversation is lost: run `s3conv verify --repair`") from None

    contents = {key: cache.intents.get(key) for key, _ in listed}
    missing = [key for key, intents in contents.items() if intents is None]
    fetched = 0
    async for intents in ordered_map(context.runner, fetch, missing, context.store.fan_out):
        contents[missing[fetched]] = intents
        cache.intents.put(missing[fetched], intents)
        fetched += 1
    by_id: defaultdict[str, list[_Seen]] = defaultdict(list)
    for key, age in listed:
        for intent in contents[key] or ():
            by_id[intent.entry.conversation_id].append(_Seen(intent, age))
    return by_id


async def _settle(context: Context, cache: IndexCache, by_id: dict[str, list[_Seen]]) -> list[Entry]:
    """One entry per conversation: its newest intent's, where that counts; else the document's."""
    entries: list[Entry] = []
    doubtful: list[list[_Seen]] = []
    for seen in by_id.values():
        newest = max(one.intent.entry.revision for one in seen)
        top = {one.intent.write: one for one in seen if one.intent.entry.revision == newest}
        age = min(one.age for one in seen if one.intent.write in top and one.intent.entry.revision == newest)
        intent = next(iter(top.values())).intent
        if len(top) == 1 and (age <= STALE or cache.confirmed.get(_mark(intent))):
            entries.append(intent.entry)
        else:
            doubtful.append(seen)

    async def ask(seen: list[_Seen]) -> Entry | None:
        return await _ask_document(context, cache, [one.intent for one in seen])

    async for entry in ordered_map(context.runner, ask, doubtful, context.store.fan_out):
        if entry is not None:
            entries.append(entry)
    return [entry for entry in entries if not entry.deleted]


def _mark(intent: Intent) -> tuple[str, int, str]:
    return intent.entry.conversation_id, intent.entry.revision, intent.write


async def _ask_document(context: Context, cache: IndexCache, intents: Sequence[Intent]) -> Entry | None:
    """The entry that the document stands for; None if there is none. HEAD is enough where the store keeps hints."""
    conversation_id = intents[0].entry.conversation_id
    head = await context.store.head(document_key(conversation_id))
    if head is None:
        return None
    document: Document | None = None
    written = _hinted(head)
    if written is None:
        document = await fetch_document(context, conversation_id)
        if document is None:
            return None
        written = document.stamp.revision, document.stamp.write
    for intent in intents:
        if (intent.entry.revision, intent.write) == written:
            cache.confirmed.put(_mark(intent), True)
            return intent.entry
    document = document or await fetch_document(context, conversation_id)
    return None if document is None else await entry_of_document(context, document)


def _hinted(head: ObjectHead) -> tuple[int, str] | None:
    """Revision and write id of a document by its user metadata; None where the store does not keep it."""
    revision, write = head.metadata.get("s3conv-revision", ""), head.metadata.get("s3conv-write")
    return (int(revision), write) if write and revision.isascii() and revision.isdigit() else None


async def entry_of_document(context: Context, document: Document) -> Entry:
    """The entry that a document stands for.

    Raises:
        CorruptError: it holds no conversation; names the object.
    """
    archive = await context.descriptor()
    try:
        return document.entry(archive.partition_by)
    except ValueError as error:
        name = context.name(document_key(document.conversation_id))
        raise CorruptError(f"{name} is not a conversation: {error}") from None


async def documents_of(context: Context, conversation_ids: Iterable[str]) -> dict[str, Document]:
    """The documents of some conversations, by id; without those that are gone."""

    async def fetch(conversation_id: str) -> Document | None:
        return await fetch_document(context, conversation_id)

    found = {}
    async for document in ordered_map(context.runner, fetch, conversation_ids, context.store.fan_out):
        if document is not None and not document.deleted:
            found[document.conversation_id] = document
    return found
