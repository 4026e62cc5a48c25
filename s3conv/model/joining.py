"""From a list of nodes, and what is said of their parents, to one tree.

Law: nothing is dropped silently. Nodes and edges that are not exactly one tree are an error that says where: a node
that cannot be reached, an edge to nowhere, an id given twice, two parents, a cycle, a root that is not clear.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from s3conv.errors import InvalidInputError
from s3conv.model.message import ConversationNode
from s3conv.model.schema import shown
from s3conv.model.tree import Tree


def grow_tree(
    nodes: Sequence[ConversationNode],
    parents: Sequence[int | None],
    order: Sequence[int],
    root: int,
) -> list[Tree[ConversationNode]]:
    """Join nodes into one tree.

    Args:
        nodes: what each place holds.
        parents: for each node the position of its parent; None for the root only.
        order: the positions of all but the root, in the order in which siblings follow one another.
        root: the position of the root.

    Returns:
        The tree node of each position.

    Raises:
        InvalidInputError: some nodes cannot be reached from the root.
    """
    places = [Tree(node) for node in nodes]
    for position in order:
        parent = parents[position]
        if parent is not None:
            places[parent].adopt(places[position])
    if sum(1 for _ in places[root].walk()) != len(nodes):
        reached = {id(place) for place in places[root].walk()}
        lost = [n for n, place in enumerate(places) if id(place) not in reached]
        raise InvalidInputError(
            f"nodes[{lost[0]}] is not reached from the root nodes[{root}] ({len(lost)} such): an edge is missing, or a "
            "cycle cuts it off"
        )
    return places


def read_list(data: Mapping[str, Any], name: str) -> list[Any]:
    """The list in a field; `nodes` may not be empty."""
    value = data.get(name)
    if not isinstance(value, list):
        found = type(value).__name__ if name in data else "nothing"
        raise InvalidInputError(f"{name}: expected a list, found {found}")
    if name == "nodes" and not value:
        raise InvalidInputError("nodes: expected at least one, found none")
    return value


def read_ids(nodes: Sequence[Any]) -> dict[str, int]:
    """The position of each node by its recorded id, in the order of the nodes."""
    ids: dict[str, int] = {}
    for position, node in enumerate(nodes):
        node_id = node.get("node_id") if isinstance(node, Mapping) else None
        if not isinstance(node_id, str):
            raise InvalidInputError(f"nodes[{position}]: expected an object with a string node_id")
        if node_id in ids:
            raise InvalidInputError(f"nodes[{position}]: node_id {shown(node_id)} is that of nodes[{ids[node_id]}] too")
        ids[node_id] = position
    return ids


def read_edges(edges: list[Any], ids: Mapping[str, int]) -> tuple[list[int | None], list[int]]:
    """The parent of each node, and the order in which the edges name their children."""
    parents: list[int | None] = [None] * len(ids)
    order = []
    for number, edge in enumerate(edges):
        if not isinstance(edge, list) or len(edge) != 2 or not all(isinstance(end, str) for end in edge):
            raise InvalidInputError(f"edges[{number}]: expected [parent node_id, child node_id]")
        for end in edge:
            if end not in ids:
                raise InvalidInputError(f"edges[{number}]: {shown(end)} names no node")
        parent, child = ids[edge[0]], ids[edge[1]]
        if parents[child] is not None:
            raise InvalidInputError(f"edges[{number}]: node {shown(edge[1])} has a parent already")
        parents[child] = parent
        order.append(child)
    return parents, order


def find_root(node_ids: Sequence[str], parents: Sequence[int | None]) -> int:
    """The position of the root: the node with id ""; without one, the one parent that is nobody's child.

    Raises:
        InvalidInputError: it is not clear, or is the child of another node.
    """
    if "" in node_ids:
        root = node_ids.index("")
        if parents[root] is not None:
            raise InvalidInputError(f"nodes[{root}]: the root (node_id '') is the child of another node: a cycle")
        return root
    if len(node_ids) == 1:
        if parents[0] is not None:
            raise InvalidInputError("nodes[0]: the only node is its own parent")
        return 0
    candidates = sorted({parent for parent in parents if parent is not None and parents[parent] is None})
    if len(candidates) != 1:
        found = ", ".join(shown(node_ids[n]) for n in candidates[:10]) or "none"
        raise InvalidInputError(
            f"the root is not clear: expected one node_id '' or one parent without one, found {found}"
        )
    return candidates[0]
