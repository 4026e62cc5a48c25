"""Importing files into an archive: read, merge with what is there, save what is new or changed.

Law: a chunk of conversations at a time, so that memory does not grow with the files. What cannot be read or saved is
in the report and the rest goes on; only what would fail for every conversation (no access, no bucket, no archive, a
store that refuses one after another) is raised. Two conversations that share an id by accident both arrive: the second
under an id that its first message gives. So do two whose partitions differ: what is imported for one user never changes
what is another's.
"""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from s3conv.archive import Archive
from s3conv.bridge import run_sync
from s3conv.errors import (
    AccessDeniedError,
    BucketNotFoundError,
    CredentialsError,
    IndexDamagedError,
    InvalidInputError,
    NotFoundError,
    OutcomeUnknownError,
    PartialSaveError,
    StorageError,
    StoreError,
    UnavailableError,
)
from s3conv.exchange.found import Found, Ignored, Problem
from s3conv.exchange.merging import identity_name, is_same, merge_import
from s3conv.exchange.provenance import note_import
from s3conv.exchange.reading import Item, read_conversations
from s3conv.exchange.sources import Source
from s3conv.exchange.values import fingerprint
from s3conv.format.entry import partition_of
from s3conv.model.state import ConversationState

Outcome = Literal["new", "updated", "unchanged", "renamed", "failed"]

CHUNK = 500
"""Conversations that are loaded, merged and saved together."""

CHUNK_BYTES = 16 * 1024 * 1024
"""The same in bytes of their JSON, if that is reached before."""

IN_A_ROW = 10
"""Conversations one after another that the store refuses, after which it is taken to refuse every one."""

_FATAL = (
    AccessDeniedError,
    BucketNotFoundError,
    CredentialsError,
    IndexDamagedError,
    NotFoundError,
    UnavailableError,
)


@dataclass(slots=True)
class ImportReport:
    """What became of the conversations of an import.

    `new`, `updated`, `unchanged` and `renamed` (new, under an id of ours because theirs is another conversation's)
    count conversations of the archive; `read` counts what the files hold, where one may be there in several versions.
    """

    read: int = 0
    new: int = 0
    updated: int = 0
    unchanged: int = 0
    renamed: list[tuple[str, str]] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    ignored: list[Ignored] = field(default_factory=list)


Progress = Callable[[int], None]
"""Called with the number of bytes each time that some of the files were read."""


@dataclass(slots=True)
class _Gathered:
    """One conversation of a chunk: all that the files say of it, merged, and where they say it."""

    state: ConversationState
    found: list[Found]
    outcome: Outcome = "new"


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """How to import.

    Args:
        format: one of `formats.NAMES` that every file is in; None finds it out item by item.
        metadata: set on every conversation, as if its file said so: a value by its path ("source", "source.year").
        dry_run: write nothing, and only report what would come of it. The archive need not be there yet. A
            conversation whose versions lie more than a chunk apart is counted once for each.
    """

    format: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    dry_run: bool = False


def import_files(
    archive: Archive,
    sources: Iterable[Source],
    options: ImportOptions = ImportOptions(),
    *,
    progress: Progress = lambda read: None,
) -> ImportReport:
    """Import files of conversations.

    Args:
        archive: where they go.
        sources: the files, in any format that `read_conversations` knows; folders, patterns, open streams.
        options: see there.
        progress: see `Progress`.

    Returns:
        What was imported, and what could not be.

    Raises:
        InvalidInputError: there is no format of that name.
        StorageError: the archive as a whole cannot be used. What was saved before stays; import again to go on.
    """
    report = ImportReport()
    items = (item for source in sources for item in read_conversations(source, progress, options.format))
    target = _target(archive, options.dry_run)
    for chunk in _chunks(_found(items, options, report)):
        report.read += len(chunk)
        _import_chunk(target, chunk, report)
        chunk.clear()
        # A tree points up and down, so that only the collector frees it; and it counts objects, not the size of texts.
        gc.collect()
    return report


def _chunks(found: Iterator[Found]) -> Iterator[list[Found]]:
    chunk: list[Found] = []
    size = 0
    for one in found:
        chunk.append(one)
        size += one.size
        if len(chunk) == CHUNK or size >= CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


@dataclass(slots=True)
class _Target:
    """Where conversations go, or would."""

    archive: Archive
    dry_run: bool
    is_there: bool
    partition_by: str | None
    refused: Counter[str] = field(default_factory=Counter)
    """How many the store has refused in a row, to load and to save."""

    def note(self, doing: Literal["load", "save"], error: StorageError | None) -> None:
        """Note what became of one conversation, and raise an error that would come for every one."""
        is_refusal = isinstance(error, StoreError | OutcomeUnknownError)
        self.refused[doing] = self.refused[doing] + 1 if is_refusal else 0
        if error is not None and (isinstance(error, _FATAL) or self.refused[doing] == IN_A_ROW):
            raise error

    def owner(self, state: ConversationState) -> str | None:
        """The partition that a conversation says it is of; None if it says none."""
        partition = partition_of(state.metadata, self.partition_by)
        return None if partition == "null" else partition

    def is_same(self, archived: ConversationState, incoming: ConversationState) -> bool:
        """Whether they are versions of one conversation, of one owner."""
        owners = {self.owner(archived), self.owner(incoming)} - {None}
        return len(owners) < 2 and is_same(archived, incoming)

    def strangers_id(self, state: ConversationState) -> str:
        """The id of a conversation whose own id another one has."""
        name, owner = identity_name(state), self.owner(state)
        return f"{state.conversation_id}~{name if owner is None else fingerprint([name, owner])}"


def _target(archive: Archive, dry_run: bool) -> _Target:
    """Ask for the descriptor. Only a dry run can do without an archive."""
    try:
        descriptor = run_sync(archive._context.descriptor())
    except (NotFoundError, BucketNotFoundError):
        if not dry_run:
            raise
        return _Target(archive, dry_run, is_there=False, partition_by=None)
    return _Target(archive, dry_run, is_there=True, partition_by=descriptor.partition_by)


def _found(items: Iterator[Item], options: ImportOptions, report: ImportReport) -> Iterator[Found]:
    for item in items:
        if isinstance(item, Found):
            try:
                for path, value in options.metadata.items():
                    set_metadata(item.state.metadata, path, value)
            except InvalidInputError as error:
                report.problems.append(Problem(item.file, item.position, str(error)))
                continue
            yield item
        elif isinstance(item, Problem):
            report.problems.append(item)
        else:
            report.ignored.append(item)


def set_metadata(metadata: dict[str, Any], path: str, value: Any) -> None:
    """Set the value at a dotted path.

    Raises:
        InvalidInputError: a name on the way there has a value that is no object.
    """
    *above, last = path.split(".")
    for name in above:
        metadata = metadata.setdefault(name, {})
        if not isinstance(metadata, dict):
            raise InvalidInputError(f"metadata.{path} cannot be set: {name!r} has a value that is no object")
    metadata[last] = value


def _import_chunk(target: _Target, chunk: list[Found], report: ImportReport) -> None:
    done: dict[str, _Gathered] = {}
    strangers = _place(target, _gather(target, chunk), report, done)
    for each in strangers:
        renamed = target.strangers_id(each.state)
        each.state.metadata["source_conversation_id"] = each.state.conversation_id
        each.state.conversation_id = renamed
        each.outcome = "renamed"
    _place(target, _by_id(strangers), report, done)
    if not target.dry_run:
        _save(target, [each for each in done.values() if each.outcome != "unchanged"], report)
    for each in done.values():
        match each.outcome:
            case "new":
                report.new += 1
            case "updated":
                report.updated += 1
            case "unchanged":
                report.unchanged += 1
            case "renamed":
                report.renamed.append((str(each.state.metadata["source_conversation_id"]), each.state.conversation_id))


def _gather(target: _Target, chunk: list[Found]) -> dict[str, list[_Gathered]]:
    """The conversations of a chunk by id, versions of one merged; more than one under an id if they are unlike."""
    groups: dict[str, list[_Gathered]] = {}
    for found in chunk:
        if found.foreign:
            note_import(found.state)
        group = groups.setdefault(found.state.conversation_id, [])
        same = next((each for each in group if target.is_same(each.state, found.state)), None)
        if same is None:
            group.append(_Gathered(found.state, [found]))
        else:
            merge_import(same.state, found.state)
            same.found.append(found)
    return groups


def _by_id(gathered: list[_Gathered]) -> dict[str, list[_Gathered]]:
    groups: dict[str, list[_Gathered]] = {}
    for each in gathered:
        groups.setdefault(each.state.conversation_id, []).append(each)
    return groups


def _place(
    target: _Target, groups: dict[str, list[_Gathered]], report: ImportReport, done: dict[str, _Gathered]
) -> list[_Gathered]:
    """Merge each conversation with the archived one of its id, into `done`; return those that are other ones."""
    strangers = []
    for conversation_id, archived in _load(target, list(groups)):
        for each in groups[conversation_id]:
            if isinstance(archived, StorageError):
                report.problems.append(_problem(each, archived))
            elif archived is None:
                archived, done[conversation_id] = each.state, each
            elif not target.is_same(archived, each.state):
                strangers.append(each)
            elif conversation_id in done:
                if merge_import(archived, each.state) and done[conversation_id].outcome == "unchanged":
                    done[conversation_id].outcome = "updated"
            else:
                each.outcome = "updated" if merge_import(archived, each.state) else "unchanged"
                each.state, done[conversation_id] = archived, each
    return strangers


def _load(target: _Target, ids: list[str]) -> Iterator[tuple[str, ConversationState | StorageError | None]]:
    """The archived conversations; one that cannot be loaded gives its error."""
    if not target.is_there:
        yield from ((conversation_id, None) for conversation_id in ids)
        return
    archive, loaded = target.archive, 0
    try:
        for state in archive.load_many(ids):
            target.note("load", None)
            yield ids[loaded], state
            loaded += 1
        return
    except _FATAL:
        raise
    except StorageError:
        pass  # which one it was shows below
    for conversation_id in ids[loaded:]:
        found: ConversationState | StorageError | None
        try:
            found = archive.load(conversation_id)
        except StorageError as error:
            found = error
        target.note("load", found if isinstance(found, StorageError) else None)
        yield conversation_id, found


def _save(target: _Target, gathered: list[_Gathered], report: ImportReport) -> None:
    """Save all that can be saved; what cannot be is a problem."""
    try:
        target.archive.save_many([each.state for each in gathered], on_conflict="merge")
        reasons: Iterable[StorageError | None] = [None] * len(gathered)
    except PartialSaveError as error:
        reasons = [error.failed.get(each.state.conversation_id) for each in gathered]
    except _FATAL:
        raise
    except StorageError:
        # Refused as a whole, because of one: which one shows when each is saved alone.
        reasons = (_reason(target.archive, each.state) for each in gathered)
    for each, reason in zip(gathered, reasons, strict=True):
        target.note("save", reason)
        if reason is not None:
            report.problems.append(_problem(each, reason))
            each.outcome = "failed"


def _reason(archive: Archive, state: ConversationState) -> StorageError | None:
    """Save a conversation; return why it cannot be."""
    try:
        archive.save(state, on_conflict="merge")
    except StorageError as error:
        return error
    return None


def _problem(each: _Gathered, error: StorageError) -> Problem:
    found = each.found[-1]
    return Problem(found.file, found.position, str(error))
