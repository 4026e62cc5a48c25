"""Verify: hold every document against the index, and report whatever is not as it should be.

Law: nothing is written, and nothing stops at the first difference. A difference about a conversation is looked at again
before it is reported, because others may be saving, folding and merging meanwhile. Memory does not grow with the
archive, but with what is found: the index is read in parts, by the hashes of the ids.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace

from s3conv.core.comparing import Difference, Finding, Said, Verified, compare, difference, pending
from s3conv.core.context import Context, Kept
from s3conv.core.inspecting import Part, manifest_as_it_is, read_log
from s3conv.core.log import OvertakenError, most_intents, pages
from s3conv.core.repairing import rebuild
from s3conv.core.scanning import read_documents, scan
from s3conv.core.segments import IndexCache
from s3conv.core.surveying import Survey, rows_at, survey
from s3conv.errors import CorruptError, NotFoundError, UnavailableError, UnsupportedFormatError
from s3conv.format.entry import SortKey
from s3conv.format.keys import CONVERSATIONS, DESCRIPTOR, LOG, MANIFEST, RECENT, SEGMENTS, document_key, is_ulid
from s3conv.store.base import Listed

INDEX = "index/"
PACKS = "packs/"

PART_ROWS = 250_000
"""Most rows of the index that are in memory at once, some 500 bytes each: an archive with more is read in parts."""

DOUBTS = 2_000
"""Most conversations that are looked at again together: one view of the index serves them all."""

LOOKS = 6
"""How often a conversation is looked at again while it keeps changing."""

Progress = Callable[[str, float], None]
"""Is told what is being done, and the share of it that is done, from 0 to 1."""


async def verify(context: Context, repair: bool, progress: Progress | None) -> Verified:
    """See `Archive.verify`."""
    # What this process remembers of the descriptor is not what lies there.
    context = replace(context, kept=Kept())
    tell = progress or (lambda what, share: None)
    found = await _Check(context, lambda share: tell("comparing", share)).run()
    if not repair or not any(one.mendable for one in found.differences):
        return found
    wrong = {one.object for one in found.differences if one.kind == "wrong-intent"}
    await rebuild(context, wrong, lambda share: tell("rebuilding the index", share))
    again = await _Check(context, lambda share: tell("comparing again", share)).run()
    again.repaired = True
    left = {(one.kind, one.object, one.conversation_id) for one in again.differences}
    again.mended = [one for one in found.differences if (one.kind, one.object, one.conversation_id) not in left]
    return again


@dataclass(slots=True)
class _Check:
    """One comparison of everything with everything."""

    context: Context
    tell: Callable[[float], None]
    found: Verified = field(default_factory=Verified)
    _noted: set[Difference] = field(default_factory=set)

    async def run(self) -> Verified:
        context = self.context
        try:
            archive = await context.descriptor()
        except (NotFoundError, CorruptError, UnsupportedFormatError) as error:
            await self._without_descriptor(error)
            return self.found
        listed = [one async for page in pages(context, INDEX) for one in page.objects]
        sizes = self._names(listed)
        for page in [await context.store.list(PACKS)]:
            for one in page.objects[:1]:
                self._note(difference("newer-format", context.name(one.key), "packs need a newer s3conv: upgrade it"))
        for part in await self._parts(listed):
            await self._compare(part, sizes, archive.partition_by)
        return self.found

    def _note(self, *differences: Difference) -> None:
        """Report each difference once, whichever part it was met in."""
        for one in differences:
            if one not in self._noted:
                self._noted.add(one)
                self.found.differences.append(one)

    async def _without_descriptor(self, error: NotFoundError | CorruptError | UnsupportedFormatError) -> None:
        """Without the descriptor nobody can tell how the index is sorted; the documents can be read all the same."""
        name = self.context.name(DESCRIPTOR)
        if isinstance(error, NotFoundError):
            if not [prefix for prefix in (CONVERSATIONS, INDEX) if (await self.context.store.list(prefix)).objects]:
                raise error
            error = NotFoundError("it is missing")
        what = difference("damaged-descriptor", name, error).sentence
        if isinstance(error, UnsupportedFormatError):
            self._note(difference("newer-format", name, what))
            return
        self._note(
            difference(
                "damaged-descriptor",
                name,
                f"{what}; restore it from a backup, or write it again by docs/format.md with the partition_by that the "
                "archive was created with; then verify again: the index was not looked at",
            )
        )
        async with aclosing(scan(self.context, Part(), None)) as pages_of_documents:
            async for scanned in pages_of_documents:
                self._note(*[one.difference for one in scanned if one.difference is not None])
                self._count([one.said for one in scanned if one.said is not None])

    def _count(self, documents: Sequence[Said]) -> None:
        deleted = sum(said.entry.deleted for said in documents)
        self.found.deleted += deleted
        self.found.conversations += len(documents) - deleted

    def _names(self, listed: Sequence[Listed]) -> dict[str, int]:
        """Note what is none of ours below `index/`; returns the sizes of the rest. The log is looked at elsewhere."""
        sizes = {}
        for one in listed:
            folder, _, name = one.key.rpartition("/")
            file = (
                f"{folder}/" in (SEGMENTS, RECENT)
                and name.endswith(".jsonl.zst")
                and is_ulid(name[: -len(".jsonl.zst")])
            )
            if file or one.key == MANIFEST:
                sizes[one.key] = one.size
            elif not one.key.startswith(LOG):
                what = "no object of the index has such a name; remove it"
                self._note(difference("stray-object", self.context.name(one.key), what))
        return sizes

    async def _parts(self, listed: Sequence[Listed]) -> list[Part]:
        """The parts that the archive is compared in, by the number of rows and intents."""
        rows = sum(most_intents(one.key) for one in listed if one.key.startswith(LOG))
        try:
            seen = await manifest_as_it_is(self.context)
        except UnsupportedFormatError:
            seen = None
        if seen is not None and seen.found is not None:
            rows += sum(segment.rows for run in ("tail", "mid", "base") for segment in seen.found.manifest.run(run))
        count = min(256, max(1, -(-rows // PART_ROWS)))
        return [Part(256 * n // count, 256 * (n + 1) // count) for n in range(count)]

    async def _compare(self, part: Part, sizes: dict[str, int], partition_by: str | None) -> None:
        """Read the index first and the documents then: no row can be ahead because of a save that came between."""
        index = await survey(self.context, part, sizes)
        self._note(*index.differences, *index.log.troubles.values())
        doubts: dict[str, set[SortKey]] = {}
        unread: set[str] = set()
        async with aclosing(scan(self.context, part, partition_by)) as pages_of_documents:
            async for scanned in pages_of_documents:
                self._note(*[one.difference for one in scanned if one.difference is not None])
                unread.update(one.key for one in scanned if one.difference is not None)
                said = [one.said for one in scanned if one.said is not None]
                self._count(said)
                for one in said:
                    conversation_id = one.entry.conversation_id
                    rows = index.rows.pop(conversation_id, [])
                    intents = index.log.intents.pop(conversation_id, [])
                    self.found.pending += pending(one, intents)
                    if _visible(compare(one, rows, intents), index, one):
                        doubts[conversation_id] = {one.key, *(row.key for row in rows)}
                if scanned:
                    self._tell(part, scanned[-1].key)
        for conversation_id, intents in index.log.intents.items():
            if document_key(conversation_id) not in unread:
                self.found.pending += pending(None, intents)
        for conversation_id, rows in index.rows.items():
            if document_key(conversation_id) not in unread:
                doubts[conversation_id] = {row.key for row in rows}
        await self._look_again(doubts, partition_by)
        self.tell(part.high / 256)

    def _tell(self, part: Part, key: str) -> None:
        try:
            byte = int(key.removeprefix(CONVERSATIONS)[:2], 16)
        except ValueError:
            return
        self.tell(min(max(byte, part.low), part.high) / 256)

    async def _look_again(self, doubts: dict[str, set[SortKey]], partition_by: str | None) -> None:
        ids = list(doubts)
        for begin in range(0, len(ids), DOUBTS):
            some = {conversation_id: doubts[conversation_id] for conversation_id in ids[begin : begin + DOUBTS]}
            async with aclosing(_settled(self.context, some, partition_by)) as settled:
                async for conversation_id, findings in settled:
                    if findings is None:
                        self.found.changing += 1
                        continue
                    self._note(
                        *(
                            difference(one.kind, self.context.name(one.object), one.sentence, conversation_id)
                            for one in findings
                        )
                    )


async def _settled(
    context: Context, doubts: dict[str, set[SortKey]], partition_by: str | None
) -> AsyncGenerator[tuple[str, list[Finding] | None], None]:
    """What is really wrong with some conversations; None: they changed whenever they were looked at.

    The document is read before and after the index. If it is the same both times, what the index says in between can
    be held against it.
    """
    cache = IndexCache()
    before: dict[str, tuple[Said | None, list[Finding]]] = {}
    open_ = dict(doubts)
    for look in range(LOOKS):
        if look > 1:
            await context.back_off(look)
        scanned = await read_documents(context, [document_key(one) for one in open_], partition_by)
        for (conversation_id, _), document in zip(list(open_.items()), scanned, strict=True):
            if document.difference is not None:  # reported by the scan, which has just read it too
                del open_[conversation_id]
            elif conversation_id in before and _same(before[conversation_id][0], document.said):
                yield conversation_id, before[conversation_id][1]
                del open_[conversation_id]
        if not open_:
            return
        documents = {document.key: document.said for document in scanned}
        wanted = {one: keys | _keys_of(documents[document_key(one)]) for one, keys in open_.items()}
        index = await _view(context, wanted, cache)
        if index is None:
            break
        for conversation_id in list(open_):
            said = documents[document_key(conversation_id)]
            rows = index.rows.get(conversation_id, [])
            findings = compare(said, rows, index.log.intents.get(conversation_id, []))
            findings = _visible(findings, index, said)
            if findings:
                before[conversation_id] = said, findings
            else:
                del open_[conversation_id]
        if not open_:
            return
    for conversation_id in open_:
        yield conversation_id, None


def _keys_of(said: Said | None) -> set[SortKey]:
    return set() if said is None else {said.key}


def _same(before: Said | None, now: Said | None) -> bool:
    return (before and before.line, before and before.write) == (now and now.line, now and now.write)


def _visible(findings: list[Finding], index: Survey, said: Said | None) -> list[Finding]:
    """Those that can be told: not from rows that a damaged segment hides, which is reported for itself."""
    if index.manifest is None:
        return [one for one in findings if one.kind == "wrong-intent"]
    if not index.broken:
        return findings
    return [
        one
        for one in findings
        if one.kind in ("wrong-intent", "no-document") or not index.hidden(one.at, *_keys_of(said))
    ]


async def _view(context: Context, wanted: dict[str, set[SortKey]], cache: IndexCache) -> Survey | None:
    """The index as it is now, at some sort keys; None if its manifest cannot be read now."""
    for attempt in range(LOOKS):
        if attempt:
            await context.back_off(attempt)
        log = await read_log(context, wanted, cache)
        try:
            seen = await manifest_as_it_is(context)
        except UnsupportedFormatError:
            return None
        if seen.found is None:
            return None
        try:
            index = await rows_at(context, wanted, seen.found)
        except OvertakenError:
            continue
        index.log = log
        return index
    raise UnavailableError(f"the index of {context.store.url} changed under {LOOKS} reads in a row; try again later")
