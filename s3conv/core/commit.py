"""One write of one document: announce its intent, PUT it until the answer is definite. DESIGN.md, section 6.

Law: the conditional PUT of the document is the commit, and nobody is told of its outcome before that is settled. The
PUT is re-sent identically until there is a definite answer; a refusal is checked against the document's lineage,
because it may be the echo of our own write; a definite loser takes its intents back; an unknown outcome is called so.
What to write, and what to do about a conflict, is decided in `saving.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from s3conv.core.context import Context
from s3conv.core.known import Known
from s3conv.errors import OutcomeUnknownError, StorageError, UnavailableError
from s3conv.format.document import LINEAGE, Document, Stamp, decode_document
from s3conv.format.entry import Entry, Intent, Replaces, encode_batch, encode_intent, sort_key
from s3conv.format.keys import batch_key, document_key, intent_key, log_prefix
from s3conv.store.base import Contended, PreconditionFailed, Written

STALE = 60.0
"""Seconds after which an intent no longer counts unconfirmed, so that it is announced again (DESIGN.md, section 6)."""

SENDS = 6
"""How often a conditional PUT is sent before its outcome is given up as unknown; the waits come to 1.6 s at most."""

SUPERSEDED = '"superseded"'
"""Stands for the ETag of a version of ours that was built upon before we saw it: no document ever has it."""

BeforeLook = Callable[[], Coroutine[Any, Any, None]]
"""Is awaited between a refused write and the look at what is there; see `commit`."""


@dataclass(frozen=True, slots=True)
class Draft:
    """A write that is ready: the document's body, and the intent that announces it under its log prefixes.

    `lasting` is what later saves are compared with to see whether this one's intent speaks for them (`window.py`).
    """

    key: str
    body: bytes
    stamp: Stamp
    built_on: Known
    intent: Intent
    prefixes: tuple[str, ...]
    lasting: str = ""

    @property
    def conversation_id(self) -> str:
        return self.intent.entry.conversation_id


@dataclass(slots=True)
class Announcement:
    """When a write was announced, by the store's clock and by ours, and the log objects that are its alone.

    It may lie under two prefixes: it is as old as the older of the two. One that another announcement speaks for counts
    as announced when that ends.
    """

    date: float = math.inf
    wall: float = math.inf
    keys: list[str] = field(default_factory=list)

    def join(self, other: Announcement) -> None:
        """Count a part of it that was made elsewhere."""
        self.date, self.wall = min(self.date, other.date), min(self.wall, other.wall)
        self.keys += other.keys

    def renew(self, other: Announcement) -> None:
        """Count it as made again, whole."""
        self.date, self.wall = other.date, other.wall
        self.keys += other.keys


@dataclass(frozen=True, slots=True)
class Found:
    """What lies at a document's key (None: nothing), and the store's clock when it was looked at.

    As the outcome of a commit: the write was definitely not made, and this is there instead.
    """

    document: Document | None
    etag: str = ""
    body: bytes = b""
    date: float = 0.0


def draft_of(
    partition_by: str | None,
    body: bytes,
    stamp: Stamp,
    known: Known,
    entry: Entry,
    window: float = 0.0,
    lasting: str = "",
) -> Draft:
    """Word the intent. A write that moves the conversation's sort key is announced where readers of either look."""
    partition, created, conversation_id = sort_key(entry, partition_by)
    replaces, prefixes = None, [log_prefix(partition)]
    if not known.is_new and (known.partition, known.created) != (partition, created):
        replaces = Replaces(partition=known.partition, created_at=known.created)
        if log_prefix(known.partition) not in prefixes:
            prefixes.append(log_prefix(known.partition))
    intent = Intent(entry=entry, write=stamp.write, replaces=replaces, window=window)
    return Draft(document_key(conversation_id), body, stamp, known, intent, tuple(prefixes), lasting)


async def announce(context: Context, draft: Draft) -> Announcement:
    """PUT the intent under fresh keys."""
    keys = [
        intent_key(prefix, draft.conversation_id, draft.stamp.revision, draft.stamp.write) for prefix in draft.prefixes
    ]
    return await _put_intents(context, keys, encode_intent(draft.intent))


async def announce_batch(context: Context, prefix: str, drafts: Sequence[Draft]) -> tuple[str, Announcement]:
    """PUT the intents of many writes as one object; returns its key, which belongs to all of them."""
    key = batch_key(prefix, context.new_id())
    written = await context.store.put(key, encode_batch([draft.intent for draft in drafts]))
    return key, Announcement(written.date, context.wall_clock())


async def announce_further(context: Context, draft: Draft, prefixes: Sequence[str]) -> Announcement:
    """Announce a write once more, or under more prefixes, as a batch of one.

    The key is fresh: a late delete of an earlier announcement must not take this one away.
    """
    keys = [batch_key(prefix, context.new_id()) for prefix in prefixes]
    return await _put_intents(context, keys, encode_batch([draft.intent]))


async def _put_intents(context: Context, keys: Sequence[str], body: bytes) -> Announcement:
    """PUT one body under each key; if one fails, what is there already is taken back."""
    announcement = Announcement()
    for key in keys:
        try:
            written = await context.store.put(key, body)
        except StorageError:
            await withdraw(context, announcement.keys)
            raise
        announcement.join(Announcement(written.date, context.wall_clock(), [key]))
    return announcement


async def withdraw(context: Context, keys: Sequence[str]) -> None:
    """Take back intents of a write that was definitely not made, if that can be done; else they only cost readers."""
    if not keys:
        return
    try:
        await context.store.delete(keys)
    except StorageError:
        return  # readers confirm old intents, and maintenance drops those that have no document


async def commit(
    context: Context, draft: Draft, announcement: Announcement, *, before_look: BeforeLook | None
) -> Written | Found:
    """PUT the document until the answer is definite.

    Args:
        draft: what to write.
        announcement: of its intent, which was made before.
        before_look: given if a rejected write is tried again on top of what is there, so that it is harmless to take
            for lost a write that may have been made and built upon long ago. It is awaited between the rejection and
            the look at what is there: what was found before a wait would be out of date after it.

    Returns:
        The ETag and the store's clock; or what was found in its place. The intents of such a write are left to the
        caller to withdraw, who may have a more urgent request to make.

    Raises:
        OutcomeUnknownError: it may have been written, or may yet be. Its intents stay.
        StorageError: it was definitely not written.
    """
    unanswered = False
    try:
        for attempt in range(SENDS):
            if attempt:
                await context.back_off(attempt)
            if context.wall_clock() - announcement.wall > STALE:
                announcement.renew(await announce_further(context, draft, draft.prefixes))
            try:
                # Re-sent identical on purpose: a lost response must not become a false conflict.
                written = await _put(context, draft)
            except PreconditionFailed:
                try:
                    if before_look is not None and not unanswered:
                        await before_look()
                    found = await look(context, draft.key, draft.conversation_id)
                except StorageError as error:
                    raise _unknown(draft, f"refused, which may be its own echo, and then: {error}") from error
                # A new state is refused by whatever is there, and that may be there for long (docs/adr/0023).
                harmless = before_look is not None or draft.built_on.is_new
                outcome = _settle(draft, found, certain=harmless and not unanswered)
                if isinstance(outcome, Found):
                    return outcome
                written = outcome
            except Contended:
                continue
            except UnavailableError:
                unanswered = True
                continue
            if written.date - announcement.date > STALE:
                # It is committed: nothing that fails from here on may say otherwise.
                with suppress(StorageError):
                    await announce_further(context, draft, draft.prefixes)
            return written
    except OutcomeUnknownError:
        raise
    except StorageError as error:
        if unanswered:
            raise _unknown(draft, f"no answer, and then: {error}") from error
        await withdraw(context, announcement.keys)
        raise
    if unanswered:
        raise _unknown(draft, f"no answer to {SENDS} requests")
    await withdraw(context, announcement.keys)
    raise UnavailableError(
        f"conversation {draft.conversation_id!r} was not saved: others were writing its document {SENDS} times "
        "in a row (409); try again later"
    )


async def _put(context: Context, draft: Draft) -> Written:
    hints = draft.stamp.hints()
    if draft.built_on.is_new:
        return await context.store.put(draft.key, draft.body, if_none_match="*", metadata=hints)
    return await context.store.put(draft.key, draft.body, if_match=draft.built_on.etag, metadata=hints)


async def look(context: Context, key: str, conversation_id: str, unless: str | None = None) -> Found:
    """What lies at a document's key; `NotModified` if its ETag is `unless`."""
    found = await context.store.get(key, if_none_match=unless)
    if found is None:
        return Found(None)
    document = decode_document(found.body, conversation_id, context.name(key))
    return Found(document, found.etag, found.body, found.date)


def _settle(draft: Draft, found: Found, *, certain: bool) -> Written | Found:
    """What a 412 means, by the document that is there."""
    document = found.document
    if document is None:
        return found
    if draft.stamp.write == document.stamp.write:
        return Written(found.etag, found.date)
    if draft.stamp.write in document.stamp.lineage:
        return Written(SUPERSEDED, found.date)
    if document.stamp.revision >= draft.stamp.revision + LINEAGE and not certain:
        raise _unknown(draft, f"the document is at revision {document.stamp.revision}, too far on to tell")
    return found


def _unknown(draft: Draft, why: str) -> OutcomeUnknownError:
    return OutcomeUnknownError(
        f"conversation {draft.conversation_id!r}: whether revision {draft.stamp.revision} was saved is not known "
        f"({why}); load it and look, or save again with on_conflict='merge'"
    )
