"""What a conversation remembers of its import, so that what was changed in the archive since can be told.

Law: the record says what the source said (a hash per metadata key, the message that the source stood at, the source's
`updated_at`), never what the archive says. It lies in `state.extra["imported"]`, so it is saved and exported with the
conversation. Conversations of s3conv's own form get none: what they say is what an archive said.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from s3conv.exchange.growing import SOURCE_ID, Node
from s3conv.exchange.values import EPOCH, fingerprint
from s3conv.model.message import as_utc
from s3conv.model.state import ConversationState

IMPORTED = "imported"
"""The field of a state that holds its record."""

_SEEN = 16
"""How many values of one key, all from versions of one `updated_at`, are remembered."""


@dataclass(slots=True)
class Record:
    """What a source said. Per metadata key, and for the current node, the hashes that it had, today's last.

    More than one hash: versions that the source gave the same `updated_at`. They have no order, so the one that came
    first is never taken again; else two of them, imported over and over, would alternate.
    """

    updated_at: datetime
    metadata: dict[str, list[str]] = field(default_factory=dict)
    current: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        return {"updated_at": self.updated_at.isoformat(), "metadata": self.metadata, "current": self.current}


def record_of(state: ConversationState) -> Record | None:
    """The record of an earlier import; None if there is none (or something else under that name)."""
    match state.extra.get(IMPORTED):
        case {"updated_at": str(time), "metadata": dict(metadata), "current": list(current)}:
            if not all(_is_hashes(hashes) for hashes in (current, *metadata.values())):
                return None
            try:
                return Record(as_utc(datetime.fromisoformat(time)), {k: [*v] for k, v in metadata.items()}, [*current])
            except ValueError:
                return None
    return None


def _is_hashes(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def note_import(state: ConversationState) -> None:
    """Record what `state`, just read from somebody else's format, says; what it carries already stays."""
    if IMPORTED in state.extra:
        return
    current = state.get_current_node()
    record = Record(
        as_utc(state.updated_at),
        {key: [fingerprint(value)] for key, value in state.metadata.items()},
        [place_name(current)] if current is not None else [],
    )
    state.extra[IMPORTED] = record.to_dict()


def place_name(node: Node) -> str:
    """A name for a message that it has in the archive and in its source: its source id, or what it says and when."""
    source_id = source_id_of(node)
    if source_id is not None:
        return fingerprint([source_id])
    message = node.data.message
    said = [message.role, message.content, message.tool_calls, message.function_call]
    return fingerprint([said, as_utc(node.data.timestamp).isoformat()])


def source_id_of(node: Node) -> str | None:
    """The id that a message has in its source; None if it has none."""
    source_id = node.data.metadata.get(SOURCE_ID)
    return source_id if isinstance(source_id, str) else None


def merge_labels(archived: ConversationState, incoming: ConversationState, places: dict[int, Node]) -> bool:
    """Take over what the source changed beside the messages, where it was not changed in the archive.

    Args:
        archived: changed in place.
        incoming: a version of the same conversation.
        places: by `id` of each tree node of `incoming`, its node in `archived`.
    """
    known, said = record_of(archived), record_of(incoming)
    changed = False
    if known is None:
        changed = _merge_unrecorded(archived, incoming, places)
        if said is not None:
            archived.extra[IMPORTED] = said.to_dict()
            changed = True
    else:
        changed = _merge_recorded(archived, incoming, places, known, said or Record(EPOCH))
        if archived.extra[IMPORTED] != known.to_dict():
            archived.extra[IMPORTED] = known.to_dict()
            changed = True
    for name, value in incoming.extra.items():
        if name not in archived.extra:
            archived.extra[name] = value
            changed = True
    if as_utc(incoming.updated_at) > as_utc(archived.updated_at):
        archived.updated_at = incoming.updated_at
        changed = True
    return changed


def _merge_unrecorded(archived: ConversationState, incoming: ConversationState, places: dict[int, Node]) -> bool:
    """Nothing tells what was changed here: what is here stays, and what leads on from it is followed."""
    changed = False
    for key, value in incoming.metadata.items():
        if key not in archived.metadata:
            archived.metadata[key] = value
            changed = True
    here, there = archived.get_current_node(), incoming.get_current_node()
    target = places[id(there)] if there is not None else None
    if target is not None and target is not here and any(step is here for step in target.get_path()):
        archived.set_current_node(target)
        changed = True
    return changed


def _merge_recorded(
    archived: ConversationState, incoming: ConversationState, places: dict[int, Node], known: Record, said: Record
) -> bool:
    time = as_utc(incoming.updated_at)
    if time < known.updated_at:
        return False  # an older version: what it says beside the messages was said, and has been replaced
    newer, changed = time > known.updated_at, False
    from_source = False
    for key, value in incoming.metadata.items():
        now = fingerprint(value)
        pure = said.metadata.get(key, [""])[-1] == now  # else it was changed in the archive that it comes from
        from_source |= pure
        seen = known.metadata.get(key, [])
        if pure and not newer and now in seen:
            continue
        if key in archived.metadata:
            takes = bool(seen) and fingerprint(archived.metadata[key]) == seen[-1] != now
        else:
            takes = not seen  # else it was deleted here
        if takes:
            archived.metadata[key] = value
            changed = True
        if pure:
            known.metadata[key] = [now] if newer else [*seen, now][-_SEEN:]
    here, there = archived.get_current_node(), incoming.get_current_node()
    if here is not None and there is not None:
        now, seen = place_name(there), known.current
        pure = said.current[-1:] == [now]
        from_source |= pure
        if newer or not pure or now not in seen:
            if seen and place_name(here) == seen[-1] and places[id(there)] is not here:
                archived.set_current_node(places[id(there)])
                changed = True
            if pure:
                known.current = [now] if newer else [*seen, now][-_SEEN:]
    if newer and from_source:
        known.updated_at = time
    return changed
