"""The descriptor: the small object that makes a prefix an archive."""

from __future__ import annotations

from dataclasses import dataclass

from s3conv.errors import CorruptError, InvalidInputError
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
