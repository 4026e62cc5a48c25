"""Each rule of the protocol switched off, by putting another piece in its place: the simulation has to notice.

A rule whose absence is never noticed is either not needed, or not simulated. Production code has no such switches.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from typing import Any
from unittest import mock

import msgspec

from s3conv.core import commit, folding, log, maintaining, merging, saving, segments
from s3conv.core.commit import Announcement, Draft, Found
from s3conv.core.context import Context
from s3conv.core.known import Known, known_of_document
from s3conv.core.log import LogObject, Seen
from s3conv.core.segments import IndexCache, Manifested
from s3conv.errors import ConflictError, UnavailableError
from s3conv.format.document import Document, Stamp, decode_document
from s3conv.format.entry import Entry, read_index_time
from s3conv.format.keys import LOG, MANIFEST, RECENT, SEGMENTS, document_key, ulid
from s3conv.store.base import Contended, PreconditionFailed, Written
from tests.simulation.world import SimStore

Ablation = Callable[[], AbstractContextManager[Any]]


def _patched(*pieces: tuple[str, Any]) -> AbstractContextManager[Any]:
    stack = ExitStack()
    for target, piece in pieces:
        stack.enter_context(mock.patch(target, piece))
    return stack


# --- saving ----------------------------------------------------------------------------------------------------------


def intent_after_document() -> AbstractContextManager[Any]:
    """The document is committed first, and announced afterwards."""
    announce, commit_ = commit.announce, commit.commit

    async def nothing(context: Context, draft: Draft) -> Announcement:
        return Announcement((await context.store.list(LOG)).date, context.wall_clock())

    async def commit_first(
        context: Context, draft: Draft, announcement: Announcement, *, before_look: commit.BeforeLook | None
    ) -> Written | Found:
        outcome = await commit_(context, draft, announcement, before_look=before_look)
        if isinstance(outcome, Written):
            await announce(context, draft)
        return outcome

    return _patched(("s3conv.core.saving.announce", nothing), ("s3conv.core.saving.commit", commit_first))


def no_lineage() -> AbstractContextManager[Any]:
    """A refusal is believed, also where it is the echo of our own write."""

    def settle(draft: Draft, found: Found, *, certain: bool) -> Written | Found:
        return found

    return _patched(("s3conv.core.commit._settle", settle))


def lineage_of_the_last_write_only() -> AbstractContextManager[Any]:
    """Our own write is recognized only while nobody has built on it."""

    def settle(draft: Draft, found: Found, *, certain: bool) -> Written | Found:
        document = found.document
        if document is not None and document.stamp.write == draft.stamp.write:
            return Written(found.etag, found.date)
        return found

    return _patched(("s3conv.core.commit._settle", settle))


def full_lineage_is_certain() -> AbstractContextManager[Any]:
    """A write that is not in a full lineage 16 revisions on is taken for lost."""
    settle = commit._settle

    def settled(draft: Draft, found: Found, *, certain: bool) -> Written | Found:
        return settle(draft, found, certain=True)

    return _patched(("s3conv.core.commit._settle", settled))


def unconditional_put() -> AbstractContextManager[Any]:
    """The document is written whatever is there."""

    async def put(context: Context, draft: Draft) -> Written:
        return await context.store.put(draft.key, draft.body, metadata=draft.stamp.hints())

    return _patched(("s3conv.core.commit._put", put))


def conflict_409() -> AbstractContextManager[Any]:
    """A 409 is taken for a conflict, and the intent taken back, although an earlier request may have been applied."""
    put = commit._put

    async def put_once(context: Context, draft: Draft) -> Written:
        try:
            return await put(context, draft)
        except Contended:
            raise PreconditionFailed("409") from None

    return _patched(("s3conv.core.commit._put", put_once))


def never_announced_again() -> AbstractContextManager[Any]:
    """A writer that was frozen goes on with its old announcement."""
    return _patched(("s3conv.core.commit.STALE", math.inf))


def new_write_id_when_sent_again() -> AbstractContextManager[Any]:
    """No answer is taken for no: the save is made anew, as another write."""

    async def give_up(context: Context, draft: Draft) -> Written:
        try:
            return await put(context, draft)
        except UnavailableError as error:
            raise PreconditionFailed("no answer") from error

    put = commit._put
    return _patched(
        ("s3conv.core.commit._put", give_up), ("s3conv.core.commit._settle", lambda draft, found, certain: found)
    )


def tombstone_without_lineage() -> AbstractContextManager[Any]:
    """A tombstone forgets who has written before it."""
    tombstone = Document.tombstone

    def forgetful(self: Document, stamp: Stamp, deleted_at: str, partition_by: str | None) -> bytes:
        return tombstone(self, replace(stamp, lineage=(stamp.write,)), deleted_at, partition_by)

    return _patched(("s3conv.format.document.Document.tombstone", forgetful))


def unknown_called_a_conflict() -> AbstractContextManager[Any]:
    """Where nobody can tell whether a write was made, its caller is told that it was not."""

    def conflict(draft: Draft, why: str) -> ConflictError:
        return ConflictError(f"{draft.conversation_id} was not saved: {why}")

    return _patched(("s3conv.core.commit._unknown", conflict))


def announced_too_late_for_nothing() -> AbstractContextManager[Any]:
    """A write that took so long that its announcement is stale is not announced again once it is made."""
    announce = commit.announce_further

    async def only_before(context: Context, draft: Draft, prefixes: Sequence[str]) -> Announcement:
        found = await _as_it_is(context, draft.key)
        if found is not None and found.stamp.write == draft.stamp.write:
            raise UnavailableError("not announced again")
        return await announce(context, draft, prefixes)

    return _patched(("s3conv.core.commit.announce_further", only_before))


async def _as_it_is(context: Context, key: str) -> Document | None:
    """A document, looked at without a request of the simulation."""
    assert isinstance(context.store, SimStore)
    found = await context.store.unwatched.get(key)
    return None if found is None else decode_document(found.body, None, key)


def loser_keeps_its_intents() -> AbstractContextManager[Any]:
    """Who has definitely lost leaves its intents in the log."""

    async def nothing(context: Context, keys: Sequence[str]) -> None:
        return

    return _patched(*((f"s3conv.core.{module}.withdraw", nothing) for module in ("commit", "contention", "saving")))


def merged_by_node_id() -> AbstractContextManager[Any]:
    """Messages count as the same if they have the same place in the tree."""
    return _patched(("s3conv.model.merge.identity", lambda node: node.node_id))


def merge_raises_the_dead() -> AbstractContextManager[Any]:
    """A state that was loaded before a delete creates the conversation again."""
    rebased = saving.rebased

    async def anyhow(context: Context, state: Any, known: Known, found: Found, on_conflict: Any) -> Known:
        document = found.document
        if document is None or not document.deleted or on_conflict == "raise":
            return await rebased(context, state, known, found, on_conflict)
        archive = await context.descriptor()
        return known_of_document(archive, document, found.etag, found.body, found.date, context.wall_clock())

    return _patched(("s3conv.core.saving.rebased", anyhow))


def merge_raises_the_dead_beside_the_living() -> AbstractContextManager[Any]:
    """A state from before a delete is merged into what was begun in its place."""
    told = saving._was_deleted
    return _patched(
        ("s3conv.core.saving._was_deleted", lambda known, document: document.deleted and told(known, document))
    )


def deleted_by_deleting() -> AbstractContextManager[Any]:
    """A delete takes the document's key away, and the count of its revisions with it."""

    async def delete(context: Context, conversation_id: str) -> bool:
        await context.store.delete([document_key(conversation_id)])
        return True

    return _patched(("s3conv.core.saving.delete", delete))


def move_announced_in_one_place() -> AbstractContextManager[Any]:
    """A save that moves the conversation is announced under its new partition alone."""
    draft_of = commit.draft_of

    def one_prefix(*args: Any, **options: Any) -> Draft:
        draft = draft_of(*args, **options)
        return replace(draft, prefixes=draft.prefixes[:1])

    return _patched(("s3conv.core.saving.draft_of", one_prefix))


# --- the activity window ---------------------------------------------------------------------------------------------


def window_for_every_change() -> AbstractContextManager[Any]:
    """A save that changes more than activity goes unannounced, too."""
    return _patched(
        ("s3conv.core.window.lasting", lambda *_: ""),
        ("s3conv.core.window.lasting_of", lambda *_: ""),
        ("s3conv.core.saving.lasting_of", lambda *_: ""),
        ("s3conv.format.document.Document.lasting", lambda _: ""),
    )


def window_without_end() -> AbstractContextManager[Any]:
    """A writer believes that its announcement speaks for ever."""

    def spoken_for(context: Context, known: Known, constant: str) -> Announcement | None:
        if known.stamp.speaks_until is None or not context.activity_window or constant != known.lasting:
            return None
        return Announcement(math.inf, math.inf)

    return _patched(("s3conv.core.saving.spoken_for", spoken_for))


def fold_within_the_window() -> AbstractContextManager[Any]:
    """Fold takes away an intent that yet speaks."""
    return _patched(("s3conv.core.window.MARGIN", -math.inf))


# --- reading ---------------------------------------------------------------------------------------------------------


def unconfirmed() -> AbstractContextManager[Any]:
    """Old intents count without their document."""
    return _patched(("s3conv.core.log.STALE", math.inf))


def two_of_one_revision_believed() -> AbstractContextManager[Any]:
    """Of two intents of one revision the first counts, whatever the document says."""
    settle = log.settle

    async def believe(context: Context, cache: Any, by_id: dict[str, list[Seen]]) -> log.Told:
        firsts = {}
        for conversation_id, seen in by_id.items():
            newest = max(one.intent.entry.revision for one in seen)
            top = [one for one in seen if one.intent.entry.revision == newest]
            firsts[conversation_id] = [one for one in top if one.intent.write == top[0].intent.write]
        return await settle(context, cache, firsts)

    return _patched(("s3conv.core.index.settle", believe))


def age_by_own_clock() -> AbstractContextManager[Any]:
    """How old an intent is, is told by the clock of the process that lists it."""
    list_ = log.list_log

    async def list_log(context: Context, prefix: str, after: str = "", most: int | None = None) -> list[LogObject]:
        listed = await list_(context, prefix, after, most)
        return [replace(one, age=context.wall_clock() - one.written) for one in listed]

    return _patched(
        *((f"s3conv.core.{module}.list_log", list_log) for module in ("index", "maintaining")),
        ("tests.simulation.scenario.list_log", list_log),
    )


def manifest_before_log() -> AbstractContextManager[Any]:
    """A list reads the manifest first, and the log afterwards."""
    read, list_ = segments.read_manifest, log.list_log
    first: dict[int, Manifested] = {}

    async def list_log(context: Context, prefix: str, after: str = "", most: int | None = None) -> list[LogObject]:
        first[id(context)] = await read(context)
        return await list_(context, prefix, after, most)

    async def read_manifest(context: Context, cache: IndexCache | None = None) -> Manifested:
        return first.pop(id(context), None) or await read(context, cache)

    return _patched(("s3conv.core.index.list_log", list_log), ("s3conv.core.index.read_manifest", read_manifest))


def rows_not_looked_up() -> AbstractContextManager[Any]:
    """What is found in an older run counts without looking into the newer ones."""

    async def believed(self: Any, hits: list[Any], runs: Sequence[Any]) -> list[Any]:
        return hits

    return _patched(("s3conv.core.index._Search._unshadowed", believed))


def missing_is_nothing() -> AbstractContextManager[Any]:
    """An intent that is gone since it was listed is passed over."""
    read = log.read_intents

    async def read_intents(context: Context, cache: Any, listed: Any, *, gone: bool = False) -> Any:
        return await read(context, cache, listed, gone=True)

    return _patched(("s3conv.core.index.read_intents", read_intents))


def export_believes_what_is_announced() -> AbstractContextManager[Any]:
    """What a young intent announces hides what the document says from an export."""
    return _told(lambda told: replace(told, unconfirmed=set()))


def export_believes_the_activity_of_intents() -> AbstractContextManager[Any]:
    """An export filters by the activity that the index knows of, also where saves go unannounced."""
    return _told(lambda told: replace(told, speaking=set()))


def export_believes_the_index() -> AbstractContextManager[Any]:
    """What the index says of a conversation is not asked of its document."""

    async def believed(*_: Any) -> bool:
        return True

    return _patched(("s3conv.core.exporting._matches", believed))


def _told(change: Callable[[log.Told], log.Told]) -> AbstractContextManager[Any]:
    """The log says something else of what is not certain."""
    settle = log.settle

    async def settled(context: Context, cache: Any, by_id: dict[str, list[Seen]]) -> log.Told:
        return change(await settle(context, cache, by_id))

    return _patched(("s3conv.core.index.settle", settled))


# --- maintaining -----------------------------------------------------------------------------------------------------


def fold_believes_intents() -> AbstractContextManager[Any]:
    """Fold takes the newest intent's word for the document's."""

    async def believed(context: Context, seen: list[Seen]) -> tuple[Stamp, Entry | None]:
        newest = max((one.intent for one in seen), key=lambda intent: intent.entry.revision)
        return Stamp(newest.entry.revision, newest.write, ()), newest.entry

    return _patched(("s3conv.core.folding._document_of", believed))


def fold_deletes_first() -> AbstractContextManager[Any]:
    """Fold deletes the intents before a manifest has their rows."""
    commit_ = folding._commit

    async def delete_first(context: Context, cache: IndexCache, now: Manifested, plan: Any) -> bool:
        await context.store.delete(plan.done)
        return await commit_(context, cache, now, plan)

    return _patched(("s3conv.core.folding._commit", delete_first))


def fold_drops_at_once() -> AbstractContextManager[Any]:
    """An intent whose document is not there yet is dropped."""
    return _patched(("s3conv.core.folding.DEAD", -1.0), ("s3conv.core.folding.DEAD_MOVE", -1.0))


def fold_without_cas() -> AbstractContextManager[Any]:
    """The manifest is replaced whatever it is."""

    async def swap(context: Context, etag: str, manifest: Any) -> bool:
        await context.store.put(MANIFEST, manifest.encode())
        return True

    return _patched(("s3conv.core.folding.swap_manifest", swap), ("s3conv.core.maintaining.swap_manifest", swap))


def fold_reads_the_manifest_late() -> AbstractContextManager[Any]:
    """Fold looks at the documents first and at the manifest afterwards."""
    commit_ = folding._commit

    async def late(context: Context, cache: IndexCache, now: Manifested, plan: Any) -> bool:
        return await commit_(context, cache, await segments.read_manifest(context), plan)

    return _patched(("s3conv.core.folding._commit", late))


def no_moved_rows() -> AbstractContextManager[Any]:
    """Fold leaves no row where a conversation was before it moved."""
    rows_of_plan = folding._rows_of_plan

    def without(plan: Any, *args: Any) -> Any:
        plan.reached = {conversation_id: [] for conversation_id in plan.reached}
        return rows_of_plan(plan, *args)

    return _patched(("s3conv.core.folding._rows_of_plan", without))


def no_replaced_rows() -> AbstractContextManager[Any]:
    """Fold leaves such rows only where older intents say that it is, not where one says that it was."""
    rows_of_plan = folding._rows_of_plan

    def without(plan: Any, *args: Any) -> Any:
        plan.reached = {
            conversation_id: [msgspec.structs.replace(intent, replaces=None) for intent in reached]
            for conversation_id, reached in plan.reached.items()
        }
        return rows_of_plan(plan, *args)

    return _patched(("s3conv.core.folding._rows_of_plan", without))


def gone_rows_dropped_by_any_merge() -> AbstractContextManager[Any]:
    """A merge into mid drops the rows of deleted and moved conversations."""
    write = merging.write_segments

    async def drop(context: Context, rows: Any, date: float, keep: Any, *, tail: bool = False) -> Any:
        return await write(context, rows, date, keep if tail else lambda row: not row.gone, tail=tail)

    return _patched(("s3conv.core.maintaining.write_segments", drop))


def gone_rows_dropped_at_once() -> AbstractContextManager[Any]:
    """A merge into base drops them although older intents are in the log."""

    async def nothing(context: Context, cache: IndexCache) -> set[str]:
        return set()

    return _patched(("s3conv.core.maintaining.GONE_KEPT", -1.0), ("s3conv.core.maintaining._ids_in_log", nothing))


def batch_goes_with_its_first() -> AbstractContextManager[Any]:
    """A batch is deleted when one of its intents is settled."""
    plan_ = folding._plan

    async def plan(context: Context, by_id: dict[str, list[Seen]]) -> Any:
        made = await plan_(context, by_id)
        folded = {one.place.key for name, seen in by_id.items() if name in made.entries for one in seen}
        made.done = sorted({*made.done, *(key for key in folded if "/batch." in key)})
        return made

    return _patched(("s3conv.core.folding._plan", plan))


def order_by_time() -> AbstractContextManager[Any]:
    """Of two rows of a conversation the one that was updated later counts, whatever their revisions."""
    merged = merging.merged

    async def by_time(rows: Any) -> Any:
        async for some in rows:
            yield [row._replace(revision=int(read_index_time(row.updated).timestamp())) for row in some]

    def merged_by_time(runs: Sequence[Any]) -> Any:
        return merged([by_time(run) for run in runs])

    return _patched(("s3conv.core.folding.merged", merged_by_time), ("s3conv.core.maintaining.merged", merged_by_time))


def segment_names_are_used_again() -> AbstractContextManager[Any]:
    """A segment is written under a name that another one may have had."""

    def few(context: Context) -> str:
        return ulid(0.0, int(context.new_id(), 16) % 3)

    return _patched(("s3conv.core.merging.fresh_ulid", few), ("s3conv.core.folding.fresh_ulid", few))


def collect_at_once() -> AbstractContextManager[Any]:
    """What no manifest names is deleted however young it is: also what a long merge has just written."""
    return _patched(("s3conv.core.maintaining.RETIRED_KEPT", -math.inf))


def recent_floor_stays() -> AbstractContextManager[Any]:
    """`recent` leaves out what is too much, and does not say so."""
    write = folding.write_recent

    async def same_floor(context: Context, rows: Any, floor: str, date: float, folded: Any = ()) -> Any:
        recent = await write(context, rows, floor, date, folded)
        return None if recent is None else msgspec.structs.replace(recent, floor=floor)

    return _patched(("s3conv.core.folding.write_recent", same_floor), ("s3conv.core.folding.RECENT_OLDER", 0))


def collect_without_bump() -> AbstractContextManager[Any]:
    """Collect deletes without a new manifest, so that a stalled fold may name what it deleted."""

    async def collect(context: Context, done: Any) -> None:
        now = await segments.read_manifest(context)
        retired = {one.key: read_index_time(one.retired_at).timestamp() for one in now.manifest.retired}
        doomed = []
        for prefix in (SEGMENTS, RECENT):
            async for page in log.pages(context, prefix):
                for one in page.objects:
                    since = retired.get(one.key, one.last_modified + folding.SHORT_LIVED)
                    if one.key not in now.manifest.named() and page.date - since > maintaining.RETIRED_KEPT:
                        doomed.append(one.key)
        if doomed:
            await context.store.delete(doomed)

    return _patched(("s3conv.core.maintaining._collect", collect))


def late_merge() -> AbstractContextManager[Any]:
    """A merge that slept for days still replaces the manifest, although what it wrote was collected."""
    return _patched(("s3conv.core.maintaining.LATEST", math.inf))


def merge_over_merge() -> AbstractContextManager[Any]:
    """A merge that lost to another merge replaces its result."""
    commit_ = maintaining._commit

    async def anyhow(context: Context, before: Manifested, target: Any, written: Any, recent: Any) -> bool:
        now = await segments.read_manifest(context)
        same = msgspec.structs.replace(now.manifest, mid=before.manifest.mid, base=before.manifest.base)
        return await commit_(context, replace(now, manifest=same), target, written, recent)

    return _patched(("s3conv.core.maintaining._commit", anyhow))


def recent_keeps_what_was_folded() -> AbstractContextManager[Any]:
    """`recent` keeps the old entries of conversations that are folded again."""
    new_recent = folding._new_recent

    async def keep(context: Context, cache: IndexCache, now: Manifested, plan: Any) -> Any:
        known: set[str] = set()
        if now.manifest.recent is not None:
            text = await segments.recent_text(context, cache, now.manifest.recent)
            known = {msgspec.json.decode(line)["conversation_id"] for line in text[:-1].split(b"\n")}
        entries = {name: entry for name, entry in plan.entries.items() if name not in known}
        return await new_recent(context, cache, now, replace(plan, entries=entries))

    return _patched(("s3conv.core.folding._new_recent", keep))


ALL: dict[str, Ablation] = {
    one.__name__: one
    for one in (
        intent_after_document,
        no_lineage,
        lineage_of_the_last_write_only,
        full_lineage_is_certain,
        unconditional_put,
        conflict_409,
        never_announced_again,
        new_write_id_when_sent_again,
        tombstone_without_lineage,
        unknown_called_a_conflict,
        announced_too_late_for_nothing,
        loser_keeps_its_intents,
        merged_by_node_id,
        merge_raises_the_dead,
        merge_raises_the_dead_beside_the_living,
        deleted_by_deleting,
        move_announced_in_one_place,
        window_for_every_change,
        window_without_end,
        fold_within_the_window,
        unconfirmed,
        two_of_one_revision_believed,
        age_by_own_clock,
        manifest_before_log,
        rows_not_looked_up,
        missing_is_nothing,
        export_believes_what_is_announced,
        export_believes_the_activity_of_intents,
        export_believes_the_index,
        fold_believes_intents,
        fold_deletes_first,
        fold_drops_at_once,
        fold_without_cas,
        fold_reads_the_manifest_late,
        no_moved_rows,
        no_replaced_rows,
        gone_rows_dropped_by_any_merge,
        gone_rows_dropped_at_once,
        batch_goes_with_its_first,
        order_by_time,
        segment_names_are_used_again,
        collect_at_once,
        recent_floor_stays,
        collect_without_bump,
        late_merge,
        merge_over_merge,
        recent_keeps_what_was_folded,
    )
}
