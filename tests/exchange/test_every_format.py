"""Every format is told by its content, keeps what it was given, names what has no id, and survives what is hostile."""

from __future__ import annotations

import io
import json
import random
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s3conv import Archive, ConversationState, InvalidInputError, StorageError
from s3conv.exchange import ids
from s3conv.exchange.formats import FORMATS, NAMES
from s3conv.exchange.found import Found, Problem
from s3conv.exchange.importing import import_files
from s3conv.exchange.reading import read_conversations
from s3conv.format.document import state_to_stored
from tests.exchange.chats import branching
from tests.exchange.every_format import EVERY_FORMAT

GOOD = branching(id="good")


def lines(*values: Any) -> bytes:
    return b"".join(value if isinstance(value, bytes) else json.dumps(value).encode() + b"\n" for value in values)


def read(data: bytes, format: str | None = None) -> list[Any]:
    return list(read_conversations(io.BytesIO(data), format=format))


def only(items: list[Any]) -> ConversationState:
    (found,) = items
    assert isinstance(found, Found), found
    return found.state


def test_every_format_has_an_example() -> None:
    assert set(EVERY_FORMAT) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_format_is_told_by_its_content_or_by_its_name(name: str) -> None:
    data = lines(*EVERY_FORMAT[name])
    found = only(read(data))
    assert found.metadata.get("source_format", name) == name
    assert state_to_stored(only(read(data, name))) == state_to_stored(found)
    for other in NAMES:
        if other != name:
            assert not any(isinstance(item, Found) for item in read(data, other)), other


def test_a_format_that_is_none() -> None:
    with pytest.raises(InvalidInputError, match="no format 'x': expected one of s3conv, dataknobs"):
        read(b"{}", "x")


@pytest.mark.parametrize("name", [one.name for one in FORMATS])
def test_a_format_that_was_named_says_what_it_misses(name: str) -> None:
    (problem,) = read(b'{"something": 1}', name)
    assert isinstance(problem, Problem)
    assert "expected" in problem.reason


@pytest.mark.parametrize("name", NAMES)
def test_as_lines_as_a_list_and_packed_it_is_the_same(name: str) -> None:
    values = EVERY_FORMAT[name]
    expected = state_to_stored(only(read(lines(*values))))
    assert state_to_stored(only(read(json.dumps(values, indent=1).encode()))) == expected
    if len(values) == 1:
        assert state_to_stored(only(read(json.dumps(values[0], indent=2).encode()))) == expected
        wrapped = {"exported": "today", "data": values, "version": 3}
        found, ignored = read(json.dumps(wrapped).encode())
        assert state_to_stored(found.state) == expected
        assert ignored.member == "exported, version"


_KEPT = ("role", "from", "sender", "type", "timestamp", "created_at", "updated_at", "createdAt", "value", "arguments")
_TIES = ("id", "uuid", "node", "parent", "children")
"""What is not marked: readers may make something else of the former; the latter tie messages together."""


def _marked(value: Any, marks: list[str], key: str = "") -> Any:
    """The value with a mark in place of each text."""
    if isinstance(value, dict):
        return {name: _marked(inner, marks, name) for name, inner in value.items()}
    if isinstance(value, list):
        return [_marked(inner, marks, key) for inner in value]
    if not isinstance(value, str) or key in _KEPT or any(part in key.lower() for part in _TIES):
        return value
    marks.append(f"mark-{len(marks):03}")
    return marks[-1]


FOREIGN = [name for name in NAMES if name not in ("s3conv", "dataknobs")]


@pytest.mark.parametrize("name", FOREIGN)
def test_every_text_of_the_source_is_in_the_conversation(name: str) -> None:
    marks: list[str] = []
    values = [_marked(value, marks) for value in EVERY_FORMAT[name]]
    if name == "utterances":  # who speaks makes the role
        values[0]["utterances"] = [["agent1", marks[-1]]]
    assert len(marks) > 1
    kept = json.dumps(state_to_stored(only(read(lines(*values)))))
    assert [mark for mark in marks if mark in json.dumps(values) and mark not in kept] == []


@pytest.mark.parametrize("name", [name for name in FOREIGN if name not in ("oasst", "claude-code", "pi")])
def test_equal_conversations_without_an_id_are_two(name: str) -> None:
    """Those that are left out are named by their first message or by their session."""
    values = [
        {key: one for key, one in value.items() if key not in ("id", "uuid", "conversationId")}
        for value in EVERY_FORMAT[name]
    ]
    found = [item.state.conversation_id for item in read(lines(*values, *values))]
    assert found[0].startswith(f"{name}-")
    assert len(found[0]) == len(name) + 1 + 32
    assert found[1:] == [f"{found[0]}~2"]
    assert [item.state.conversation_id for item in read(lines(*values))] == found[:1]
    shuffled = [dict(reversed(value.items())) for value in values]
    assert [item.state.conversation_id for item in read(lines(*shuffled))] == found[:1]
    others = [{**values[0], "something": "else"}, *values[1:]]
    assert [item.state.conversation_id for item in read(lines(*others))] != found[:1]


_JUNK: list[Any] = [
    None,
    0,
    -1,
    1e18,
    True,
    "",
    "q",
    "a1",
    NAMES[0],
    [],
    {},
    [None],
    [[]],
    {"a": 1},
    "\u0000",
    "x" * 100_000,
]


def _mutate(value: Any, chance: random.Random, depth: int = 0) -> Any:
    """The value with something in it changed, removed or doubled."""
    if depth and chance.random() < 0.05:
        return chance.choice(_JUNK)
    if isinstance(value, dict):
        made = {key: _mutate(one, chance, depth + 1) for key, one in value.items() if chance.random() > 0.03}
        if chance.random() < 0.05:
            names = ["id", "uuid", "parent", "children", "message", "role", "content", "type", "tool_calls", "nodes"]
            made[chance.choice(names)] = chance.choice(_JUNK)
        return made
    if isinstance(value, list):
        return [_mutate(one, chance, depth + 1) for one in value for _ in range(chance.choice([1, 1, 1, 1, 0, 2]))]
    return value


@settings(max_examples=60)
@given(st.randoms(use_true_random=False), st.booleans())
@pytest.mark.parametrize("name", NAMES)
def test_whatever_is_wrong_in_it_the_rest_is_read(name: str, chance: random.Random, forced: bool) -> None:
    values = [_mutate(value, chance) for value in EVERY_FORMAT[name]]
    items = read(lines(GOOD, *values, GOOD))
    good = [item for item in items if isinstance(item, Found) and item.state.conversation_id == "good"]
    assert len(good) == 2
    for item in items if not forced else read(lines(*values), name):
        if isinstance(item, Problem):
            assert forced or item.position.startswith("line ")
            assert item.reason
        elif isinstance(item, Found):
            try:
                state_to_stored(item.state)
            except StorageError:
                continue  # an id that is too long: the import reports it
            json.dumps(item.state.metadata)


def _deep(levels: int) -> bytes:
    return b'{"messages": ' + b"[" * levels + b"]" * levels + b"}\n"


@st.composite
def hostile_lines(draw: st.DrawFn) -> bytes:
    kind = draw(st.sampled_from(["value", "format", "keys", "deep", "surrogate", "bytes", "cycle", "huge"]))
    match kind:
        case "value":
            inner = st.none() | st.booleans() | st.floats(allow_nan=True) | st.text() | st.integers()
            value = st.recursive(inner, lambda more: st.lists(more) | st.dictionaries(st.text(), more), max_leaves=10)
            return json.dumps(draw(value)).encode("utf-8", "surrogatepass") + b"\n"
        case "format":
            rows = EVERY_FORMAT[draw(st.sampled_from(NAMES))]
            text = lines(draw(st.sampled_from(rows)))
            cut = draw(st.integers(1, len(text) - 1))
            return text[:cut].rstrip(b"\n") + b"\n"
        case "keys":
            text = lines(EVERY_FORMAT[draw(st.sampled_from(NAMES))][0])
            return text.replace(b'{"', b'{"twice": 1, "twice": 2, "', 1)
        case "deep":
            return _deep(draw(st.sampled_from([10, 500, 100_000])))
        case "surrogate":
            return b'{"messages": [{"role": "user", "content": "\\ud800"}]}\n'
        case "bytes":
            return draw(st.binary(max_size=40)).replace(b"\n", b"") + b"\n"
        case "cycle":
            rows = [
                {"messageId": "a", "parentMessageId": "b", "text": ""},
                {"messageId": "b", "parentMessageId": "a", "text": ""},
            ]
            return lines({"conversationId": "x", "messages": rows})
        case _:
            return lines({"messages": [{"role": "user", "content": "x\u0000" * draw(st.sampled_from([1, 1_000_000]))}]})


@settings(max_examples=150)
@given(st.lists(hostile_lines(), max_size=6))
def test_a_stream_of_hostile_lines_never_hides_the_good_ones(hostile: list[bytes]) -> None:
    items = read(lines(GOOD, *(part for line in hostile for part in (line, GOOD))))
    good = [item.position for item in items if isinstance(item, Found) and item.state.conversation_id == "good"]
    assert good == [f"line {2 * n + 1}" for n in range(len(hostile) + 1)]
    for item in items:
        if isinstance(item, Problem):
            assert item.position.startswith("line ")
            assert 0 < len(item.reason) < 500


@settings(max_examples=40)
@given(st.lists(hostile_lines(), max_size=4), st.sampled_from(NAMES), st.randoms(use_true_random=False))
def test_an_import_of_what_is_hostile_reports_it_and_saves_the_rest(
    hostile: list[bytes], name: str, chance: random.Random
) -> None:
    rows = [_mutate(value, chance) for value in EVERY_FORMAT[name]]
    data = lines(GOOD, *rows, *(part for line in hostile for part in (line, {**GOOD, "id": "too"})))
    with Archive.create(f"memory://hostile-{uuid4()}") as archive:
        report = import_files(archive, [io.BytesIO(data)])
        saved = {entry.conversation_id for entry in archive.iterate()}
        assert {"good", "too"} - ({"too"} if not hostile else set()) <= saved
        assert len(saved) == report.new + len(report.renamed)
        assert all(problem.file == "-" and problem.position and problem.reason for problem in report.problems)
        assert import_files(archive, [io.BytesIO(data)]).new == 0


def test_names_are_counted_however_many_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ids, "_RECENT", 4)
    names = ids.Names()
    first = [names.name("x", n) for n in range(50)]
    assert len(set(first)) == 50
    assert [names.name("x", n) for n in range(50)] == [f"{name}~2" for name in first]
    assert [names.name("x", n) for n in range(50)] == [f"{name}~3" for name in first]
