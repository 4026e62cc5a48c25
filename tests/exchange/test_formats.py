"""What a ChatGPT conversation and an OASST tree become, rule by rule, as docs/importing.md has them."""

from __future__ import annotations

import copy
import json
import random
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s3conv import ConversationState, InvalidInputError, StorageError
from s3conv.exchange import chatgpt, oasst
from s3conv.format.document import state_to_stored
from tests.exchange.chats import branching, chat, place, said


def shape(state: ConversationState) -> list[tuple[str, str, Any]]:
    """(id in our tree, id in the source, content) of every message."""
    return [
        (node.data.node_id, node.data.metadata.get("source_id", ""), node.data.message.content)
        for node in state.message_tree.walk()
    ]


def at(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def one(message: dict[str, Any], **node: Any) -> Any:
    """The only message of a conversation."""
    return chatgpt.read(chat({"m": {**place(None, message), **node}})).message_tree.data


def test_a_tree_with_its_branches_and_the_place_where_it_stands() -> None:
    state = chatgpt.read(branching(default_model_slug="gpt-x", gizmo_id=None, current_node="a1"))
    assert shape(state) == [
        ("", "q", "text of q"),
        ("0", "a1", "text of a1"),
        ("1", "a2", "text of a2"),
        ("1.0", "q2", "text of q2"),
        ("1.0.0", "a3", "text of a3"),
    ]
    assert state.current_node_id == "0"
    assert state.conversation_id == "c"
    assert (state.created_at, state.updated_at) == (at(1000), at(2005))
    assert state.metadata == {
        "source_format": "chatgpt",
        "title": "T",
        "default_model_slug": "gpt-x",
        "gizmo_id": None,
        "model": "gpt-x",
    }
    root = state.message_tree.data
    assert root.timestamp == at(1000)
    assert root.metadata == {
        "source_id": "q",
        "source": {"content": {"content_type": "text"}, "node": {"parent": "root"}},
    }


def test_everything_without_a_field_of_ours_is_kept_as_it_was() -> None:
    message = {
        "id": "other-id",
        "author": {"role": "tool", "name": "browser", "metadata": {"real_author": "x"}},
        "create_time": 1756622744.2786255,
        "update_time": None,
        "content": {"content_type": "code", "language": "python", "text": "print(1)"},
        "status": "finished_successfully",
        "end_turn": None,
        "weight": 0.0,
        "metadata": {"model_slug": "gpt-x", "citations": []},
        "recipient": "all",
        "channel": None,
    }
    node = one(copy.deepcopy(message), id="m", extra=[1])
    assert (node.message.role, node.message.name, node.message.content) == ("tool", "browser", "print(1)")
    assert node.metadata == {
        "source_id": "m",
        "model": "gpt-x",
        "source": {
            **{name: message[name] for name in message if name not in ("author", "content")},
            "author": {"metadata": {"real_author": "x"}},
            "content": {"content_type": "code", "language": "python"},
            "node": {"extra": [1]},
        },
    }
    plain = one({"id": "m", "author": {"role": "user"}, "create_time": 1.5, "content": {"parts": ["Hi"]}})
    assert plain.metadata == {"source_id": "m"}
    assert plain.timestamp == at(1.5)


@pytest.mark.parametrize(
    ("content", "ours", "left"),
    [
        ({"content_type": "text", "parts": ["a"]}, "a", {"content_type": "text"}),
        ({"parts": ["a"]}, "a", None),
        ({"parts": ["a", "b"]}, ["a", "b"], None),
        ({"parts": []}, [], None),
        ({"content_type": "multimodal_text", "parts": ["a"]}, ["a"], {"content_type": "multimodal_text"}),
        ({"parts": [{"asset": 1}], "x": None}, [{"asset": 1}], {"x": None}),
        ({"content_type": "execution_output", "text": "1"}, "1", {"content_type": "execution_output"}),
        (
            {"content_type": "thoughts", "thoughts": [{"a": 1}]},
            [{"content_type": "thoughts", "thoughts": [{"a": 1}]}],
            None,
        ),
        ({"parts": None, "text": "a"}, [{"parts": None, "text": "a"}], None),
        ("a", "a", None),
        (["a"], ["a"], None),
        (None, None, None),
    ],
)
def test_contents(content: Any, ours: Any, left: Any) -> None:
    node = one({"author": {"role": "user"}, "create_time": 1, "content": content})
    assert node.message.content == ours
    assert node.metadata.get("source", {}).get("content") == left


def test_tool_calls_have_a_field() -> None:
    calls, call = [{"id": "1", "function": {"name": "f"}}], {"name": "f", "arguments": "{}"}
    node = one(said("assistant", "", 1.0, tool_calls=calls, function_call=call, tool_call_id="x"))
    assert (node.message.tool_calls, node.message.function_call, node.message.tool_call_id) == (calls, call, "x")
    assert one(said("assistant", "", 1.0, tool_calls="odd")).metadata["source"]["tool_calls"] == "odd"


def test_places_without_a_message() -> None:
    state = chatgpt.read(
        chat(
            {
                "r": place(None, None, ["e"]),
                "e": place("r", None, ["a", "b"]),
                "a": place("e", said("user", "A")),
                "b": place("e", said("user", "B")),
            }
        )
    )
    assert shape(state) == [("", "e", None), ("0", "a", "A"), ("1", "b", "B")]
    root = state.message_tree.data
    assert (root.message.role, root.metadata["synthetic"]) == ("system", True)
    assert root.metadata["source"] == {"node": {"parent": "r"}}
    assert state.current_node_id == "1"


def test_several_roots_hang_under_one_of_ours_and_no_edge_is_invented() -> None:
    state = chatgpt.read(chat({"a": {"message": said("user", "A")}, "b": {"message": said("assistant", "B")}}))
    assert shape(state) == [("", "", None), ("0", "a", "A"), ("1", "b", "B")]
    assert state.message_tree.data.metadata == {"synthetic": True}
    assert state.current_node_id == "1"


@pytest.mark.parametrize("mapping", [{}, {"root": place(None, None, [])}])
def test_an_empty_conversation_keeps_its_title_and_times(mapping: Any) -> None:
    state = chatgpt.read(chat(mapping))
    assert [(role, content) for role, content in [(state.message_tree.data.message.role, None)]] == [("system", None)]
    assert state.message_tree.data.metadata["synthetic"] is True
    assert (state.metadata["title"], state.created_at, state.updated_at) == ("T", at(1000), at(2000))
    assert state_to_stored(state)


def test_children_give_the_order_and_parents_the_rest() -> None:
    state = chatgpt.read(
        chat(
            {
                "r": place(None, said("user", "R"), ["z", "y"]),
                "x": place("r", said("user", "X")),
                "y": place(None, said("user", "Y")),
                "z": place("r", said("user", "Z")),
            }
        )
    )
    assert [source for _, source, _ in shape(state)] == ["r", "z", "y", "x"]


def test_children_that_the_export_lacks_are_kept_by_name() -> None:
    state = chatgpt.read(chat({"a": place(None, said("user", "A"), ["gone", "b"]), "b": place("a", said("user", "B"))}))
    assert shape(state) == [("", "a", "A"), ("0", "b", "B")]
    assert state.message_tree.data.metadata["source"]["node"] == {"children": ["gone"]}


@pytest.mark.parametrize(
    ("mapping", "reason"),
    [
        ({"a": place("gone", said("user", "A"))}, "'a': its parent 'gone' is missing"),
        ({"a": place("b", said("user", "A")), "b": place("a", said("user", "B"))}, "'a' is in a cycle"),
        ({"a": place("a", said("user", "A"))}, "'a' is in a cycle"),
        ({"r": place(None, said("user", "R")), "a": place("b", None), "b": place("a", None)}, "'a' is in a cycle"),
        ({"r": place(None, None, ["r"])}, "'r' is in a cycle"),
        (
            {"a": place(None, None, ["c"]), "b": place(None, None, ["c"]), "c": place(None, None)},
            "'c' has two parents, 'a' and 'b'",
        ),
        ({"a": 3}, "mapping.a: expected an object, found int"),
        ({"a": place(None, said("user", "A"), [1])}, "mapping.a.children"),  # type: ignore[list-item]  # wrong on purpose
        ({"a": place(None, {"author": {"role": 3}})}, "mapping.a.message.author.role: expected a string, found int"),
        ({"a": place(None, {"author": {}})}, "mapping.a.message.author.role: expected a string, found nothing"),
        ({"a": place(None, {})}, "mapping.a.message.author: expected an object"),
        ({"a": place(None, said("user", "A", "yesterday"))}, "create_time: expected a time"),  # type: ignore[arg-type]  # wrong on purpose
        ({"a": place(None, said("user", "A", 1e300))}, "is not a time in seconds since 1970"),
        ({"a": place(None, said("user", "A", True))}, "create_time: expected a time, found bool"),
        ({"a": place(None, {"author": {"role": "user"}, "content": 3})}, "content: expected an object, found int"),
    ],
)
def test_what_is_not_one_tree_of_messages_is_named(mapping: Any, reason: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        chatgpt.read(chat(mapping))
    assert reason in str(caught.value)


def test_times_that_are_missing() -> None:
    mapping = {
        "a": place(None, said("user", "A")),
        "b": place("a", said("user", "B", 50)),
        "c": place("b", said("user", "C")),
    }
    state = chatgpt.read(chat(mapping, create_time=None, update_time=None))
    times = [(node.data.timestamp, node.data.metadata.get("timestamp_inferred")) for node in state.message_tree.walk()]
    assert times == [(at(50), True), (at(50), None), (at(50), True)]
    assert state.metadata["timestamps_inferred"] == ["created_at", "updated_at"]
    assert (state.metadata["create_time"], state.metadata["update_time"]) == (None, None)
    del mapping["b"]["message"]["create_time"]
    state = chatgpt.read({"mapping": mapping})
    assert state.created_at == state.updated_at == state.message_tree.data.timestamp == at(0)
    state = chatgpt.read(chat(mapping, create_time="2024-05-01T12:00:00+02:00", update_time="2024-05-01T12:00:00"))
    assert state.created_at.isoformat() == "2024-05-01T10:00:00+00:00"
    assert state.updated_at.isoformat() == "2024-05-01T12:00:00+00:00"
    assert state.metadata["create_time"] == "2024-05-01T12:00:00+02:00"


def test_ids() -> None:
    mapping = {"a": place(None, said("user", "A"))}
    both = chatgpt.read({"id": "one", "conversation_id": "two", "mapping": mapping})
    assert (both.conversation_id, both.metadata["id"]) == ("two", "one")
    assert "conversation_id" not in both.metadata
    keyed = chatgpt.read({"mapping": mapping}, "key")
    assert keyed.conversation_id == "key"
    assert chatgpt.read({"id": "own", "mapping": mapping}, "key").conversation_id == "own"
    assert chatgpt.read({"mapping": mapping}).conversation_id == ""  # to be named by whoever reads the file
    with pytest.raises(InvalidInputError, match="conversation_id: expected a string, found int"):
        chatgpt.read({"conversation_id": 3, "mapping": mapping})


@pytest.mark.parametrize("current", [None, "gone", 3, "root"])
def test_a_current_message_that_is_none(current: Any) -> None:
    state = chatgpt.read(branching(current_node=current))
    assert state.current_node_id == "1.0.0"
    assert state.metadata.get("current_node", "root") == current


def test_ten_thousand_messages_deep() -> None:
    count = 10_000
    mapping = {str(n): place(str(n - 1) if n else None, said("user", "x", n)) for n in range(count)}
    state = chatgpt.read(chat(mapping))
    assert sum(1 for _ in state.message_tree.walk()) == count
    message: dict[str, Any] = {"message_id": "0", "role": "prompter", "text": "x", "replies": []}
    tree = {"message_tree_id": "t", "prompt": message}
    for n in range(1, count):
        below: dict[str, Any] = {"message_id": str(n), "role": "prompter", "text": "x", "replies": []}
        message["replies"] = [below]
        message = below
    assert sum(1 for _ in oasst.read_tree(tree).message_tree.walk()) == count


def _mutate(value: Any, chance: random.Random, depth: int = 0) -> Any:
    """The value with something in it changed, removed or doubled."""
    junk = [None, 0, -1, 1e18, True, "", "root", "q", "a1", [], {}, [None], {"a": 1}, "\u0000"]
    if depth and chance.random() < 0.06:
        return chance.choice(junk)
    if isinstance(value, dict):
        made = {key: _mutate(one, chance, depth + 1) for key, one in value.items() if chance.random() > 0.03}
        if chance.random() < 0.05:
            made[chance.choice(["id", "parent", "children", "message", "x", "tool_calls"])] = chance.choice(junk)
        return made
    if isinstance(value, list):
        return [_mutate(one, chance, depth + 1) for one in value for _ in range(chance.choice([1, 1, 1, 1, 0, 2]))]
    return value


@settings(max_examples=400)
@given(st.randoms(use_true_random=False))
def test_no_mutation_is_more_than_a_problem(chance: random.Random) -> None:
    data = _mutate(branching(), chance)
    try:
        state = chatgpt.read(data)
    except StorageError:
        return
    state.conversation_id = state.conversation_id or "named by whoever reads the file"
    state_to_stored(state)
    messages = [node for node in state.message_tree.walk() if node.data.metadata.get("synthetic") is not True]
    assert len(messages) == sum(node.get("message") is not None for node in data["mapping"].values())
    assert json.dumps(state.metadata) is not None


def tree(**more: Any) -> dict[str, Any]:
    replies = [
        {"message_id": "r1", "parent_id": "p", "text": "one", "role": "assistant", "rank": 1, "replies": []},
        {"message_id": "r2", "parent_id": "p", "text": "two", "role": "assistant", "rank": 0, "model_name": "m",
         "replies": [{"message_id": "r3", "text": "three", "role": "prompter"}]},
    ]  # fmt: skip
    prompt = {
        "message_id": "p",
        "text": "zero",
        "role": "prompter",
        "lang": "en",
        "emojis": {"+1": 2},
        "replies": replies,
    }
    return {"message_tree_id": "t", "tree_state": "ready_for_export", "prompt": {**prompt, **more}}


def test_an_oasst_tree() -> None:
    state = oasst.read_tree(tree(created_date="2023-02-06T10:00:00.5+00:00"))
    assert state.conversation_id == "t"
    assert state.metadata == {
        "source_format": "oasst",
        "tree_state": "ready_for_export",
        "timestamps_inferred": ["created_at", "updated_at"],
    }
    assert shape(state) == [("", "p", "zero"), ("0", "r1", "one"), ("1", "r2", "two"), ("1.0", "r3", "three")]
    assert [node.data.message.role for node in state.message_tree.walk()] == ["user", "assistant", "assistant", "user"]
    assert state.created_at == datetime(2023, 2, 6, 10, 0, 0, 500_000, UTC)
    assert state.message_tree.data.metadata == {
        "source_id": "p",
        "source": {
            "role": "prompter",
            "lang": "en",
            "emojis": {"+1": 2},
            "created_date": "2023-02-06T10:00:00.5+00:00",
        },
    }
    assert state.message_tree.children[1].data.metadata == {
        "source_id": "r2",
        "model": "m",
        "source": {"rank": 0, "model_name": "m"},
        "timestamp_inferred": True,
    }


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"role": None}, "prompt.role: expected a string"),
        ({"message_id": 3}, "prompt.message_id: expected a string, found int"),
        ({"text": ["a"]}, "prompt.text: expected a string, found list"),
        ({"replies": {"a": 1}}, "prompt.replies: expected a list, found dict"),
        ({"replies": [3]}, "reply 0 to p: expected an object, found int"),
        ({"message_id": "r3"}, "is not the message that it replies to"),
        ({"replies": [{"message_id": "p", "role": "assistant", "text": ""}]}, "the message id 'p' is there twice"),
    ],
)
def test_oasst_trees_that_cannot_be_read(more: Any, reason: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        oasst.read_tree(tree(**more))
    assert reason in str(caught.value)


def test_flat_lists() -> None:
    def row(name: str, parent: str | None, **more: Any) -> dict[str, Any]:
        return {"user_message_id": name, "parent_message_id": parent, "text": name, "role": "prompter", **more}

    rows = [
        row("b", "a"),
        row("a", None),
        row("x", None, message_tree_id="tree-x"),
        row("c", "a"),
        row("lost", "gone"),
        row("below", "lost"),
        row("x", None),
        row("u", "v"),
        row("v", "u"),
        row("d", None),
        {"text": "", "role": "x", "message_id": None},
    ]
    found = list(oasst.read_flat([(f"[{n}]", one) for n, one in enumerate(rows)]))
    made = {state.conversation_id: shape(state) for _, state in found if isinstance(state, ConversationState)}
    assert made == {"a": [("", "a", "a"), ("0", "b", "b"), ("1", "c", "c")], "d": [("", "d", "d")]}
    assert [(position, reason) for position, reason in found if isinstance(reason, str)] == [
        ("[10]", "message_id: expected a string, found nothing"),
        ("[2]", "the message id 'x' is there twice (again at [6])"),
        ("[4]", "message 'lost': its parent 'gone' is missing"),
        ("[7]", "message 'u' is in a cycle of parents, or below one"),
    ]
