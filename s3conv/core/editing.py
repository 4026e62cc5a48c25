"""Edit: load a conversation, let the caller change it, save it merged."""

from __future__ import annotations

from collections.abc import Callable

from s3conv.core.context import Context
from s3conv.core.known import Known, recall, remember
from s3conv.core.loading import load, state_of
from s3conv.core.saving import check_state, save
from s3conv.errors import InvalidInputError, NotFoundError
from s3conv.format.codec import to_json
from s3conv.format.document import decode_document, state_to_stored
from s3conv.format.keys import document_key
from s3conv.model.state import ConversationState


async def begin(
    context: Context,
    conversation_id: str,
    create: ConversationState | Callable[[], ConversationState] | None,
    fresh: bool,
) -> ConversationState:
    """The conversation to edit; see `Archive.edit`."""
    known = context.kept.edited.take(conversation_id, context.wall_clock())
    if known is not None and not fresh:
        name = context.name(document_key(conversation_id))
        state = state_of(context, decode_document(known.body, conversation_id, name))
        remember(state, known)
        return state
    loaded = await load(context, conversation_id)
    if loaded is not None:
        return loaded
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
    return state


async def finish(context: Context, state: ConversationState) -> None:
    """Save it, merged with what others saved meanwhile; no request if nothing was changed."""
    conversation_id = state.conversation_id
    archive = await context.descriptor()
    known = recall(state, archive, conversation_id)
    if known is None or known.is_new or known.attempts or _changed(state, known):
        await save(context, state, "merge")
        known = recall(state, archive, conversation_id)
    if known is not None:
        context.kept.edited.put(known)


def _changed(state: ConversationState, known: Known) -> bool:
    before = decode_document(known.body, state.conversation_id, "the version that was loaded").line
    return before != to_json(state_to_stored(state), f"conversation {state.conversation_id!r}")
