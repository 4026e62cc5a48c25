"""The two small objects that make a prefix an archive: its descriptor and its manifest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from s3conv.errors import CorruptError, IndexDamagedError, InvalidInputError, UnsupportedFormatError
from s3conv.format.codec import from_json, to_json
from s3conv.format.entry import check_partition_by
from s3conv.format.support import FORMAT, check_format


@dataclass(frozen=True, slots=True)
class Descriptor:
    """What `s3conv.json` says of an archive. `nonce` tells which `create` wrote it."""

    partition_by: str | None
    nonce: str

    def encode(self) -> bytes:
        """The object's body."""
        return to_json(
            {
                "format": FORMAT,
                "kind": "archive",
                "requires": [],
                "partition_by": self.partition_by,
                "nonce": self.nonce,
                "settings": {},
            },
            "the descriptor",
        )


def decode_descriptor(body: bytes, what: str) -> Descriptor:
    """Read a descriptor.

    Raises:
        CorruptError: it is none.
        UnsupportedFormatError: it has a format or feature that this version does not know.
    """
    value = from_json(body, what)
    check_format(value, ("archive",), what)
    partition_by, nonce = value.get("partition_by"), value.get("nonce")
    if not isinstance(partition_by, str | None) or not isinstance(nonce, str):
        raise CorruptError(f"{what}: expected partition_by (a path or null) and a nonce")
    try:
        return Descriptor(check_partition_by(partition_by), nonce)
    except InvalidInputError as error:
        raise CorruptError(f"{what}: {error}") from None


@dataclass(frozen=True, slots=True)
class Manifest:
    """Which segments count. This version writes and reads the empty one: all entries are in the log."""

    generation: int
    nonce: str

    def encode(self) -> bytes:
        """The object's body."""
        return to_json(
            {
                "format": FORMAT,
                "kind": "manifest",
                "generation": self.generation,
                "nonce": self.nonce,
                "tail": [],
                "mid": [],
                "base": [],
                "recent": None,
                "retired": [],
            },
            "the manifest",
        )


def decode_manifest(body: bytes, what: str) -> Manifest:
    """Read a manifest.

    Raises:
        IndexDamagedError: it is none.
        UnsupportedFormatError: it is of a newer format, or names segments, which this version does not read yet.
    """
    try:
        value: Any = from_json(body, what)
        check_format(value, ("manifest",), what)
    except CorruptError as error:
        raise IndexDamagedError(f"{error}; no conversation is lost: run `s3conv verify --repair`") from None
    generation, nonce = value.get("generation"), value.get("nonce")
    if type(generation) is not int or generation < 0 or not isinstance(nonce, str):
        raise IndexDamagedError(f"{what}: expected a generation and a nonce: run `s3conv verify --repair`")
    if any(value.get(run) for run in ("tail", "mid", "base", "recent")):
        raise UnsupportedFormatError(f"{what} names segments, which this s3conv does not read: upgrade s3conv")
    return Manifest(generation, nonce)
