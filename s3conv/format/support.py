"""Formats, kinds and features: what this version reads and writes, and how anything else is refused by name."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import msgspec

from s3conv.errors import CorruptError, UnsupportedFormatError
from s3conv.model.schema import shown

FORMAT = 1
"""The format of everything that this version writes."""

FEATURES: frozenset[str] = frozenset()
"""What an object may name in `requires` and still be read."""


class _Head(msgspec.Struct):
    format: int | str | None = None
    kind: int | str | None = None
    requires: list[str] = []


_head_decoder = msgspec.json.Decoder(_Head)


def read_kind(raw: bytes, kinds: Collection[str], what: str) -> str:
    """The kind of a top-level JSON object, as `check_format`, read from its text.

    Straight from there: as plain values, 20 KB of brackets would become gigabytes.

    Raises:
        msgspec.MsgspecError, UnicodeDecodeError, RecursionError: it is no JSON object with a format and a kind.
        CorruptError, UnsupportedFormatError: as `check_format`.
    """
    return check_format(msgspec.structs.asdict(_head_decoder.decode(raw)), kinds, what)


def check_format(value: Any, kinds: Collection[str], what: str) -> str:
    """The kind of a top-level JSON object (or of a document's `s3conv` part).

    Args:
        value: the decoded JSON.
        kinds: those that are expected here.
        what: the object's name, for errors.

    Raises:
        CorruptError: it is no JSON object with a format and a kind.
        UnsupportedFormatError: its format, a feature that it requires, or its kind is unknown.
    """
    if not isinstance(value, dict):
        raise CorruptError(f"{what}: expected a JSON object, found {type(value).__name__}")
    found = value.get("format")
    if type(found) is not int:
        raise CorruptError(f"{what}: expected a format number, found {shown(found)}")
    if found != FORMAT:
        raise UnsupportedFormatError(
            f"{what} has format {shown(found)}; this s3conv reads format {FORMAT}: upgrade s3conv"
        )
    requires = value.get("requires", [])
    if not isinstance(requires, list) or not all(isinstance(feature, str) for feature in requires):
        raise CorruptError(f"{what}: requires: expected a list of names")
    if unknown := sorted(set(requires) - FEATURES):
        raise UnsupportedFormatError(
            f"{what} requires {', '.join(unknown)[:200]}, which this s3conv does not know: upgrade s3conv"
        )
    kind = value.get("kind")
    if not isinstance(kind, str):
        raise CorruptError(f"{what}: expected a kind, found {shown(kind)}")
    if kind not in kinds:
        raise UnsupportedFormatError(
            f"{what} is of the kind {kind[:60]!r}; expected {' or '.join(sorted(kinds))}: upgrade s3conv if it is newer"
        )
    return kind
