"""Merging a newer (or older, or the same) version of an imported conversation into the archived one. Pure.

Law: a message that is in the archive stays as it is there and where it is; one that is not is added below the message
that it answers; none is there twice. Messages are matched by the id that they have in their source, and where they
have none, by what they say and when, below a matched parent. Importing the same again changes nothing.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Hashable

from s3conv.exchange.growing import SYNTHETIC, Node, synthetic_node
from s3conv.exchange.provenance import merge_labels, source_id_of
from s3conv.exchange.values import fingerprint
from s3conv.model.merge import identity
from s3conv.model.message import ConversationNode, as_utc
from s3conv.model.state import ConversationState
from s3conv.model.tree import Tree


def merge_import(archived: ConversationState, incoming: ConversationState) -> bool:
    """Bring what `incoming` has into `archived`.

    Args:
        archived: changed in place.
        incoming: a version of the same conversation (see `is_same`); used up, as its nodes may move.

    Returns:
        Whether anything changed.
    """
    places, changed = _merge_trees(archived, incoming)
    return merge_labels(archived, incoming, places) or changed


def is_same(archived: ConversationState, incoming: ConversationState) -> bool:
    """Whether two conversations of one id are versions of one conversation, and not two that share an id by accident.

    They are if a message of one source id, or else the first message, is in both. Small exports use ids such as
    "msg-1" in every conversation, so a message has to agree in what it says or when, too.
    """
    ours, theirs = _by_source_id(archived), _by_source_id(incoming)
    if any(name in ours and _agree(ours[name], node) for name, node in theirs.items()):
        return True
    if _was_empty(archived, incoming) or _was_empty(incoming, archived):
        return True
    return not (ours and theirs) and identity(archived.message_tree.data) == identity(incoming.message_tree.data)


def identity_name(state: ConversationState) -> str:
    """What tells a conversation from others of the same id: a hash of its first message."""
    first = next((node for node in state.message_tree.walk() if not _is_synthetic(node)), state.message_tree)
    message = first.data.message
    said = [message.role, message.content, message.tool_calls, message.function_call]
    return fingerprint([source_id_of(first), said, as_utc(first.data.timestamp).isoformat()])


def _agree(one: Node, other: Node) -> bool:
    if _is_synthetic(one) or _is_synthetic(other):
        return False
    mine, theirs = one.data, other.data
    return mine.message.role == theirs.message.role and (
        mine.message.content == theirs.message.content or as_utc(mine.timestamp) == as_utc(theirs.timestamp)
    )


def _was_empty(one: ConversationState, other: ConversationState) -> bool:
    """Whether `one` has no message yet, and `other` is the same conversation later."""
    if not all(_is_synthetic(node) for node in one.message_tree.walk()):
        return False
    own, names = set(_by_source_id(one)), set(_by_source_id(other))
    source = other.message_tree.data.metadata.get("source")
    beside = source.get("node") if isinstance(source, dict) else None
    if isinstance(beside, dict):
        names.add(str(beside.get("parent")))
    return as_utc(one.created_at) == as_utc(other.created_at) and (not own or not own.isdisjoint(names))


def _is_synthetic(node: Node) -> bool:
    return node.data.metadata.get(SYNTHETIC) is True and node.data.message.content is None


def _by_source_id(state: ConversationState) -> dict[str, Node]:
    found: dict[str, Node] = {}
    for node in state.message_tree.walk():
        name = source_id_of(node)
        if name is not None:
            found.setdefault(name, node)
    return found


class _Unmatched:
    """The archived messages without a source id, below each parent, each to be matched once."""

    def __init__(self) -> None:
        self._waiting: dict[int, defaultdict[Hashable, deque[Node]]] = {}

    def take(self, parent: Node, wanted: Node) -> Node | None:
        if id(parent) not in self._waiting:
            waiting = self._waiting[id(parent)] = defaultdict(deque)
            for child in parent.children:
                if source_id_of(child) is None:
                    waiting[identity(child.data)].append(child)
        same = self._waiting[id(parent)].get(identity(wanted.data))
        return same.popleft() if same else None


def _merge_trees(archived: ConversationState, incoming: ConversationState) -> tuple[dict[int, Node], bool]:
    """The archived node of each incoming one, by `id`; and whether any was added."""
    # Asked for while both trees are whole: a current node given by its id is looked up once, and held from then on.
    archived.get_current_node()
    incoming.get_current_node()
    known = _by_source_id(archived)
    unmatched = _Unmatched()
    places: dict[int, Node] = {}
    added = False
    for node in list(incoming.message_tree.walk()):
        name = source_id_of(node)
        place: Node | None
        if node.parent is None:
            place, new = _place_root(archived, node, known)
            added |= new
        elif name is not None:
            place = known.get(name)
        else:
            place = unmatched.take(places[id(node.parent)], node)
        if place is None:
            assert node.parent is not None  # the root always has a place
            place = places[id(node.parent)].add_child(Tree(node.data))
            if name is not None:
                known[name] = place
            added = True
        places[id(node)] = place
    return places, added


def _place_root(archived: ConversationState, node: Node, known: dict[str, Node]) -> tuple[Node, bool]:
    root, name = archived.message_tree, source_id_of(node)
    if name is not None and name in known:
        return known[name], False
    if _is_synthetic(node):
        # Its children are several beginnings: they need a root of that kind, unless all of them are there already.
        if _is_synthetic(root) or all(source_id_of(child) in known for child in node.children):
            return root, False
        return _wrap(archived, node.data), True
    if (name is None or source_id_of(root) is None) and identity(root.data) == identity(node.data):
        return root, False
    above = root if _is_synthetic(root) else _wrap(archived, synthetic_node(root.data.timestamp))
    place = above.add_child(Tree(node.data))
    if name is not None:
        known[name] = place
    return place, True


def _wrap(archived: ConversationState, synthetic: ConversationNode) -> Node:
    """Put a synthetic root above the archived one, for a second beginning beside it."""
    current, root = archived.get_current_node(), archived.message_tree
    above = Tree(synthetic)
    above.add_child(root)
    archived.message_tree = above
    if current is not None:
        archived.set_current_node(current)
    return above
