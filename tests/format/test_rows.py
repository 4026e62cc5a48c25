"""Rows: a line comes back as its entry, its key is known without it, and no search by bytes misses one that matches."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3conv.errors import CorruptError
from s3conv.format.codec import MAX_DEPTH, to_json
from s3conv.format.entry import Entry, index_time, partition_metadata, sort_key
from s3conv.format.filters import Filter, parse_where
from s3conv.format.rows import TRUNCATED, Row, RowReader, decode_row, encode_row, lines_with
from tests.format.mutating import HOSTILE, damaged, refused_only_as
from tests.strategies import as_json, hostile_ids, json_objects, json_values, naive_times, names, texts

CREATED = "2026-01-31T12:00:00.000000Z"
UPDATED = "2026-02-01T00:00:00.000001Z"
LINE = (
    '{"conversation_id":"c/ü","revision":3,"created_at":"2026-01-31T12:00:00.000000Z",'
    '"updated_at":"2026-02-01T00:00:00.000001Z","schema_version":"1.1.0","message_count":4,"branch_count":2,'
    '"size":100,"metadata":{"user_id":"Zoë \\"Z\\" \\\\","n":1.0}}'
).encode()

PATHS = (
    None,
    "metadata.user_id",
    "metadata.a.b",
    "metadata.a.b.c",
    "metadata..",
    "metadata.a.",
    "metadata.ключ",
    "metadata.\n",
    'metadata."a"\\.b',
)
"""By which an archive may be partitioned."""


def entry(**fields: Any) -> Entry:
    given: dict[str, Any] = {"conversation_id": "c", "revision": 1, "created": CREATED, "updated": UPDATED, **fields}
    return Entry(schema_version="1.1.0", message_count=1, branch_count=1, size=9, **{"metadata": {}, **given})


index_times = st.builds(index_time, naive_times)
partition_names = (
    st.sampled_from(("user_id", "a", "a.b", "a.b.c", "b", "c", "", ".", "b.c", "ключ", "\n", '"a"\\', '"a"\\.b'))
    | names
)
metadata = json_objects | st.dictionaries(
    partition_names,
    json_values | st.dictionaries(partition_names, json_values | st.dictionaries(partition_names, json_values)),
    max_size=3,
)
entries = st.builds(
    Entry,
    conversation_id=hostile_ids,
    revision=st.integers(1, 10**17),
    created=index_times,
    updated=index_times,
    schema_version=texts,
    message_count=st.integers(0, 2**63 - 1),
    branch_count=st.integers(0, 2**63 - 1),
    size=st.integers(0, 2**63 - 1),
    metadata=metadata,
    metadata_truncated=st.booleans(),
    deleted=st.booleans(),
    moved=st.booleans(),
    location=st.none() | json_objects,
)
paths = st.sampled_from(PATHS)


# --- lines ----------------------------------------------------------------------------------------------------------


def test_the_line_of_an_entry_is() -> None:
    known = Entry(
        conversation_id="c/ü",
        revision=3,
        created=CREATED,
        updated=UPDATED,
        schema_version="1.1.0",
        message_count=4,
        branch_count=2,
        size=100,
        metadata={"user_id": 'Zoë "Z" \\', "n": 1.0},
    )
    assert encode_row(known) == LINE
    assert decode_row(LINE, "it") == known


@given(entries)
def test_an_entry_is_one_line_of_canonical_json_and_comes_back(known: Entry) -> None:
    line = encode_row(known)
    assert b"\n" not in line
    assert to_json(json.loads(line), "it", MAX_DEPTH + 8) == line
    again = decode_row(line, "it")
    assert again == known
    assert as_json(again.to_dict()) == as_json(known.to_dict())
    assert encode_row(again) == line


def test_metadata_as_deep_as_a_document_may_have_it_comes_back() -> None:
    value: Any = "x"
    for _ in range(MAX_DEPTH):
        value = [value]
    known = entry(metadata={"a": {"b": 1}, "deep": value})
    line = encode_row(known)
    assert decode_row(line, "it") == known
    assert RowReader("metadata.a.b").rows([line], "it")[0].key == ("1", CREATED, "c")


def test_a_field_that_is_not_known_is_passed_over() -> None:
    line = LINE[:-1] + b',"colour":{"a":[1]}}'
    assert decode_row(line, "it") == decode_row(LINE, "it")
    assert RowReader("metadata.user_id").rows([line], "it")[0].key == ('"Zoë \\"Z\\" \\\\"', CREATED, "c/ü")


# --- keys -----------------------------------------------------------------------------------------------------------


@given(st.lists(entries, max_size=4), paths)
def test_a_reader_tells_of_each_line_what_its_entry_says(known: list[Entry], partition_by: str | None) -> None:
    lines = [encode_row(one) for one in known]
    assert RowReader(partition_by).rows(lines, "it") == [
        Row(sort_key(one, partition_by), one.revision, one.updated, one.deleted or one.moved, line)
        for one, line in zip(known, lines, strict=True)
    ]


@given(json_values, paths)
def test_a_row_that_only_shadows_keeps_the_partition_of_the_row_it_shadows(
    value: Any, partition_by: str | None
) -> None:
    partition = "null" if partition_by is None else to_json(value, "it").decode()
    gone = entry(metadata=partition_metadata(partition, partition_by), moved=True)
    (row,) = RowReader(partition_by).rows([encode_row(gone)], "it")
    assert row.key == (partition, CREATED, "c")
    assert row.gone


@pytest.mark.parametrize(
    ("held", "partition"),
    [
        ({}, "null"),
        ({"user": None}, "null"),
        ({"user": "alice"}, "null"),
        ({"user": {"id": "alice"}}, '"alice"'),
        ({"user.id": "bob", "user": {"id": "alice"}}, '"bob"'),
        ({"user.id": None, "user": {"id": "alice"}}, "null"),
        ({"user": {"id": 5}}, "5"),
        ({"user": {"id": "5"}}, '"5"'),
        ({"user": {"id": 5.0}}, "5.0"),
        ({"user": {"id": ["a", {"ü": True}]}}, '["a",{"ü":true}]'),
        ({"user": ["id"]}, "null"),
    ],
)
def test_the_partition_is_found_as_one_key_first_and_then_along_the_path(held: dict[str, Any], partition: str) -> None:
    (row,) = RowReader("metadata.user.id").rows([encode_row(entry(metadata=held))], "it")
    assert row.key == (partition, CREATED, "c")


# --- what is no row -------------------------------------------------------------------------------------------------

FIELDS: dict[str, Any] = json.loads(LINE)
OF_THE_KEY = ("conversation_id", "revision", "created_at", "updated_at", "metadata")


@pytest.mark.parametrize("missing", list(FIELDS))
def test_a_line_without_a_field_is_corrupt_and_the_object_is_named(missing: str) -> None:
    line = to_json({name: value for name, value in FIELDS.items() if name != missing}, "it")
    with pytest.raises(CorruptError, match=rf"^the object: a line is no entry: .*{missing}"):
        decode_row(line, "the object")
    if missing in OF_THE_KEY:
        with pytest.raises(CorruptError, match=rf"^the object: a line is no entry: .*{missing}"):
            RowReader("metadata.user_id").rows([LINE, line], "the object")


@pytest.mark.parametrize("name", list(FIELDS))
@pytest.mark.parametrize("wrong", HOSTILE, ids=repr)
def test_a_field_of_the_wrong_type_is_corrupt_and_the_object_is_named(name: str, wrong: Any) -> None:
    if type(wrong) is type(FIELDS[name]):
        return
    line = to_json({**FIELDS, name: wrong}, "it")
    with pytest.raises(CorruptError, match=r"^the object: a line is no entry: "):
        decode_row(line, "the object")
    if name in OF_THE_KEY:
        with pytest.raises(CorruptError, match=r"^the object: a line is no entry: "):
            RowReader("metadata.user_id").rows([line], "the object")


@pytest.mark.parametrize("flag", ["deleted", "moved", "metadata_truncated"])
@pytest.mark.parametrize("wrong", [None, 0, 1, "true", [], {}])
def test_a_flag_is_true_or_false(flag: str, wrong: Any) -> None:
    line = to_json({**FIELDS, flag: wrong}, "it")
    with pytest.raises(CorruptError, match=r"^the object: a line is no entry: "):
        decode_row(line, "the object")
    if flag != "metadata_truncated":
        with pytest.raises(CorruptError, match=r"^the object: a line is no entry: "):
            RowReader(None).rows([line], "the object")


@pytest.mark.parametrize(
    "change",
    [
        {"conversation_id": ""},
        {"conversation_id": "x" * 1025},
        {"revision": 0},
        {"revision": -1},
        {"created_at": "2026-01-31T12:00:00Z"},
        {"created_at": "2026-01-31T12:00:00.000000+"},
        {"created_at": "2026-02-30T12:00:00.000000Z"},
        {"updated_at": "2026-01-31 12:00:00.000000Z"},
        {"updated_at": "2026-01-31T12:00:00,000000Z"},
        {"updated_at": ""},
    ],
)
def test_a_value_that_cannot_be_relied_on_is_corrupt_and_the_object_is_named(change: dict[str, Any]) -> None:
    with pytest.raises(CorruptError, match=r"^the object: a line is no entry: "):
        decode_row(to_json({**FIELDS, **change}, "it"), "the object")


INSIDE = [b'{"b":"\\ud800"}', b'{"b":1e400}', b'{"b":"\xff"}', b'{"c":"\xff","b":1}', b"[" * 50_000 + b"]" * 50_000]


@pytest.mark.parametrize("value", INSIDE, ids=lambda value: repr(value[:20]))
@pytest.mark.parametrize("partition_by", ["metadata.a.b", "metadata.a.b.c", "metadata.a.c"])
def test_metadata_that_cannot_be_read_is_corrupt_and_the_object_is_named(partition_by: str, value: bytes) -> None:
    line = to_json({**FIELDS, "metadata": {"a": 0}}, "it").replace(b'"a":0', b'"a":' + value)
    with pytest.raises(CorruptError, match=r"^the object: a line is no entry: "):
        RowReader(partition_by).rows([line], "the object")
    with pytest.raises(CorruptError, match=r"^the object: a line is no entry: "):
        decode_row(line, "the object")


@given(damaged(FIELDS), paths)
def test_of_a_hostile_row_both_readers_say_the_same_or_that_it_is_corrupt(value: Any, partition_by: str | None) -> None:
    line = to_json(value, "it")
    row = known = None
    with refused_only_as(CorruptError, named="the object"):
        (row,) = RowReader(partition_by).rows([line], "the object")
    with refused_only_as(CorruptError, named="the object"):
        known = decode_row(line, "the object")
    if known is not None:
        assert row == Row(
            sort_key(known, partition_by), known.revision, known.updated, known.deleted or known.moved, line
        )


@given(
    st.binary(max_size=40)
    | st.builds(
        lambda at, byte: LINE[:at] + byte + LINE[at + 1 :], st.integers(0, len(LINE) - 1), st.binary(max_size=2)
    ),
    paths,
)
def test_any_bytes_are_a_row_or_corrupt(line: bytes, partition_by: str | None) -> None:
    with refused_only_as(CorruptError, named="the object"):
        RowReader(partition_by).rows([line], "the object")
    with refused_only_as(CorruptError, named="the object"):
        decode_row(line, "the object")


def test_a_line_that_was_cut_short_is_corrupt_wherever_it_ends() -> None:
    for length in range(len(LINE)):
        with pytest.raises(CorruptError, match=r"^the object: a line is no entry: "):
            decode_row(LINE[:length], "the object")
        with pytest.raises(CorruptError, match=r"^the object: a line is no entry: "):
            RowReader(None).rows([LINE[:length]], "the object")


# --- blocks ---------------------------------------------------------------------------------------------------------


def text_of(lines: Sequence[bytes]) -> bytes:
    return b"".join(line + b"\n" for line in lines)


@given(st.lists(entries, min_size=1, max_size=5), paths)
def test_the_rows_of_a_block_come_in_the_order_of_their_keys_and_in_no_other(
    known: list[Entry], partition_by: str | None
) -> None:
    by_key = {sort_key(one, partition_by): encode_row(one) for one in known}
    lines = [by_key[key] for key in sorted(by_key)]
    assert [row.key for row in RowReader(partition_by).block(text_of(lines), "it")] == sorted(by_key)
    for wrong in ([*lines, lines[-1]], [lines[0], *lines], lines[::-1] if len(lines) > 1 else [lines[0]] * 2):
        with pytest.raises(CorruptError, match=r"^the object: the rows of a block are not in order; "):
            RowReader(partition_by).block(text_of(wrong), "the object")


@pytest.mark.parametrize("text", [b"\n", b"\n\n", LINE + b"\n\n", b"\n" + LINE + b"\n", LINE + b"," + LINE + b"\n"])
def test_a_block_has_one_entry_in_each_line(text: bytes) -> None:
    with pytest.raises(CorruptError, match=r"^the object: a line is no entry: "):
        RowReader(None).block(text, "the object")


# --- searching by bytes ---------------------------------------------------------------------------------------------

# Few characters, among them all that JSON escapes or that separate its parts, so that what is searched for also occurs
# across, inside and beside what holds it.
tricky = st.text(st.sampled_from('"\\/\n\r\t\0\x1f\x7f{}[]:, abnu0é\u2028🌳'), max_size=3) | st.sampled_from(
    ['"metadata_truncated":true', "metadata_truncated", '"', '\\"', "\\", "\\\\", "\\n", "\n", "", "null", "a", CREATED]
)
tricky_values: st.SearchStrategy[Any] = st.recursive(
    tricky | st.sampled_from([None, True, 5, 1.0]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("ab") | tricky, inner, max_size=2),
    max_leaves=4,
)
searched = st.builds(
    entry,
    conversation_id=tricky.filter(bool),
    created=st.sampled_from([CREATED, UPDATED]),
    metadata=st.dictionaries(st.sampled_from(["a", "b", "a.b"]) | tricky, tricky_values, max_size=3),
    metadata_truncated=st.sampled_from([False, False, False, True]),
    deleted=st.booleans(),
)
FILTERED = ("metadata.a", "metadata.b", "metadata.a.b", "metadata.a.a", "metadata.", "conversation_id")


@st.composite
def searches(draw: st.DrawFn) -> tuple[list[Entry], Filter]:
    """Entries, and conditions of which many match one of them."""
    held = draw(st.lists(searched, max_size=6))
    present = [text for one in held for text in texts_in([one.metadata, one.conversation_id])]
    operands = tricky | st.sampled_from(present) if present else tricky
    where: dict[str, Any] = {}
    for field in draw(st.lists(st.sampled_from(FILTERED).filter(lambda name: name != "metadata."), max_size=3)):
        where[field] = {"eq": draw(operands | tricky_values)}
    if draw(st.booleans()):
        where["created_at"] = draw(st.sampled_from([CREATED, UPDATED, "2026-01-31T13:00:00+01:00"]))
    if draw(st.booleans()):
        where["metadata.b"] = draw(st.sampled_from([{"ne": "a"}, {"exists": True}, {"in": ["a", ""]}, {"prefix": "a"}]))
    return held, parse_where(where)


def texts_in(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [text for one in inner for text in texts_in(one)]


@given(searches())
def test_a_search_by_bytes_finds_every_row_that_the_filter_matches(search: tuple[list[Entry], Filter]) -> None:
    held, where = search
    lines = [encode_row(one) for one in held]
    found = list(lines_with(text_of(lines), where.needles())) if lines else []
    remaining = iter(lines)
    assert all(line in remaining for line in found), "not in their order, or twice, or changed"
    for one, line in zip(held, lines, strict=True):
        if where.matches(one) is not False:
            assert line in found


@given(st.lists(searched, min_size=1, max_size=6), st.lists(tricky | st.sampled_from(["user_id", "a"]), max_size=3))
def test_a_search_by_bytes_finds_the_lines_with_all_needles_and_those_whose_metadata_was_cut(
    held: list[Entry], wanted: list[str]
) -> None:
    lines = [encode_row(one) for one in held]
    needles = [to_json(text, "it") for text in wanted]
    assert list(lines_with(text_of(lines), needles)) == [
        line for line in lines if not needles or TRUNCATED in line or all(needle in line for needle in needles)
    ]
    assert all(TRUNCATED in encode_row(one) for one in held if one.metadata_truncated)


@given(json_objects, st.sampled_from(["a", "ü", "user_id"]), texts)
def test_a_text_that_has_to_be_equal_is_found_whatever_it_is(others: dict[str, Any], name: str, text: str) -> None:
    line = encode_row(entry(metadata={**others, name: text}))
    where = parse_where({f"metadata.{name}": {"eq": text}})
    assert list(lines_with(b"{}\n" + line + b"\n{}\n", where.needles())) == [line]


def test_a_row_whose_metadata_was_cut_is_found_with_any_needle_and_a_text_that_says_so_is_not() -> None:
    cut = encode_row(entry(metadata_truncated=True))
    says_so = encode_row(entry(metadata={"a": '"metadata_truncated":true'}))
    plain = encode_row(entry(metadata={"a": "x"}))
    assert list(lines_with(text_of([cut, says_so, plain]), [b'"nowhere"'])) == [cut]
    assert list(lines_with(text_of([plain, says_so, cut]), [b'"x"'])) == [plain, cut]
