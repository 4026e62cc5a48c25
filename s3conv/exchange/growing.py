"""From a source's messages to a `ConversationState`: the tree, the times that are missing, and where it goes on.

Law: the source's edges are the tree's; none is invented. Several messages without a parent hang under a root of ours
that says that it is synthetic. A time that the source does not give is taken from what is near, and marked. What is
not exactly one tree after that is an error that names the message.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from s3conv.errors import InvalidInputError
from s3conv.exchange.values import EPOCH, time_if_any
from s3conv.model.message import ConversationNode, LLMMessage
from s3conv.model.state import ConversationState
from s3conv.model.tree import Tree

SOURCE_ID = "source_id"
"""The key of a node's metadata with the id that the message has in its source."""

SYNTHETIC = "synthetic"
"""The key of a node's metadata that says: this node holds the tree together and is no message of the source."""

Node = Tree[ConversationNode]


@dataclass(slots=True)
class Draft:
    """One message of a source on its way into a tree; `message` is None where the source has a place without one.

    `named`: `source_id` is the source's own id, and not a number that only tells the drafts apart.
    """

    source_id: str
    message: LLMMessage | None
    time: datetime | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    parent: str | None = None
    children: list[str] = field(default_factory=list)
    named: bool = True


def grow(
    conversation_id: str | None,
    drafts: Mapping[str, Draft],
    *,
    current: str | None,
    metadata: dict[str, Any],
    created_at: datetime | None,
    updated_at: datetime | None,
) -> ConversationState:
    """A conversation from messages that name their parents and children.

    Args:
        conversation_id: of the conversation; None if the source has none (the state's is "" then, to be named).
        drafts: by source id; `children` holds every child, in order, and agrees with `parent`.
        current: the source id of the message that the conversation stands at; the end of the latest branch if None or
            not among `drafts`.
        metadata: of the conversation; marks are added.
        created_at, updated_at: as the source gives them; the earliest and the latest message's, if None.

    Raises:
        InvalidInputError: some messages are in a cycle; names one.
    """
    times = [draft.time for draft in drafts.values() if draft.time is not None]
    begin = created_at or min(times, default=updated_at or EPOCH)
    end = updated_at or max(times, default=begin)
    guessed = [name for name, time in (("created_at", created_at), ("updated_at", updated_at)) if time is None]
    if guessed:
        metadata["timestamps_inferred"] = guessed

    roots = [draft for draft in drafts.values() if draft.parent is None]
    tops = [_without_empty_root(draft, drafts) for draft in roots]
    if drafts and not roots:
        raise InvalidInputError(f"message {next(iter(drafts))!r} is in a cycle of parents")
    places: dict[str, Node] = {}
    if len(tops) == 1:
        tree = _place(tops[0], begin, places)
    else:
        tree = Tree(synthetic_node(begin))
        for top in tops:
            tree.add_child(_place(top, begin, places))
    waiting = tops[::-1]
    while waiting:
        draft = waiting.pop()
        place = places[draft.source_id]
        below = [drafts[name] for name in draft.children]
        for child in below:
            place.add_child(_place(child, place.data.timestamp, places))
        waiting.extend(reversed(below))
    gone = sum(top is not root for top, root in zip(tops, roots, strict=True))
    if len(places) + gone != len(drafts):
        vanished = {root.source_id for root in roots}
        lost = next(name for name in drafts if name not in places and name not in vanished)
        raise InvalidInputError(f"message {lost!r} is in a cycle of parents, or below one")

    state = ConversationState(conversation_id or "", tree, "", metadata, begin, end)
    state.set_current_node(places.get(current or "") or latest(tree))
    return state


def synthetic_node(time: datetime) -> ConversationNode:
    """A node that holds a tree together and is no message."""
    return ConversationNode(LLMMessage("system", None), timestamp=time, metadata={SYNTHETIC: True})


def latest(tree: Node) -> Node:
    """The end of the latest branch: the last child of the last child and so on."""
    while tree.children:
        tree = tree.children[-1]
    return tree


def link(drafts: Mapping[str, Draft], listed: Mapping[str, Sequence[str]]) -> None:
    """Make `parent` and `children` of all drafts agree: listed children first, then those known by their parent only.

    `listed` names children that are among `drafts` only.

    Raises:
        InvalidInputError: a parent is missing, or two messages claim one child.
    """
    for name in drafts:
        for child in listed.get(name, ()):
            claimed = drafts[child].parent
            if claimed is None:
                drafts[child].parent = name
            elif claimed != name:
                raise InvalidInputError(f"message {child!r} has two parents, {claimed!r} and {name!r}")
    ordered = {name: dict.fromkeys(listed.get(name, ())) for name in drafts}
    for name, draft in drafts.items():
        if draft.parent is not None:
            if draft.parent not in drafts:
                raise InvalidInputError(f"message {name!r}: its parent {draft.parent!r} is missing")
            ordered[draft.parent].setdefault(name)
    for name, draft in drafts.items():
        draft.children = list(ordered[name])


def link_chain(drafts: Iterable[Draft]) -> dict[str, Draft]:
    """Make each message the answer to the one before it; for sources that are lists of messages."""
    linked: dict[str, Draft] = {}
    before: Draft | None = None
    for draft in drafts:
        if before is not None:
            before.children, draft.parent = [draft.source_id], before.source_id
        linked[draft.source_id] = before = draft
    return linked


def grow_list(
    name: str,
    drafts: Iterable[Draft],
    data: Mapping[str, Any],
    own: Collection[str],
    answers: Iterable[Draft] = (),
) -> ConversationState:
    """A conversation from a list of messages, each of which answers the one before it.

    Args:
        name: of the format.
        drafts: in order.
        data: the object that holds them; what is not in `own` goes to the metadata, and a text in `conversation_id`
            or `id` is the conversation's id.
        own: the names of what the messages were made from.
        answers: to the last message, side by side; the conversation stands at the last of them.
    """
    linked = link_chain(drafts)
    last = next(reversed(linked.values()), None)
    for answer in answers:
        if last is not None:
            answer.parent = last.source_id
            last.children.append(answer.source_id)
        linked[answer.source_id] = answer
    id_name = next((key for key in ("conversation_id", "id") if isinstance(data.get(key), str) and data[key]), None)
    metadata = {"source_format": name, **{key: value for key, value in data.items() if key not in own}}
    return grow(
        metadata.pop(id_name) if id_name is not None else None,
        linked,
        current=None,
        metadata=metadata,
        created_at=time_if_any(data, "created_at", "create_time"),
        updated_at=time_if_any(data, "updated_at", "update_time"),
    )


def link_parts(said: Mapping[str, Sequence[Draft]]) -> dict[str, Draft]:
    """Link messages of a source that are one message or several of ours each.

    Args:
        said: by source id; of several, the second answers the first and so on, and `parent` of the first names the
            source's message, whose last one it answers.

    Returns:
        All of them, by their own ids.

    Raises:
        InvalidInputError: a parent is missing, or an id is there twice.
    """
    drafts: dict[str, Draft] = {}
    for name, parts in said.items():
        parent = parts[0].parent
        if parent is not None and parent not in said:
            raise InvalidInputError(f"message {name!r}: its parent {parent!r} is missing")
        above = said[parent][-1].source_id if parent is not None else None
        for draft in parts:
            if draft.source_id in drafts:
                raise InvalidInputError(f"the message id {draft.source_id!r} is there twice")
            draft.parent, above = above, draft.source_id
            drafts[draft.source_id] = draft
    for draft in drafts.values():
        if draft.parent is not None:
            drafts[draft.parent].children.append(draft.source_id)
    return drafts


def _without_empty_root(draft: Draft, drafts: Mapping[str, Draft]) -> Draft:
    """The child of a root that says nothing: no message, nothing else, one child."""
    if draft.message is not None or draft.metadata or len(draft.children) != 1:
        return draft
    child = drafts[draft.children[0]]
    # The id is kept, because the source may know the conversation's beginning by it.
    child.metadata.setdefault("source", {}).setdefault("node", {})["parent"] = draft.source_id
    return child


def _place(draft: Draft, inherited: datetime, places: dict[str, Node]) -> Node:
    metadata = {SOURCE_ID: draft.source_id, **draft.metadata} if draft.named else {**draft.metadata}
    if draft.message is None:
        metadata[SYNTHETIC] = True
    elif draft.time is None:
        metadata["timestamp_inferred"] = True
    node = ConversationNode(
        draft.message or LLMMessage("system", None), timestamp=draft.time or inherited, metadata=metadata
    )
    places[draft.source_id] = Tree(node)
    return places[draft.source_id]
