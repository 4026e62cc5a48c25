"""Edit: load a conversation, let the caller change it, save it merged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from s3conv.core.commit import SUPERSEDED, look
from s3conv.core.context import Context
from s3conv.core.known import Known, recall, remember
from s3conv.core.loading import load, state_of
from s3conv.core.saving import check_state, rebased, save
from s3conv.errors import ConflictError, InvalidInputError, NotFoundError
from s3conv.format.codec import to_json
from s3conv.format.document import decode_document, state_to_stored
from s3conv.format.keys import document_key
from s3conv.model.state import ConversationState
from s3conv.store.base import NotModified


@dataclass(frozen=True, slots=True)
class Edit:
    """An edit that has begun: the state to change, and the version that it is, if this process had kept it."""

    state: ConversationState
    kept: Known | None = None


async def begin(
    context: Context,
    conversation_id: str,
    create: ConversationState | Callable[[], ConversationState] | None,
    fresh: bool,
) -> Edit:
    """The conversation to edit; see `Archive.edit`."""
    known = context.kept.edited.take(conversation_id, context.wall_clock())
    if known is not None and not fresh:
        name = context.name(document_key(conversation_id))
        state = state_of(context, decode_document(known.body, conversation_id, name))
        remember(state, known)
        return Edit(state, known)
    loaded = await load(context, conversation_id)
    if loaded is not None:
        return Edit(loaded)
    if create is None:
        raise NotFoundError(
            f"there is no conversation {conversation_id!r} in {context.store.url}: check the id, or pass create="
        )
    state = create() if callable(create) else create
    check_state(state)
    if state.conversation_id != conversation_id:
        raise InvalidInputError(
            f"edit of conversation {conversation_id!r}: create gave a state with the id {state.conversation_id!r}"
        )
    return Edit(state)


async def finish(context: Context, edit: Edit) -> None:
    """Save it, merged with what others saved meanwhile; see `Archive.edit` where nothing was changed."""
    state = edit.state
    archive = await context.descriptor()
    known = recall(state, archive, state.conversation_id)
    if known is None or known.is_new or known.attempts or _changed(state, known):
        await save(context, state, "merge")
        known = recall(state, archive, state.conversation_id)
    elif edit.kept is not None:
        known = await _checked(context, state, edit.kept)
    if known is not None and known.etag != SUPERSEDED:
        context.kept.edited.keep(known)


def _changed(state: ConversationState, known: Known) -> bool:
    before = decode_document(known.body, state.conversation_id, "the version that was loaded").line
    return before != to_json(state_to_stored(state), f"conversation {state.conversation_id!r}")


async def _checked(context: Context, state: ConversationState, kept: Known) -> Known:
    """The version that is there, for an edit that changed nothing in the one that was kept.

    A block that sets a value to what it finds looks like one that does nothing. It is not the same where another writer
    has set that value since: such an edit fails, as it can neither be done nor be left out.
    """
    key = document_key(state.conversation_id)
    try:
        found = await look(context, key, state.conversation_id, kept.etag)
    except NotModified:
        return kept
    before = kept.base()
    known = await rebased(context, state, kept, found, "merge")
    if before is None or not _only_adds(before, state):
        raise ConflictError(
            f"conversation {state.conversation_id!r}: the edit changed nothing in revision "
            f"{kept.stamp.revision}, which was kept here, but by now another writer has changed what it says (revision "
            f"{known.stamp.revision}): edit it again, which loads it, or always with fresh=True"
        )
    return known


def _only_adds(before: ConversationState, after: ConversationState) -> bool:
    """Whether all that one state says is in the other as it was; messages may have come in below."""
    if before.metadata != after.metadata:
        return False
    if not before.leaves():
        return True
    pairs = [(before.message_tree, after.message_tree)]
    while pairs:
        old, new = pairs.pop()
        if old.data != new.data or len(old.children) > len(new.children):
            return False
        pairs.extend(zip(old.children, new.children, strict=False))
    return True
