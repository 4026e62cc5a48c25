"""`Tree` and node ids: order, moves, walks, and any depth without recursion."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3conv.model.tree import Tree, calculate_node_id, get_node_by_id
from tests.strategies import grow, shapes

DEEP = 10_000


def small() -> dict[str, Tree[str]]:
    """root ─ a ─ (c, d); root ─ b ─ e."""
    names = ["root", "a", "b", "c", "d", "e"]
    return dict(zip(names, grow(names, [0, 0, 1, 1, 2]), strict=True))


def chain(length: int) -> list[Tree[int]]:
    return grow(range(length), range(length - 1))


def data(nodes: list[Tree[Any]]) -> list[Any]:
    return [node.data for node in nodes]


# --- growing and moving ---------------------------------------------------------------------------------------------


def test_a_new_tree_is_a_root_without_children() -> None:
    tree = Tree("x")
    assert (tree.data, tree.parent, tree.sibnum, tree.get_path()) == ("x", None, 0, [tree])
    assert tree.children == []
    assert tree.root is tree


def test_add_child_appends_data_or_a_node_and_returns_the_node() -> None:
    tree = Tree("root")
    first = tree.add_child("a")
    other = Tree("b")
    assert tree.add_child(other) is other
    assert data(tree.children) == ["a", "b"]
    assert first.parent is tree
    assert other.parent is tree
    assert [child.sibnum for child in tree.children] == [0, 1]


def test_a_node_that_is_added_elsewhere_leaves_its_parent_with_all_below_it() -> None:
    nodes = small()
    nodes["b"].add_child(nodes["a"])
    assert data(nodes["root"].children) == ["b"]
    assert data(nodes["b"].children) == ["e", "a"]
    assert data(nodes["c"].get_path()) == ["root", "b", "a", "c"]
    assert (nodes["b"].sibnum, nodes["a"].sibnum) == (0, 1)


def test_a_child_that_is_added_again_becomes_the_last() -> None:
    nodes = small()
    nodes["root"].add_child(nodes["a"])
    assert data(nodes["root"].children) == ["b", "a"]
    assert [child.sibnum for child in nodes["root"].children] == [0, 1]


@pytest.mark.parametrize("name", ["root", "a", "c"])
def test_a_node_cannot_become_a_child_of_itself_or_of_one_below_it(name: str) -> None:
    nodes = small()
    with pytest.raises(ValueError, match="below"):
        nodes["c"].add_child(nodes[name])
    assert data(list(nodes["root"].walk())) == ["root", "a", "c", "d", "b", "e"]


@given(shapes(), st.data())
def test_sibnum_is_the_position_among_the_siblings_after_any_moves(parents: list[int], drawn: st.DataObject) -> None:
    nodes = grow(range(len(parents) + 1), parents)
    for _ in range(4):
        mover, target = (drawn.draw(st.sampled_from(nodes)) for _ in range(2))
        if any(step is mover for step in target.get_path()):
            with pytest.raises(ValueError, match="below"):
                target.add_child(mover)
        elif mover.parent is not None:
            target.add_child(mover)
            assert target.children[-1] is mover
    for node in nodes:
        assert [child.sibnum for child in node.children] == list(range(len(node.children)))
        assert all(child.parent is node for child in node.children)
        assert get_node_by_id(nodes[0], calculate_node_id(node)) is node
    assert sorted(data(list(nodes[0].walk()))) == list(range(len(nodes)))


def test_arrange_children_gives_order_and_parent() -> None:
    nodes = small()
    nodes["root"].arrange_children([nodes["b"], nodes["d"], nodes["a"]])
    assert data(nodes["root"].children) == ["b", "d", "a"]
    assert [child.sibnum for child in nodes["root"].children] == [0, 1, 2]
    assert nodes["d"].parent is nodes["root"]


# --- walking --------------------------------------------------------------------------------------------------------


def test_get_path_leads_from_the_root_to_the_node() -> None:
    assert data(small()["d"].get_path()) == ["root", "a", "d"]


@pytest.mark.parametrize(
    ("traversal", "expected"),
    [("bfs", ["root", "a", "b", "c", "d", "e"]), ("dfs", ["root", "a", "c", "d", "b", "e"])],
)
def test_find_nodes_goes_level_by_level_or_branch_by_branch(traversal: Any, expected: list[str]) -> None:
    root = small()["root"]
    assert data(root.find_nodes(lambda node: True, traversal)) == expected
    assert data(root.find_nodes(lambda node: True, traversal, include_self=False)) == expected[1:]
    assert data(root.find_nodes(lambda node: node.data in "cbe", traversal, only_first=True)) == [
        next(name for name in expected if name in "cbe")
    ]


def test_find_nodes_starts_at_the_node_that_is_asked() -> None:
    assert data(small()["a"].find_nodes(lambda node: node.data != "c")) == ["a", "d"]


def test_find_nodes_goes_depth_first_unless_told() -> None:
    assert data(small()["root"].find_nodes(lambda node: True)) == ["root", "a", "c", "d", "b", "e"]


def test_an_unknown_traversal_is_refused() -> None:
    unknown: Any = "random"
    with pytest.raises(ValueError, match="'bfs' or 'dfs'"):
        small()["root"].find_nodes(lambda node: True, unknown)


# --- ids ------------------------------------------------------------------------------------------------------------


def test_a_node_id_is_the_place_from_the_root() -> None:
    nodes = small()
    ids = {name: calculate_node_id(node) for name, node in nodes.items()}
    assert ids == {"root": "", "a": "0", "b": "1", "c": "0.0", "d": "0.1", "e": "1.0"}
    assert all(get_node_by_id(nodes["root"], node_id) is nodes[name] for name, node_id in ids.items())


@pytest.mark.parametrize(
    "node_id",
    [
        "0..1", "-1", "+0", "00", "0.00", "01", "1_0", "٠", "０", " 0", "0 ", "0\n", ".", ".0", "0.", "0.-1", "0x0",
        "1e0",
        "a", "None", "0,1", "0/1", "9" * 9, "9" * 10, "9" * 5000, "0." * 5000, "\x00", "\ud800",
    ],
)  # fmt: skip
def test_a_malformed_id_and_a_negative_index_name_no_node(node_id: str) -> None:
    assert get_node_by_id(small()["root"], node_id) is None


@pytest.mark.parametrize("node_id", ["2", "0.2", "0.0.0", "1.1", "7.7.7"])
def test_an_id_beyond_the_tree_names_no_node(node_id: str) -> None:
    assert get_node_by_id(small()["root"], node_id) is None


@given(st.text(st.sampled_from("0123456789.-+_ "), max_size=6))
def test_an_id_names_the_node_whose_id_it_is_or_none(node_id: str) -> None:
    found = get_node_by_id(small()["root"], node_id)
    assert found is None or calculate_node_id(found) == node_id


def test_an_id_leads_to_two_digit_places() -> None:
    root = grow(range(13), [0] * 12)[0]
    assert calculate_node_id(root.children[11]) == "11"
    found = get_node_by_id(root, "11")
    assert found is root.children[11]


# --- comparing and copying ------------------------------------------------------------------------------------------


def test_trees_are_equal_by_shape_and_data() -> None:
    assert small()["root"] == small()["root"]
    assert small()["root"] != small()["a"]
    changed = small()
    changed["e"].data = "E"
    assert changed["root"] != small()["root"]
    moved = small()
    moved["a"].add_child(moved["e"])
    assert moved["root"] != small()["root"]
    assert Tree(1) != 1


def test_equal_subtrees_are_equal_wherever_they_hang() -> None:
    nodes = small()
    assert nodes["e"] == Tree("e")


def test_a_tree_has_no_hash_because_its_content_changes() -> None:
    with pytest.raises(TypeError):
        hash(Tree(1))


COPIES: list[Callable[[Any], Any]] = [copy.deepcopy, copy.copy, lambda thing: pickle.loads(pickle.dumps(thing))]


@pytest.mark.parametrize("copied", COPIES)
@given(parents=shapes())
def test_a_copy_of_a_node_is_that_node_of_a_whole_new_tree(
    copied: Callable[[Tree[int]], Tree[int]], parents: list[int]
) -> None:
    for node in grow(range(len(parents) + 1), parents):
        twin = copied(node)
        assert twin is not node
        assert twin == node
        assert twin.root == node.root
        assert calculate_node_id(twin) == calculate_node_id(node)
        assert not {id(one) for one in twin.root.walk()} & {id(one) for one in node.root.walk()}


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_every_protocol_of_today_pickles_a_tree(protocol: int) -> None:
    assert pickle.loads(pickle.dumps(small()["root"], protocol)) == small()["root"]


# --- any depth ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("position", [0, DEEP // 2, DEEP - 1])
@pytest.mark.parametrize("copied", COPIES)
def test_a_node_of_a_deep_tree_copies_and_pickles(copied: Callable[[Tree[int]], Tree[int]], position: int) -> None:
    node = chain(DEEP)[position]
    twin = copied(node)
    assert twin.data == position
    assert len(twin.get_path()) == position + 1
    assert twin.root == node.root


def test_a_deep_tree_compares_prints_walks_and_finds() -> None:
    nodes = chain(DEEP)
    root, last = nodes[0], nodes[-1]
    assert root == chain(DEEP)[0]
    longer = chain(DEEP + 1)[0]
    assert root != longer
    assert repr(root) == f"<Tree of {DEEP} nodes, 0>"
    assert repr(Tree("x")) == "<Tree of 1 node, 'x'>"
    assert data(root.find_nodes(lambda node: not node.children)) == [DEEP - 1]
    assert data(root.find_nodes(lambda node: not node.children, "bfs")) == [DEEP - 1]
    assert last.root is root
    node_id = calculate_node_id(last)
    assert node_id == ".".join(["0"] * (DEEP - 1))
    assert get_node_by_id(root, node_id) is last
    with pytest.raises(ValueError, match="below"):
        last.add_child(root)
