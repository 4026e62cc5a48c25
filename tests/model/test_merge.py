"""Merging: no message is lost, none is doubled, none gets another's parent; the rest is three-way, ours winning."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3conv.errors import ConflictError
from s3conv.model.merge import identity, merge_into
from s3conv.model.message import ConversationNode, LLMMessage
from s3conv.model.state import ConversationState
from s3conv.model.tree import Tree
from tests.strategies import as_json, states

DAY = datetime(2025, 3, 1, tzinfo=UTC)
DEEP = 10_000


class Added(NamedTuple):
    """A message that one side adds: below which of its nodes (modulo their number), what, when, under which key."""

    below: int
    content: str
    minute: int = 0
    key: str | None = None


def begin(**metadata: Any) -> ConversationState:
    state = ConversationState("c", metadata=metadata, created_at=DAY, updated_at=DAY)
    state.add_message("system", "root", timestamp=DAY)
    state.updated_at = DAY
    return state


def extend(state: ConversationState, added: Sequence[Added]) -> ConversationState:
    """A copy with these messages added."""
    state = copy.deepcopy(state)
    for one in added:
        nodes = list(state.message_tree.walk())
        state.set_current_node(nodes[one.below % len(nodes)])
        state.add_message(
            "user",
            one.content,
            timestamp=DAY + timedelta(minutes=one.minute),
            metadata={} if one.key is None else {"idempotency_key": one.key},
        )
    state.updated_at = DAY
    return state


def deliver(state: ConversationState, side: str, added: Sequence[Added]) -> ConversationState:
    """The same by `add_message`, which passes over a key that is there; every message says something else."""
    state = copy.deepcopy(state)
    for number, one in enumerate(added):
        nodes = [node.data for node in state.message_tree.walk()]
        when = DAY + timedelta(minutes=one.minute)
        below = nodes[one.below % len(nodes)]
        state.add_message("user", f"{side}{number}", timestamp=when, parent=below, idempotency_key=one.key)
    state.updated_at = DAY
    return state


def names(state: ConversationState) -> dict[str, str]:
    """Each message by its key, or else by what it says, and its parent by the same."""

    def name(node: Tree[ConversationNode] | None) -> str:
        return "" if node is None else str(node.data.metadata.get("idempotency_key") or node.data.message.content)

    found = [(name(node), name(node.parent)) for node in state.message_tree.walk()]
    assert len(dict(found)) == len(found), "a message is there twice"
    return dict(found)


def merged(
    ours: ConversationState, theirs: ConversationState, base: ConversationState | None = None
) -> ConversationState:
    """The union; the arguments stay as they are."""
    ours = copy.deepcopy(ours)
    merge_into(ours, copy.deepcopy(theirs), base)
    return ours


def places(state: ConversationState) -> Counter[object]:
    """How often there is which message at the end of which path: a path is what all the messages on it are."""
    found: Counter[object] = Counter()
    paths: dict[int, object] = {}
    for node in state.message_tree.walk():
        path = paths[id(node)] = (paths[id(node.parent)] if node.parent else None, identity(node.data))
        found[path] += 1
    return found


def contents(tree: Tree[ConversationNode]) -> Any:
    """The tree as nested lists of contents."""
    return [tree.data.message.content, *map(contents, tree.children)]


additions = st.lists(
    st.builds(Added, st.integers(0, 20), st.sampled_from("ab"), st.integers(0, 1), st.none()), max_size=8
)
distinct_additions = st.lists(
    st.builds(Added, st.integers(0, 20), st.text("abcdef", min_size=1), st.just(0), st.none()), max_size=8
)
deliveries = st.lists(
    st.builds(Added, st.integers(0, 20), st.just(""), st.integers(0, 1), st.sampled_from([None, "k1", "k2", "k3"])),
    max_size=8,
)


# --- the tree -------------------------------------------------------------------------------------------------------


@given(additions, additions, additions)
def test_every_message_of_both_is_there_under_the_parent_that_it_had(
    before: list[Added], mine: list[Added], other: list[Added]
) -> None:
    base = extend(begin(), before)
    ours, theirs = extend(base, mine), extend(base, other)
    both = merged(ours, theirs, base)
    counts, our_counts, their_counts = places(both), places(ours), places(theirs)
    assert our_counts <= counts
    assert their_counts <= counts
    assert counts <= our_counts + their_counts
    assert counts.keys() == our_counts.keys() | their_counts.keys()
    assert counts.total() <= sum(map(len, (mine, other))) + places(base).total()


@given(distinct_additions, distinct_additions, distinct_additions)
def test_where_siblings_differ_every_message_is_there_exactly_once(
    before: list[Added], mine: list[Added], other: list[Added]
) -> None:
    base = extend(begin(), before)
    ours, theirs = extend(base, mine), extend(base, other)
    one_each = max(*places(ours).values(), *places(theirs).values()) == 1
    expected = places(ours) | places(theirs)
    if one_each:
        assert places(merged(ours, theirs, base)) == expected


@given(deliveries, deliveries, deliveries)
def test_each_delivery_is_there_once_and_nothing_else_changes_its_place(
    before: list[Added], mine: list[Added], other: list[Added]
) -> None:
    base = deliver(begin(), "base ", before)
    ours, theirs = deliver(base, "our ", mine), deliver(base, "their ", other)
    both = merged(ours, theirs, base)
    # What both have stays where theirs is.
    assert names(both) == names(ours) | names(theirs)
    said = {node.data.message.content for node in both.message_tree.walk()}
    assert said >= {node.data.message.content for node in theirs.message_tree.walk()}
    assert merged(both, theirs, base) == both
    found = list(both.message_tree.walk())
    assert all(child.parent is node for node in found for child in node.children)
    assert all(node.data._place is node for node in found)


@given(additions, additions, additions)
def test_our_nodes_stay_the_nodes_that_they_are_and_the_current_one_stays_current(
    before: list[Added], mine: list[Added], other: list[Added]
) -> None:
    base = extend(begin(), before)
    ours, theirs = extend(base, mine), extend(base, other)
    kept = [(node, node.parent, node.data, node.data.message) for node in ours.message_tree.walk()]
    current = ours.get_current_node()
    assert current is not None
    merge_into(ours, theirs, base)
    assert ours.get_current_node() is current
    here = {id(node) for node in ours.message_tree.walk()}
    for node, parent, data, message in kept:
        assert id(node) in here
        assert node.parent is parent
        assert node.data is data
        assert data.message is message
    found = list(ours.message_tree.walk())
    assert len({id(node) for node in found}) == len(found)
    for node in found:
        assert [child.sibnum for child in node.children] == list(range(len(node.children)))
        assert all(child.parent is node for child in node.children)
        assert node.data._place is node


@given(additions, additions, additions)
def test_merging_twice_is_merging_once(before: list[Added], mine: list[Added], other: list[Added]) -> None:
    base = extend(begin(), before)
    ours, theirs = extend(base, mine), extend(base, other)
    once = merged(ours, theirs, base)
    assert merged(once, theirs, base) == once
    assert merged(once, theirs) == once
    assert places(merged(once, ours)) == places(once)


@given(additions, additions)
def test_merging_what_is_already_there_changes_nothing(before: list[Added], more: list[Added]) -> None:
    base = extend(begin(), before)
    longer = extend(base, more)
    assert merged(longer, base, base) == longer
    assert places(merged(base, longer, base)) == places(longer)


@given(states())
def test_any_state_merged_with_itself_stays_as_it_is(state: ConversationState) -> None:
    assert merged(state, state, state) == state
    assert merged(state, state) == state
    assert as_json(merged(state, state, state).to_dict()) == as_json(state.to_dict())


@given(additions, additions)
def test_ids_of_theirs_stay_valid(before: list[Added], other: list[Added]) -> None:
    """Where siblings differ, what theirs calls a node is what the union calls it."""
    base = begin()
    theirs = extend(base, [one._replace(content=f"{n}", key=None) for n, one in enumerate(other)])
    ours = extend(base, [one._replace(content=f"mine {n}", key=None) for n, one in enumerate(before)])
    both = merged(ours, theirs, base)
    for node in theirs.message_tree.walk():
        node_id = node.data.node_id
        assert both.path_to(node_id)[-1].message.content == node.data.message.content


def test_two_continuations_of_one_message_become_two_branches_theirs_first() -> None:
    base = begin()
    both = merged(extend(base, [Added(0, "mine")]), extend(base, [Added(0, "theirs")]), base)
    assert contents(both.message_tree) == ["root", ["theirs"], ["mine"]]
    assert both.current_node_id == "1"
    assert [message.content for message in both.get_current_messages()] == ["root", "mine"]


def test_identical_siblings_are_matched_one_to_one() -> None:
    base = begin()
    one, two, three = (extend(base, [Added(0, "x")] * count) for count in (1, 2, 3))
    assert contents(merged(two, three, base).message_tree) == ["root", ["x"], ["x"], ["x"]]
    assert contents(merged(three, one, base).message_tree) == ["root", ["x"], ["x"], ["x"]]


def test_the_children_of_identical_siblings_stay_below_their_own_parents() -> None:
    base = extend(begin(), [Added(0, "x"), Added(0, "x")])
    ours = extend(base, [Added(1, "below the first")])
    theirs = extend(base, [Added(2, "below the second")])
    assert contents(merged(ours, theirs, base).message_tree) == [
        "root", ["x", ["below the first"]], ["x", ["below the second"]],
    ]  # fmt: skip


def test_one_idempotency_key_is_one_message_whatever_the_timestamps() -> None:
    base = begin()
    ours = extend(base, [Added(0, "once", 1, "request-1"), Added(1, "my answer", 2)])
    theirs = extend(base, [Added(0, "once", 7, "request-1"), Added(1, "their answer", 8)])
    both = merged(ours, theirs, base)
    assert contents(both.message_tree) == ["root", ["once", ["their answer"], ["my answer"]]]


def test_a_message_that_was_delivered_twice_below_different_messages_is_there_once() -> None:
    """The second delivery was loaded later: it saw what another writer had added, and answered that."""
    base = begin()
    others = extend(base, [Added(0, "from another")])
    again = extend(others, [Added(1, "once", 7, "request-1"), Added(2, "their answer", 8)])
    ours = extend(base, [Added(0, "once", 1, "request-1"), Added(1, "my answer", 2), Added(0, "mine")])
    both = merged(ours, again, base)
    assert contents(both.message_tree) == [
        "root", ["from another", ["once", ["their answer"], ["my answer"]]], ["mine"],
    ]  # fmt: skip
    both = merged(again, ours, base)
    assert contents(both.message_tree) == [
        "root", ["once", ["my answer"], ["their answer"]], ["mine"], ["from another"],
    ]  # fmt: skip


def test_a_repeat_keeps_the_current_message_and_the_node_that_was_handed_out() -> None:
    base = begin()
    theirs = extend(base, [Added(0, "from another"), Added(1, "once", 7, "request-1")])
    ours = copy.deepcopy(base)
    node = ours.add_message("user", "once", idempotency_key="request-1")
    merge_into(ours, theirs, base)
    assert [message.content for message in ours.get_current_messages()] == ["root", "from another", "once"]
    assert node.node_id == "0.0"
    ours.add_message("assistant", "below it", parent=node)
    assert contents(ours.message_tree) == ["root", ["from another", ["once", ["below it"]]]]


def test_repeats_in_opposite_order_do_not_tie_a_knot() -> None:
    base = begin()
    theirs = extend(base, [Added(0, "a", 0, "k1"), Added(1, "b", 1, "k2"), Added(2, "end")])
    ours = extend(base, [Added(0, "b", 2, "k2"), Added(1, "a", 3, "k1"), Added(2, "mine")])
    assert contents(merged(ours, theirs, base).message_tree) == [
        "root", ["a", ["b", ["end"]], ["mine"]],
    ]  # fmt: skip


def test_of_two_deliveries_the_first_counts() -> None:
    base = begin()
    ours = extend(base, [Added(0, "regenerated", 5, "reply")])
    theirs = extend(base, [Added(0, "what the user has read", 1, "reply")])
    (reply,) = merged(ours, theirs, base).message_tree.children
    assert reply.data.message.content == "what the user has read"
    assert reply.data.timestamp == DAY + timedelta(minutes=1)


@pytest.mark.parametrize(
    ("mine", "other", "merged"),
    [("as it was", "theirs", "theirs"), ("mine", "as it was", "mine"), ("mine", "theirs", "mine")],
)
@pytest.mark.parametrize("at_the_root", [True, False])
def test_what_a_message_with_a_key_says_is_merged_three_way(
    mine: str, other: str, merged: str, at_the_root: bool
) -> None:
    base = ConversationState("c") if at_the_root else begin()
    base.add_message("user", "as it was", idempotency_key="request-1")
    base.add_message("assistant", "the answer")
    ours, theirs = copy.deepcopy(base), copy.deepcopy(base)
    for state, said in ((ours, mine), (theirs, other)):
        state.get_current_messages()[-2].content = said
    ours.add_message("user", "and now?")
    merge_into(ours, theirs, base)
    assert [message.content for message in ours.get_current_messages()][-3:] == [merged, "the answer", "and now?"]
    assert len(list(ours.message_tree.walk())) == (3 if at_the_root else 4)


def test_different_idempotency_keys_are_different_messages_whatever_they_say() -> None:
    base = begin()
    both = merged(extend(base, [Added(0, "x", 1, "a")]), extend(base, [Added(0, "x", 1, "b")]), base)
    assert contents(both.message_tree) == ["root", ["x"], ["x"]]


@pytest.mark.parametrize(
    "change",
    [
        {"role": "assistant"}, {"content": "y"}, {"content": None}, {"content": ["x"]}, {"name": "n"},
        {"tool_calls": [{"id": "1"}]}, {"function_call": {"name": "f"}}, {"tool_call_id": "t"},
    ],
)  # fmt: skip
def test_messages_that_differ_in_anything_said_are_different(change: dict[str, Any]) -> None:
    base = begin()
    ours, theirs = extend(base, [Added(0, "x")]), extend(base, [Added(0, "x")])
    for field, value in change.items():
        setattr(theirs.message_tree.children[0].data.message, field, value)
    assert len(merged(ours, theirs, base).message_tree.children) == 2


def test_content_respects_types() -> None:
    told = [identity(ConversationNode(LLMMessage("user", [value]), timestamp=DAY)) for value in (1, 1.0, True, "1")]
    assert len(set(told)) == 4


def test_one_instant_is_one_instant_however_it_is_written() -> None:
    base = begin()
    ours, theirs = extend(base, [Added(0, "x")]), extend(base, [Added(0, "x")])
    theirs.message_tree.children[0].data.timestamp = DAY.astimezone(timezone(timedelta(hours=5, minutes=30)))
    ours.message_tree.children[0].data.timestamp = DAY.replace(tzinfo=None)
    assert len(merged(ours, theirs, base).message_tree.children) == 1


@pytest.mark.parametrize("with_base", [True, False])
def test_different_roots_are_a_conflict_and_ours_is_unchanged(with_base: bool) -> None:
    base = begin()
    ours = extend(base, [Added(0, "mine")])
    theirs = ConversationState.start("c", system="another", metadata={"k": 1})
    before = copy.deepcopy(ours)
    with pytest.raises(ConflictError, match="'c' begins with another message") as conflict:
        merge_into(ours, theirs, base if with_base else None)
    assert not conflict.value.deleted
    assert ours == before


def test_two_that_were_begun_at_once_begin_alike_if_only_their_times_differ() -> None:
    ours, theirs = begin(), begin()
    theirs.message_tree.data.timestamp = DAY - timedelta(seconds=1)
    ours.add_message("user", "mine", timestamp=DAY)
    theirs.add_message("user", "theirs", timestamp=DAY)
    root = ours.message_tree.data
    merge_into(ours, theirs, None)
    assert contents(ours.message_tree) == ["root", ["theirs"], ["mine"]]
    assert ours.message_tree.data is root
    assert root.timestamp == DAY - timedelta(seconds=1)  # as it is in the archive, so that the next merge finds it


@pytest.mark.parametrize("keys", [("a", "b"), ("a", None), (None, "a")])
def test_but_not_if_they_have_keys_that_differ(keys: tuple[str | None, str | None]) -> None:
    ours, theirs = begin(), begin()
    for state, key in zip((ours, theirs), keys, strict=True):
        if key:
            state.message_tree.data.metadata["idempotency_key"] = key
    with pytest.raises(ConflictError, match="begins with another message"):
        merge_into(ours, theirs, None)


def test_nor_if_ours_began_from_what_is_there() -> None:
    base = begin()
    ours, theirs = copy.deepcopy(base), copy.deepcopy(base)
    theirs.message_tree.data.timestamp = DAY - timedelta(seconds=1)
    with pytest.raises(ConflictError, match="begins with another message"):
        merge_into(ours, theirs, base)


def test_a_deep_conversation_merges_without_recursion() -> None:
    base = begin()
    for number in range(DEEP):
        base.add_message("user", str(number), timestamp=DAY)
    ours, theirs = copy.deepcopy(base), copy.deepcopy(base)
    ours.add_message("user", "mine", timestamp=DAY)
    theirs.add_message("user", "theirs", timestamp=DAY)
    merge_into(ours, theirs, base)
    assert sum(1 for _ in ours.message_tree.walk()) == DEEP + 3
    assert [leaf.message.content for leaf in ours.leaves()] == ["theirs", "mine"]
    current = ours.get_current_node()
    assert current is not None
    assert current.data.message.content == "mine"


# --- beside the messages --------------------------------------------------------------------------------------------

MISSING = object()


def three_way(base: dict[str, Any], mine: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """What the merge promises, written out case by case."""
    result = {}
    for key in {*base, *mine, *other}:
        was, ours, theirs = (as_json(side[key]) if key in side else MISSING for side in (base, mine, other))
        if ours != was:  # we changed, added or removed it
            if ours is not MISSING:
                result[key] = mine[key]
        elif theirs is not MISSING:  # we did not: theirs counts, changed or not, removals too
            result[key] = other[key]
    return result


metadata = st.dictionaries(
    st.sampled_from("abc"), st.sampled_from([1, 1.0, True, 0, False, None, "1", [], {}, [1], [True], {"x": 1}])
)


@given(metadata, metadata, metadata)
def test_metadata_of_every_level_is_merged_three_way_with_ours_winning(
    before: dict[str, Any], mine: dict[str, Any], other: dict[str, Any]
) -> None:
    base, ours, theirs = (begin() for _ in range(3))
    for state, values in ((base, before), (ours, mine), (theirs, other)):
        node = state.message_tree.data
        for thing in (state, node, node.message):
            thing.metadata = dict(values)
            thing.extra = {f"unknown {key}": value for key, value in values.items()}
    both = merged(ours, theirs, base)
    expected = three_way(before, mine, other)
    for thing in (both, both.message_tree.data, both.message_tree.data.message):
        assert as_json(thing.metadata) == as_json(expected)
        assert as_json(thing.extra) == as_json({f"unknown {key}": value for key, value in expected.items()})


@given(metadata, metadata)
def test_without_a_base_ours_wins_per_key(mine: dict[str, Any], other: dict[str, Any]) -> None:
    ours, theirs = begin(**mine), begin(**other)
    assert as_json(merged(ours, theirs).metadata) == as_json({**other, **mine})


def test_what_one_side_removed_stays_removed_unless_the_other_changed_it() -> None:
    base = begin(mine=1, theirs=1, both=1, changed=1)
    ours, theirs = begin(theirs=1, changed=1), begin(mine=1, changed=2)
    assert merged(ours, theirs, base).metadata == {"changed": 2}
    assert merged(begin(changed=3), theirs, base).metadata == {"changed": 3}
    assert merged(begin(), theirs, base).metadata == {}


@pytest.mark.parametrize("label", ["prompt_name", "branch_name"])
@pytest.mark.parametrize(
    ("before", "mine", "other", "expected"),
    [
        ("a", "a", "b", "b"), ("a", "b", "a", "b"), ("a", "b", "c", "b"), ("a", None, "a", None), ("a", "a", None,
        None),
        (None, None, "b", "b"), (None, "b", None, "b"), ("a", None, "b", None),
    ],
)  # fmt: skip
def test_labels_are_merged_three_way(
    label: str, before: str | None, mine: str | None, other: str | None, expected: str | None
) -> None:
    base, ours, theirs = (begin() for _ in range(3))
    for state, value in ((base, before), (ours, mine), (theirs, other)):
        setattr(state.message_tree.data, label, value)
    assert getattr(merged(ours, theirs, base).message_tree.data, label) == expected


def test_the_base_is_not_changed() -> None:
    base = extend(begin(k=1), [Added(0, "x")])
    before = copy.deepcopy(base)
    merged(extend(base, [Added(0, "y")]), extend(base, [Added(1, "z")]), base)
    assert base == before


@pytest.mark.parametrize(
    ("mine", "other", "earlier", "later"),
    [
        (DAY, DAY + timedelta(1), DAY, DAY + timedelta(1)),
        (DAY + timedelta(1), DAY, DAY, DAY + timedelta(1)),
        (datetime(2025, 3, 1), datetime(2025, 3, 1, 1, tzinfo=timezone(timedelta(hours=2))), "other", "mine"),
        (datetime(2025, 3, 1, 5, tzinfo=timezone(timedelta(hours=6))), datetime(2025, 3, 1), "mine", "other"),
        (datetime(2025, 3, 1), DAY, "mine", "mine"),
        (datetime.min, datetime.max.replace(tzinfo=UTC), "mine", "other"),
    ],
)
def test_created_at_is_the_earlier_instant_and_updated_at_the_later(
    mine: datetime, other: datetime, earlier: Any, later: Any
) -> None:
    named = {"mine": mine, "other": other}
    ours, theirs = begin(), begin()
    ours.created_at = ours.updated_at = mine
    theirs.created_at = theirs.updated_at = other
    both = merged(ours, theirs)
    assert both.created_at == named.get(earlier, earlier)
    assert both.updated_at == named.get(later, later)


def test_a_time_that_comes_from_theirs_is_written_as_theirs_wrote_it() -> None:
    form = begin().to_dict()
    form["created_at"], form["updated_at"] = "2020-01-01T00:00:00Z", "2030-01-01T00:00:00.000Z"
    written = merged(begin(), ConversationState.from_dict(form)).to_dict()
    assert (written["created_at"], written["updated_at"]) == ("2020-01-01T00:00:00Z", "2030-01-01T00:00:00.000Z")


@pytest.mark.parametrize(("mine", "other"), [("1.1.0", "1.10.0"), ("1.10.0", "1.1.0"), ("1.9.0", "1.10.0")])
def test_the_schema_version_is_the_newer_of_the_two_since_the_union_has_what_is_of_it(mine: str, other: str) -> None:
    ours, theirs = begin(), begin()
    ours.schema_version, theirs.schema_version = mine, other
    assert merged(ours, theirs).schema_version == "1.10.0"
