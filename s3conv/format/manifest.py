"""The manifest: which segments count. The one mutable object of the index, replaced by compare-and-swap only.

Law: whatever is not named here does not count. It ends with the SHA-256 of what comes before, because it is plain JSON:
a digit that changed in it would make lists shorter without a word (docs/adr/0007).
"""

from __future__ import annotations

import hashlib
from typing import Literal

import msgspec

from s3conv.errors import CorruptError, IndexDamagedError
from s3conv.format.blocks import Fence
from s3conv.format.codec import to_json
from s3conv.format.entry import SortKey, index_time, read_index_time
from s3conv.format.keys import RECENT, SEGMENTS, is_ulid
from s3conv.format.support import FORMAT, read_kind

REPAIR = "no conversation is lost: run `s3conv verify --repair`"

RunName = Literal["tail", "mid", "base"]
RUNS: tuple[RunName, ...] = ("tail", "mid", "base")
"""From the newest to the oldest."""


class Segment(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A segment, as the manifest names it. `end` is where its last block ends and its fence begins.

    `written` is the store's clock at the manifest's GET before the one that named it first. A segment of the tail has
    its fence here.
    """

    name: str
    first: SortKey
    last: SortKey
    oldest: str
    newest: str
    rows: int
    size: int
    end: int
    fence_length: int
    written: str
    fence: Fence | None = None

    @property
    def key(self) -> str:
        return f"{SEGMENTS}{self.name}.jsonl.zst"


class Recent(msgspec.Struct, frozen=True, kw_only=True):
    """The file of the entries that were changed last: every folded entry newer than `floor` is in it."""

    name: str
    rows: int
    size: int
    end: int
    fence_length: int
    floor: str
    written: str

    @property
    def key(self) -> str:
        return f"{RECENT}{self.name}.jsonl.zst"


class Retired(msgspec.Struct, frozen=True, kw_only=True):
    """An object that no longer counts, and since when by the store's clock."""

    key: str
    retired_at: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """Which segments count: three runs, each in the order of its keys. `nonce` tells who wrote this generation."""

    generation: int
    nonce: str
    tail: list[Segment] = []
    mid: list[Segment] = []
    base: list[Segment] = []
    recent: Recent | None = None
    retired: list[Retired] = []

    def run(self, name: RunName) -> list[Segment]:
        """The segments of a run."""
        segments: list[Segment] = getattr(self, name)
        return segments

    def all(self) -> list[Segment | Recent]:
        """All objects that count."""
        segments: list[Segment | Recent] = [segment for name in RUNS for segment in self.run(name)]
        return [*segments, self.recent] if self.recent else segments

    def named(self) -> set[str]:
        """Their keys."""
        return {one.key for one in self.all()}

    def encode(self) -> bytes:
        """The object's body."""
        body = to_json({"format": FORMAT, "kind": "manifest", **msgspec.to_builtins(self)}, "the manifest")
        return body[:-1] + _SEAL % hashlib.sha256(body[:-1]).hexdigest().encode()


class _ManifestObject(Manifest, frozen=True, kw_only=True):
    format: int
    kind: str
    sha256: str
    requires: list[str] = []


_SEAL = b',"sha256":"%s"}'
_SEAL_LENGTH = len(_SEAL) - 2 + 64

_manifest_decoder = msgspec.json.Decoder(_ManifestObject)


def decode_manifest(body: bytes, what: str) -> Manifest:
    """Read a manifest.

    Raises:
        IndexDamagedError: it is none, or was changed since it was written.
        UnsupportedFormatError: it is of a format, or requires a feature, that this version does not know.
    """
    try:
        read_kind(body, ("manifest",), what)
        text = body[:-_SEAL_LENGTH]
        if body[-_SEAL_LENGTH:] != _SEAL % hashlib.sha256(text).hexdigest().encode():
            raise ValueError("its sha256 is not that of its content")
        found = _manifest_decoder.decode(body)
        _check(found)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError, CorruptError) as error:
        raise IndexDamagedError(f"{what} is no manifest: {error}; {REPAIR}") from None
    return Manifest(
        generation=found.generation,
        nonce=found.nonce,
        tail=found.tail,
        mid=found.mid,
        base=found.base,
        recent=found.recent,
        retired=found.retired,
    )


def _check(manifest: Manifest) -> None:
    if manifest.generation < 0:
        raise ValueError(f"generation {manifest.generation}")
    for name in RUNS:
        last: SortKey | None = None
        for segment in manifest.run(name):
            if not is_ulid(segment.name) or min(segment.rows, segment.end, segment.fence_length) < 1:
                raise ValueError(f"the segment {segment.name[:60]!r} in {name}")
            if segment.first > segment.last or (last is not None and segment.first <= last):
                raise ValueError(f"the segments in {name} are not in order, at {segment.name}")
            last = segment.last
            if (segment.fence is not None) != (name == "tail"):
                raise ValueError(f"a fence is expected in the tail and only there, at {segment.name}")
            if segment.fence is not None:
                segment.fence.check(segment.rows, segment.end)
    recent = manifest.recent
    if recent and (not is_ulid(recent.name) or min(recent.rows, recent.end, recent.fence_length) < 1):
        raise ValueError(f"recent {recent.name[:60]!r}")
    for retired in manifest.retired:
        if index_time(read_index_time(retired.retired_at)) != retired.retired_at:
            raise ValueError(f"retired_at {retired.retired_at[:60]!r}")
