"""`Tree`: a node with data, an ordered list of children and a parent; a whole tree is its root.

Law: nothing here recurses, so that a conversation may be tens of thousands of messages deep: comparing, printing,
copying and pickling take linear time and constant stack. Names and meanings are those of dataknobs' tree.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Generic, Literal, TypeVar

D = TypeVar("D")

_NODE_ID = re.compile(r"(?:0|[1-9][0-9]{0,8})(?:\.(?:0|[1-9][0-9]{0,8}))*")


class Placed:
    """Data that knows which tree node holds it, so that its id can be worked out when somebody asks."""

    __slots__ = ("_place",)
    _place: Tree[Any] | None

    def _unplaced(self) -> Placed:
        """A shallow copy that belongs to no tree."""
        raise NotImplementedError


class Tree(Generic[D]):
    """One node of a tree, and with it the subtree below.

    Args:
        data: what the node holds.

    Two trees are equal if they have the same shape and equal data. A copy or pickle of any node is one of the whole
    tree that it belongs to, and gives the corresponding node of the new tree.
    """

    __hash__ = None  # type: ignore[assignment]  # trees are compared by content, and their content changes
    __slots__ = ("_children", "_data", "_parent", "_position")

    def __init__(self, data: D) -> None:
        self._children: list[Tree[D]] = []
        self._parent: Tree[D] | None = None
        self._position = 0
        self.data = data

    @property
    def data(self) -> D:
        """What the node holds."""
        return self._data

    @data.setter
    def data(self, data: D) -> None:
        before = getattr(self, "_data", None)
        if isinstance(before, Placed) and before._place is self:
            before._place = None
        self._data = data
        if isinstance(data, Placed):
            data._place = self

    @property
    def children(self) -> list[Tree[D]]:
        """The children in order; empty for a leaf. Change it through `add_child` only."""
        return self._children

    @property
    def parent(self) -> Tree[D] | None:
        """The parent; None for the root."""
        return self._parent

    @property
    def root(self) -> Tree[D]:
        """The node without a parent that this one descends from."""
        node = self
        while node._parent is not None:
            node = node._parent
        return node

    @property
    def sibnum(self) -> int:
        """The position among the siblings, from 0; 0 for the root."""
        if self._parent is None:
            return 0
        siblings = self._parent._children
        # The position noted when the node was added holds until an earlier sibling moves away.
        if self._position >= len(siblings) or siblings[self._position] is not self:
            for position, sibling in enumerate(siblings):
                sibling._position = position
        return self._position

    def add_child(self, node_or_data: Tree[D] | D) -> Tree[D]:
        """Append a child and return its node.

        Args:
            node_or_data: data for a new node, or a node, which leaves its former parent with all that is below it.

        Raises:
            ValueError: the node is this one or one above it, so that a cycle would arise.
        """
        child: Tree[D]
        if isinstance(node_or_data, Tree):
            child = node_or_data
            if child._children or child is self:
                above: Tree[D] | None = self
                while above is not None:
                    if above is child:
                        raise ValueError("a node cannot become a child of itself or of a node below it")
                    above = above._parent
            if child._parent is not None:
                del child._parent._children[child.sibnum]
        else:
            child = Tree(node_or_data)
        self.adopt(child)
        return child

    def adopt(self, child: Tree[D]) -> None:
        """Append a node that has no parent. Whoever calls it sees to it that no cycle arises; `add_child` does."""
        child._parent = self
        child._position = len(self._children)
        self._children.append(child)

    def arrange_children(self, children: list[Tree[D]]) -> None:
        """Make these nodes the children, in this order. None of them may be above this one."""
        self._children = []
        for position, child in enumerate(children):
            child._parent = self
            child._position = position
            self._children.append(child)

    def get_path(self) -> list[Tree[D]]:
        """The nodes from the root to this one, both included."""
        path = [self]
        while (parent := path[-1]._parent) is not None:
            path.append(parent)
        path.reverse()
        return path

    def walk(self, traversal: Literal["bfs", "dfs"] = "dfs") -> Iterator[Tree[D]]:
        """Yield this node and all below it: level by level ("bfs"), or each branch to its end first ("dfs").

        Either way parents come before children and siblings keep their order.
        """
        if traversal not in ("bfs", "dfs"):
            raise ValueError(f"traversal {traversal!r} is not known: expected 'bfs' or 'dfs'")
        waiting: deque[Tree[D]] = deque([self])
        while waiting:
            if traversal == "bfs":
                node = waiting.popleft()
                waiting.extend(node._children)
            else:
                node = waiting.pop()
                waiting.extend(reversed(node._children))
            yield node

    def find_nodes(
        self,
        accept_node_fn: Callable[[Tree[D]], bool],
        traversal: Literal["bfs", "dfs"] = "dfs",
        include_self: bool = True,
        only_first: bool = False,
    ) -> list[Tree[D]]:
        """The nodes for which `accept_node_fn` is true, in the order of `walk`."""
        found = []
        for node in self.walk(traversal):
            if (include_self or node is not self) and accept_node_fn(node):
                found.append(node)
                if only_first:
                    break
        return found

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Tree):
            return NotImplemented
        pairs: list[tuple[Tree[Any], Tree[Any]]] = [(self, other)]
        while pairs:
            mine, theirs = pairs.pop()
            if mine is theirs:
                continue
            if len(mine._children) != len(theirs._children) or mine._data != theirs._data:
                return False
            pairs.extend(zip(mine._children, theirs._children, strict=True))
        return True

    def __repr__(self) -> str:
        nodes = sum(1 for _ in self.walk())
        return f"<Tree of {nodes} node{'s' * (nodes != 1)}, {self._data!r}>"

    def __reduce__(self) -> tuple[Any, ...]:
        nodes = list(self.root.walk())
        position = {id(node): n for n, node in enumerate(nodes)}
        parents = [-1 if node._parent is None else position[id(node._parent)] for node in nodes]
        data = [node._data._unplaced() if isinstance(node._data, Placed) else node._data for node in nodes]
        return _rebuild, (data, parents, position[id(self)])


def _rebuild(data: list[D], parents: list[int], position: int) -> Tree[D]:
    nodes: list[Tree[D]] = []
    for item, parent in zip(data, parents, strict=True):
        node = Tree(item)
        if parent >= 0:
            nodes[parent].add_child(node)
        nodes.append(node)
    return nodes[position]


def calculate_node_id(node: Tree[Any]) -> str:
    """The id of a node: its place, as the positions on the way from the root ("0.1.2"); "" for the root."""
    positions = []
    current = node
    while current.parent is not None:
        positions.append(str(current.sibnum))
        current = current.parent
    positions.reverse()
    return ".".join(positions)


def get_node_by_id(tree: Tree[D], node_id: str) -> Tree[D] | None:
    """The node with this id below the root `tree`; None if the id is malformed or names no node."""
    if node_id == "":
        return tree
    if not _NODE_ID.fullmatch(node_id):
        return None
    node = tree
    for part in node_id.split("."):
        position = int(part)
        if position >= len(node.children):
            return None
        node = node.children[position]
    return node
