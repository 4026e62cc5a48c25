"""Hypothesis strategies: conversations of every shape, and everything that may lie in one.

Law: what is drawn here is legal. Whatever the software does with it must keep it whole; what is illegal is made by the
tests themselves.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from hypothesis import strategies as st

from s3conv.model.message import ConversationNode, LLMMessage
from s3conv.model.state import ConversationState
from s3conv.model.tree import Tree

ODD_NAMES = (
    "parent", "current", "s3conv", "nodes", "edges", "node_id", "current_node_id", "message", "timestamp", "role",
    "content", "metadata", "created_at", "schema_version", "extra", "~", "~~", "~x", "~parent", "~current", "~s3conv",
    "~~s3conv", "", ".", "a.b", "\n", "\x00", "ключ", "🌳",
)  # fmt: skip
"""Names that a careless codec might take for its own."""

STATE_FIELDS = (
    "schema_version", "conversation_id", "nodes", "edges", "current_node_id", "metadata", "created_at", "updated_at",
)  # fmt: skip
NODE_FIELDS = ("message", "node_id", "timestamp", "prompt_name", "branch_name", "metadata")
MESSAGE_FIELDS = ("role", "content", "name", "tool_calls", "function_call", "tool_call_id", "metadata")


def as_json(value: object) -> str:
    """JSON text to compare values by: unlike `==`, it tells 1, 1.0 and true apart; order of keys does not count."""
    return json.dumps(value, sort_keys=True, allow_nan=False)


texts = st.text(st.characters(codec="utf-8"), max_size=12)
names = st.sampled_from(ODD_NAMES) | texts
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(10**40), 10**40)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts
)
json_values: st.SearchStrategy[Any] = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3), max_leaves=8
)
json_objects = st.dictionaries(names, json_values, max_size=3)

# Whole seconds: Python 3.11 reads an offset of less than one second, "-00:00:00.000001", as UTC.
offsets = st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=30))]) | st.builds(
    lambda seconds: timezone(timedelta(seconds=seconds)), st.integers(-86_399, 86_399)
)
naive_times = st.datetimes() | st.sampled_from([datetime.min, datetime.max, datetime(2024, 2, 29, 12)])
aware_times = st.builds(lambda time, offset: time.replace(tzinfo=offset), naive_times, offsets)
times = naive_times | aware_times

HOSTILE_IDS = (
    ".", "..", "../..", "/", "//", "a/b", "a\\b", "%", "%2E%2E", "%2e", "~", "a~b", "\n", "\r\n", "\x00", " ", "*", "?",
    "CON", "-", "_", "ü", "u\u0308", "日本語", "שלום", "🌳", "👩‍👩‍👧", "\u202eabc", "\ufeff", "\ufffe", "a" * 180,
    "a" * 181,
    "a" * 1024, "." * 60, "." * 61, "/" * 1024, "ü" * 512, "🌳" * 256, "s3conv.json", "index/manifest.json",
)  # fmt: skip
"""Ids from 1 to 1,024 bytes that would break a careless key."""

hostile_ids = st.sampled_from(HOSTILE_IDS) | st.text(st.characters(codec="utf-8"), min_size=1, max_size=256)


def extras(known: Collection[str]) -> st.SearchStrategy[dict[str, Any]]:
    """Unknown fields beside the `known` ones, with the names that a codec may confuse among them."""
    free = names.filter(lambda name: name not in known)
    return st.just({}) | st.dictionaries(free, json_values, max_size=2)


contents = st.none() | texts | st.lists(json_values, max_size=2)
roles = st.sampled_from(["system", "user", "assistant", "tool", "function", ""]) | texts
labels = st.none() | texts
messages = st.builds(
    LLMMessage,
    roles,
    contents,
    name=labels,
    tool_calls=st.none() | st.lists(json_values, max_size=2),
    function_call=st.none() | json_objects,
    tool_call_id=labels,
    metadata=st.just({}) | json_objects,
    extra=extras(MESSAGE_FIELDS),
)
nodes = st.builds(
    ConversationNode,
    messages,
    timestamp=times,
    prompt_name=labels,
    branch_name=labels,
    metadata=st.just({}) | json_objects,
    extra=extras(NODE_FIELDS),
)


@st.composite
def shapes(draw: st.DrawFn, max_nodes: int = 8) -> list[int]:
    """The parent of each node but the root, by position: any shape from a chain to a star."""
    count = draw(st.integers(0, max_nodes - 1))
    return [draw(st.integers(0, position)) for position in range(count)]


def grow(data: Sequence[Any], parents: Sequence[int]) -> list[Tree[Any]]:
    """The nodes of a tree, root first; siblings in the order in which they come."""
    places = [Tree(data[0])]
    for item, parent in zip(data[1:], parents, strict=True):
        places.append(places[parent].add_child(item))
    return places


@st.composite
def conversation_trees(draw: st.DrawFn, max_nodes: int = 6) -> list[Tree[ConversationNode]]:
    """The nodes of a tree of messages, root first."""
    parents = draw(shapes(max_nodes))
    return grow([draw(nodes) for _ in range(len(parents) + 1)], parents)


versions = st.sampled_from(["1.1.0", "1.1.1", "1.5.0", "1.10.0"])
"""Versions that are kept as they are."""


@st.composite
def states(draw: st.DrawFn, max_nodes: int = 6) -> ConversationState:
    """A conversation of any shape with anything in it."""
    places = draw(conversation_trees(max_nodes))
    state = ConversationState(
        draw(hostile_ids),
        places[0],
        metadata=draw(json_objects),
        created_at=draw(times),
        updated_at=draw(times),
        schema_version=draw(versions),
        extra=draw(extras(STATE_FIELDS)),
    )
    state.set_current_node(draw(st.sampled_from(places)))
    return state


# --- the exchange form ---------------------------------------------------------------------------------------------


_SPELLINGS: tuple[Callable[[datetime], str], ...] = (
    lambda time: time.isoformat(),
    lambda time: time.isoformat(" "),
    lambda time: time.isoformat(timespec="milliseconds"),
    lambda time: f"{time.isoformat(timespec='seconds')}Z",
    lambda time: f"{time.isoformat(timespec='milliseconds')}Z",
    lambda time: f"{time.isoformat()}+05:30",
    lambda time: f"{time.isoformat()}+00:00",
    lambda time: time.isoformat(timespec="seconds").replace("-", "").replace(":", ""),
)
time_texts = st.builds(lambda time, spelled: spelled(time), naive_times, st.sampled_from(_SPELLINGS))
"""ISO 8601 in spellings that `isoformat` would not choose."""


def _optional(draw: st.DrawFn, fields: dict[str, Any], **choices: st.SearchStrategy[Any]) -> None:
    """Put each field there with a value, as null, or not at all."""
    for name, values in choices.items():
        how = draw(st.sampled_from(["absent", "null", "value"]))
        if how != "absent":
            fields[name] = draw(values) if how == "value" else None


@st.composite
def exchange_messages(draw: st.DrawFn) -> dict[str, Any]:
    """A message as another program may have written it."""
    message: dict[str, Any] = {"role": draw(roles)}
    _optional(
        draw,
        message,
        content=texts | st.lists(json_values, max_size=2),
        name=texts,
        tool_calls=st.lists(json_values, max_size=2),
        function_call=json_objects,
        tool_call_id=texts,
        metadata=json_objects,
    )
    return {**message, **draw(extras(MESSAGE_FIELDS))}


@st.composite
def exchange_forms(draw: st.DrawFn, max_nodes: int = 5) -> dict[str, Any]:
    """A conversation in the exchange form, with nulls and absences wherever a field is optional.

    Nodes and edges are level by level, as dataknobs writes them; `current_node_id` is there.
    """
    parents = draw(shapes(max_nodes))
    places = grow(range(len(parents) + 1), parents)
    ids = {0: ""}
    edges, rows = [], []
    for place in places[0].walk("bfs"):
        for position, child in enumerate(place.children):
            ids[child.data] = f"{ids[place.data]}.{position}".removeprefix(".")
        if place.parent is not None:
            edges.append([ids[place.parent.data], ids[place.data]])
        row: dict[str, Any] = {
            "message": draw(exchange_messages()),
            "node_id": ids[place.data],
            "timestamp": draw(time_texts),
        }
        _optional(draw, row, prompt_name=texts, branch_name=texts, metadata=json_objects)
        rows.append({**row, **draw(extras(NODE_FIELDS))})
    form: dict[str, Any] = {
        "schema_version": draw(versions),
        "conversation_id": draw(hostile_ids),
        "nodes": rows,
        "edges": edges,
        "current_node_id": ids[draw(st.sampled_from(range(len(places))))],
        "created_at": draw(time_texts),
        "updated_at": draw(time_texts),
    }
    _optional(draw, form, metadata=json_objects)
    return {**form, **draw(extras(STATE_FIELDS))}
