"""A tree as stretches: every message once, every branch in order, the current branch first and in one piece."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from s3conv import ConversationState
from s3conv.exchange.stretches import stretches
from s3conv.model.message import ConversationNode, LLMMessage
from tests.strategies import grow, shapes


@st.composite
def trees(draw: st.DrawFn) -> ConversationState:
    """A conversation of any shape that stands anywhere."""
    parents = draw(shapes(12))
    places = grow([ConversationNode(LLMMessage("user", str(n))) for n in range(len(parents) + 1)], parents)
    state = ConversationState("c", places[0])
    state.set_current_node(draw(st.sampled_from(places)))
    return state


@given(trees())
def test_every_branch_can_be_read_in_the_order_of_the_stretches(state: ConversationState) -> None:
    found = stretches(state)
    listed = [node for stretch in found for node in stretch.nodes]
    place = {id(node): number for number, node in enumerate(listed)}
    assert sorted(place) == sorted(id(node) for node in state.message_tree.walk())
    for node in listed:
        assert node.parent is None or place[id(node.parent)] < place[id(node)]

    current = state.get_current_node()
    assert current is not None
    assert [id(node) for node in listed[: len(current.get_path())]] == [id(node) for node in current.get_path()]
    on_show = [stretch for stretch in found if stretch.on_show]
    assert on_show == found[: len(on_show)]
    assert not on_show[-1].below


@given(trees())
def test_stretches_know_each_other(state: ConversationState) -> None:
    found = stretches(state)
    assert [stretch.number for stretch in found] == list(range(1, len(found) + 1))
    messages = 1
    for stretch in found:
        assert stretch.first_message == messages
        messages += len(stretch.nodes)
        assert stretch.last_message == messages - 1
        assert stretch.siblings[stretch.position] is stretch
        assert [below.nodes[0] for below in stretch.below] == (stretch.nodes[-1].children if stretch.below else [])
        assert len(stretch.below) != 1
        if stretch.above is not None:
            assert stretch.nodes[0].parent is stretch.above.nodes[-1]


def test_a_conversation_without_a_message_has_none() -> None:
    assert stretches(ConversationState("c")) == []


def test_a_current_node_that_is_none_leaves_the_latest_branch_first() -> None:
    state = ConversationState("c")
    root = state.add_message("user", "a")
    for text in ("b", "c"):
        state.add_message("assistant", text, parent=root)
    state.current_node_id = "0.0.7"
    assert [stretch.nodes[-1].data.message.content for stretch in stretches(state)] == ["a", "c", "b"]
