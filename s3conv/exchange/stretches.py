"""A conversation's tree as a list of stretches, in an order in which each of its branches can be read.

Law: every message is in exactly one stretch. The list is a walk of the tree, each branch to its end first, so that
the stretches of any branch come in its order; the branch that the conversation stands on comes first, in one piece.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from s3conv.exchange.growing import Node
from s3conv.model.state import ConversationState


@dataclass(slots=True, eq=False)
class Stretch:
    """Messages that follow each other, up to where the conversation branches.

    Args:
        number: its place in the list, from 1.
        nodes: at least one.
        above: the stretch that it goes on from; None for the one with the root.
        position: its place among those that go on from the same message, from 0 and in the order of the tree.
        on_show: on the branch that the conversation stands on.
        below: what goes on from its end, in the order of the tree.
        first_message: the number of its first message, counted from 1 in the order of the list.
    """

    number: int
    nodes: list[Node]
    above: Stretch | None
    position: int
    on_show: bool
    first_message: int
    below: list[Stretch] = field(default_factory=list)

    @property
    def last_message(self) -> int:
        """The number of its last message."""
        return self.first_message + len(self.nodes) - 1

    @property
    def siblings(self) -> list[Stretch]:
        """All that go on from the same message, this one among them."""
        return self.above.below if self.above is not None else [self]


def stretches(state: ConversationState) -> list[Stretch]:
    """The stretches of a conversation; none if it has no message.

    Where a branch that is not the current one branches again, its latest (last) continuation comes first.
    """
    if not state.leaves():
        return []
    current = state.get_current_node()
    on_path = {id(node) for node in current.get_path()} if current is not None else set()
    found: list[Stretch] = []
    messages = 0
    waiting: list[tuple[Node, Stretch | None, int, bool]] = [(state.message_tree, None, 0, True)]
    while waiting:
        node, above, position, on_show = waiting.pop()
        nodes = [node]
        while len(node.children) == 1:
            node = node.children[0]
            nodes.append(node)
        stretch = Stretch(len(found) + 1, nodes, above, position, on_show, messages + 1)
        found.append(stretch)
        messages += len(nodes)
        children = node.children
        if not children:
            continue
        first = next((n for n, child in enumerate(children) if id(child) in on_path), len(children) - 1)
        order = [first, *(n for n in range(len(children)) if n != first)]
        for n in reversed(order):
            waiting.append((children[n], stretch, n, on_show and n == first))
    for stretch in sorted(found, key=lambda stretch: stretch.position):
        if stretch.above is not None:
            stretch.above.below.append(stretch)
    return found
