"""Save, save many, delete: what to write, and what to do when somebody else wrote first.

Law: a save reads aloud: encode the document, derive the entry, announce it, commit it, note it on the state. How a
single write is made certain is the business of `commit.py`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from typing import Literal

import msgspec

from s3conv.bridge import ordered_map
from s3conv.core.commit import (
    Announcement,
    Draft,
    Found,
    announce,
    announce_batch,
    announce_further,
    commit,
    draft_of,
    look,
    withdraw,
)
from s3conv.core.contention import Contention
from s3conv.core.context import Context
from s3conv.core.known import Known, known_of, known_of_document, nothing_known, recall, remember, with_attempt
from s3conv.core.loading import state_of
from s3conv.core.window import end_of, lasting_of, speaking, spoken_for
from s3conv.errors import (
    ConflictError,
    InvalidInputError,
    OutcomeUnknownError,
    PartialSaveError,
    StorageError,
)
from s3conv.format.document import Document, encode_document
from s3conv.format.entry import BATCH, Entry, entry_of, index_time, partition_of
from s3conv.format.keys import check_id, document_key, log_prefix
from s3conv.model.merge import merge_into
from s3conv.model.state import ConversationState

OnConflict = Literal["raise", "overwrite", "merge"]

OnlyIf = Callable[[ConversationState], bool] | None
"""Is given a conversation as it is; whether to go on. It is asked again when another writer was faster."""

REBASES = 40
"""How often one save builds anew on another writer's document before it gives up."""


async def save(context: Context, state: ConversationState, on_conflict: OnConflict = "raise") -> Entry:
    """Write a conversation; see `Archive.save`."""
    _check_on_conflict(on_conflict)
    check_state(state)
    known = await _known(context, state)
    key = document_key(state.conversation_id)
    async with Contention(context, key) as contention:
        if on_conflict != "raise" and contention.is_crowded:
            await contention.wait()
            found = await look(context, key, state.conversation_id)
            if found.etag != known.etag:
                known = await rebased(context, state, known, found, on_conflict)
        return await _save_on(context, state, known, on_conflict, contention)


def check_state(state: object) -> None:
    """Raise `InvalidInputError` if it is no state that can be saved."""
    if not isinstance(state, ConversationState):
        raise InvalidInputError(
            f"what is saved is a ConversationState, found {type(state).__name__}: make one with "
            "ConversationState.from_dict, or save through S3ConversationStorage"
        )


async def _known(context: Context, state: ConversationState) -> Known:
    archive = await context.descriptor()
    return recall(state, archive, state.conversation_id) or nothing_known(archive, state.conversation_id)


async def _save_on(
    context: Context, state: ConversationState, known: Known, on_conflict: OnConflict, contention: Contention
) -> Entry:
    for _ in range(REBASES):
        draft, announcement = await _announced(context, state, known)
        outcome = await _commit_state(context, state, draft, announcement, on_conflict, contention)
        if isinstance(outcome, Entry):
            return outcome
        contention.lost(announcement)
        known = await rebased(context, state, draft.built_on, outcome, on_conflict)
    raise ConflictError(
        f"conversation {state.conversation_id!r} was not saved: another writer was faster {REBASES} times in a row; "
        "try again later"
    )


async def _announced(context: Context, state: ConversationState, known: Known) -> tuple[Draft, Announcement]:
    """Word a save and announce it, unless an earlier announcement speaks for it."""
    constant = lasting_of(context, state)
    speech = spoken_for(context, known, constant)
    if speech is not None:
        return await _draft(context, state, known, known.stamp.speaks_until, lasting=constant), speech
    window = context.activity_window
    # The end of the window is about this; what it really is, the store's clock will tell.
    until = end_of(context.wall_clock(), window) if window else None
    draft = await _draft(context, state, known, until, window, constant)
    announcement = await announce(context, draft)
    return speaking(draft, announcement) if window else draft, announcement


async def _draft(
    context: Context,
    state: ConversationState,
    known: Known,
    speaks_until: str | None = None,
    window: float = 0.0,
    lasting: str = "",
) -> Draft:
    archive = await context.descriptor()
    stamp = known.stamp.next(context.new_id(), speaks_until, begins=known.deleted)
    body = encode_document(state, stamp)
    entry = entry_of(state, stamp.revision, len(body), archive.partition_by)
    return draft_of(archive.partition_by, body, stamp, known, entry, window, lasting)


async def _commit_state(
    context: Context,
    state: ConversationState,
    draft: Draft,
    announcement: Announcement,
    on_conflict: OnConflict,
    contention: Contention,
) -> Entry | Found:
    archive = await context.descriptor()
    try:
        before_look = contention.wait if on_conflict != "raise" else None
        outcome = await commit(context, draft, announcement, before_look=before_look)
    except BaseException as error:
        # Unknown, or cancelled on the way: a later save of this state may meet this write, and must know it.
        if isinstance(error, OutcomeUnknownError) or not isinstance(error, StorageError):
            # On a tombstone it is known that what was deleted there is not this state's.
            known = draft.built_on if draft.built_on.deleted else await _known(context, state)
            remember(state, with_attempt(known, draft.stamp.write))
        raise
    if isinstance(outcome, Found):
        return outcome
    context.kept.edited.saw(state.conversation_id, draft.stamp.revision)
    entry = msgspec.structs.replace(draft.intent.entry, size=len(draft.body))
    remember(state, known_of(archive, entry, draft.stamp, outcome, draft.body, context.wall_clock(), draft.lasting))
    return entry


async def rebased(
    context: Context,
    state: ConversationState,
    known: Known,
    found: Found,
    on_conflict: OnConflict,
) -> Known:
    """What to build on after a rejected write; `state` is merged with it where that was asked for.

    Raises:
        ConflictError: the caller has to decide.
    """
    archive = await context.descriptor()
    conversation_id, document = state.conversation_id, found.document
    if document is None:
        if known.is_new:
            return known  # it was there when the PUT was refused, and is gone: try again
        raise ConflictError(
            f"conversation {conversation_id!r} was not saved: its document is no longer in the store; "
            "to create it again, save a new state",
            deleted=True,
        )
    theirs = known_of_document(
        archive, document, found.etag, found.body, found.date, context.wall_clock(), known.attempts
    )
    if document.stamp.write in (known.stamp.write, *known.attempts):
        return theirs  # our own version: copied to a store with other ETags, or written when we got no answer
    deleted = _was_deleted(known, document)
    if document.deleted:
        if not deleted:
            return theirs
        raise ConflictError(
            f"conversation {conversation_id!r} was not saved: it was deleted at revision {document.stamp.revision}; "
            "to create it again, save a new state",
            deleted=True,
        )
    if deleted:
        raise ConflictError(
            f"conversation {conversation_id!r} was not saved: it was deleted, and begun again at revision "
            f"{document.stamp.since}; load it again",
            deleted=True,
        )
    if on_conflict == "raise":
        expected = f"expected revision {known.stamp.revision}" if not known.is_new else "expected none"
        raise ConflictError(
            f"conversation {conversation_id!r} was not saved: found revision {document.stamp.revision} in the archive, "
            f"{expected}; load it again, or save with on_conflict='merge' or 'overwrite'"
        )
    if on_conflict == "merge":
        base = None if known.is_new else known.base()
        merge_into(state, state_of(context, document), base)
        remember(state, theirs)  # what the state holds now is a version of theirs, whatever becomes of this save
    return theirs


def _was_deleted(known: Known, document: Document) -> bool:
    """Whether the conversation that a state is of was deleted, or may have been: then it must not come back."""
    stamp = document.stamp
    began = stamp.revision + 1 if document.deleted else stamp.since
    if began is None:
        return False
    if not known.creates:
        return document.deleted or known.stamp.revision < began
    # A new state is of what it began itself, if it did; and it may have, where the lineage does not reach so far back.
    untold = 0 if stamp.revision - len(stamp.lineage) > known.stamp.revision else began
    return any((stamp.revision_of(write) or untold) < began for write in known.attempts)


def _check_on_conflict(on_conflict: str) -> None:
    if on_conflict not in ("raise", "overwrite", "merge"):
        raise InvalidInputError(f"on_conflict {on_conflict!r}: expected 'raise', 'overwrite' or 'merge'")


# --- save many -----------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Job:
    """One conversation of a `save_many`: its draft, and the announcement that it shares with its batch."""

    context: Context
    state: ConversationState
    draft: Draft
    announcement: Announcement
    on_conflict: OnConflict
    lost: bool = False


async def save_many(
    context: Context, states: Iterable[ConversationState], on_conflict: OnConflict = "raise"
) -> list[Entry]:
    """Write many conversations; see `Archive.save_many`."""
    _check_on_conflict(on_conflict)
    if not isinstance(states, Iterable):
        raise InvalidInputError(f"what save_many takes is many states, found {type(states).__name__}: save takes one")
    states = list(states)
    archive = await context.descriptor()
    seen: set[str] = set()
    prefixes = []
    for state in states:
        check_state(state)
        if check_id(state.conversation_id) in seen:
            raise InvalidInputError(f"conversation {state.conversation_id!r} is given twice; nothing was written")
        seen.add(state.conversation_id)
        prefixes.append(log_prefix(partition_of(state.metadata, archive.partition_by)))
    outcomes: list[Entry | StorageError | None] = [None] * len(states)
    for wave in _waves(prefixes):
        try:
            await _save_wave(context, states, wave, on_conflict, outcomes)
        except StorageError as error:
            # The intents could not be announced: nothing further can be saved.
            for position, outcome in enumerate(outcomes):
                outcomes[position] = error if outcome is None else outcome
            break
    return _all_saved(states, outcomes)


def _waves(prefixes: Sequence[str]) -> Iterator[list[int]]:
    """Positions in waves of some `BATCH`, so that no more encoded documents are in memory.

    Those of one prefix are together, as many as go into one object of the log.
    """
    wave: list[int] = []
    for _, positions in groupby(sorted(range(len(prefixes)), key=prefixes.__getitem__), prefixes.__getitem__):
        for group in _parts(list(positions)):
            wave += group
            if len(wave) >= BATCH:
                yield wave
                wave = []
    if wave:
        yield wave


def _parts(positions: Sequence[int]) -> list[Sequence[int]]:
    """As many at a time as go into one object of the log."""
    return [positions[begin : begin + BATCH] for begin in range(0, len(positions), BATCH)]


async def _save_wave(
    context: Context,
    states: Sequence[ConversationState],
    wave: Sequence[int],
    on_conflict: OnConflict,
    outcomes: list[Entry | StorageError | None],
) -> None:
    drafts: dict[int, Draft] = {}
    # By the drafts' own: a key that is no text has become one, and a state may have changed since the wave was made.
    by_prefix: defaultdict[str, list[int]] = defaultdict(list)
    for position in wave:
        try:
            drafts[position] = await _draft(context, states[position], await _known(context, states[position]))
        except StorageError as error:
            outcomes[position] = error
        else:
            by_prefix[drafts[position].prefixes[0]].append(position)
    groups = [group for positions in by_prefix.values() for group in _parts(positions)]

    async def announce_group(group: Sequence[int]) -> tuple[str, Announcement]:
        some = [drafts[position] for position in group]
        return await announce_batch(context, some[0].prefixes[0], some)

    batches: list[str] = []
    jobs: list[_Job] = []
    try:
        async for key, shared in ordered_map(context.runner, announce_group, groups, context.store.fan_out):
            for position in groups[len(batches)]:
                announcement = Announcement(shared.date, shared.wall)
                jobs.append(_Job(context, states[position], drafts[position], announcement, on_conflict))
            batches.append(key)
    except StorageError:
        await withdraw(context, batches)
        raise
    places = [position for group in groups for position in group]
    finished = 0
    async for outcome in ordered_map(context.runner, _save_announced, jobs, context.store.fan_out):
        outcomes[places[finished]] = outcome
        finished += 1
    begin = 0
    for key, group in zip(batches, groups, strict=True):
        if all(job.lost for job in jobs[begin : begin + len(group)]):
            await withdraw(context, [key])
        begin += len(group)


async def _save_announced(job: _Job) -> Entry | StorageError:
    """Commit a conversation whose intent is in a batch; a conflict is resolved as a save of its own."""
    context, state, draft = job.context, job.state, job.draft
    try:
        # The batch lies under one prefix: a conversation that changes its partition is announced under the old one too.
        job.announcement.join(await announce_further(context, draft, draft.prefixes[1:]))
        async with Contention(context, draft.key) as contention:
            outcome = await _commit_state(context, state, draft, job.announcement, job.on_conflict, contention)
            if isinstance(outcome, Entry):
                return outcome
            job.lost = True
            contention.lost(job.announcement)
            known = await rebased(context, state, draft.built_on, outcome, job.on_conflict)
            return await _save_on(context, state, known, job.on_conflict, contention)
    except StorageError as error:
        return error


def _all_saved(states: Sequence[ConversationState], outcomes: Sequence[Entry | StorageError | None]) -> list[Entry]:
    entries = [outcome for outcome in outcomes if isinstance(outcome, Entry)]
    failed = {
        state.conversation_id: outcome
        for state, outcome in zip(states, outcomes, strict=True)
        if isinstance(outcome, StorageError)
    }
    if not failed:
        return entries
    first = next(iter(failed.values()))
    if not entries and all(type(error) is type(first) for error in failed.values()):
        raise first
    raise PartialSaveError(
        f"{len(entries)} of {len(states)} conversations were saved and {len(failed)} were not; first: {first}",
        saved=[entry.conversation_id for entry in entries],
        failed=failed,
    )


# --- delete --------------------------------------------------------------------------------------------------------


async def delete(context: Context, conversation_id: str, only_if: OnlyIf = None) -> bool:
    """Turn a document into a tombstone; see `Archive.delete`."""
    key = document_key(conversation_id)

    async def fetch(key: str) -> Found:
        return await look(context, key, conversation_id)

    found = await context.beside_descriptor(fetch, key)
    archive = await context.descriptor()
    async with Contention(context, key) as contention:
        for _ in range(REBASES):
            document = found.document
            if document is None or document.deleted:
                return False
            if only_if is not None and not only_if(state_of(context, document)):
                return False
            known = known_of_document(archive, document, found.etag, found.body, found.date, context.wall_clock())
            stamp = document.stamp.next(context.new_id())
            deleted_at = index_time(datetime.fromtimestamp(found.date, UTC))
            body = document.tombstone(stamp, deleted_at, archive.partition_by)
            entry = document.deleted_entry(stamp.revision, len(body), deleted_at, archive.partition_by)
            draft = draft_of(archive.partition_by, body, stamp, known, entry)
            announcement = await announce(context, draft)
            outcome = await commit(context, draft, announcement, before_look=contention.wait)
            if not isinstance(outcome, Found):
                context.kept.edited.saw(conversation_id, stamp.revision)
                return True
            contention.lost(announcement)
            found = outcome
    raise ConflictError(
        f"conversation {conversation_id!r} was not deleted: another writer was faster {REBASES} times in a row"
    )
