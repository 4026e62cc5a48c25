"""Canonical JSON and zstd frames: how every object becomes bytes and back.

Law: what cannot come back exactly is refused when it is written (NaN, lone surrogates, values that JSON has no form
for), and what arrives is hostile until it is decoded: sizes are bounded before memory is taken, and every failure is
a `CorruptError` that names the object.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec
import zstandard

from s3conv.errors import CorruptError, InvalidInputError

MAX_BYTES = 256 * 1024 * 1024
"""The most JSON that one object may hold, in bytes before compression; save and load refuse what is larger."""

LEVEL = 3
"""zstd level: beyond it, chats get 5 % smaller for several times the work (measured; see docs/benchmarks.md)."""

MAX_DEPTH = 200
"""How deeply a document's values may be nested. Readers in Python fail at some 900, in a deep stack earlier."""

_TEXT = frozenset((str,))
_CONTAINERS = (dict, list, tuple)

_decoder = msgspec.json.Decoder()


def to_json(value: object, what: str, depth: int = MAX_DEPTH) -> bytes:
    """Canonical JSON: UTF-8, no spaces, keys in the order given, non-ASCII unescaped.

    As everywhere in Python's JSON, a tuple becomes a list and a number that is a dict's key becomes text.

    Raises:
        InvalidInputError: `value` (of the thing that `what` names) has no JSON form that would come back equal, or is
            nested more than `depth` deep.
    """
    # The standard library's encoder, because faster ones write NaN as null and dates as strings without a word.
    try:
        _check(value, depth)
        return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except UnicodeEncodeError as error:
        reason = f"a text has the lone surrogate {error.object[error.start]!a}, which UTF-8 cannot hold"
    except (TypeError, ValueError) as error:
        reason = str(error)
    raise InvalidInputError(f"{what} cannot be written as JSON: {reason}; nothing was written")


def _check(value: object, depth: int) -> None:
    """Raise `ValueError` for what `json.dumps` would write and nobody could read.

    That is values nested too deeply (a reader's limit depends on its stack), and objects of which two keys become the
    same text, as 1 and "1" do.
    """
    level = [value]
    for _ in range(depth + 1):
        deeper: list[object] = []
        for one in level:
            if isinstance(one, dict):
                if not _TEXT.issuperset(map(type, one)) and len(json.loads(json.dumps(dict.fromkeys(one)))) < len(one):
                    raise ValueError("two keys of one object become the same text")
                deeper += [inner for inner in one.values() if isinstance(inner, _CONTAINERS)]
            elif isinstance(one, _CONTAINERS):
                deeper += [inner for inner in one if isinstance(inner, _CONTAINERS)]
        if not deeper:
            return
        level = deeper
    raise ValueError(f"values are nested too deeply: at most {depth} levels")


def from_json(body: bytes, what: str) -> Any:
    """Decode JSON.

    Raises:
        CorruptError: it is not JSON; `what` names the object.
    """
    try:
        return _decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise CorruptError(f"{what} is not JSON: {error}") from None
    except RecursionError:
        raise CorruptError(f"{what} is JSON that is nested too deeply") from None


def compress(body: bytes) -> bytes:
    """One zstd frame, with its size and a checksum of its content."""
    return zstandard.ZstdCompressor(level=LEVEL, write_checksum=True).compress(body)


def decompress(
    frame: bytes, what: str, limit: int = MAX_BYTES, decompressor: zstandard.ZstdDecompressor | None = None
) -> bytes:
    """The content of one zstd frame of at most `limit` bytes; `decompressor` saves making one for each of many.

    Raises:
        CorruptError: it is truncated, damaged, too large, or no frame; `what` names the object.
    """
    try:
        size = zstandard.get_frame_parameters(frame).content_size
        if size in (0, zstandard.CONTENTSIZE_UNKNOWN):
            return _decompress_by_pieces(frame, what, limit)
        if size > limit:
            raise CorruptError(f"{what} says that it holds {size:,} bytes; at most {limit:,} are read")
        decompressor = decompressor or zstandard.ZstdDecompressor()
        # By position: max_output_size, read_across_frames, allow_extra_data. Naming them costs a twentieth of the work.
        return decompressor.decompress(frame, size, False, False)
    except zstandard.ZstdError as error:
        raise CorruptError(f"{what} is not a whole zstd frame ({len(frame):,} bytes found): {error}") from None
    except MemoryError:
        raise CorruptError(f"{what} needs more memory to unpack than there is") from None


def _decompress_by_pieces(frame: bytes, what: str, limit: int) -> bytes:
    """The content of a frame that does not name its size (`zstd` writes such from a pipe), or claims to be empty.

    The library's own way looks neither at what follows the former nor into the latter.
    """
    decompressor = zstandard.ZstdDecompressor().decompressobj()
    content = bytearray()
    position = 0
    while not decompressor.eof and position < len(frame):
        # Small pieces: each of their bytes may hold up to 32 KiB.
        content += decompressor.decompress(frame[position : position + 128])
        position += 128
        if len(content) > limit:
            raise CorruptError(f"{what} holds more than {limit:,} bytes; at most as many are read")
    if not decompressor.eof:
        raise zstandard.ZstdError("the frame does not end")
    if decompressor.unused_data or position < len(frame):
        raise zstandard.ZstdError("something follows the frame")
    return bytes(content)
