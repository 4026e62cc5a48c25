"""Filters, orders and cursors: which entries a list shows, in which order, and where the next page begins.

Law: types are respected (1 is not "1", and true is not 1), times compare as instants, and a condition on metadata that
did not fit its entry is answered by the document, never guessed: `None` means "open the document".
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from s3conv.errors import CorruptError, InvalidInputError
from s3conv.format.codec import from_json, to_json
from s3conv.format.entry import MISSING, Entry, index_time, is_index_time, lookup, read_index_time

Where = Mapping[str, Any]
"""Conditions by field: a plain value (equals), or operators with their operands, `{"gte": 3, "lt": 9}`."""

DEFAULT_ORDER = "-updated_at"

_TIMES = ("created_at", "updated_at")
_FIELDS: dict[str, Callable[[Entry], Any]] = {
    "conversation_id": lambda entry: entry.conversation_id,
    "created_at": lambda entry: entry.created,
    "updated_at": lambda entry: entry.updated,
    "message_count": lambda entry: entry.message_count,
    "branch_count": lambda entry: entry.branch_count,
    "size": lambda entry: entry.size,
}
_HEADS = frozenset(("conversation_id", "created_at", "updated_at"))
_ACTIVITY = frozenset(("updated_at", "message_count", "branch_count", "size"))
_METADATA = "metadata."


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition: `field` `op` `operand`."""

    field: str
    op: str
    operand: Any

    def matches(self, entry: Entry) -> bool | None:
        """Whether an entry meets it; None where only the document can tell."""
        value = read_field(entry, self.field)
        if value is UNKNOWN:
            return None
        return _OPERATORS[self.op](value, self.operand)


@dataclass(frozen=True, slots=True)
class Filter:
    """All conditions of a `where`."""

    conditions: tuple[Condition, ...] = ()

    def matches(self, entry: Entry) -> bool | None:
        """Whether an entry meets all of them; None where only the document can tell."""
        answer: bool | None = True
        for condition in self.conditions:
            one = condition.matches(entry)
            if one is False:
                return False
            if one is None:
                answer = None
        return answer

    def of_heads(self) -> Filter:
        """The conditions that what is known of a row without decoding it whole can decide."""
        return Filter(tuple(condition for condition in self.conditions if condition.field in _HEADS))

    def of_id(self) -> Filter:
        """The conditions that no save of a conversation can meet or fail to meet where another one did not."""
        return Filter(tuple(condition for condition in self.conditions if condition.field == "conversation_id"))

    def lasting(self) -> Filter:
        """The conditions on what an activity leaves as it is; see `s3conv.format.entry.lasting`."""
        return Filter(tuple(condition for condition in self.conditions if condition.field not in _ACTIVITY))

    def rules_out(self, conversation_id: str, created: str, updated: str) -> bool:
        """Whether an entry with these fields cannot match; for the filter that `of_heads` gives."""
        head = {"conversation_id": conversation_id, "created_at": created, "updated_at": updated}
        return not all(_OPERATORS[one.op](head[one.field], one.operand) for one in self.conditions)

    def partition(self, partition_by: str | None) -> str | None:
        """The one partition that can match, as canonical JSON; None if it is not fixed.

        Only text, booleans and null fix it: equal numbers may be written differently (5, 5.0), equal objects too.
        """
        for condition in self.conditions:
            if condition.field == partition_by and condition.op == "eq":
                operand = condition.operand
                if operand is None or isinstance(operand, str | bool):
                    return to_json(operand, "the filter").decode()
        return None

    def fixed_metadata(self) -> set[str]:
        """The fields of the metadata that have to equal something; an archive may be partitioned by one of them."""
        return {one.field for one in self.conditions if one.op == "eq" and one.field.startswith("metadata.")}

    def key_range(self, partition_by: str | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Beginnings of the sort keys that can match: all are from the first on and below the second; () is no bound.

        By the creation time too, where the partition is fixed; without `partition_by` there is but one.
        """
        partition = "null" if partition_by is None else self.partition(partition_by)
        if partition is None:
            return (), ()
        low, high = self._between("created_at")
        # No text comes between one and the same with a NUL behind it.
        return (partition, low) if low else (partition,), (partition, high + "\0") if high else (partition + "\0",)

    def updated_between(self) -> tuple[float | None, float | None]:
        """The first and the last second since 1970 that `updated_at` can have, where conditions bound it."""
        low, high = self._between("updated_at")
        return seconds(low) if low else None, seconds(high) if high else None

    def _between(self, field: str) -> tuple[str, str]:
        given = [(one.op, one.operand) for one in self.conditions if one.field == field]
        lows = [operand for op, operand in given if op in ("eq", "gt", "gte")]
        highs = [operand for op, operand in given if op in ("eq", "lt", "lte")]
        return max(lows, default=""), min(highs, default="")

    def needles(self) -> list[bytes]:
        """Byte strings that every matching row holds, longest first: those of text that a field has to equal."""
        texts = {one.operand for one in self.conditions if one.op == "eq" and isinstance(one.operand, str)}
        return sorted((to_json(text, "the filter") for text in texts), key=len, reverse=True)


UNKNOWN = object()
"""What `read_field` returns where the entry's metadata was cut and the document has to be asked."""


def read_field(entry: Entry, field: str) -> Any:
    """The value of a field of an entry, `MISSING`, or `UNKNOWN`."""
    if field in _FIELDS:
        return _FIELDS[field](entry)
    path = field.removeprefix(_METADATA)
    if entry.metadata_truncated and path not in entry.metadata:
        return UNKNOWN
    return lookup(entry.metadata, path)


def parse_where(where: Where | None) -> Filter:
    """Check and normalize conditions.

    Raises:
        InvalidInputError: a field, an operator or an operand is not known; names what is.
    """
    if where is None:
        return Filter()
    if not isinstance(where, Mapping):
        raise InvalidInputError(f"where: expected conditions by field, found {type(where).__name__}")
    conditions = []
    for field, value in where.items():
        check_field(field)
        operators = value if isinstance(value, Mapping) and value else {"eq": value}
        for op, operand in operators.items():
            if op not in _OPERATORS:
                raise InvalidInputError(
                    f"where: operator {op!r} on {field} is not known: expected one of {', '.join(_OPERATORS)} "
                    "(to compare with an object, write {'eq': {…}})"
                )
            conditions.append(Condition(field, op, _operand(field, op, operand)))
    return Filter(tuple(conditions))


def check_field(field: str) -> str:
    """Return the field's name if it can be filtered and ordered by, else raise `InvalidInputError`."""
    if field not in _FIELDS and (not str(field).startswith(_METADATA) or field == _METADATA):
        raise InvalidInputError(f"field {field!r} is not known: expected {', '.join(_FIELDS)} or metadata.<path>")
    return field


def _operand(field: str, op: str, operand: Any) -> Any:
    what = f"where: {field} {op}"
    if op == "in":
        if isinstance(operand, str | bytes | Mapping) or not isinstance(operand, Sequence | set | frozenset):
            raise InvalidInputError(f"{what}: expected a list of values, found {type(operand).__name__}")
        return [_operand(field, "eq", one) for one in operand]
    if op == "exists":
        if not isinstance(operand, bool):
            raise InvalidInputError(f"{what}: expected true or false, found {operand!r}")
        return operand
    if op == "prefix":
        if not isinstance(operand, str):
            raise InvalidInputError(f"{what}: expected a text, found {type(operand).__name__}")
        return operand
    if field in _TIMES and op != "contains":
        return _time_operand(what, operand)
    if not isinstance(operand, datetime):
        to_json(operand, what)
    return operand


def _time_operand(what: str, operand: Any) -> str:
    if isinstance(operand, str):
        try:
            operand = datetime.fromisoformat(operand)
        except ValueError:
            raise InvalidInputError(
                f"{what}: expected a time such as '2026-01-31T12:00:00Z', found {operand!r}"
            ) from None
    if not isinstance(operand, datetime):
        raise InvalidInputError(f"{what}: expected a datetime or ISO 8601 text, found {type(operand).__name__}")
    return index_time(operand)


def seconds(time: str) -> float:
    """An index time in seconds since 1970."""
    return read_index_time(time).timestamp()


# --- comparing -----------------------------------------------------------------------------------------------------


def _instant(value: Any) -> str | None:
    """A metadata value as an instant, where it is compared with a datetime."""
    try:
        return index_time(datetime.fromisoformat(value)) if isinstance(value, str) else None
    except ValueError:
        return None


def _equal(value: Any, operand: Any) -> bool:
    if isinstance(operand, datetime):
        return _instant(value) == index_time(operand)
    if isinstance(value, bool) or isinstance(operand, bool):
        return value is operand
    if isinstance(value, list) and isinstance(operand, Sequence) and not isinstance(operand, str):
        return len(value) == len(operand) and all(map(_equal, value, operand))
    if isinstance(value, Mapping) and isinstance(operand, Mapping):
        return value.keys() == operand.keys() and all(_equal(value[name], operand[name]) for name in value)
    return bool(value == operand)


def _ordered(compare: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    def matches(value: Any, operand: Any) -> bool:
        if isinstance(operand, datetime):
            instant = _instant(value)
            return instant is not None and compare(instant, index_time(operand))
        return _rank(value) == _rank(operand) and _rank(value) in (_NUMBER, _TEXT) and compare(value, operand)

    return matches


def _contains(value: Any, operand: Any) -> bool:
    if isinstance(value, str):
        return isinstance(operand, str) and operand in value
    return isinstance(value, list) and any(_equal(one, operand) for one in value)


_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "eq": _equal,
    "ne": lambda value, operand: not _equal(value, operand),
    "in": lambda value, operand: any(_equal(value, one) for one in operand),
    "gt": _ordered(lambda value, operand: value > operand),
    "gte": _ordered(lambda value, operand: value >= operand),
    "lt": _ordered(lambda value, operand: value < operand),
    "lte": _ordered(lambda value, operand: value <= operand),
    "prefix": lambda value, operand: isinstance(value, str) and value.startswith(operand),
    "contains": _contains,
    "exists": lambda value, operand: (value is not MISSING) is operand,
}


# --- ordering ------------------------------------------------------------------------------------------------------

_ABSENT, _NULL, _BOOLEAN, _NUMBER, _TEXT, _OTHER = range(6)

Position = tuple[int, Any]
"""A value's place in an order: its type's rank (missing, null, boolean, number, text, other), then itself."""


def _rank(value: Any) -> int:
    if value is MISSING:
        return _ABSENT
    if value is None:
        return _NULL
    if isinstance(value, bool):
        return _BOOLEAN
    if isinstance(value, int | float):
        return _NUMBER
    return _TEXT if isinstance(value, str) else _OTHER


@dataclass(frozen=True, slots=True)
class Order:
    """By which field a list is ordered. Equal values are ordered by id, ascending either way."""

    field: str
    descending: bool

    def position(self, entry: Entry) -> Position | None:
        """The entry's place; None where only the document can tell."""
        value = read_field(entry, self.field)
        if value is UNKNOWN:
            return None
        rank = _rank(value)
        if rank == _ABSENT:
            return rank, 0
        return rank, to_json(value, self.field).decode() if rank == _OTHER else value if value is not None else 0

    def sort(self, placed: list[tuple[Position, Entry]]) -> None:
        """Sort entries with their positions, in place."""
        placed.sort(key=lambda one: one[1].conversation_id)
        placed.sort(key=lambda one: one[0], reverse=self.descending)

    def follows(self, position: Position, conversation_id: str, cursor: Cursor) -> bool:
        """Whether an entry comes after the one that a cursor names."""
        if position == cursor.position:
            return conversation_id > cursor.conversation_id
        return position < cursor.position if self.descending else position > cursor.position

    def __str__(self) -> str:
        return f"{'-' if self.descending else ''}{self.field}"


def parse_order(order: str) -> Order:
    """Read "updated_at" or "-updated_at".

    Raises:
        InvalidInputError: the field is not known.
    """
    if not isinstance(order, str):
        raise InvalidInputError(f"order: expected a field's name, found {type(order).__name__}")
    return Order(check_field(order.removeprefix("-")), order.startswith("-"))


# --- cursors -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Cursor:
    """The last entry of a page, and of which list it was the page."""

    list_hash: str
    position: Position
    conversation_id: str

    def encode(self) -> str:
        """The cursor as text that a caller hands back."""
        raw = to_json([self.list_hash, *self.position, self.conversation_id], "a cursor")
        return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def list_hash(where: Filter, order: Order) -> str:
    """What ties a cursor to its filter and order."""
    conditions = sorted([one.field, one.op, _plain(one.operand, any_order=one.op == "in")] for one in where.conditions)
    return hashlib.sha256(to_json([str(order), conditions], "the filter")).hexdigest()[:16]


def _plain(operand: Any, *, any_order: bool = False) -> str:
    if isinstance(operand, datetime):
        return f"instant {index_time(operand)}"
    if isinstance(operand, list):
        # `in` may have been given a set, which has another order in every process.
        return f"[{','.join(sorted(map(_plain, operand)) if any_order else map(_plain, operand))}]"
    return to_json(operand, "the filter").decode()


def parse_cursor(text: str, expected_hash: str, order: Order) -> Cursor:
    """Read a cursor.

    Args:
        text: what the caller handed back.
        expected_hash: of the list that is to go on.
        order: of that list.

    Raises:
        InvalidInputError: it is none, or that of another filter or order.
    """
    try:
        value = from_json(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)), "the cursor")
    except (binascii.Error, ValueError, TypeError, AttributeError, CorruptError):
        value = None
    match value:
        case [str(found), int(rank), position, str(conversation_id)] if _can_be(rank, position):
            if found != expected_hash:
                raise InvalidInputError(
                    "after: this cursor is of a list with another filter or order: use the same, or none"
                )
            # A list by time begins where the cursor says: it has to be one.
            if order.field not in _TIMES or (rank == _TEXT and is_index_time(position)):
                return Cursor(found, (rank, position), conversation_id)
    raise InvalidInputError(f"after: expected a cursor from an earlier page, found {str(text)[:60]!r}")


def _can_be(rank: int, position: Any) -> bool:
    """Whether a value can have this place in an order."""
    if rank in (_ABSENT, _NULL):
        return bool(position == 0)
    return _ABSENT <= rank <= _OTHER and _rank(position) == min(rank, _TEXT)
