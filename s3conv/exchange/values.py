"""JSON values of a source: parsing them strictly, naming them by a hash, and reading their times.

Law: what JSON cannot say unambiguously (NaN, infinity, lone surrogates, one key twice) is refused with a reason,
because it could not be stored and come back equal.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from s3conv.errors import InvalidInputError
from s3conv.format.codec import to_json
from s3conv.model.message import as_utc

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
"""Stands for a time where the source has none, and nothing near it has one."""


def is_told(time: datetime) -> bool:
    """Whether a time is more than that."""
    return as_utc(time) != EPOCH


"""The time of what has none, and nothing near it to take one from."""

_TOKEN = re.compile(r'("[^"\\]*(?:\\.[^"\\]*)*")(\s*:)?|[{}\[\]]', re.DOTALL)
_SURROGATE_ESCAPE = re.compile(rb"\\u[dD][89a-fA-F]")


def parse(data: bytes) -> Any:
    """The value of one JSON text.

    Raises:
        InvalidInputError: it is not JSON, or has something that cannot be kept; says what.
    """
    try:
        text = data.decode("utf-8-sig")
        value = json.loads(text, object_pairs_hook=_object, parse_constant=_refuse, parse_float=_finite)
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"not UTF-8: byte {data[error.start]:#04x} at offset {error.start:,}") from None
    except RecursionError:
        raise InvalidInputError("nested too deeply to be read") from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno} column {error.colno}" if error.lineno > 1 else f"column {error.colno}"
        raise InvalidInputError(f"not JSON: {error.msg} ({where})") from None
    except _RepeatedKeyError:
        key, where = _repeated_key(text)
        raise InvalidInputError(
            f"the key {key} is twice in one object ({where}): one of its values would be lost"
        ) from None
    except InvalidInputError:
        raise
    except ValueError as error:  # an integer of more digits than Python converts
        raise InvalidInputError(f"cannot be kept: {error}") from None
    # Only an escape can make a lone surrogate out of valid UTF-8.
    if _SURROGATE_ESCAPE.search(data):
        to_json(value, "it")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise _RepeatedKeyError
    return made


class _RepeatedKeyError(InvalidInputError):
    """On its way to where the text is known, and so the place in it."""


def _repeated_key(text: str) -> tuple[str, str]:
    """The first key of a JSON text that is repeated, and where."""
    objects: list[set[str]] = []
    for token in _TOKEN.finditer(text):
        if token[0] in "{[":
            objects.append(set())
        elif token[0] in "}]":
            objects.pop()
        elif token[2]:
            key = json.loads(token[1])
            if key in objects[-1]:
                line = text.count("\n", 0, token.start()) + 1
                column = token.start() - text.rfind("\n", 0, token.start())
                return repr(key[:60]), f"line {line} column {column}" if line > 1 else f"column {column}"
            objects[-1].add(key)
    raise AssertionError("the text was found to have one")


def _refuse(constant: str) -> Any:
    raise InvalidInputError(f"{constant} is not a JSON value")


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise InvalidInputError(f"{text[:40]} is too large a number")
    return value


def fingerprint(value: object, digits: int = 12) -> str:
    """A short name of a JSON value: the same for equal values, whatever the order of their keys.

    Raises:
        InvalidInputError: the value has no JSON form.
    """
    try:
        text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:digits]
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInputError(f"a value has no JSON form: {error}") from None


def text_field(data: Mapping[str, Any], name: str, where: str = "") -> str | None:
    """A text; None where it is absent, null or empty.

    Raises:
        InvalidInputError: it is of another type.
    """
    value = data.get(name)
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise InvalidInputError(f"{where}{name}: expected a string, found {type(value).__name__}")
    return value


def read_time(data: Mapping[str, Any], name: str, where: str = "") -> tuple[datetime | None, bool]:
    """A time of the source: seconds since 1970, or ISO 8601 (without an offset: UTC).

    Returns:
        The time, aware, in UTC (None if absent or null), and whether the source's value can be worked out from it. If
        not, the caller keeps the source's value too.

    Raises:
        InvalidInputError: it is no time.
    """
    value = data.get(name)
    if value is None:
        return None, name not in data
    if isinstance(value, str):
        try:
            return as_utc(datetime.fromisoformat(value)), False
        except ValueError:
            raise InvalidInputError(f"{where}{name}: expected a time, found {value[:40]!r}") from None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidInputError(f"{where}{name}: expected a time, found {type(value).__name__}")
    try:
        time = datetime.fromtimestamp(value, UTC)
    except (ValueError, OverflowError, OSError):
        raise InvalidInputError(f"{where}{name}: {value!r:.40} is not a time in seconds since 1970") from None
    return time, time.timestamp() == value


def object_at(value: Any, where: str = "") -> Mapping[str, Any]:
    """The value, if it is an object.

    Raises:
        InvalidInputError: it is something else.
    """
    if not isinstance(value, Mapping):
        place = f"{where.removesuffix('.')}: " if where else ""
        raise InvalidInputError(f"{place}expected an object, found {type(value).__name__}")
    return value


def list_field(data: Mapping[str, Any], name: str, where: str = "") -> list[Any]:
    """A list.

    Raises:
        InvalidInputError: it is absent, or of another type.
    """
    value = data.get(name)
    if not isinstance(value, list):
        found = type(value).__name__ if name in data else "nothing"
        raise InvalidInputError(f"{where}{name}: expected a list, found {found}")
    return value


def time_if_any(data: Mapping[str, Any], *names: str) -> datetime | None:
    """The first of these fields that is a time; for formats that do not say what is in them."""
    for name in names:
        try:
            time, _ = read_time(data, name)
        except InvalidInputError:
            continue
        if time is not None:
            return time
    return None
