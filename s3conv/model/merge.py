"""Merging two versions of one conversation: the union of their trees.

Law: no message is lost and none gets another's parent. Children of matched parents are matched by what they are, never
by node id; what only one side has becomes a sibling branch. What lies beside the messages (metadata, labels) is merged
three-way against `base`, the version that ours began from; where both changed the same thing, ours wins.

Messages count as the same only if all that they say is the same: role, content, name, tool calls and timestamp; or if
they carry one idempotency key, which says that one message was delivered twice. Such a message is matched wherever it
is, as its two writers may have seen different messages before it; it stays where theirs has it.
"""

from __future__ import annotations

import json
from collections import defaultdict, deque
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, TypeVar

from s3conv.errors import ConflictError
from s3conv.model.message import ConversationNode, as_utc
from s3conv.model.schema import parse_version
from s3conv.model.state import IDEMPOTENCY_KEY, ConversationState
from s3conv.model.tree import Tree

V = TypeVar("V")
Node = Tree[ConversationNode]


def merge_into(ours: ConversationState, theirs: ConversationState, base: ConversationState | None) -> None:
    """Make `ours` the union of both.

    Args:
        ours: the version to save; changed in place: its nodes stay, theirs come before them among siblings, so that
            ids handed out for theirs stay valid. Its current node stays current under its new id.
        theirs: the version that was saved meanwhile; used up (its nodes move).
        base: the version that `ours` was loaded from, or None if unknown.

    Raises:
        ConflictError: the two begin with different messages; `ours` is unchanged.
    """
    our_root, their_root = ours.message_tree, theirs.message_tree
    if identity(our_root.data) != identity(their_root.data):
        raise ConflictError(
            f"conversation {ours.conversation_id!r} begins with another message in the archive than in this state: the "
            "two cannot be merged; load it again, or save with on_conflict='overwrite'"
        )
    ours.get_current_node()  # holds on to the node itself, before ids change
    base_root = base.message_tree if base is not None else None
    pairs: deque[tuple[Node, Node, Node | None]] = deque([(our_root, their_root, base_root)])
    delivered = _delivered_to_both(our_root, their_root)
    while pairs:
        mine, other, before = pairs.popleft()
        _merge_node(mine.data, other.data, before.data if before is not None else None)
        pairs.extend(_merge_children(mine, other, before, delivered))
    ours.metadata = _three_way(base.metadata if base is not None else {}, ours.metadata, theirs.metadata)
    ours.extra = _three_way(base.extra if base is not None else {}, ours.extra, theirs.extra)
    if as_utc(theirs.created_at) < as_utc(ours.created_at):
        ours.take_time("created_at", theirs)
    if as_utc(theirs.updated_at) > as_utc(ours.updated_at):
        ours.take_time("updated_at", theirs)
    # The union has what is new in the newer of the two.
    ours.schema_version = max(ours.schema_version, theirs.schema_version, key=parse_version)


def identity(node: ConversationNode) -> Hashable:
    """What makes a message the same message on both sides."""
    if (key := _key_of(node)) is not None:
        return ("key", key)
    message = node.message
    said = [
        message.role,
        message.content,
        message.name,
        message.tool_calls,
        message.function_call,
        message.tool_call_id,
    ]
    return ("said", _canonical(said), as_utc(node.timestamp))


def _key_of(node: ConversationNode) -> str | None:
    key = node.metadata.get(IDEMPOTENCY_KEY)
    return key if isinstance(key, str) else None


def _delivered_to_both(ours: Node, theirs: Node) -> dict[str, Node]:
    """Our nodes by idempotency key: those keys that each side has, and has once."""
    by_key: list[dict[str, list[Node]]] = []
    for root in (ours, theirs):
        found = defaultdict(list)
        for node in root.walk():
            if (key := _key_of(node.data)) is not None:
                found[key].append(node)
        by_key.append(found)
    our_keys, their_keys = by_key
    return {key: nodes[0] for key, nodes in our_keys.items() if len(nodes) == 1 and len(their_keys.get(key, ())) == 1}


def _merge_children(
    mine: Node, other: Node, before: Node | None, delivered: Mapping[str, Node]
) -> list[tuple[Node, Node, Node | None]]:
    """Give `mine` the children of both; return the matched ones, whose own children are still to be merged."""
    take_ours = _taker(mine.children)
    take_base = _taker(before.children if before is not None else [])
    matched: list[tuple[Node, Node, Node | None]] = []
    merged: list[Node] = []
    ours_matched: set[int] = set()
    for child in other.children:
        said = identity(child.data)
        twin = take_ours(said)
        if twin is None:
            twin = _moved(child, delivered)
        if twin is None:
            merged.append(child)
            matched.extend(_moved_below(child, delivered))
        else:
            ours_matched.add(id(twin))
            matched.append((twin, child, take_base(said)))
            merged.append(twin)
    merged.extend(child for child in mine.children if id(child) not in ours_matched)
    mine.arrange_children(merged)
    return matched


def _moved(theirs: Node, delivered: Mapping[str, Node]) -> Node | None:
    """Our node for one of theirs that carries its key, taken from its place in our tree; None if there is none."""
    key = _key_of(theirs.data)
    ours = delivered.get(key) if key is not None else None
    # It is matched with nothing yet, and so is nothing below it: what is matched lies below matched nodes or theirs.
    if ours is not None and ours.parent is not None:
        ours.parent.arrange_children([child for child in ours.parent.children if child is not ours])
    return ours


def _moved_below(theirs: Node, delivered: Mapping[str, Node]) -> list[tuple[Node, Node, Node | None]]:
    """Put our nodes in the place of those of theirs, below a node that only they have, that carry their keys."""
    matched: list[tuple[Node, Node, Node | None]] = []
    waiting = [theirs] if delivered else []
    while waiting:
        node = waiting.pop()
        children: list[Node] = []
        for child in node.children:
            twin = _moved(child, delivered)
            if twin is None:
                waiting.append(child)
            else:
                matched.append((twin, child, None))
            children.append(twin or child)
        node.arrange_children(children)
    return matched


def _taker(children: Sequence[Node]) -> Callable[[Hashable], Node | None]:
    """A function that gives each child at most once, by identity: identical siblings are matched one to one."""
    waiting: defaultdict[Hashable, deque[Node]] = defaultdict(deque)
    for child in children:
        waiting[identity(child.data)].append(child)
    return lambda said: waiting[said].popleft() if waiting.get(said) else None


def _merge_node(mine: ConversationNode, other: ConversationNode, before: ConversationNode | None) -> None:
    mine.prompt_name = _pick(before.prompt_name if before else None, mine.prompt_name, other.prompt_name)
    mine.branch_name = _pick(before.branch_name if before else None, mine.branch_name, other.branch_name)
    mine.metadata = _three_way(before.metadata if before else {}, mine.metadata, other.metadata)
    mine.extra = _three_way(before.extra if before else {}, mine.extra, other.extra)
    message, message_before = mine.message, before.message if before else None
    message.metadata = _three_way(
        message_before.metadata if message_before else {}, message.metadata, other.message.metadata
    )
    message.extra = _three_way(message_before.extra if message_before else {}, message.extra, other.message.extra)


def _pick(before: V, mine: V, other: V) -> V:
    return other if _same(mine, before) else mine


def _same(one: object, other: object) -> bool:
    """Equal as JSON values; to Python alone, 1, 1.0 and true would be the same."""
    return one is other or (one == other and _canonical(one) == _canonical(other))


def _canonical(value: object) -> str:
    """A text that is the same for equal JSON values, whatever the order of their keys."""
    try:
        return json.dumps(value, sort_keys=True)
    except TypeError:  # keys of several types have no order before JSON has made text of them
        return json.dumps(json.loads(json.dumps(value)), sort_keys=True)


_ABSENT = object()


def _three_way(before: Mapping[str, Any], mine: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Per key: what only one side changed is taken from that side; where both changed it, ours. Absence is a value."""
    merged = {}
    for name in {**mine, **other}:
        value = _pick(before.get(name, _ABSENT), mine.get(name, _ABSENT), other.get(name, _ABSENT))
        if value is not _ABSENT:
            merged[name] = value
    return merged
