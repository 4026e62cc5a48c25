"""What an export remembers of itself: the checkpoint while it runs, the manifest when it is finished.

Law: a checkpoint is written after what it speaks of survives. So what it says is done is done; what was written after
it is cut off or written over when the export goes on. Ids are kept as 16 bytes each, in files beside it that are never
changed; their names have a word that is each run's own, as has the checkpoint, so that two runs never write the same.
The manifest is written last: where it is, everything is there.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass, field
from typing import IO, Any, TypeVar

import msgspec

from s3conv.core.exporting import SeenIds
from s3conv.errors import CorruptError, InvalidInputError
from s3conv.exchange.outputs import Output
from s3conv.format.codec import to_json

_Kind = TypeVar("_Kind")

MANIFEST = "_manifest.json"
_CHECKPOINT = "checkpoint.json"
_FORMAT = 3
"""Of the checkpoint; 1 had 8 bytes for each id, 2 numbered the files of ids."""

_PIECE = 1 << 20


class Shard(msgspec.Struct, frozen=True, kw_only=True):
    """A finished file of an export."""

    name: str
    conversations: int
    rows: int
    bytes: int
    sha256: str


class Damaged(msgspec.Struct, frozen=True, kw_only=True):
    """A conversation that is not in an export, because it could not be read, and why."""

    conversation_id: str
    reason: str


class Begun(msgspec.Struct, frozen=True, kw_only=True):
    """How far the file has come that is being written."""

    conversations: int
    rows: int
    bytes: int


class _Saved(msgspec.Struct, frozen=True, kw_only=True):
    format: int
    kind: str
    settings: dict[str, Any]
    started: str
    shards: list[Shard]
    run: str = ""
    ids: list[str] = []
    begun: Begun | None = None
    per_shard: int | None = None
    redacted: int = 0
    left_out: dict[str, int] = {}


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a finished export consists of. `settings` has the archive, the format, the filter, and the number of
    patterns that were redacted.

    `damaged`: what meets the filter, as far as can be told, and is not there.
    """

    format: int
    kind: str
    s3conv: str
    settings: dict[str, Any]
    started: str
    finished: str
    conversations: int
    rows: int
    bytes: int
    shards: list[Shard]
    damaged: list[Damaged] = []


@dataclass(slots=True)
class Checkpoint:
    """How far an export has come."""

    output: Output
    settings: dict[str, Any]
    started: str
    shards: list[Shard] = field(default_factory=list)
    begun: Begun | None = None
    per_shard: int | None = None
    """Conversations in each of so many shards, by their number when the export began."""
    redacted: int = 0
    left_out: dict[str, int] = field(default_factory=dict)
    """What was counted of the conversations that it has."""
    seen: SeenIds = field(default_factory=SeenIds)
    fresh: bytearray = field(default_factory=bytearray)
    """What `SeenIds` is given of the ids that no checkpoint has yet, end to end."""
    id_files: list[str] = field(default_factory=list)
    run: str = field(default_factory=lambda: secrets.token_hex(4))

    @property
    def exists(self) -> bool:
        """Whether there is something to go on from."""
        return bool(self.id_files)

    def save(self) -> None:
        """Write it. What it speaks of has to survive already."""
        name = f"ids-{len(self.id_files):06}-{self.run}"
        self.output.put(self.output.working + name, bytes(self.fresh))
        del self.fresh[:]
        self.id_files.append(name)
        saved = _Saved(
            format=_FORMAT,
            kind="export checkpoint",
            settings=self.settings,
            started=self.started,
            shards=self.shards,
            run=self.run,
            ids=self.id_files,
            begun=self.begun,
            per_shard=self.per_shard,
            redacted=self.redacted,
            left_out=self.left_out,
        )
        body = to_json(msgspec.to_builtins(saved), "a checkpoint")
        self.output.put(self.output.working + _CHECKPOINT, body)


def open_checkpoint(output: Output, settings: dict[str, Any], started: str) -> Checkpoint:
    """The checkpoint of an export that was interrupted; or a new one.

    Raises:
        InvalidInputError: that export had other settings.
        CorruptError: it cannot be read.
    """
    checkpoint = Checkpoint(output, settings, started)
    where = f"{output.url}/{output.working}"
    saved = _read(output, output.working + _CHECKPOINT, _Saved)
    if saved is None:
        return checkpoint
    if saved.format != _FORMAT:
        raise InvalidInputError(
            f"{where} is of another version of s3conv: go on with that, or remove it to begin again"
        )
    if saved.settings != settings:
        differ = sorted(name for name in {*settings, *saved.settings} if saved.settings.get(name) != settings.get(name))
        raise InvalidInputError(
            f"{where} is of an interrupted export that differs in {', '.join(differ)}: export as before to go on, or "
            f"remove it to begin again"
        )
    for name in saved.ids:
        file = output.open(output.working + name)
        if file is None:
            raise CorruptError(f"{where}{name} is missing: remove {where} to begin again")
        with file:
            while digests := file.read(_PIECE):
                checkpoint.seen.add_all(digests)
    checkpoint.started, checkpoint.shards = saved.started, list(saved.shards)
    checkpoint.begun, checkpoint.id_files, checkpoint.per_shard = saved.begun, saved.ids, saved.per_shard
    checkpoint.redacted, checkpoint.left_out = saved.redacted, saved.left_out
    return checkpoint


def write_manifest(output: Output, manifest: Manifest) -> None:
    """Say that the export is finished."""
    output.put(MANIFEST, to_json(msgspec.to_builtins(manifest), "the manifest of an export") + b"\n")


def read_manifest(output: Output) -> Manifest | None:
    """The manifest of a finished export; None if there is none.

    Raises:
        CorruptError: it cannot be read.
    """
    return _read(output, MANIFEST, Manifest)


def _read(output: Output, name: str, kind: type[_Kind]) -> _Kind | None:
    file = output.open(name)
    if file is None:
        return None
    with file:
        body = file.read()
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise CorruptError(f"{output.url}/{name} cannot be used: {error}") from None


def digest(file: IO[bytes]) -> str:
    """The SHA-256 of a file, from its beginning; it then stands at its end."""
    file.seek(0)
    hashed = hashlib.sha256()
    while piece := file.read(_PIECE):
        hashed.update(piece)
    return hashed.hexdigest()


@dataclass(frozen=True, slots=True)
class Checked:
    """What `check_export` found. It is whole if there are no `problems`."""

    conversations: int
    rows: int
    shards: int
    problems: list[str]


def check_export(output: Output) -> Checked:
    """Compare an export with its manifest, by itself: nothing is asked of the archive.

    Raises:
        InvalidInputError: there is no manifest, so that the export is not finished, not in shards, or is none.
    """
    manifest = read_manifest(output)
    if manifest is None:
        raise InvalidInputError(
            f"{output.url} has no {MANIFEST}, which a finished export in shards has: export again to go on with one "
            "that was interrupted; a single file, and pages, have none, and cannot be checked"
        )
    problems = []
    named = {shard.name for shard in manifest.shards}
    for name in sorted(output.names()):
        if name.startswith("part-") and name not in named:
            problems.append(f"{name}: is not in the manifest")
    for shard in manifest.shards:
        problems += _check_shard(output, shard)
    sums = {name: sum(getattr(shard, name) for shard in manifest.shards) for name in ("conversations", "rows", "bytes")}
    for name, found in sums.items():
        if getattr(manifest, name) != found:
            problems.append(f"{MANIFEST}: says {getattr(manifest, name):,} {name}, its shards have {found:,}")
    for one in manifest.damaged:
        problems.append(f"conversation {one.conversation_id!r} is not in it, as it could not be read: {one.reason}")
    return Checked(manifest.conversations, manifest.rows, len(manifest.shards), problems)


def _check_shard(output: Output, shard: Shard) -> list[str]:
    file = output.open(shard.name)
    if file is None:
        return [f"{shard.name}: is missing"]
    size = lines = 0
    hashed = hashlib.sha256()
    with file:
        while piece := file.read(_PIECE):
            size += len(piece)
            lines += piece.count(b"\n")
            hashed.update(piece)
    if size != shard.bytes:
        return [f"{shard.name}: has {size:,} bytes, expected {shard.bytes:,}"]
    if hashed.hexdigest() != shard.sha256:
        return [f"{shard.name}: its SHA-256 is {hashed.hexdigest()}, expected {shard.sha256}"]
    if shard.name.endswith(".jsonl") and lines != shard.rows:
        return [f"{shard.name}: has {lines:,} rows, expected {shard.rows:,}"]
    return []
