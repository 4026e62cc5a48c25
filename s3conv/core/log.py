"""The log: listing it, reading its intents, and telling which of them count. DESIGN.md, section 5.

Law: per conversation the highest revision wins. An old intent, or one of two at one revision, counts only if the
document says so, since its writer may have died or lost.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncGenerator, Iterable, Sequence
from dataclasses import dataclass, field

import msgspec

from s3conv.bridge import ordered_map
from s3conv.core.cache import Cache
from s3conv.core.commit import STALE
from s3conv.core.context import Context
from s3conv.core.loading import fetch_document
from s3conv.core.window import speaks
from s3conv.errors import CorruptError, IndexDamagedError, InvalidInputError
from s3conv.format.document import Document
from s3conv.format.entry import BATCH, Entry, Intent, decode_log_object, partition_of
from s3conv.format.keys import document_key, id_hash, log_prefix, parse_log_key
from s3conv.format.manifest import REPAIR
from s3conv.store.base import Listing, ObjectHead

CACHED = 20_000
"""Most intents, and most answers, that one open archive keeps in memory: about 1 KB each."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a document said of the newest intent of its conversation; `final` unless a save may follow unannounced."""

    entry: Entry
    final: bool


@dataclass(slots=True)
class LogCache:
    """What reading the log remembers: its objects never change, and a document that has reached a revision stays there.

    `answers` are by conversation id and the newest revision that the log has of it.
    """

    intents: Cache[str, list[Intent]] = field(default_factory=lambda: Cache(CACHED, len))
    answers: Cache[tuple[str, int], Answer] = field(default_factory=lambda: Cache(CACHED))


@dataclass(frozen=True, slots=True)
class LogObject:
    """A key of the log, when it was written, and how old it was when it was listed, in seconds of the store's clock."""

    key: str
    written: float
    age: float

    @property
    def most(self) -> int:
        """Most intents that may be in it."""
        return most_intents(self.key)


@dataclass(frozen=True, slots=True)
class Seen:
    """An intent, and the object of the log that it was seen in."""

    intent: Intent
    place: LogObject

    @property
    def speaks(self) -> bool:
        """Whether it may yet speak for a save that follows it."""
        return speaks(self.intent, self.place.age)


@dataclass(frozen=True, slots=True)
class Told:
    """What the log says: an entry by conversation id, deleted ones among them.

    `unconfirmed`: those with something before their newest intent, which counts because it is young: what it announces
    may not be made yet, or never be. `speaking`: those with an intent that may yet speak for saves that follow it: of
    their activity the document may say more.
    """

    entries: dict[str, Entry]
    unconfirmed: set[str]
    speaking: set[str]


class OvertakenError(Exception):
    """An object that was listed or named is gone: begin again. `key` is that object's."""

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key


def most_intents(key: str) -> int:
    """Most intents that may be in an object of the log, by its key."""
    return BATCH if "/batch." in key else 1


async def list_log(context: Context, prefix: str, after: str = "", most: int | None = None) -> list[LogObject]:
    """The objects of the log; all of them, or the first ones, up to the one with which they may hold `most` intents."""
    listed: list[LogObject] = []
    held = 0
    async for page in pages(context, prefix, after):
        for one in page.objects:
            if parse_log_key(one.key) is None:
                raise IndexDamagedError(
                    f"{context.name(one.key)} is no object of the log; remove it, or run `s3conv verify --repair`"
                )
            listed.append(LogObject(one.key, one.last_modified, page.date - one.last_modified))
            held += listed[-1].most
            if most is not None and held >= most:
                return listed
    return listed


async def pages(context: Context, prefix: str, after: str = "") -> AsyncGenerator[Listing, None]:
    """All pages of a list."""
    while True:
        page = await context.store.list(prefix, after=after)
        yield page
        if not page.more or not page.objects:
            return
        after = page.objects[-1].key


async def read_intents(
    context: Context, cache: LogCache, listed: Sequence[LogObject], *, gone: bool = False
) -> dict[str, list[Seen]]:
    """All intents by conversation id.

    Args:
        context: the open archive.
        cache: what earlier reads remember.
        listed: the objects to read.
        gone: whether to pass over those that are not there any more.

    Raises:
        OvertakenError: one is not there any more.
        IndexDamagedError: one cannot be read; names it.
    """
    await context.descriptor()  # once, not by each of those that fetch

    async def fetch(place: LogObject) -> list[Intent] | None:
        intents = await intents_of(context, place.key)
        if intents is None and not gone:
            raise OvertakenError(place.key)
        return intents

    contents = [cache.intents.get(place.key) for place in listed]
    missing = [number for number, intents in enumerate(contents) if intents is None]
    asked = iter(missing)
    async for intents in ordered_map(
        context.runner, fetch, [listed[number] for number in missing], context.store.fan_out
    ):
        number = next(asked)
        if intents is None:
            continue
        contents[number] = intents
        cache.intents.put(listed[number].key, intents)
    by_id: defaultdict[str, list[Seen]] = defaultdict(list)
    for place, intents in zip(listed, contents, strict=True):
        for intent in intents or ():
            by_id[intent.entry.conversation_id].append(Seen(intent, place))
    return by_id


async def intents_of(context: Context, key: str) -> list[Intent] | None:
    """The intents of one object of the log; None if it is not there any more.

    Raises:
        IndexDamagedError: it cannot be read, or belongs under another key.
        UnsupportedFormatError: a newer s3conv wrote it.
    """
    archive = await context.descriptor()
    found = await context.store.get(key)
    if found is None:
        return None
    name = context.name(key)
    try:
        intents = decode_log_object(found.body, name)
        if not all(_belongs(intent, key, archive.partition_by) for intent in intents):
            raise CorruptError(f"{name} holds an intent that belongs under another key")
    except (CorruptError, InvalidInputError) as error:
        raise IndexDamagedError(f"{error}; {REPAIR}") from None
    return intents


def _belongs(intent: Intent, key: str, partition_by: str | None) -> bool:
    """Whether an intent may lie under a key of the log."""
    name, entry = parse_log_key(key), intent.entry
    if name is None:
        return False
    if name.id_hash is not None:
        said = id_hash(entry.conversation_id), entry.revision, intent.write
        if said != (name.id_hash, name.revision, name.write):
            return False
    partitions = [partition_of(entry.metadata, partition_by)]
    if intent.replaces is not None:
        partitions.append(intent.replaces.partition)
    return any(key.startswith(log_prefix(partition)) for partition in partitions)


async def settle(context: Context, cache: LogCache, by_id: dict[str, list[Seen]]) -> Told:
    """What the log says of each conversation: its newest intent's entry, where that counts; else the document's.

    A conversation is left out if neither an intent of it counts nor a document is there.
    """
    entries: dict[str, Entry] = {}
    unconfirmed: set[str] = set()
    speaking = {conversation_id for conversation_id, seen in by_id.items() if any(one.speaks for one in seen)}
    doubtful: list[list[Seen]] = []
    for conversation_id, seen in by_id.items():
        newest = _newest(seen)
        top = [one for one in seen if one.intent.entry.revision == newest]
        answer = cache.answers.get((conversation_id, newest))
        if answer is not None and (answer.final or conversation_id in speaking):
            entries[conversation_id] = answer.entry
        elif len({one.intent.write for one in top}) == 1 and min(one.place.age for one in top) <= STALE:
            entries[conversation_id] = top[0].intent.entry
            if newest > 1:
                unconfirmed.add(conversation_id)
        else:
            doubtful.append(seen)

    async def ask(seen: list[Seen]) -> Entry | None:
        entry = await ask_document(context, [one.intent for one in seen])
        # Behind the intent it is no answer: the intent's writer may yet come.
        if entry is not None and entry.revision >= _newest(seen):
            final = entry.conversation_id not in speaking
            cache.answers.put((entry.conversation_id, _newest(seen)), Answer(entry, final))
        return entry

    async for entry in ordered_map(context.runner, ask, doubtful, context.store.fan_out):
        if entry is not None:
            entries[entry.conversation_id] = entry
    return Told(entries, unconfirmed, speaking)


def _newest(seen: list[Seen]) -> int:
    return max(one.intent.entry.revision for one in seen)


async def ask_document(context: Context, intents: Iterable[Intent]) -> Entry | None:
    """The entry that a conversation's document stands for; None if there is none.

    HEAD is enough where the store keeps hints and one of `intents`, all of one conversation, is the document's.
    """
    intents = list(intents)
    conversation_id = intents[0].entry.conversation_id
    head = await context.store.head(document_key(conversation_id))
    if head is None:
        return None
    document: Document | None = None
    written = hinted(head)
    if written is None:
        document = await fetch_document(context, conversation_id)
        if document is None:
            return None
        written = document.stamp.revision, document.stamp.write
    if (entry := entry_named(intents, written, head.size)) is not None:
        return entry
    document = document or await fetch_document(context, conversation_id)
    return None if document is None else await entry_of_document(context, document)


def entry_named(intents: Iterable[Intent], written: tuple[int, str], size: int) -> Entry | None:
    """The entry of that one of some intents which announced a write: its revision and id; `size`: of the document.

    The intent of an activity window was sent before its document had its final size.
    """
    for intent in intents:
        if (intent.entry.revision, intent.write) == written:
            return msgspec.structs.replace(intent.entry, size=size) if intent.window else intent.entry
    return None


def hinted(head: ObjectHead) -> tuple[int, str] | None:
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
