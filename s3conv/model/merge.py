"""Merging two versions of one conversation: the union of their trees.

Law: no message is lost and none gets another's parent. Children of matched parents are matched by what they are, never
by node id; what only one side has becomes a sibling branch. What lies beside the messages (metadata, labels) is merged
three-way against `base`, the version that ours began from; where both changed the same thing, ours wins.

Messages count as the same only if all that they say is the same: role, content, name, tool calls and timestamp; or if
they carry one idempotency key, which says that one message was delivered twice: then also below different messages, and
what they say is merged three-way too.
"""

from __future__ import annotations

import json
from collections import defaultdict, deque
from collections.abc import Callable, Hashable, Mapping, Sequence
from datetime import datetime
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
        ConflictError: the two begin with different messages; `ours` is unchanged. Without a base, roots without keys
            may be of different times: both were begun before either was seen by the other.
    """
    our_root, their_root = ours.message_tree, theirs.message_tree
    begun_at_once = base is None and _said_alike(our_root.data, their_root.data)
    if identity(our_root.data) != identity(their_root.data) and not begun_at_once:
        raise ConflictError(
            f"conversation {ours.conversation_id!r} begins with another message in the archive than in this state: the "
            "two cannot be merged; load it again, and add to that"
        )
    if begun_at_once:
        our_root.data.take_said(their_root.data)  # its time too, by which others find it again
    ours.get_current_node()  # holds on to the node itself, before ids change
    base_root = base.message_tree if base is not None else None
    united = _Union()
    united.unite(our_root, their_root, base_root)
    united.gather_repeats()
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
    key = _key(node)
    return ("said", *_said(node)) if key is None else ("key", key)


def _said_alike(one: ConversationNode, other: ConversationNode) -> bool:
    """Whether two messages without a key say the same, whenever they did."""
    return _key(one) is None and _key(other) is None and _said(one)[0] == _said(other)[0]


def _said(node: ConversationNode) -> tuple[str, datetime]:
    message = node.message
    said = [
        message.role,
        message.content,
        message.name,
        message.tool_calls,
        message.function_call,
        message.tool_call_id,
    ]
    return _canonical(said), as_utc(node.timestamp)


class _Union:
    """Puts the children of both sides together, and notes which of them only one side has."""

    def __init__(self) -> None:
        self._only_ours: list[Node] = []
        self._only_theirs: list[Node] = []
        self._matched: set[int] = set()

    def unite(self, mine: Node, other: Node, before: Node | None) -> None:
        """Give `mine` all that is below both."""
        pairs: deque[tuple[Node, Node, Node | None]] = deque([(mine, other, before)])
        while pairs:
            mine, other, before = pairs.popleft()
            self._matched.update((id(mine), id(other)))
            _merge_node(mine.data, other.data, before.data if before is not None else None)
            pairs.extend(self._merge_children(mine, other, before))

    def _merge_children(self, mine: Node, other: Node, before: Node | None) -> list[tuple[Node, Node, Node | None]]:
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
                self._only_theirs.append(child)
                merged.append(child)
            else:
                ours_matched.add(id(twin))
                matched.append((twin, child, take_base(said)))
                merged.append(twin)
        left = [child for child in mine.children if id(child) not in ours_matched]
        self._only_ours.extend(left)
        mine.arrange_children([*merged, *left])
        return matched

    def gather_repeats(self) -> None:
        """Make one message of those that both sides have added under one idempotency key, below different messages.

        It stays where theirs is: that one was acknowledged first. What was said below ours goes with it.
        """
        theirs: dict[str, Node] = {}
        for node in _all_below(self._only_theirs):
            if (key := _key(node.data)) is not None and id(node) not in self._matched:
                theirs.setdefault(key, node)
        if not theirs:
            return
        for node in _all_below(self._only_ours):
            key = _key(node.data)
            twin = theirs.get(key) if key is not None else None
            if twin is None or not self._matched.isdisjoint((id(node), id(twin))):
                continue
            assert node.parent is not None, "a root is matched"
            node.parent.arrange_children([child for child in node.parent.children if child is not node])
            above = twin.parent
            self.unite(node, twin, None)
            assert above is not None, "a root is matched"
            above.arrange_children([node if child is twin else child for child in above.children])


def _all_below(nodes: Sequence[Node]) -> list[Node]:
    """These nodes and all below them, as they are now."""
    return [node for top in nodes for node in top.walk()]


def _key(node: ConversationNode) -> str | None:
    key = node.metadata.get(IDEMPOTENCY_KEY)
    return key if isinstance(key, str) else None


def _taker(children: Sequence[Node]) -> Callable[[Hashable], Node | None]:
    """A function that gives each child at most once, by identity: identical siblings are matched one to one."""
    waiting: defaultdict[Hashable, deque[Node]] = defaultdict(deque)
    for child in children:
        waiting[identity(child.data)].append(child)
    return lambda said: waiting[said].popleft() if waiting.get(said) else None


def _merge_node(mine: ConversationNode, other: ConversationNode, before: ConversationNode | None) -> None:
    if _key(mine) is not None and (before is None or _said(mine) == _said(before)):
        mine.take_said(other)  # changed by them alone; or of two deliveries the first, which has been acknowledged
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
