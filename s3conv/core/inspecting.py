"""Inspecting: what lies in the log and at the manifest's key, whether it can be read or not.

Law: nothing that is damaged stops the reading; it is noted, once for each object, and the rest is read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from s3conv.bridge import ordered_map
from s3conv.core.comparing import Difference, IntentSeen, difference, intent_digest
from s3conv.core.context import Context
from s3conv.core.log import LogObject, intents_of, pages
from s3conv.core.segments import IndexCache, Manifested
from s3conv.errors import CorruptError, IndexDamagedError, InvalidInputError, UnsupportedFormatError
from s3conv.format.entry import Intent, Replaces, is_index_time, partition_metadata, partition_of
from s3conv.format.keys import LOG, MANIFEST, parse_log_key
from s3conv.format.manifest import decode_manifest

SETTLED = 15 * 60.0 + 60.0
"""Seconds after which an intent's save is made or never will be: S3 refuses requests that were signed 15 minutes ago,
and none is signed more than 60 seconds after its announcement (DESIGN.md, section 6)."""


class Part(NamedTuple):
    """The conversations whose sha256 begins with a byte from `low` on and below `high`."""

    low: int = 0
    high: int = 256

    def holds(self, conversation_id: str) -> bool:
        """Whether a conversation is one of them."""
        if self == Part():
            return True
        return self.low <= hashlib.sha256(conversation_id.encode()).digest()[0] < self.high


@dataclass(slots=True)
class Log:
    """The log as it is now: intents by conversation id, and the objects in it that are not what they must be."""

    date: float = 0.0
    intents: dict[str, list[IntentSeen]] = field(default_factory=dict)
    places: dict[str, LogObject] = field(default_factory=dict)
    troubles: dict[str, Difference] = field(default_factory=dict)


async def read_log(context: Context, wanted: Part | Mapping[str, object], cache: IndexCache) -> Log:
    """The log, with the intents of the wanted conversations.

    Raises:
        StoreError: the store refused, or did not answer.
    """
    archive = await context.descriptor()
    log = Log()
    listed: list[LogObject] = []
    async for page in pages(context, LOG):
        log.date = page.date
        for one in page.objects:
            place = LogObject(one.key, one.last_modified, page.date - one.last_modified)
            log.places[one.key] = place
            if parse_log_key(one.key) is None:
                what = "it is no object of the log; remove it"
                log.troubles[one.key] = difference("damaged-intent", context.name(one.key), what)
            else:
                listed.append(place)

    def is_wanted(conversation_id: str) -> bool:
        return wanted.holds(conversation_id) if isinstance(wanted, Part) else conversation_id in wanted

    async def fetch(place: LogObject) -> list[tuple[str, IntentSeen]] | Difference:
        key, name = place.key, context.name(place.key)
        try:
            intents = cache.log.intents.get(key)
            if intents is None:
                intents = await intents_of(context, key) or []
                if not all(_is_key(one.replaces, archive.partition_by) for one in intents if one.replaces is not None):
                    raise CorruptError("it replaces what is no sort key")
                cache.log.intents.put(key, intents)
            return [
                (one.entry.conversation_id, _seen(key, one)) for one in intents if is_wanted(one.entry.conversation_id)
            ]
        except (CorruptError, InvalidInputError) as error:
            return difference("damaged-intent", name, error)
        except UnsupportedFormatError as error:
            return difference("newer-format", name, error)

    places = iter(listed)
    async with aclosing(ordered_map(context.runner, fetch, listed, context.store.fan_out)) as answers:
        async for found in answers:
            key = next(places).key
            if isinstance(found, Difference):
                log.troubles[key] = found
                continue
            for conversation_id, intent in found:
                log.intents.setdefault(conversation_id, []).append(intent)
    for key, trouble in log.troubles.items():
        if trouble.mendable and log.places[key].age <= SETTLED:
            what = f"{trouble.sentence}; it may announce a save that is under way: repair when it is 16 minutes old"
            log.troubles[key] = replace(trouble, sentence=what)
    return log


def _is_key(replaces: Replaces, partition_by: str | None) -> bool:
    """Whether a row can stand at the sort key that an intent replaces."""
    metadata = partition_metadata(replaces.partition, partition_by)
    return partition_of(metadata, partition_by) == replaces.partition and is_index_time(replaces.created_at)


def _seen(key: str, intent: Intent) -> IntentSeen:
    size = None if intent.window else intent.entry.size
    prefix = key[: key.rindex("/") + 1]
    return IntentSeen(prefix, key, intent.entry.revision, intent.write, intent_digest(intent.entry), size)


class ManifestSeen(NamedTuple):
    """What lies at the manifest's key: the manifest if it can be read, and its ETag if anything is there."""

    found: Manifested | None
    etag: str | None
    difference: Difference | None


async def manifest_as_it_is(context: Context) -> ManifestSeen:
    """Look at the manifest, whatever is there.

    Raises:
        UnsupportedFormatError: a newer s3conv wrote it.
    """
    name = context.name(MANIFEST)
    found = await context.store.get(MANIFEST)
    if found is None:
        return ManifestSeen(None, None, difference("damaged-manifest", name, "it is missing"))
    try:
        manifest = decode_manifest(found.body, name)
    except IndexDamagedError as error:
        return ManifestSeen(None, found.etag, difference("damaged-manifest", name, error))
    return ManifestSeen(Manifested(manifest, found.etag, found.date), found.etag, None)
