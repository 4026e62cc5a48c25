"""Entries, intents and batches: what a row of the index says, and that it survives the log."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3conv.errors import CorruptError, InvalidInputError, UnsupportedFormatError
from s3conv.format.codec import compress, decompress, to_json
from s3conv.format.entry import (
    BATCH,
    MAX_LOG_OBJECT,
    MAX_METADATA,
    MAX_PARTITION,
    MISSING,
    Entry,
    Intent,
    Replaces,
    check_entry,
    check_partition_by,
    decode_log_object,
    encode_batch,
    encode_intent,
    entry_of,
    index_time,
    lookup,
    partition_of,
    partition_only,
    read_index_time,
    sort_key,
)
from s3conv.model.state import ConversationState
from tests.format.mutating import HOSTILE, damaged, refused_only_as
from tests.strategies import as_json, json_objects, states, times

DAY = datetime(2025, 3, 1, tzinfo=UTC)


def start(**metadata: Any) -> ConversationState:
    state = ConversationState.start("c", system="x", metadata=metadata)
    state.created_at = DAY
    state.updated_at = DAY + timedelta(days=1)
    return state


def entry(partition_by: str | None = None, **metadata: Any) -> Entry:
    return entry_of(start(**metadata), 3, 100, partition_by)


def json_size(value: object) -> int:
    return len(to_json(value, "it"))


# --- fields ---------------------------------------------------------------------------------------------------------


def test_an_entry_says_what_the_index_answers() -> None:
    state = start(user_id="alice")
    state.add_message("user", "a")
    state.add_message("assistant", "b")
    state.add_message("assistant", "c", parent="0")
    state.updated_at = datetime(2025, 3, 2, 1, 2, 3, 4)
    said = entry_of(state, 3, 100, "metadata.user_id")
    assert said.to_dict() == {
        "conversation_id": "c",
        "revision": 3,
        "created_at": "2025-03-01T00:00:00.000000Z",
        "updated_at": "2025-03-02T01:02:03.000004Z",
        "schema_version": "1.1.0",
        "message_count": 4,
        "branch_count": 2,
        "size": 100,
        "metadata": {"user_id": "alice"},
    }
    assert said.created_at == DAY
    assert said.updated_at == datetime(2025, 3, 2, 1, 2, 3, 4, tzinfo=UTC)


def test_a_row_says_deleted_moved_and_location_where_it_has_to() -> None:
    row = msgspec.structs.replace(entry(), deleted=True, moved=True, location={"pack": "p"}).to_dict()
    assert (row["deleted"], row["moved"], row["location"]) == (True, True, {"pack": "p"})
    assert not {"deleted", "moved", "location", "metadata_truncated"} & entry().to_dict().keys()


@given(states())
def test_an_entry_counts_messages_and_leaves(state: ConversationState) -> None:
    said = entry_of(state, 1, 1, None)
    assert said.message_count == sum(1 for _ in state.message_tree.walk())
    assert said.branch_count == len(state.leaves())
    assert said.conversation_id == state.conversation_id
    assert said.schema_version == state.schema_version
    assert check_entry(said) is said


def test_an_entry_does_not_change_when_the_state_does() -> None:
    state = start(tags=["a"], nested={"a": 1})
    said = entry_of(state, 1, 1, None)
    state.metadata["tags"].append("b")
    state.metadata["nested"]["a"] = 2
    state.metadata["new"] = 1
    assert said.metadata == {"tags": ["a"], "nested": {"a": 1}}


# --- times ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("time", "expected"),
    [
        (datetime(2026, 1, 31, 12), "2026-01-31T12:00:00.000000Z"),
        (datetime(2026, 1, 31, 12, tzinfo=UTC), "2026-01-31T12:00:00.000000Z"),
        (datetime(2026, 1, 31, 12, 0, 0, 1, timezone(timedelta(hours=5, minutes=30))), "2026-01-31T06:30:00.000001Z"),
        (datetime(2026, 1, 31, 12, tzinfo=timezone(-timedelta(seconds=1))), "2026-01-31T12:00:01.000000Z"),
        (datetime.min, "0001-01-01T00:00:00.000000Z"),
        (datetime.max, "9999-12-31T23:59:59.999999Z"),
        (datetime(999, 1, 1), "0999-01-01T00:00:00.000000Z"),
        (datetime.min.replace(tzinfo=timezone(timedelta(hours=14))), "0001-01-01T00:00:00.000000Z"),
        (datetime.max.replace(tzinfo=timezone(-timedelta(hours=12))), "9999-12-31T23:59:59.999999Z"),
    ],
)
def test_the_index_writes_an_instant_as(time: datetime, expected: str) -> None:
    assert index_time(time) == expected


@given(times, times)
def test_index_times_have_one_width_and_compare_as_the_instants_do(one: datetime, other: datetime) -> None:
    first, second = index_time(one), index_time(other)
    assert len(first) == len(second) == 27
    instants = read_index_time(first), read_index_time(second)
    assert (first < second) == (instants[0] < instants[1])
    assert index_time(instants[0]) == first


# --- paths and partitions -------------------------------------------------------------------------------------------

NESTED: dict[str, Any] = {"a": {"b": {"c": 1}, "n": None}, "a.b": "exact", "x.y": {"z": 2}, "": {"": 3}, "list": [1]}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("a", NESTED["a"]), ("a.b", "exact"), ("a.b.c", 1), ("a.n", None), ("x.y", {"z": 2}), ("", {"": 3}), (".", 3),
        ("x.y.z", MISSING), ("x", MISSING), ("a.q", MISSING), ("a.n.q", MISSING), ("list.0", MISSING), ("a.b.c.d",
        MISSING),
    ],
)  # fmt: skip
def test_a_path_is_first_a_key_and_then_keys_joined_by_dots(path: str, value: object) -> None:
    assert lookup(NESTED, path) == value


@pytest.mark.parametrize(
    ("metadata", "partition_by", "partition"),
    [
        ({"u": "alice"}, None, "null"),
        ({"u": "alice"}, "metadata.u", '"alice"'),
        ({}, "metadata.u", "null"),
        ({"u": None}, "metadata.u", "null"),
        ({"u": 5}, "metadata.u", "5"),
        ({"u": "5"}, "metadata.u", '"5"'),
        ({"u": True}, "metadata.u", "true"),
        ({"u": [1, "ü"]}, "metadata.u", '[1,"ü"]'),
        ({"u": {"v": {"w": 1}}}, "metadata.u.v", '{"w":1}'),
        ({"u": {"v": 1}, "u.v": 2}, "metadata.u.v", "2"),
        ({"u": "x"}, "metadata.u.v", "null"),
        ({"metadata": {"u": 1}}, "metadata.metadata.u", "1"),
    ],
)
def test_the_partition_is_the_canonical_json_of_the_value(
    metadata: dict[str, Any], partition_by: str | None, partition: str
) -> None:
    assert partition_of(metadata, partition_by) == partition
    assert sort_key(entry(partition_by, **metadata), partition_by) == (partition, index_time(DAY), "c")


def test_a_partition_is_measured_as_it_will_be_written() -> None:
    state = start()
    state.metadata[1] = "x" * MAX_PARTITION  # type: ignore[index]  # JSON makes text of it
    with pytest.raises(InvalidInputError, match=r"the value at metadata\.1 has 1,026 bytes of JSON"):
        entry_of(state, 1, 100, "metadata.1")


@pytest.mark.parametrize("partition_by", ["metadata.", "user_id", "", "metadata", "Metadata.u", "conversation_id"])
def test_a_partition_that_is_no_metadata_path_is_refused(partition_by: str) -> None:
    with pytest.raises(InvalidInputError, match=r"metadata\.user_id"):
        check_partition_by(partition_by)


def test_a_metadata_path_or_nothing_is_a_partition() -> None:
    assert check_partition_by(None) is None
    assert check_partition_by("metadata.user.id") == "metadata.user.id"


def test_the_partitions_value_stands_alone_under_its_path() -> None:
    assert partition_only({"u": {"v": 1, "w": 2}}, "metadata.u.v") == {"u.v": 1}
    assert partition_only({"u": {"v": 1}, "u.v": None}, "metadata.u.v") == {"u.v": None}
    assert partition_only({"w": 1}, "metadata.u.v") == {}
    assert partition_only({"u": 1}, None) == {}


# --- metadata that is too much ---------------------------------------------------------------------------------------


def test_metadata_of_up_to_8_kib_is_whole() -> None:
    fits = {"b": "x" * 100, "a": ""}
    fits["a"] = "x" * (MAX_METADATA - json_size(fits))
    assert json_size(fits) == MAX_METADATA == 8192
    whole = entry(**fits)
    assert list(whole.metadata.items()) == list(fits.items())
    assert not whole.metadata_truncated
    fits["a"] += "x"
    assert entry(**fits).metadata_truncated


def test_beyond_that_keys_are_kept_whole_in_byte_order_while_they_fit() -> None:
    metadata = dict.fromkeys(["z", "ü", "b", "a", "Z", "y", "c", "🌳", "d", "e", "f"], "x" * 1000)
    said = entry(**metadata)
    assert said.metadata_truncated
    assert set(said.metadata) == {"Z", "a", "b", "c", "d", "e", "f", "y"}
    assert json_size(said.metadata) <= MAX_METADATA
    assert as_json(said.metadata) == as_json({name: metadata[name] for name in said.metadata})


def test_the_partitions_value_is_always_kept() -> None:
    metadata = {**{f"a{number}": "x" * 1000 for number in range(20)}, "z": {"user": "alice"}}
    said = entry("metadata.z.user", **metadata)
    assert said.metadata["z.user"] == "alice"
    assert json_size(said.metadata) <= MAX_METADATA
    assert partition_of(said.metadata, "metadata.z.user") == '"alice"'
    exact = entry("metadata.z.user", **metadata, **{"z.user": "exact"})
    assert partition_of(exact.metadata, "metadata.z.user") == '"exact"'


def test_of_an_object_that_is_too_much_only_the_partitions_value_is_kept() -> None:
    about = {"id": "alice", "picture": "x" * 10_000}
    said = entry("metadata.z.id", a=1, z=about)
    assert said.metadata == {"a": 1, "z.id": "alice"}
    assert said.metadata_truncated
    assert entry("metadata.z.name", a=1, z=about).metadata == {"a": 1}


def test_a_partition_that_is_too_long_is_refused() -> None:
    assert entry("metadata.z", z="x" * 1022).metadata == {"z": "x" * 1022}
    with pytest.raises(InvalidInputError, match=r"metadata\.z has 1,025 bytes of JSON"):
        entry("metadata.z", z="x" * 1023)


@given(
    st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=5), st.integers(0, 9_000), min_size=1, max_size=12),
    st.sampled_from([None, "metadata.a", "metadata.b.c"]),
)
def test_what_an_entry_keeps_is_whole_fits_and_has_the_partition(
    sizes: dict[str, int], partition_by: str | None
) -> None:
    longest = {"a": 1000} if partition_by == "metadata.a" else {}
    metadata: dict[str, Any] = {name: "x" * min(size, longest.get(name, size)) for name, size in sizes.items()}
    if "b" in metadata:
        metadata["b"] = {"c": metadata["b"][:1000], "d": metadata["b"]}
    said = entry(partition_by, **metadata)
    assert said.metadata.items() <= (metadata | partition_only(metadata, partition_by)).items()
    assert said.metadata_truncated == (json_size(metadata) > MAX_METADATA)
    assert said.metadata_truncated == any(name not in said.metadata for name in metadata)
    assert partition_of(said.metadata, partition_by) == partition_of(metadata, partition_by)
    assert json_size(said.metadata) <= MAX_METADATA


def test_metadata_with_a_key_that_is_no_text_is_kept_as_text_or_refused_at_any_size() -> None:
    keyed: Any
    for size in (10, 10_000):
        state = start()
        keyed = {5: "x" * size, "a": 1}
        state.metadata = keyed
        assert entry_of(state, 1, 1, None).metadata == ({"5": "x" * size, "a": 1} if size == 10 else {"a": 1})
        keyed = {("a",): "x" * size}
        state.metadata = keyed
        with pytest.raises(InvalidInputError, match="the metadata of conversation 'c'"):
            entry_of(state, 1, 1, None)


# --- the log --------------------------------------------------------------------------------------------------------


def test_an_intent_is() -> None:
    intent = Intent(entry=entry(u="ü"), write="0a", replaces=Replaces(partition='"v"', created_at=index_time(DAY)))
    assert decompress(encode_intent(intent), "it").decode() == (
        '{"format":1,"kind":"intent","entry":{"conversation_id":"c","revision":3,'
        '"created_at":"2025-03-01T00:00:00.000000Z","updated_at":"2025-03-02T00:00:00.000000Z","schema_version":"1.1.0",'
        '"message_count":1,"branch_count":1,"size":100,"metadata":{"u":"ü"}},"write":"0a",'
        '"replaces":{"partition":"\\"v\\"","created_at":"2025-03-01T00:00:00.000000Z"}}'
    )


def test_a_batch_is() -> None:
    row = json.dumps(entry().to_dict(), separators=(",", ":"))
    body = encode_batch([Intent(entry=entry(), write="0a")])
    assert decompress(body, "it").decode() == (
        f'{{"format":1,"kind":"batch","intents":[{{"entry":{row},"write":"0a"}}]}}'
    )


entries = st.builds(
    Entry,
    conversation_id=st.text(st.characters(codec="utf-8"), min_size=1, max_size=200),
    revision=st.integers(1, 10**18),
    created=times.map(index_time),
    updated=times.map(index_time),
    schema_version=st.sampled_from(["1.1.0", "1.10.0"]),
    message_count=st.integers(0, 10**9),
    branch_count=st.integers(0, 10**9),
    size=st.integers(0, 10**12),
    metadata=json_objects,
    metadata_truncated=st.booleans(),
    deleted=st.booleans(),
    moved=st.booleans(),
    location=st.none() | json_objects,
)
intents = st.builds(
    Intent,
    entry=entries,
    write=st.text("0123456789abcdef", min_size=1, max_size=32),
    replaces=st.none() | st.builds(Replaces, partition=st.just("null"), created_at=times.map(index_time)),
)


@given(intents)
def test_an_intent_comes_back_the_same(intent: Intent) -> None:
    (again,) = decode_log_object(encode_intent(intent), "it")
    assert (again.entry, again.write, again.replaces) == (intent.entry, intent.write, intent.replaces)
    assert as_json(again.entry.to_dict()) == as_json(intent.entry.to_dict())


@given(st.lists(intents, max_size=4))
def test_a_batch_comes_back_the_same(batch: list[Intent]) -> None:
    assert decode_log_object(encode_batch(batch), "it") == batch


def test_a_full_batch_comes_back_whole() -> None:
    batch = [Intent(entry=msgspec.structs.replace(entry(), conversation_id=f"c{n}"), write="0a") for n in range(BATCH)]
    assert decode_log_object(encode_batch(batch), "it") == batch
    assert BATCH == 500


def test_no_batch_has_more_than_readers_take_whatever_is_saved() -> None:
    long = '"' * ((MAX_PARTITION - 2) // 2)  # two bytes of JSON each, four where that is a text in JSON again
    metadata = {"u": {"id": long, "z": "x" * 10_000}, **{f"a{n}": "x" * 1000 for n in range(20)}}
    intents = []
    for number in range(BATCH):
        state = start(**metadata)
        state.conversation_id = f"{number:03}".ljust(1024, "\1")
        said = entry_of(state, 10**17, 10**12, "metadata.u.id")
        replaces = Replaces(partition=partition_of(metadata, "metadata.u.id"), created_at=index_time(DAY))
        intents.append(Intent(entry=said, write="0" * 16, replaces=replaces, window=3600.0))
    body = encode_batch(intents)
    assert len(decompress(body, "it")) < MAX_LOG_OBJECT * 2 // 3
    assert decode_log_object(body, "it") == intents


def test_what_readers_would_not_take_is_not_announced() -> None:
    large = Intent(entry=msgspec.structs.replace(entry(), metadata={"x": "x" * MAX_LOG_OBJECT}), write="0a")
    with pytest.raises(InvalidInputError, match=r"the intent of conversation 'c' has 16,777,\d+ bytes of JSON"):
        encode_intent(large)
    with pytest.raises(InvalidInputError, match=r"a batch of intents has 16,777,\d+ bytes of JSON"):
        encode_batch([large])


def test_an_unknown_field_of_a_later_version_is_passed_over() -> None:
    fields = {"format": 1, "kind": "intent", "entry": {**entry().to_dict(), "later": 1}, "write": "0a", "window": 60}
    assert decode_log_object(compress(to_json(fields, "it")), "it")[0].entry == entry()


GOOD: dict[str, Any] = {
    "format": 1,
    "kind": "intent",
    "entry": {**entry(u=1).to_dict(), "location": {}, "deleted": False},
    "write": "0a",
    "replaces": {"partition": "null", "created_at": index_time(DAY)},
}


@given(damaged(GOOD))
def test_a_damaged_intent_is_corrupt_or_unsupported(fields: Any) -> None:
    for whole in (fields, {"format": 1, "kind": "batch", "intents": [GOOD, fields]}):
        with refused_only_as(CorruptError, UnsupportedFormatError, named="the object"):
            decode_log_object(compress(to_json(whole, "it")), "the object")


PLACES = [
    ("entry",), ("write",), ("replaces",), ("kind",), ("format",), ("entry", "conversation_id"), ("entry", "revision"),
    ("entry", "created_at"), ("entry", "updated_at"), ("entry", "metadata"), ("entry", "location"),
    ("entry", "schema_version"), ("replaces", "created_at"), ("replaces", "partition"), ("requires",),
]  # fmt: skip


@pytest.mark.parametrize("path", PLACES, ids=".".join)
def test_no_value_in_an_intent_makes_another_error(path: tuple[str, ...]) -> None:
    values = [to_json(value, "it") for value in HOSTILE]
    values += [b"[" * depth + b"]" * depth for depth in [*range(880, 1000, 3), 100_000]]
    for value in values:
        fields = json.loads(json.dumps(GOOD))
        holder = fields
        for step in path[:-1]:
            holder = holder[step]
        holder[path[-1]] = "HERE"
        with refused_only_as(CorruptError, UnsupportedFormatError, named="the object"):
            decode_log_object(compress(to_json(fields, "it").replace(b'"HERE"', value)), "the object")


@pytest.mark.parametrize(
    "wrong",
    [
        {"conversation_id": ""}, {"conversation_id": "x" * 1025}, {"conversation_id": 1}, {"revision": 0},
        {"revision": -1},
        {"revision": "1"}, {"revision": 1.5}, {"created_at": "2025-03-01T00:00:00Z"}, {"created_at": ""},
        {"created_at": "2025-03-01 00:00:00.000000Z"}, {"created_at": "2025-03-01T00:00:00.000000+"},
        {"created_at": "2025-13-01T00:00:00.000000Z"}, {"updated_at": "2025-03-01T00:00:00.00000\u0660Z"},
        {"updated_at": "2025-03-01T00:00:00.000000z"}, {"updated_at": None}, {"metadata": []}, {"metadata": None},
        {"message_count": None}, {"size": "1"}, {"deleted": 1}, {"schema_version": None},
    ],
    ids=repr,
)  # fmt: skip
def test_an_intent_with_a_wrong_value_is_corrupt(wrong: dict[str, Any]) -> None:
    fields = {**GOOD, "entry": {**GOOD["entry"], **wrong}}
    for whole in (fields, {"format": 1, "kind": "batch", "intents": [GOOD, fields]}):
        with pytest.raises(CorruptError, match="the object"):
            decode_log_object(compress(to_json(whole, "it")), "the object")


@pytest.mark.parametrize(
    "body", [b"", b"x", compress(b""), compress(b"x"), compress(b"[]"), compress(b"{}"), compress(b"1")]
)
def test_what_is_no_object_of_the_log_is_corrupt(body: bytes) -> None:
    with pytest.raises(CorruptError, match="the object"):
        decode_log_object(body, "the object")


@pytest.mark.parametrize("change", [{"format": 2}, {"kind": "document"}, {"requires": ["window"]}])
def test_an_unknown_format_kind_or_feature_is_refused_by_name(change: dict[str, Any]) -> None:
    told = str(next(iter(change.values()))).strip("[]'")
    with pytest.raises(UnsupportedFormatError, match=f"the object.*{told}"):
        decode_log_object(compress(to_json({**GOOD, **change}, "it")), "the object")
