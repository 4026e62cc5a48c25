"""`--where`, `--order`, `--after` and `--set`: from a user's text to what `Archive.list` and the import take.

Law: a condition that cannot be used is wrong usage, found before any request is made.
"""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import Any

from typer import BadParameter

from s3conv.cli.opening import reading
from s3conv.format.filters import list_hash, parse_cursor, parse_order, parse_where

_CONDITION = re.compile(r"([^=!<>^~]+)(>=|<=|!=|\^=|~=|=|>|<)(.*)", re.DOTALL)
_OPERATORS = {
    "=": "eq",
    "!=": "ne",
    ">": "gt",
    ">=": "gte",
    "<": "lt",
    "<=": "lte",
    "^=": "prefix",
    "~=": "contains",
}
_NUMBERS = ("message_count", "branch_count", "size")


def read_conditions(texts: list[str] | None) -> dict[str, Any]:
    """The filter that several `--where` make together.

    Raises:
        BadParameter: one of them cannot be used.
    """
    where: dict[str, dict[str, Any]] = {}
    for text in texts or ():
        match = _CONDITION.fullmatch(text)
        if match is None:
            raise BadParameter(f"{text!r}: expected FIELD, one of {' '.join(_OPERATORS)}, VALUE", param_hint="--where")
        if match[3].startswith("="):
            hint = f"expected one of {' '.join(_OPERATORS)}; a value that begins with = has a space before it"
            raise BadParameter(f"{text!r}: {match[2]}= is no operator: {hint}", param_hint="--where")
        field, sign, value = match[1].strip(), match[2], match[3].strip()
        conditions = where.setdefault(field, {})
        if _OPERATORS[sign] in conditions:
            raise BadParameter(f"{text!r}: there is a condition with {sign} on {field} already", param_hint="--where")
        conditions[_OPERATORS[sign]] = _value(field, sign, value)
    result = {field: ops["eq"] if list(ops) == ["eq"] else ops for field, ops in where.items()}
    with reading("--where"):
        parse_where(result)
    return result


def read_settings(texts: list[str] | None) -> dict[str, Any]:
    """The metadata that several `--set` give, by its path; typed as the values of `--where` are.

    Raises:
        BadParameter: one of them cannot be used.
    """
    settings: dict[str, Any] = {}
    for text in texts or ():
        field, sign, value = text.partition("=")
        field = field.strip()
        path = field.removeprefix("metadata.")
        if not sign or path == field or not all(path.split(".")):
            raise BadParameter(f"{text!r}: expected metadata.NAME=VALUE", param_hint="--set")
        if path in settings:
            raise BadParameter(f"{text!r}: {field} is set already", param_hint="--set")
        settings[path] = _value(field, "=", value.strip())
    return settings


def check_order(order: str) -> str:
    """The order, if it is one.

    Raises:
        BadParameter: it is none.
    """
    with reading("--order"):
        parse_order(order)
    return order


def check_after(after: str | None, where: dict[str, Any], order: str) -> None:
    """See that a cursor is one of this list.

    Raises:
        BadParameter: it is none, or that of a list with another filter or order.
    """
    if after is not None:
        with reading("--after"):
            ordered = parse_order(order)
            parse_cursor(after, list_hash(parse_where(where), ordered), ordered)


def _value(field: str, sign: str, text: str) -> Any:
    if field in _NUMBERS:
        try:
            return int(text)
        except ValueError:
            raise BadParameter(f"{field}{sign}{text}: {field} is a whole number", param_hint="--where") from None
    if not field.startswith("metadata."):
        return text
    try:
        value = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return _time_or_text(text) if sign[0] in "<>" else text
    if isinstance(value, str) or (sign not in ("^=", "~=") and not isinstance(value, dict | list)):
        return value
    return text


def _time_or_text(text: str) -> datetime | str:
    """An instant, if the text names one: two times with different zones do not compare as texts."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return text
    return text if time.tzinfo is None else time


def _no_constant(name: str) -> Any:
    raise ValueError(name)
