"""The document: exact bytes, every state and exchange form whole again, linear size, and nothing hostile comes in."""

from __future__ import annotations

import copy
import json
from datetime import UTC, datetime
from typing import Any

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from s3conv.errors import CorruptError, InvalidInputError, SchemaVersionError, UnsupportedFormatError
from s3conv.format import document as document_module
from s3conv.format.codec import compress, from_json, to_json
from s3conv.format.document import (
    LINEAGE,
    NOTHING,
    Document,
    Stamp,
    decode_document,
    encode_document,
    state_from_stored,
    state_to_stored,
)
from s3conv.format.keys import intent_key, log_prefix, parse_log_key
from s3conv.model.message import ConversationNode, LLMMessage
from s3conv.model.state import ConversationState
from s3conv.model.tree import Tree
from tests.format.mutating import HOSTILE, damaged, refused_only_as
from tests.strategies import as_json, exchange_forms, hostile_ids, json_objects, json_values, states

STAMP = Stamp(7, "0b", ("0a", "0b"))


def parse_line(line: bytes, what: str) -> ConversationState:
    """A line of s3conv's JSON lines, read as an import reads it."""
    return state_from_stored(from_json(line, what))


def raw(body: bytes) -> bytes:
    """What a plain zstd gives for a stored object."""
    return zstandard.ZstdDecompressor().decompress(body)


def stored(fields: Any) -> bytes:
    """A body with these fields, as any other writer may have written them."""
    return compress(json.dumps(fields).encode())


def decode(body: bytes, conversation_id: str | None = None) -> Document:
    return decode_document(body, conversation_id, "the object")


def example() -> ConversationState:
    """Two branches, a tool call, unknown fields, and one with a name of the stored form's own."""
    return ConversationState.from_dict(
        {
            "schema_version": "1.1.0",
            "conversation_id": "conv-1",
            "nodes": [
                {
                    "message": {"role": "system", "content": "Be brief."},
                    "node_id": "",
                    "timestamp": "2025-03-01T08:00:00Z",
                    "prompt_name": None,
                    "branch_name": None,
                    "metadata": {},
                },
                {
                    "message": {"role": "user", "content": "Wie spät ist es?", "name": None},
                    "node_id": "0",
                    "timestamp": "2025-03-01T08:00:01",
                    "prompt_name": "p",
                    "metadata": None,
                    "parent": "an unknown field",
                },
                {
                    "message": {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}], "later": 1},
                    "node_id": "1",
                    "timestamp": "2025-03-01T13:30:02+05:30",
                    "prompt_name": None,
                    "branch_name": "b",
                    "metadata": {"model": "m"},
                },
                {
                    "message": {"role": "assistant", "content": "Acht."},
                    "node_id": "0.0",
                    "timestamp": "2025-03-01T08:00:03.500000",
                    "prompt_name": None,
                    "branch_name": None,
                    "metadata": {},
                },
            ],
            "edges": [["", "0"], ["", "1"], ["0", "0.0"]],
            "current_node_id": "1",
            "metadata": {"user_id": "alice", "user": {"plan": "free"}},
            "created_at": "2025-03-01T08:00:00Z",
            "updated_at": "2025-03-01T08:00:03",
            "s3conv": "not ours",
            "~later": [],
        }
    )


STORED = (
    '{"s3conv":{"format":1,"kind":"document","revision":7,"write":"0b","lineage":["0a","0b"]},'
    '"schema_version":"1.1.0","conversation_id":"conv-1","current":3,'
    '"metadata":{"user_id":"alice","user":{"plan":"free"}},'
    '"created_at":"2025-03-01T08:00:00Z","updated_at":"2025-03-01T08:00:03",'
    '"~s3conv":"not ours","~~later":[],'
    '"nodes":['
    '{"message":{"role":"system","content":"Be brief."},"timestamp":"2025-03-01T08:00:00Z",'
    '"prompt_name":null,"branch_name":null,"metadata":{}},'
    '{"parent":0,"message":{"role":"user","content":"Wie spät ist es?","name":null},'
    '"timestamp":"2025-03-01T08:00:01","prompt_name":"p","metadata":null,"~parent":"an unknown field"},'
    '{"parent":1,"message":{"role":"assistant","content":"Acht."},"timestamp":"2025-03-01T08:00:03.500000",'
    '"prompt_name":null,"branch_name":null,"metadata":{}},'
    '{"parent":0,"message":{"role":"assistant","content":null,"tool_calls":[{"id":"1"}],"later":1},'
    '"timestamp":"2025-03-01T13:30:02+05:30","prompt_name":null,"branch_name":"b","metadata":{"model":"m"}}'
    "]}"
)
DELETED_AT = "2026-01-31T12:00:00.000000Z"
TOMBSTONE = (
    '{"s3conv":{"format":1,"kind":"tombstone","revision":8,"write":"0c","lineage":["0a","0b","0c"]},'
    '"schema_version":"1.1.0","conversation_id":"conv-1","created_at":"2025-03-01T08:00:00.000000Z",'
    '"updated_at":"2026-01-31T12:00:00.000000Z","metadata":{"user.plan":"free"}}'
)


# --- exact bytes ----------------------------------------------------------------------------------------------------


def test_the_stored_form_is() -> None:
    assert raw(encode_document(example(), STAMP)).decode() == STORED


def test_the_tombstone_is() -> None:
    body = decode(encode_document(example(), STAMP)).tombstone(STAMP.next("0c"), DELETED_AT, "metadata.user.plan")
    assert raw(body).decode() == TOMBSTONE


def test_a_document_of_today_is_read_for_ever() -> None:
    document = decode(compress(STORED.encode()), "conv-1")
    assert (document.conversation_id, document.stamp, document.deleted) == ("conv-1", STAMP, False)
    assert document.state() == example()
    assert as_json(document.state().to_dict()) == as_json(example().to_dict())
    tombstone = decode(compress(TOMBSTONE.encode()), "conv-1")
    assert tombstone.deleted
    assert tombstone.stamp == Stamp(8, "0c", ("0a", "0b", "0c"))


def test_a_window_is_written_where_there_is_one() -> None:
    stamp = Stamp(1, "0a", ("0a",), "2025-03-01T08:00:00.000000Z")
    assert decode(encode_document(example(), stamp)).stamp == stamp
    assert "speaks_until" not in STAMP.to_dict("document")


def test_what_began_again_says_since_when_and_what_builds_on_it_too() -> None:
    tombstone = Stamp(8, "0c", ("0a", "0b", "0c"), since=3)
    assert "since" not in tombstone.to_dict("tombstone")
    began = decode(encode_document(example(), tombstone.next("0d", begins=True))).stamp
    assert (began.revision, began.since) == (9, 9)
    goes_on = decode(encode_document(example(), began.next("0e"))).stamp
    assert (goes_on.revision, goes_on.since) == (10, 9)
    assert [goes_on.revision_of(write) for write in ("0a", "0d", "0e", "0f")] == [6, 9, 10, None]
    assert "since" not in STAMP.to_dict("document")


def test_the_size_is_that_of_the_stored_bytes() -> None:
    body = encode_document(example(), STAMP)
    assert decode(body).size == len(body)


# --- stamps ---------------------------------------------------------------------------------------------------------


def test_a_lineage_keeps_the_last_16_writes() -> None:
    stamp = NOTHING
    for number in range(40):
        stamp = stamp.next(f"{number:x}")
    assert (stamp.revision, stamp.write) == (40, "27")
    assert stamp.lineage == tuple(f"{number:x}" for number in range(24, 40))
    assert len(stamp.lineage) == LINEAGE == 16
    assert decode(encode_document(example(), stamp)).stamp == stamp


def test_the_hints_are_revision_and_write() -> None:
    assert STAMP.hints() == {"s3conv-revision": "7", "s3conv-write": "0b"}


def test_a_longer_lineage_of_another_writer_is_cut_to_its_end() -> None:
    fields = json.loads(STORED)
    fields["s3conv"]["lineage"] = [f"{number:x}" for number in range(100)]
    assert decode(stored(fields)).stamp.lineage == tuple(f"{number:x}" for number in range(84, 100))


# --- round trips ----------------------------------------------------------------------------------------------------


@given(states())
def test_any_state_survives(state: ConversationState) -> None:
    document = decode(encode_document(state, STAMP), state.conversation_id)
    again = document.state()
    assert again == state
    assert as_json(again.to_dict()) == as_json(state.to_dict())
    assert encode_document(again, STAMP) == encode_document(state, STAMP)


@given(exchange_forms())
def test_any_exchange_form_survives_the_stored_form(form: dict[str, Any]) -> None:
    state = ConversationState.from_dict(form)
    again = decode(encode_document(state, STAMP)).state()
    assert as_json(again.to_dict()) == as_json(form)
    assert as_json(state_from_stored(state_to_stored(state)).to_dict()) == as_json(form)


@given(states())
def test_nodes_come_after_their_parents_and_siblings_keep_their_order(state: ConversationState) -> None:
    rows = state_to_stored(state)["nodes"]
    assert "parent" not in rows[0]
    assert all(0 <= row["parent"] < position for position, row in enumerate(rows) if position)
    assert not any("node_id" in row for row in rows)


def test_a_conversation_whose_tree_became_part_of_another_is_refused() -> None:
    state = ConversationState.start("c", system="part")
    ConversationState.start("whole", system="whole").message_tree.add_child(state.message_tree)
    for form in (state.to_dict, lambda: encode_document(state, STAMP)):
        with pytest.raises(InvalidInputError, match="expected the root"):
            form()


def chain(length: int) -> ConversationState:
    state = ConversationState("c")
    for _ in range(length):
        state.add_message("user", "x" * 100)
    return state


def test_the_stored_form_grows_with_the_length_of_a_chat() -> None:
    short, long = (len(raw(encode_document(chain(length), STAMP))) for length in (1_000, 10_000))
    assert long <= 11 * short


def test_a_deep_conversation_survives() -> None:
    state = chain(10_000)
    assert decode(encode_document(state, STAMP)).state() == state


# --- lines ----------------------------------------------------------------------------------------------------------


@given(states())
def test_the_line_is_the_stored_form_less_its_s3conv_part(state: ConversationState) -> None:
    document = decode(encode_document(state, STAMP))
    expected = from_json(raw(encode_document(state, STAMP)), "it")
    del expected["s3conv"]
    assert document.line == to_json(expected, "it")
    assert b"\n" not in document.line
    assert document.fields() == expected
    assert parse_line(document.line, "line 1") == state


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("order", ["ours", "reversed"])
@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": "), (" ,\r\n\t", " : ")])
def test_the_line_is_the_same_however_another_writer_laid_it_out(
    indent: int | None, order: str, separators: tuple[str, str]
) -> None:
    fields = json.loads(STORED)
    if order == "reversed":
        fields = dict(reversed(fields.items()))
    body = compress(json.dumps(fields, indent=indent, separators=separators).encode())
    line = decode(body).line
    assert b"\n" not in line
    assert b"\r" not in line
    del fields["s3conv"]
    assert json.loads(line) == fields
    assert parse_line(line, "line 1") == example()


@pytest.mark.parametrize(
    "part", [{"requires": []}, {"speaks_until": "2026-01-01T00:00:00.000000Z"}, {"later": 1}, {"lineage": ["0"] * 20}]
)
def test_a_part_with_more_in_it_is_cut_off_too(part: dict[str, Any]) -> None:
    fields = json.loads(STORED)
    fields["s3conv"].update(part)
    line = decode(compress(to_json(fields, "it"))).line
    del fields["s3conv"]
    assert line == to_json(fields, "it")


def test_a_line_may_have_the_s3conv_part_or_not() -> None:
    assert parse_line(STORED.encode(), "line 1") == example()


@pytest.mark.parametrize("line", [b"", b"{", b"\xff", b"\n"])
def test_a_line_that_is_not_json_is_corrupt_and_named(line: bytes) -> None:
    with pytest.raises(CorruptError, match="line 17"):
        parse_line(line, "line 17")


@pytest.mark.parametrize("line", [b"1", b"[]", b"null", b"{}", b'{"nodes":[]}', b'{"nodes":{}}', b'"x"'])
def test_a_line_that_is_no_conversation_is_refused(line: bytes) -> None:
    with pytest.raises(InvalidInputError):
        parse_line(line, "line 17")


# --- what cannot be stored ------------------------------------------------------------------------------------------


def test_a_state_without_messages_cannot_be_stored() -> None:
    with pytest.raises(InvalidInputError, match="'c' has no message yet"):
        encode_document(ConversationState("c"), STAMP)


@pytest.mark.parametrize("node_id", ["5", "00", "-1"])
def test_a_state_whose_current_node_is_nowhere_cannot_be_stored(node_id: str) -> None:
    state = example()
    state.current_node_id = node_id
    with pytest.raises(InvalidInputError, match=f"current_node_id '{node_id}' names no node"):
        encode_document(state, STAMP)


def test_a_state_whose_current_node_is_that_of_another_tree_cannot_be_stored() -> None:
    state = example()
    state.set_current_node(Tree(ConversationNode(LLMMessage("user"))))
    with pytest.raises(InvalidInputError, match="current_node_id"):
        encode_document(state, STAMP)


@pytest.mark.parametrize("value", [float("nan"), "\ud800", {1}, datetime(2025, 1, 1), object()])
@pytest.mark.parametrize("where", ["metadata", "extra", "node", "message", "content", "tool_calls"])
def test_a_value_that_json_cannot_hold_cannot_be_stored(where: str, value: Any) -> None:
    state = example()
    node = state.message_tree.data
    match where:
        case "metadata" | "extra":
            getattr(state, where)["k"] = value
        case "node":
            node.metadata["k"] = value
        case "message":
            node.message.metadata["k"] = value
        case "content":
            node.message.content = [value]
        case _:
            node.message.tool_calls = [value]
    with pytest.raises(InvalidInputError, match="conversation 'conv-1' cannot be written as JSON"):
        encode_document(state, STAMP)


WRONG: list[tuple[str, str, list[Any]]] = [
    ("state", "metadata", [[], "x", 1]),
    ("state", "created_at", [None, "2025-01-01T00:00:00", 0]),
    ("state", "updated_at", ["2025-01-01", 1.5]),
    ("state", "schema_version", ["2.0.0", "1.1", None, 1]),
    ("state", "conversation_id", [None, 5, ""]),
    ("node", "timestamp", [None, "2025-01-01T00:00:00", 0]),
    ("node", "prompt_name", [5, [], True]),
    ("node", "branch_name", [5, {}]),
    ("node", "metadata", [[], "x"]),
    ("node", "message", [None, {"role": "user", "content": "x"}]),
    ("message", "role", [None, 5, []]),
    ("message", "content", [5, {"text": "x"}, True, b"x", 1.5]),
    ("message", "name", [5, []]),
    ("message", "tool_calls", [{}, "x", 1]),
    ("message", "function_call", [[], "x", 1]),
    ("message", "tool_call_id", [5, []]),
    ("message", "metadata", [[], "x"]),
]


@pytest.mark.parametrize(
    ("level", "field", "value"), [(level, field, value) for level, field, values in WRONG for value in values]
)
def test_what_could_not_be_loaded_again_cannot_be_stored(level: str, field: str, value: Any) -> None:
    state = example()
    node = state.message_tree.data
    setattr({"state": state, "node": node, "message": node.message}[level], field, value)
    with pytest.raises((InvalidInputError, SchemaVersionError), match=field):
        encode_document(state, STAMP)


def test_a_conversation_that_is_too_large_cannot_be_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    size = len(raw(encode_document(example(), STAMP)))
    monkeypatch.setattr(document_module, "MAX_BYTES", size)
    encode_document(example(), STAMP)
    monkeypatch.setattr(document_module, "MAX_BYTES", size - 1)
    with pytest.raises(InvalidInputError, match=f"'conv-1' has {size} bytes of JSON"):
        encode_document(example(), STAMP)


# --- what comes in --------------------------------------------------------------------------------------------------


def uses(document: Document) -> list[Any]:
    """Everything that is done with a document."""
    return [
        lambda: document.line,
        document.fields,
        document.state,
        lambda: document.sort_key("metadata.user_id"),
        lambda: document.sort_key("metadata.user.plan"),
        lambda: document.sort_key(None),
        lambda: document.entry("metadata.user_id"),
        lambda: document.deleted_entry(9, 100, DELETED_AT, "metadata.user.plan"),
        lambda: document.tombstone(document.stamp.next("0d"), DELETED_AT, "metadata.user_id"),
        lambda: encode_document(document.state(), document.stamp),
        lambda: document.state().to_dict(),
    ]


def try_everything(body: bytes) -> None:
    """Nothing but the documented errors, and what can be read can be written and read again."""
    expected = (CorruptError, InvalidInputError, UnsupportedFormatError, SchemaVersionError)
    try:
        document = decode(body)
    except expected:
        return
    for use in uses(document):
        with refused_only_as(*expected):
            use()
    try:
        state = document.state()
        body = encode_document(state, document.stamp)  # refuses what is nested more deeply than it can write
    except expected:
        return
    assert decode(body).state() == state


@given(damaged(json.loads(STORED)))
def test_a_damaged_document_is_refused_and_nothing_else_happens(fields: Any) -> None:
    try_everything(stored(fields))


@given(damaged(json.loads(TOMBSTONE)))
def test_a_damaged_tombstone_is_refused_and_nothing_else_happens(fields: Any) -> None:
    try_everything(stored(fields))


@given(json_values)
def test_any_json_is_refused_as_a_document(fields: Any) -> None:
    with pytest.raises(CorruptError, match="the object is not a document"):
        decode(stored(fields))


@given(st.binary(max_size=100))
def test_any_bytes_are_refused_as_a_document(body: bytes) -> None:
    with pytest.raises(CorruptError, match="the object"):
        decode(body)


FIELDS: list[tuple[str | int, ...]] = [
    ("s3conv",), ("s3conv", "format"), ("s3conv", "kind"), ("s3conv", "revision"), ("s3conv", "write"),
    ("s3conv", "lineage"), ("s3conv", "lineage", 0), ("s3conv", "speaks_until"), ("s3conv", "requires"),
    ("s3conv", "since"),
    ("schema_version",),
    ("conversation_id",), ("current",), ("metadata",), ("created_at",), ("updated_at",), ("nodes",), ("nodes", 0),
    ("nodes", 0, "parent"), ("nodes", 1), ("nodes", 1, "parent"), ("nodes", 1, "message"), ("nodes", 1, "timestamp"),
    ("nodes", 1, "prompt_name"), ("nodes", 1, "branch_name"), ("nodes", 1, "metadata"), ("nodes", 1, "~parent"),
    ("nodes", 1, "message", "role"), ("nodes", 1, "message", "content"), ("~metadata",), ("~schema_version",),
    ("~nodes",),
    ("~edges",), ("edges",), ("current_node_id",), ("~",), ("nodes", 1, "~message"), ("nodes", 1, "node_id"),
    ("nodes", 1, "~node_id"),
]  # fmt: skip


def body_with(path: tuple[str | int, ...], value: bytes) -> bytes:
    """A document with this JSON text at a place."""
    fields = json.loads(STORED)
    holder = fields
    for step in path[:-1]:
        holder = holder[step]
    holder[path[-1]] = "HERE"
    return compress(json.dumps(fields).encode().replace(b'"HERE"', value))


@pytest.mark.parametrize("path", FIELDS, ids=lambda path: ".".join(map(str, path)))
def test_no_field_makes_another_error(path: tuple[str | int, ...]) -> None:
    for value in HOSTILE:
        try_everything(body_with(path, json.dumps(value).encode()))


@pytest.mark.parametrize("path", FIELDS, ids=lambda path: ".".join(map(str, path)))
def test_no_depth_of_nesting_makes_another_error(path: tuple[str | int, ...]) -> None:
    for depth in [*range(880, 1000, 3), 100_000]:
        try_everything(body_with(path, b"[" * depth + b"]" * depth))


@pytest.mark.parametrize("path", FIELDS, ids=lambda path: ".".join(map(str, path)))
def test_no_length_of_text_makes_a_long_error(path: tuple[str | int, ...]) -> None:
    try_everything(body_with(path, b'"' + b"x" * 100_000 + b'"'))


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        (("s3conv", "format"), 2, "the object has format 2; this s3conv reads format 1: upgrade"),
        (("s3conv", "kind"), "album", "the object is of the kind 'album'"),
        (("s3conv", "kind"), "stub", "the object is a stub"),
        (("s3conv", "requires"), ["dictionary", "album"], "the object requires album, dictionary"),
    ],
)
def test_an_unknown_format_feature_or_kind_is_refused_by_name(path: tuple[str, ...], value: Any, told: str) -> None:
    with pytest.raises(UnsupportedFormatError, match=told):
        decode(body_with(path, json.dumps(value).encode()))


FOREIGN: list[tuple[tuple[str, ...], list[Any]]] = [
    (("s3conv", "format"), [None, "1", 1.0, True, []]),
    (("s3conv", "kind"), [None, 1, []]),
    (("s3conv", "revision"), [None, 0, -1, 1.0, "1", True, 10**18, 10**30]),
    (("s3conv", "write"), [None, 1, []]),
    (("s3conv", "lineage"), [None, "0a", {}, [1], ["0a", None]]),
    (("s3conv", "requires"), [None, "x", {}, [1]]),
    (("s3conv", "speaks_until"), [0, [], True]),
    (("s3conv", "since"), [0, -1, 8, "1", True, 1.0, []]),
    (("s3conv",), [None, [], "x", 1]),
    (("conversation_id",), [None, 1, [], "another"]),
]


@pytest.mark.parametrize(("path", "value"), [(path, value) for path, values in FOREIGN for value in values])
def test_a_part_that_is_not_ours_is_corrupt(path: tuple[str, ...], value: Any) -> None:
    body = body_with(path, json.dumps(value).encode())
    for head_only in (False, True):
        with pytest.raises(CorruptError, match="the object"):
            decode_document(body, "conv-1", "the object", head_only=head_only)


@given(states())
def test_the_head_alone_says_the_same(state: ConversationState) -> None:
    body = encode_document(state, STAMP)
    whole, head = (decode_document(body, state.conversation_id, "x", head_only=only) for only in (False, True))
    assert (head.line, head.stamp, head.size, head.deleted) == (whole.line, STAMP, len(body), False)
    assert head.state() == whole.state() == state


def test_without_a_checksum_the_whole_text_is_looked_at() -> None:
    text = STORED.encode()[:-1]  # its last bracket is missing
    vouched = zstandard.ZstdCompressor(write_checksum=True).compress(text)
    assert decode_document(vouched, "conv-1", "x", head_only=True).line.endswith(text[-20:])
    with pytest.raises(CorruptError, match="x is not JSON"):
        decode_document(zstandard.ZstdCompressor(write_checksum=False).compress(text), "conv-1", "x", head_only=True)
    with pytest.raises(CorruptError, match="x is not JSON"):
        decode_document(vouched, "conv-1", "x")
    with pytest.raises(CorruptError, match="x is not JSON"):
        decode_document(vouched, "conv-1", "x", head_only=True).state()


@pytest.mark.parametrize("head_only", [False, True])
def test_text_that_is_not_utf8_is_corrupt(head_only: bool) -> None:
    text = STORED.encode().replace(b"conv-1", b"conv-\xff")
    with pytest.raises(CorruptError, match="x is not JSON"):
        decode_document(compress(text), "conv-1", "x", head_only=head_only)


def test_the_document_of_another_conversation_is_corrupt() -> None:
    with pytest.raises(CorruptError, match="holds conversation 'conv-1'; expected 'conv-2'"):
        decode(compress(STORED.encode()), "conv-2")


def test_a_revision_that_is_read_can_be_followed_by_one_that_the_log_can_name() -> None:
    fields = json.loads(STORED)
    for digits in range(1, 40):
        fields["s3conv"]["revision"] = 10**digits - 1
        try:
            stamp = decode(stored(fields)).stamp.next("0d")
        except CorruptError:
            continue
        assert parse_log_key(intent_key(log_prefix("null"), "conv-1", stamp.revision, stamp.write))


@pytest.mark.parametrize(
    ("name", "value"),
    [("nodes", 1), ("edges", []), ("current_node_id", ""), ("~nodes", 1), ("~edges", []), ("~current_node_id", "0"),
     ("~metadata", {"k": 1}), ("~schema_version", "1.1.0"), ("~conversation_id", "x"), ("~created_at", "x"),
     ("~later", 1)],
)  # fmt: skip
def test_a_field_that_the_stored_form_never_has_is_refused(name: str, value: Any) -> None:
    fields = json.loads(STORED)
    fields[name] = value
    with pytest.raises(InvalidInputError, match=name):
        decode(stored(fields)).state()


@pytest.mark.parametrize("name", ["node_id", "~node_id", "~message", "~metadata", "~timestamp", "~later"])
def test_a_field_that_a_stored_node_never_has_is_refused_with_its_place(name: str) -> None:
    fields = json.loads(STORED)
    fields["nodes"][2][name] = "x"
    with pytest.raises(InvalidInputError, match=rf"nodes\[2\]\.{name}"):
        decode(stored(fields)).state()


@pytest.mark.parametrize("parent", [None, -1, 1, 2, 3, 10**30, "0", 0.0, True, []])
def test_a_parent_that_does_not_come_before_is_refused(parent: Any) -> None:
    fields = json.loads(STORED)
    fields["nodes"][1]["parent"] = parent
    with pytest.raises(InvalidInputError, match=r"nodes\[1\]\.parent"):
        decode(stored(fields)).state()


@pytest.mark.parametrize("current", [-1, 4, 10**30, "0", 1.0, True, [], {}])
def test_a_current_position_that_is_none_is_refused(current: Any) -> None:
    fields = json.loads(STORED)
    fields["current"] = current
    with pytest.raises(InvalidInputError, match="current"):
        decode(stored(fields)).state()


def test_a_tombstone_is_no_conversation_but_has_a_sort_key_and_an_entry() -> None:
    tombstone = decode(compress(TOMBSTONE.encode()))
    with pytest.raises(InvalidInputError, match="nodes"):
        tombstone.state()
    assert tombstone.sort_key("metadata.user.plan") == ('"free"', "2025-03-01T08:00:00.000000Z")
    entry = tombstone.entry("metadata.user.plan")
    assert entry.deleted
    assert (entry.revision, entry.message_count, entry.metadata) == (8, 0, {"user.plan": "free"})


@given(states(max_nodes=2), st.sampled_from([None, "metadata.a.b", "metadata.parent", "metadata.~"]))
def test_a_tombstone_has_the_sort_key_of_its_conversation(state: ConversationState, partition_by: str | None) -> None:
    document = decode(encode_document(state, STAMP))
    tombstone = decode(document.tombstone(STAMP.next("0c"), DELETED_AT, partition_by), state.conversation_id)
    assert tombstone.deleted
    assert tombstone.stamp == STAMP.next("0c")
    assert tombstone.sort_key(partition_by) == document.sort_key(partition_by)
    entry = document.deleted_entry(8, tombstone.size, DELETED_AT, partition_by)
    assert tombstone.entry(partition_by) == entry
    assert decode(tombstone.tombstone(STAMP.next("0d"), DELETED_AT, partition_by)).sort_key(
        partition_by
    ) == document.sort_key(partition_by)


@given(hostile_ids, json_objects)
def test_the_bytes_of_a_document_do_not_change_with_later_changes_of_the_state(
    conversation_id: str, metadata: dict[str, Any]
) -> None:
    state = ConversationState.start(conversation_id, system="x", metadata=copy.deepcopy(metadata))
    body = encode_document(state, STAMP)
    state.metadata["more"] = 1
    assert as_json(decode(body).state().metadata) == as_json(metadata)


def test_the_times_of_an_entry_are_those_of_the_document_in_utc() -> None:
    entry = decode(encode_document(example(), STAMP)).entry(None)
    assert entry.created_at == datetime(2025, 3, 1, 8, tzinfo=UTC)
    assert entry.updated == "2025-03-01T08:00:03.000000Z"
