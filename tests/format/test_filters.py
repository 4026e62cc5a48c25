"""Filters, orders and cursors: types respected, instants compared, pages that join without a gap."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3conv.errors import InvalidInputError
from s3conv.format.entry import Entry, index_time
from s3conv.format.filters import (
    DEFAULT_ORDER,
    Cursor,
    Filter,
    Order,
    check_field,
    list_hash,
    parse_cursor,
    parse_order,
    parse_where,
)
from tests.strategies import json_values

DAY = datetime(2025, 3, 1, 12, tzinfo=UTC)
EAST = timezone(timedelta(hours=5, minutes=30))


def entry(
    conversation_id: str = "c",
    *,
    truncated: bool = False,
    created: datetime = DAY,
    updated: datetime = DAY,
    messages: int = 4,
    metadata: dict[str, Any] | None = None,
) -> Entry:
    return Entry(
        conversation_id=conversation_id,
        revision=1,
        created=index_time(created),
        updated=index_time(updated),
        schema_version="1.1.0",
        message_count=messages,
        branch_count=2,
        size=1000,
        metadata=metadata or {},
        metadata_truncated=truncated,
    )


def matches(where: dict[str, Any], **metadata: Any) -> bool | None:
    return parse_where(where).matches(entry(metadata=metadata))


# --- conditions -----------------------------------------------------------------------------------------------------

SAMPLES: list[Any] = [
    None, True, False, 0, 1, 1.0, 1.5, "", "1", "true", "null", [], [1], ["1"], [True], {}, {"a": 1}, {"a": True},
]  # fmt: skip


def same(one: Any, other: Any) -> bool:
    """Equal as JSON values: numbers by value, everything else by type too."""
    if isinstance(one, bool) or isinstance(other, bool) or type(one) is not type(other):
        numbers = all(type(value) in (int, float) for value in (one, other))
        return bool(one == other) if numbers else type(one) is type(other) and one == other
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return bool(one == other)


@pytest.mark.parametrize("value", SAMPLES, ids=repr)
@pytest.mark.parametrize("operand", SAMPLES, ids=repr)
def test_equality_respects_types(value: Any, operand: Any) -> None:
    equal = same(value, operand)
    assert matches({"metadata.x": {"eq": operand}}, x=value) is equal
    assert matches({"metadata.x": {"ne": operand}}, x=value) is not equal
    assert matches({"metadata.x": {"in": [operand]}}, x=value) is equal
    assert matches({"metadata.x": {"in": ["something else", operand]}}, x=value) is equal
    assert matches({"metadata.x": {"contains": operand}}, x=[["else"], value]) is equal
    if not isinstance(operand, dict) or not operand:
        assert matches({"metadata.x": operand}, x=value) is equal


@given(json_values, json_values)
def test_equality_is_that_of_json_values(value: Any, operand: Any) -> None:
    assert matches({"metadata.x": {"eq": operand}}, x=value) is same(value, operand)
    assert matches({"metadata.x": {"eq": value}}, x=value) is True


@pytest.mark.parametrize(
    ("op", "operand", "values"),
    [
        ("gt", 2, [2.5, 3]), ("gte", 2, [2, 2.0, 2.5, 3]), ("lt", 2, [-1, 1, 1.5]), ("lte", 2, [-1, 1, 1.5, 2, 2.0]),
        ("gt", "b", ["ba", "c"]), ("gte", "b", ["b", "ba", "c"]), ("lt", "b", ["", "a", "B"]), ("lte", "b", ["",
        "a", "B", "b"]),
        ("prefix", "b", ["b", "ba"]), ("prefix", "", ["", "a", "b", "ba", "c", "B"]), ("contains", "a", ["a", "ba",
        ["a"]]),
        ("contains", 1, [[1]]), ("contains", "", ["", "a", "b", "ba", "c", "B"]), ("contains", None, [[None]]),
        ("in", [], []), ("in", ("a", 3), ["a", 3]), ("in", {"a"}, ["a"]), ("in", frozenset((3,)), [3]),
    ],
)  # fmt: skip
def test_an_operator_finds(op: str, operand: Any, values: list[Any]) -> None:
    everything: list[Any] = [
        -1, 1, 1.5, 2, 2.0, 2.5, 3, "", "a", "b", "ba", "c", "B", None, True, False, [], ["a"], [1], [True], [None],
        {}, {"a": 1},
    ]  # fmt: skip
    found = [repr(value) for value in everything if matches({"metadata.x": {op: operand}}, x=value)]
    assert sorted(found) == sorted(map(repr, values))


@pytest.mark.parametrize("operand", [0, 1, True, "", "x", None, [], DAY])
@pytest.mark.parametrize("op", ["eq", "gt", "gte", "lt", "lte", "contains"])
def test_a_missing_field_meets_no_condition_on_its_value(op: str, operand: Any) -> None:
    assert matches({"metadata.x": {op: operand}}) is False


def test_a_missing_field_is_not_equal_to_anything_and_does_not_exist() -> None:
    assert matches({"metadata.x": {"ne": 1}}) is True
    assert matches({"metadata.x": {"ne": None}}) is True
    assert matches({"metadata.x": None}) is False
    assert matches({"metadata.x": {"in": [1, None]}}) is False
    assert matches({"metadata.x": {"prefix": ""}}) is False
    assert matches({"metadata.x": {"exists": False}}) is True
    assert matches({"metadata.x": {"exists": True}}) is False
    assert matches({"metadata.x": {"exists": True}}, x=None) is True
    assert matches({"metadata.x": {"exists": False}}, x=None) is False


def test_a_key_is_matched_exactly_first_and_then_as_a_dotted_path() -> None:
    assert matches({"metadata.a.b": 1}, a={"b": 1}) is True
    assert matches({"metadata.a.b": 1}, **{"a": {"b": 1}, "a.b": 2}) is False
    assert matches({"metadata.a.b": 2}, **{"a": {"b": 1}, "a.b": 2}) is True
    assert matches({"metadata.a.b": {"exists": True}}, a=1) is False
    assert matches({"metadata.metadata.x": 1}, metadata={"x": 1}) is True
    assert matches({"metadata.conversation_id": "mine"}, conversation_id="mine") is True


def test_all_conditions_must_be_met() -> None:
    where: dict[str, Any] = {"metadata.a": 1, "message_count": {"gte": 3, "lt": 5}, "conversation_id": {"prefix": "c"}}
    assert matches(where, a=1) is True
    assert matches(where, a=2) is False
    assert matches({**where, "message_count": {"gte": 3, "lt": 4}}, a=1) is False
    assert matches({}) is True
    assert parse_where(None).matches(entry()) is True


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ({"conversation_id": "c"}, True), ({"conversation_id": {"contains": "d"}}, False), ({"message_count": 4}, True),
        ({"message_count": 4.0}, True), ({"message_count": "4"}, False), ({"branch_count": {"gt": 1}}, True),
        ({"size": {"lte": 999}}, False), ({"size": {"in": [999, 1000]}}, True), ({"size": {"exists": True}}, True),
    ],
)  # fmt: skip
def test_the_entrys_own_fields_can_be_asked_for(where: dict[str, Any], expected: bool) -> None:
    assert matches(where) is expected


# --- times ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "same_instant",
    [
        DAY, DAY.replace(tzinfo=None), DAY.astimezone(EAST), "2025-03-01T12:00:00Z", "2025-03-01T12:00:00",
        "2025-03-01 12:00:00.000", "2025-03-01T17:30:00+05:30", "20250301T120000Z",
    ],
)  # fmt: skip
@pytest.mark.parametrize("field", ["created_at", "updated_at"])
def test_times_of_an_entry_are_compared_as_instants(field: str, same_instant: Any) -> None:
    expected = {"eq": True, "ne": False, "gt": False, "gte": True, "lt": False, "lte": True}
    for op, answer in expected.items():
        assert matches({field: {op: same_instant}}) is answer
    assert matches({field: same_instant}) is True
    assert matches({field: {"in": [same_instant]}}) is True


def test_days_bound_a_range() -> None:
    assert matches({"created_at": {"gte": "2025-03-01", "lt": "2025-03-02"}}) is True
    assert matches({"created_at": {"gte": "2025-03-02"}}) is False
    assert matches({"created_at": {"prefix": "2025-03"}}) is True


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("2025-03-01T12:00:00Z", True), ("2025-03-01T12:00:00", True), ("2025-03-01T17:30:00+05:30", True),
        ("2025-03-01T12:00:00.000001Z", False), ("2025-03-01T12:00:00+05:30", False),
    ],
)  # fmt: skip
@pytest.mark.parametrize("operand", [DAY, DAY.replace(tzinfo=None), DAY.astimezone(EAST)])
def test_metadata_is_compared_with_a_datetime_as_an_instant(text: str, instant: bool, operand: datetime) -> None:
    assert matches({"metadata.at": operand}, at=text) is instant
    assert matches({"metadata.at": {"ne": operand}}, at=text) is not instant
    assert matches({"metadata.at": {"in": [operand]}}, at=text) is instant
    assert matches({"metadata.at": {"contains": operand}}, at=[text]) is instant
    if instant:
        assert matches({"metadata.at": {"gte": operand, "lte": operand}}, at=text) is True
        assert matches({"metadata.at": {"gt": operand}}, at=text) is False
        assert matches({"metadata.at": {"lt": operand + timedelta(microseconds=1)}}, at=text) is True


@pytest.mark.parametrize("value", ["yesterday", "", 0, None, True, [], {}, 1740830400])
def test_metadata_that_is_no_time_meets_no_condition_with_a_datetime(value: Any) -> None:
    for op in ("eq", "gt", "gte", "lt", "lte", "contains"):
        assert matches({"metadata.at": {op: DAY}}, at=value) is False
    assert matches({"metadata.at": {"ne": DAY}}, at=value) is True


def test_text_is_compared_with_text_as_text() -> None:
    assert matches({"metadata.at": {"gte": "2025-03-01T12:00:00Z"}}, at="2025-03-01T12:00:00+00:00") is False


# --- metadata that did not fit --------------------------------------------------------------------------------------


@pytest.mark.parametrize("op", ["eq", "ne", "in", "gt", "gte", "lt", "lte", "prefix", "contains", "exists"])
def test_a_condition_on_metadata_that_was_cut_is_for_the_document_to_answer(op: str) -> None:
    operand: Any = {"in": ["a"], "exists": True}.get(op, "a")
    cut = entry(truncated=True, metadata={"kept": "a", "nested": {"x": "a"}})
    assert parse_where({"metadata.gone": {op: operand}}).matches(cut) is None
    assert parse_where({"metadata.gone.x": {op: operand}}).matches(cut) is None
    # The whole metadata may have the dotted path as a key, which would come first.
    assert parse_where({"metadata.nested.x": {op: operand}}).matches(cut) is None
    assert parse_where({"metadata.kept": {op: operand}}).matches(cut) is not None


def test_one_condition_that_fails_settles_it_whatever_was_cut() -> None:
    cut = entry(truncated=True, metadata={"kept": 1})
    assert parse_where({"metadata.gone": 1, "metadata.kept": 2}).matches(cut) is False
    assert parse_where({"metadata.kept": 2, "metadata.gone": 1}).matches(cut) is False
    assert parse_where({"metadata.kept": 1, "metadata.gone": 1}).matches(cut) is None
    assert parse_where({"message_count": 4}).matches(cut) is True


# --- which partition ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "partition"),
    [
        ({"metadata.u": "alice"}, '"alice"'), ({"metadata.u": "ü\n"}, '"ü\\n"'), ({"metadata.u": True}, "true"),
        ({"metadata.u": {"eq": None}}, "null"), ({"metadata.u": {"eq": "alice", "ne": "bob"}}, '"alice"'),
        ({"metadata.u": 5}, None), ({"metadata.u": [1]}, None), ({"metadata.u": {"ne": "alice"}}, None),
        ({"metadata.u": {"prefix": "alice"}}, None), ({"metadata.v": "alice"}, None), ({}, None),
        ({"metadata.u": DAY}, None), ({"metadata.u": {"in": ["alice"]}}, None),
    ],
)  # fmt: skip
def test_equality_with_a_text_a_boolean_or_null_fixes_the_partition(
    where: dict[str, Any], partition: str | None
) -> None:
    assert parse_where(where).partition("metadata.u") == partition
    assert parse_where(where).partition(None) is None


# --- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "field", ["", "user_id", "metadata", "metadata.", "revision", "Created_at", "-updated_at", "deleted"]
)
def test_an_unknown_field_is_refused_and_the_known_ones_are_named(field: str) -> None:
    for use in (check_field, lambda name: parse_where({name: 1}), parse_order):
        if use is parse_order and field.startswith("-"):
            continue
        with pytest.raises(InvalidInputError, match=r"not known: expected .*metadata\.<path>"):
            use(field)


@pytest.mark.parametrize("field", [None, 5, ("metadata.x",), b"metadata.x"])
def test_a_field_that_is_no_text_is_refused(field: Any) -> None:
    with pytest.raises(InvalidInputError):
        parse_where({field: 1})
    with pytest.raises(InvalidInputError):
        parse_order(field)


@pytest.mark.parametrize("op", ["=", "$gt", "EQ", "like", "", "not", None, 5])
def test_an_unknown_operator_is_refused_and_the_known_ones_are_named(op: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"metadata\.x.*eq, ne, in, gt, gte, lt, lte, prefix, contains, exists"):
        parse_where({"metadata.x": {op: 1}})


@pytest.mark.parametrize(
    ("field", "op", "operand"),
    [
        ("metadata.x", "in", "abc"), ("metadata.x", "in", 5), ("metadata.x", "in", {"a": 1}), ("metadata.x", "in",
        None),
        ("metadata.x", "in", b"abc"), ("metadata.x", "exists", 1), ("metadata.x", "exists", "true"),
        ("metadata.x", "exists", None), ("metadata.x", "prefix", 5), ("metadata.x", "prefix", None),
        ("metadata.x", "prefix", ["a"]), ("metadata.x", "eq", float("nan")), ("metadata.x", "eq", {1, 2}),
        ("metadata.x", "eq", b"a"), ("metadata.x", "eq", object()), ("metadata.x", "gt", "\ud800"),
        ("metadata.x", "contains", {1}), ("metadata.x", "in", [1, {2}]), ("metadata.x", "in", [object()]),
        ("metadata.x", "eq", [DAY]), ("created_at", "eq", "yesterday"), ("created_at", "gte", 1740830400),
        ("created_at", "lt", None), ("updated_at", "in", ["2025-03-01", "x"]), ("updated_at", "ne", True),
        ("updated_at", "prefix", DAY),
    ],
)  # fmt: skip
def test_an_operand_that_cannot_be_used_is_refused_with_its_place(field: str, op: str, operand: Any) -> None:
    with pytest.raises(InvalidInputError, match=f"where: {field} {op}|where: {field} eq"):
        parse_where({field: {op: operand}})


@pytest.mark.parametrize("where", [[], "metadata.x=1", 5, [("metadata.x", 1)]])
def test_a_filter_that_is_no_mapping_is_refused(where: Any) -> None:
    with pytest.raises(InvalidInputError, match=f"where: .*{type(where).__name__}"):
        parse_where(where)


# --- orders ---------------------------------------------------------------------------------------------------------


def sorted_ids(entries: list[Entry], order: str) -> list[str]:
    parsed = parse_order(order)
    placed = []
    for one in entries:
        position = parsed.position(one)
        assert position is not None
        placed.append((position, one))
    parsed.sort(placed)
    return [one.conversation_id for _, one in placed]


def test_an_order_is_a_field_and_a_direction() -> None:
    assert parse_order("updated_at") == Order("updated_at", descending=False)
    assert parse_order("-metadata.a.b") == Order("metadata.a.b", descending=True)
    assert str(parse_order("-size")) == "-size"
    assert DEFAULT_ORDER == "-updated_at"


@pytest.mark.parametrize("order", ["", "-", "--size", "+size", " size", "nothing"])
def test_an_order_by_nothing_that_is_known_is_refused(order: str) -> None:
    with pytest.raises(InvalidInputError, match="not known"):
        parse_order(order)


def test_values_of_all_types_have_one_order() -> None:
    values: list[Any] = [None, False, True, -1, 0.5, 1, 10, "", "1", "Z", "a", "ü", "🌳", [1], [], {}]
    entries = [entry("missing"), *(entry(repr(value), metadata={"x": value}) for value in values)]
    expected = ["missing", *map(repr, values)]
    assert sorted_ids(entries[::-1], "metadata.x") == expected
    assert sorted_ids(entries, "-metadata.x") == expected[::-1]


@pytest.mark.parametrize("order", ["size", "-size", "metadata.x", "-metadata.x"])
def test_equal_values_are_ordered_by_id_either_way(order: str) -> None:
    entries = [entry(name, metadata={"x": 1}) for name in ["b", "ü", "a", "B", "🌳"]]
    assert sorted_ids(entries, order) == ["B", "a", "b", "ü", "🌳"]


def test_one_number_is_one_place_however_it_is_written() -> None:
    entries = [entry("b", metadata={"x": 1}), entry("a", metadata={"x": 1.0})]
    assert sorted_ids(entries, "-metadata.x") == ["a", "b"]


def test_the_place_by_metadata_that_was_cut_is_for_the_document_to_tell() -> None:
    assert parse_order("metadata.gone").position(entry(truncated=True)) is None
    assert parse_order("size").position(entry(truncated=True)) is not None


# --- cursors --------------------------------------------------------------------------------------------------------


def cursor_after(one: Entry, where: Filter, order: Order) -> str:
    position = order.position(one)
    assert position is not None
    return Cursor(list_hash(where, order), position, one.conversation_id).encode()


entries = st.builds(
    lambda conversation_id, messages, updated, metadata: entry(
        conversation_id, messages=messages, updated=updated, metadata=metadata
    ),
    st.text(st.characters(codec="utf-8"), min_size=1, max_size=4),
    st.integers(0, 3),
    st.datetimes(DAY.replace(tzinfo=None), datetime(2025, 3, 1, 12, 0, 0, 3)),
    st.just({}) | st.fixed_dictionaries({"x": json_values | st.sampled_from([1, 1.0, True, "a", None])}),
)
orders = st.sampled_from(
    ["updated_at", "-updated_at", "message_count", "-message_count", "conversation_id", "-conversation_id",
    "metadata.x",
     "-metadata.x"]
)  # fmt: skip


@given(st.lists(entries, max_size=12, unique_by=lambda one: one.conversation_id), orders, st.integers(1, 4))
def test_pages_joined_by_cursors_have_each_entry_once_in_order(rows: list[Entry], order: str, limit: int) -> None:
    where, parsed = parse_where(None), parse_order(order)
    placed = [(position, one) for one in rows if (position := parsed.position(one)) is not None]
    pages: list[str] = []
    after: str | None = None
    while True:
        page = list(placed)
        if after is not None:
            cursor = parse_cursor(after, list_hash(where, parsed), parsed)
            page = [(at, one) for at, one in page if parsed.follows(at, one.conversation_id, cursor)]
        parsed.sort(page)
        if not page:
            break
        pages += [one.conversation_id for _, one in page[:limit]]
        after = cursor_after(page[:limit][-1][1], where, parsed)
    assert pages == sorted_ids(rows, order)


@given(entries, orders)
def test_a_cursor_comes_back_the_same_and_can_stand_in_a_url(one: Entry, order: str) -> None:
    where, parsed = parse_where({"message_count": {"gte": 0}}), parse_order(order)
    text = cursor_after(one, where, parsed)
    assert set(text) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
    cursor = parse_cursor(text, list_hash(where, parsed), parsed)
    position = parsed.position(one)
    assert (cursor.position, cursor.conversation_id) == (position, one.conversation_id)
    assert cursor.encode() == text


LISTS: list[tuple[dict[str, Any] | None, str]] = [
    (None, "-updated_at"), (None, "updated_at"), (None, "-created_at"), ({"metadata.x": 1}, "-updated_at"),
    ({"metadata.x": "1"}, "-updated_at"), ({"metadata.x": True}, "-updated_at"), ({"metadata.x": {"ne": 1}},
    "-updated_at"),
    ({"metadata.y": 1}, "-updated_at"), ({"metadata.x": [1, 2]}, "-updated_at"), ({"metadata.x": [2, 1]},
    "-updated_at"),
    ({"metadata.x": {"in": [1, 2]}}, "-updated_at"), ({"metadata.x": {"in": ["1,2"]}}, "-updated_at"),
    ({"metadata.x": DAY}, "-updated_at"), ({"metadata.x": index_time(DAY)}, "-updated_at"),
    ({"metadata.x": f"instant {index_time(DAY)}"}, "-updated_at"), ({"metadata.x": [["1", "2"]]}, "-updated_at"),
    ({"metadata.x": ["1", "2"]}, "-updated_at"), ({"metadata.x": ['1","2']}, "-updated_at"),
]  # fmt: skip


def test_every_list_has_a_hash_of_its_own() -> None:
    hashes = [list_hash(parse_where(where), parse_order(order)) for where, order in LISTS]
    assert len(set(hashes)) == len(LISTS)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"metadata.x": 1, "size": 2}, {"size": 2, "metadata.x": 1}),
        ({"metadata.x": 1}, {"metadata.x": {"eq": 1}}),
        ({"size": {"gte": 1, "lt": 5}}, {"size": {"lt": 5, "gte": 1}}),
        ({"updated_at": {"gte": DAY}}, {"updated_at": {"gte": "2025-03-01T17:30:00+05:30"}}),
        ({"metadata.x": {"eq": DAY}}, {"metadata.x": {"eq": DAY.astimezone(EAST)}}),
        ({"metadata.x": {"in": ["a", "b", "c"]}}, {"metadata.x": {"in": {"c", "b", "a"}}}),
        ({"metadata.x": {"in": ["a", "b", 1]}}, {"metadata.x": {"in": (1, "b", "a")}}),
    ],
)
def test_the_same_list_has_the_same_hash_however_it_is_asked_for(one: dict[str, Any], other: dict[str, Any]) -> None:
    order = parse_order("-updated_at")
    assert list_hash(parse_where(one), order) == list_hash(parse_where(other), order)


def test_the_cursor_of_another_list_is_refused() -> None:
    text = cursor_after(entry(), parse_where(None), parse_order("-updated_at"))
    for where, order in LISTS[1:]:
        with pytest.raises(InvalidInputError, match="another filter or order"):
            parse_cursor(text, list_hash(parse_where(where), parse_order(order)), parse_order(order))


@given(st.text() | st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"))
def test_any_other_text_is_refused_as_a_cursor(text: str) -> None:
    with pytest.raises(InvalidInputError, match="after: "):
        parse_cursor(text, "0" * 16, parse_order("size"))


@pytest.mark.parametrize("text", [None, 5, b"x", ["x"], "", "=", "ü", "\ud800"])
def test_what_is_no_cursor_is_refused(text: Any) -> None:
    with pytest.raises(InvalidInputError, match="expected a cursor from an earlier page"):
        parse_cursor(text, "0" * 16, parse_order("size"))


def forged(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


@given(st.integers(-1, 6) | json_values, json_values, st.text(st.characters(codec="utf-8"), max_size=3), orders)
def test_a_forged_cursor_is_refused_or_can_be_compared_with_any_entry(
    rank: Any, position: Any, conversation_id: str, order: str
) -> None:
    parsed = parse_order(order)
    expected = list_hash(parse_where(None), parsed)
    try:
        cursor = parse_cursor(forged([expected, rank, position, conversation_id]), expected, parsed)
    except InvalidInputError:
        return
    values: list[Any] = [None, True, 1, 1.5, "a", [], {}]
    for value in values:
        at = parsed.position(entry(metadata={"x": value}))
        assert at is not None
        assert parsed.follows(at, "c", cursor) in (True, False)
    missing = parsed.position(entry())
    assert missing is not None
    assert parsed.follows(missing, "c", cursor) in (True, False)


@pytest.mark.parametrize(
    "value", [None, {}, [], ["0" * 16], ["0" * 16, 4, "x"], ["0" * 16, 4, "x", "c", 1], ["0" * 16, "4", "x", "c"],
              ["0" * 16, 4, 5, "c"], ["0" * 16, 3, "5", "c"], ["0" * 16, 9, "x", "c"], ["0" * 16, -1, "x", "c"],
              ["0" * 16, 4, "x", 5], [0, 4, "x", "c"], ["0" * 16, 0, "x", "c"], ["0" * 16, 1, None, "c"],
              ["0" * 16, 2, 1, "c"], ["0" * 16, 3, True, "c"]],
)  # fmt: skip
def test_a_cursor_with_parts_of_a_wrong_type_is_refused(value: Any) -> None:
    with pytest.raises(InvalidInputError, match="expected a cursor from an earlier page"):
        parse_cursor(forged(value), "0" * 16, parse_order("metadata.x"))
