"""Exporting an archive: documents in, files out; in shards, to be gone on with, and checked.

Law: a conversation is written once. Files appear when they are complete, the manifest when all are; what was done
before an interruption is told by the checkpoint and not done again (`exchange/checkpoint.py`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import IO, Any

from s3conv.archive import Archive
from s3conv.core.exporting import DAMAGE, DIGEST, OnDamaged
from s3conv.errors import InvalidInputError, StorageError
from s3conv.exchange.chats import Branches
from s3conv.exchange.checkpoint import (
    MANIFEST,
    Begun,
    Checkpoint,
    Damaged,
    Manifest,
    Shard,
    digest,
    open_checkpoint,
    write_manifest,
)
from s3conv.exchange.outputs import Output, check_apart
from s3conv.exchange.pages import INDEX
from s3conv.exchange.redacting import Redaction
from s3conv.exchange.rendering import LeftOut
from s3conv.exchange.writing import FORMATS, Format, LineWriter, Reader, Writer, format_named
from s3conv.format.document import Document
from s3conv.format.entry import index_time
from s3conv.format.filters import Where, list_hash, parse_order, parse_where
from s3conv.format.keys import digest_of
from s3conv.model.message import utcnow

CHECKPOINT_EVERY = 10.0
"""Seconds between two checkpoints of an export to one file."""

SHARD_SIZE = 64 * 1024 * 1024
"""Bytes after which a shard ends that goes to an object store, unless told otherwise: it has to fit into memory."""

Progress = Callable[[int, int], None]
"""Called with the number of conversations, and of bytes written, each time that some were."""


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be exported, and as what.

    Args:
        format: a name in `writing.FORMATS`.
        where: conditions, as for `Archive.list`.
        branches: see `chats.Branches`; the format's usual ones if not given.
        redact: patterns whose matches are taken out; see `redacting`.
        shards: into how many files, of as many conversations each.
        shard_size: bytes after which a file ends.
    """

    format: str = "jsonl"
    where: Where | None = None
    branches: str | None = None
    redact: tuple[str, ...] = ()
    shards: int | None = None
    shard_size: int | None = None


@dataclass(slots=True)
class Exported:
    """What an export wrote: in this run, and in those that it went on from."""

    conversations: int = 0
    rows: int = 0
    bytes: int = 0
    files: int = 0
    redacted: int = 0
    continued: int = 0
    """How many of the conversations were there already when this run began."""
    left_out: LeftOut = field(default_factory=LeftOut)
    damaged: list[Damaged] = field(default_factory=list)
    """What could not be read, and is not there."""


def export_stream(
    archive: Archive,
    out: IO[bytes],
    job: Job,
    redaction: Redaction | None = None,
    progress: Progress = lambda conversations, size: None,
    on_damaged: OnDamaged | None = None,
) -> Exported:
    """Write everything to one open file, which is left open; nothing is kept to go on from.

    Args: as of `export_files`.

    Raises:
        InvalidInputError: the job cannot be done so.
        StorageError: as for `Archive.export`.
    """
    form, branches = format_named(job.format, job.branches)
    redaction = redaction if redaction is not None else Redaction(job.redact)
    reader = Reader(branches, redaction)
    if form.render is None:
        raise InvalidInputError(f"{form.name} cannot be a stream: expected a file or a folder to write to")
    writer = LineWriter(out, form.render, reader)
    done = Exported(files=1, left_out=reader.left_out)
    tell = _teller(done, progress, on_damaged)
    size = conversations = rows = 0
    for document in archive.export(job.where, on_damaged=tell):
        try:
            rows += writer.add(document)
        except DAMAGE as error:
            if tell is None:
                raise
            tell(document.conversation_id, error)
            continue
        conversations += 1
        progress(1, writer.size - size)
        size = writer.size
    writer.finish()
    done.conversations, done.rows = conversations, rows
    done.bytes, done.redacted = writer.size, redaction.found
    return done


def export_files(
    archive: Archive,
    output: Output,
    job: Job,
    name: str | None = None,
    redaction: Redaction | None = None,
    progress: Progress = lambda conversations, size: None,
    on_damaged: OnDamaged | None = None,
) -> Exported:
    """Write files, and go on where an export with the same job was interrupted.

    Args:
        archive: where the conversations are.
        output: where the files go.
        job: what is to be written.
        name: of the one file to write; without it, shards and a manifest are, or the pages of a format that has pages.
        redaction: of `job.redact`, to watch over; made if not given.
        progress: see `Progress`.
        on_damaged: is told of each conversation that cannot be read, as in `Archive.export`, and the export goes on
            without it; its manifest says so. Without, the first one ends the export.

    Raises:
        InvalidInputError: the job cannot be done so, there is something else where the shards should go, or `output`
            is in the archive.
        ConflictError: another export is writing there.
        StorageError: as for `Archive.export`. Export again to go on.
    """
    check_apart(archive.url, output)
    with output.hold():
        run = _begin(archive, output, job, name, redaction, progress)
        run.tell = _teller(run.done, progress, on_damaged)
        try:
            # What was damaged is in no checkpoint, and so tried again when an export is gone on with.
            for document in archive.export(job.where, skip=run.checkpoint.seen, on_damaged=run.tell):
                run.take(document)
            return run.finish()
        except BaseException as error:
            run.abandon()
            if isinstance(error, OSError) and error.filename is None:
                error.filename = run.url  # a full disk says only that it is full
            raise


def _teller(done: Exported, progress: Progress, on_damaged: OnDamaged | None) -> OnDamaged | None:
    """What is told of a conversation that cannot be read; None if that ends the export."""
    if on_damaged is None:
        return None

    def tell(conversation_id: str, error: StorageError) -> None:
        done.damaged.append(Damaged(conversation_id=conversation_id, reason=str(error)))
        on_damaged(conversation_id, error)
        progress(1, 0)

    return tell


@dataclass(slots=True)
class _Run:
    """An export under way."""

    output: Output
    checkpoint: Checkpoint
    form: Format
    reader: Reader
    name: str | None
    per_shard: int | None
    most_shards: int | None
    shard_size: int | None
    progress: Progress
    done: Exported
    tell: OnDamaged | None = None
    file: IO[bytes] | None = None
    writer: Writer | None = None
    conversations: int = 0
    rows: int = 0
    saves_midway: bool = field(init=False)
    reached: tuple[int, int, int] = (0, 0, 0)
    """Conversations, rows and bytes of the file, behind the last conversation that is whole in it."""
    saved_at: int = 0
    """How many of its conversations the last checkpoint has."""
    saved: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        # Whether a file can be gone on with that is not finished.
        by_lines = self.form.render is not None or self.form.pages is not None
        self.saves_midway = self.name is not None and self.output.keeps_parts and by_lines
        self.saved_at = self.checkpoint.begun.conversations if self.checkpoint.begun else 0

    @property
    def url(self) -> str:
        """What is being written, for messages."""
        return self.output.url if self.name is None or self.form.pages else f"{self.output.url}/{self.name}"

    def take(self, document: Document) -> None:
        """Write a conversation."""
        writer = self.writer or self.begin()
        before = writer.size + writer.beside
        try:
            self.rows += writer.add(document)
        except DAMAGE as error:
            if self.tell is None:
                raise
            self.tell(document.conversation_id, error)
            return
        self.conversations += 1
        self.checkpoint.fresh += digest_of(document.conversation_id)[:DIGEST]
        self.reached = self.conversations, self.rows, writer.size
        self.checkpoint.redacted, self.checkpoint.left_out = self.reader.redaction.found, dict(self.reader.left_out)
        self.progress(1, writer.size + writer.beside - before)
        if self.saves_midway:
            if time.monotonic() - self.saved > CHECKPOINT_EVERY:
                self.save_midway()
        elif self.name is None and self.is_full(writer):
            self.end_shard()

    def begin(self) -> Writer:
        """Begin a file, or go on with the one that was begun."""
        begun = self.checkpoint.begun
        size = begun.bytes if begun else 0
        if begun:
            self.conversations, self.rows = begun.conversations, begun.rows
            self.reached = begun.conversations, begun.rows, begun.bytes
        self.file = self.output.begin(size)
        self.writer = self.form.writer(self.file, self.output, self.reader, self.rows, size)
        return self.writer

    def is_full(self, writer: Writer) -> bool:
        if self.shard_size is not None and writer.size >= self.shard_size:
            return True
        if self.per_shard is None or self.conversations < self.per_shard:
            return False
        # What was saved since they were counted goes to the last one.
        return self.most_shards is None or len(self.checkpoint.shards) + 1 < self.most_shards

    def save_midway(self) -> None:
        """Make sure that an interruption costs nothing of what is whole in the file until now."""
        if self.file is None:
            return
        conversations, rows, size = self.reached
        if not self.file.closed:
            self.output.flush(self.file)
        del self.checkpoint.fresh[(conversations - self.saved_at) * DIGEST :]  # an interruption may come anywhere
        self.checkpoint.begun = Begun(conversations=conversations, rows=rows, bytes=size)
        self.checkpoint.save()
        self.saved, self.saved_at = time.monotonic(), conversations

    def end_shard(self) -> None:
        """Finish a shard, and note that it is done."""
        assert self.file is not None
        assert self.writer is not None
        self.writer.finish()
        name = _shard_name(self.checkpoint, self.form)
        hashed, size = digest(self.file), self.file.tell()
        self.output.finish(self.file, name)
        self.file = self.writer = None
        self.checkpoint.shards.append(
            Shard(name=name, conversations=self.conversations, rows=self.rows, bytes=size, sha256=hashed)
        )
        self.checkpoint.save()
        self.conversations = self.rows = 0

    def finish(self) -> Exported:
        """Finish the last file, and say what there is now."""
        done, shards = self.done, self.checkpoint.shards
        if self.name is not None:
            writer = self.writer or self.begin()
            assert self.file is not None
            writer.finish()
            self.file.flush()
            done.conversations, done.rows = self.conversations, self.rows
            done.files = 1 + (self.rows if self.form.pages else 0)
            done.bytes = self.file.seek(0, 2) + writer.beside
            self.output.finish(self.file, self.name)
        else:
            if self.writer is not None or not shards:
                if self.writer is None:
                    self.begin()
                self.end_shard()
            done.conversations = sum(shard.conversations for shard in shards)
            done.rows, done.bytes = sum(shard.rows for shard in shards), sum(shard.bytes for shard in shards)
            done.files = len(shards)
            write_manifest(self.output, _manifest(self.checkpoint, done))
        self.output.clear()
        done.redacted = self.reader.redaction.found
        return done

    def abandon(self) -> None:
        """Leave what can be gone on with, or nothing. An error is on its way: what fails here as well is not told."""
        failures = suppress(OSError, StorageError)
        with failures:
            if self.saves_midway and self.reached[0] > self.saved_at:
                self.save_midway()
        with failures:
            if self.writer is not None:
                self.writer.discard()
        with failures:
            if self.file is not None:
                self.file.close()
        with failures:
            folder = self.name is None or self.form.pages
            if _first_name(self.output) is None if folder else not self.saved_at:
                self.output.clear()


def _begin(
    archive: Archive,
    output: Output,
    job: Job,
    name: str | None,
    redaction: Redaction | None,
    progress: Progress,
) -> _Run:
    form, branches = format_named(job.format, job.branches)
    reader = Reader(branches, redaction if redaction is not None else Redaction(job.redact))
    for what, value in (("shards", job.shards), ("shard_size", job.shard_size)):
        if value is not None and (type(value) is not int or value < 1):
            raise InvalidInputError(f"{what}: expected a whole number of at least 1, found {value!r}")
    if job.shards is not None and job.shard_size is not None:
        raise InvalidInputError("shards and shard_size: expected one of them")
    if name is not None and (ending := _another_ending(name, form)):
        raise InvalidInputError(
            f"{name!r} ends in {ending}, and would be {form.name}: choose the format that is meant, or a name in "
            f"{form.suffix}; to pack it, export to a stream and pipe that into another program"
        )
    checkpoint = open_checkpoint(output, _settings(archive, job, branches), index_time(utcnow()))
    if form.pages is not None:
        if name is not None or job.shards or job.shard_size:
            raise InvalidInputError(f"{form.name} is a folder of files, and no shards: expected a folder to write to")
        name = INDEX[form.pages]
    if (name is None or form.pages) and not checkpoint.exists:
        if found := _first_name(output):
            what = "a finished export" if MANIFEST in output.names() else f"something else ({found})"
            raise InvalidInputError(f"{output.url} holds {what}: export to an empty folder, or empty this one")
        if job.shards is not None:
            checkpoint.per_shard = -(-archive.count(job.where) // job.shards) or 1
    found_one = checkpoint.exists
    try:
        checkpoint.save()  # so that what comes next is known to be ours
    except BaseException:
        if not found_one:
            with suppress(OSError, StorageError):
                output.clear()
        raise
    output.take_over([name] if name is not None else [_shard_name(checkpoint, form), MANIFEST])
    begun = checkpoint.begun.conversations if checkpoint.begun else 0
    reader.redaction.found += checkpoint.redacted
    reader.left_out.update(checkpoint.left_out)
    done = Exported(left_out=reader.left_out)
    done.continued = sum(shard.conversations for shard in checkpoint.shards) + begun
    if done.continued:
        progress(done.continued, 0)
    shard_size = job.shard_size
    if name is None and not output.keeps_parts and job.shards is None and shard_size is None:
        shard_size = SHARD_SIZE
    return _Run(output, checkpoint, form, reader, name, checkpoint.per_shard, job.shards, shard_size, progress, done)


def _settings(archive: Archive, job: Job, branches: Branches) -> dict[str, Any]:
    """What has to be the same for an export to be gone on with. A pattern may be a secret itself: its hash is here."""
    conditions = parse_where(job.where)
    return {
        "archive": archive.url,
        "format": job.format,
        "branches": branches,
        "where": [f"{one.field} {one.op} {one.operand}" for one in conditions.conditions],
        "where_hash": list_hash(conditions, parse_order("created_at")),
        "redact": [digest_of(pattern).hex()[:16] for pattern in job.redact],
        "shards": job.shards,
        "shard_size": job.shard_size,
    }


def _another_ending(name: str, form: Format) -> str | None:
    """The ending of a name, if it says that the file is something else than this format."""
    ending = PurePath(name).suffix.lower()
    others = {".gz", ".zst", ".zip", *(one.suffix for one in FORMATS.values())} - {form.suffix}
    return ending if ending in others else None


def _shard_name(checkpoint: Checkpoint, form: Format) -> str:
    """The name of the shard that is next."""
    return f"part-{len(checkpoint.shards):05}{form.suffix}"


def _first_name(output: Output) -> str | None:
    """A file that is there beside the working folder; None if there is none."""
    return next((name for name in output.names() if not name.startswith(output.working)), None)


def _manifest(checkpoint: Checkpoint, done: Exported) -> Manifest:
    from s3conv import __version__

    return Manifest(
        format=1,
        kind="export",
        s3conv=__version__,
        # A short pattern, such as a name, could be found again by its hash.
        settings={**checkpoint.settings, "redact": len(checkpoint.settings["redact"])},
        started=checkpoint.started,
        finished=index_time(utcnow()),
        conversations=done.conversations,
        rows=done.rows,
        bytes=done.bytes,
        shards=checkpoint.shards,
        damaged=done.damaged,
    )
